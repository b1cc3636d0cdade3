//! Makes room among the learned addresses and the flows: those whose time has passed go.
//!
//! The programs may prolong a lease at the very moment that it is removed here.
//! They look, when they have, whether it is still there, and lend anew if not; and
//! what was prolonged before the removal is seen in the removed value and put back.
//! So no address that was learned stays away for longer than between two calls.

use std::io;

use aya::maps::{MapData, MapError};
use netfilter_ebpf::abi::{Address, Flow, FlowKey, Grant, Lease};

use super::{
    Error, State, keys,
    maps::{self, HashOf, Plain},
    state::now,
};

/// `BPF_NOEXIST`: only where there is none.
const BPF_NOEXIST: u64 = 1;

impl State {
    /// Removes the flows that were silent for too long, and the learned addresses
    /// that nothing grants any more. Returns how many of the latter.
    ///
    /// # Errors
    /// Where a map cannot be read or written.
    pub fn forget_expired(&self) -> Result<usize, Error> {
        for map in [maps::INBOUND, maps::OUTBOUND] {
            self.forget_flows(map)?;
        }
        self.forget_addresses()
    }

    fn forget_flows(&self, map: &'static str) -> Result<(), Error> {
        let mut flows: HashOf<FlowKey, Flow> = maps::open(self.pins(), map)?;
        let data = maps::data(self.pins(), map)?;
        let moment = now()?;
        let expired: Vec<FlowKey> = flows
            .iter()
            .map_while(Result::ok)
            .filter(|(_, flow)| flow.0.until <= moment)
            .map(|(key, _)| key.0)
            .collect();
        for key in expired {
            // A segment may have come meanwhile. If another has begun the flow anew
            // since it was taken out, that one stays.
            match keys::take::<FlowKey, Flow>(&data, &key) {
                Ok(Some(flow)) if flow.until > moment => {
                    match flows.insert(Plain(key), Plain(flow), BPF_NOEXIST) {
                        Err(MapError::SyscallError(error))
                            if error.io_error.kind() == io::ErrorKind::AlreadyExists => {}
                        done => done.map_err(maps::failed("write", map))?,
                    }
                }
                Ok(_) => {}
                Err(source) => {
                    return Err(Error::System {
                        operation: "remove an expired flow",
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    fn forget_addresses(&self) -> Result<usize, Error> {
        let mut leases: HashOf<Address, Lease> = maps::open(self.pins(), maps::LEASES)?;
        let data = maps::data(self.pins(), maps::LEASES)?;
        let moment = now()?;
        // Without what cannot be read: an entry that went away meanwhile ends a walk.
        let expired: Vec<Address> = leases
            .iter()
            .map_while(Result::ok)
            .filter(|(_, lease)| !is_in_force(&lease.0, moment))
            .map(|(address, _)| address.0)
            .collect();
        let mut forgotten = 0;
        for address in expired {
            match take(&data, &address)? {
                Some(lease) if is_in_force(&lease, moment) => {
                    put_back(&mut leases, &data, address, lease)?;
                }
                Some(_) => forgotten += 1,
                None => {}
            }
        }
        Ok(forgotten)
    }
}

fn is_in_force(lease: &Lease, moment: u32) -> bool {
    lease.grants.iter().any(|grant| grant.until() > moment)
}

/// With what was lent meanwhile, which is taken out for it: never is one
/// written over.
fn put_back(
    leases: &mut HashOf<Address, Lease>,
    data: &MapData,
    address: Address,
    mut lease: Lease,
) -> Result<(), Error> {
    loop {
        match leases.insert(Plain(address), Plain(lease), BPF_NOEXIST) {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done.map_err(maps::failed("write", maps::LEASES)),
        }
        if let Some(meanwhile) = take(data, &address)? {
            merge(&mut lease, &meanwhile);
        }
    }
}

fn merge(lease: &mut Lease, other: &Lease) {
    for grant in other.grants.into_iter().filter(|grant| grant.0 != 0) {
        let of = |old: &&mut Grant| old.name() == grant.name() || old.0 == 0;
        if let Some(slot) = lease.grants.iter_mut().find(of)
            && slot.until() < grant.until()
        {
            *slot = grant;
        }
    }
}

fn take(data: &MapData, address: &Address) -> Result<Option<Lease>, Error> {
    keys::take(data, address).map_err(|source| Error::System {
        operation: "remove an expired address",
        source,
    })
}

#[cfg(test)]
mod tests {
    use netfilter_ebpf::abi::GRANTS;

    use super::*;

    #[test]
    fn each_name_keeps_its_longest_time() {
        let of = |grants: &[(u32, u32)]| {
            let mut lease = Lease {
                address: Address::from_ipv4(1),
                grants: [Grant::default(); GRANTS],
            };
            for (slot, (name, until)) in lease.grants.iter_mut().zip(grants) {
                *slot = Grant::new(*name, *until);
            }
            lease
        };
        let mut lease = of(&[(1, 50), (2, 10)]);
        merge(&mut lease, &of(&[(3, 7), (2, 20), (1, 40)]));
        assert_eq!(lease, of(&[(1, 50), (2, 20), (3, 7)]));
    }
}
