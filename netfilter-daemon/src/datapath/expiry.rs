//! Makes room among the learned addresses and the flows: those whose time has passed go.
//!
//! The programs may prolong a lease at the very moment that it is removed here.
//! They look, when they have, whether it is still there, and lend anew if not; and
//! what was prolonged before the removal is seen in the removed value and put back.
//! So no address that was learned stays away for longer than between two calls.

use std::{
    io,
    sync::atomic::{Ordering, fence},
};

use aya::maps::{MapData, MapError};
use netfilter_ebpf::abi::{Address, CROWD_GRANTS, Flow, FlowKey, Grant, LEASE_GRANTS, Lease};

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

    /// Crowds first: a lease may go only where there is none.
    fn forget_addresses(&self) -> Result<usize, Error> {
        let mut crowds: Lent<CROWD_GRANTS> = Lent::open(self, maps::CROWDS)?;
        for address in crowds.expired()? {
            crowds.forget(address, || Ok(true))?;
        }
        let mut leases: Lent<LEASE_GRANTS> = Lent::open(self, maps::LEASES)?;
        let mut forgotten = 0;
        for address in leases.expired()? {
            let is_alone = || Ok(!crowds.has(address)?);
            if is_alone()? && leases.forget(address, is_alone)? {
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }
}

/// Addresses and what they were lent for.
struct Lent<const COUNT: usize> {
    map: HashOf<Address, Lease<COUNT>>,
    data: MapData,
    name: &'static str,
    moment: u32,
}

impl<const COUNT: usize> Lent<COUNT> {
    fn open(state: &State, name: &'static str) -> Result<Self, Error> {
        Ok(Self {
            map: maps::open(state.pins(), name)?,
            data: maps::data(state.pins(), name)?,
            name,
            moment: now()?,
        })
    }

    /// Without what cannot be read: an entry that went away meanwhile ends a walk.
    fn expired(&self) -> Result<Vec<Address>, Error> {
        let mut expired = Vec::new();
        let see = |address: &Address, lease: &Lease<COUNT>| {
            if !self.is_in_force(lease) {
                expired.push(*address);
            }
        };
        keys::walk_entries(&self.data, see).map_err(|source| Error::System {
            operation: "look for expired addresses",
            source,
        })?;
        Ok(expired)
    }

    fn has(&self, address: Address) -> Result<bool, Error> {
        match self.map.get(&Plain(address), 0) {
            Ok(_) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(maps::failed("read", self.name)(error)),
        }
    }

    /// Whether it is gone. It comes back if it was prolonged meanwhile, or if `may_go`
    /// says no, now that it is out.
    fn forget(
        &mut self,
        address: Address,
        may_go: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let Some(lease) = self.take(&address)? else {
            return Ok(false);
        };
        // What a program has put beside it before it looked for it shows from here on.
        fence(Ordering::SeqCst);
        if self.is_in_force(&lease) || !may_go()? {
            self.put_back(address, lease)?;
            return Ok(false);
        }
        Ok(true)
    }

    fn is_in_force(&self, lease: &Lease<COUNT>) -> bool {
        let mut grants = lease.grants.iter();
        grants.any(|grant| grant.until() > self.moment)
    }

    /// With what was lent meanwhile, which is taken out for it: never is one
    /// written over.
    fn put_back(&mut self, address: Address, mut lease: Lease<COUNT>) -> Result<(), Error> {
        loop {
            match self.map.insert(Plain(address), Plain(lease), BPF_NOEXIST) {
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == io::ErrorKind::AlreadyExists => {}
                done => return done.map_err(maps::failed("write", self.name)),
            }
            if let Some(meanwhile) = self.take(&address)? {
                merge(&mut lease, &meanwhile);
            }
        }
    }

    fn take(&self, address: &Address) -> Result<Option<Lease<COUNT>>, Error> {
        keys::take(&self.data, address).map_err(|source| Error::System {
            operation: "remove an expired address",
            source,
        })
    }
}

fn merge<const COUNT: usize>(lease: &mut Lease<COUNT>, other: &Lease<COUNT>) {
    for grant in other.grants.into_iter().filter(|grant| grant.0 != 0) {
        let of = |old: &&mut Grant| old.name() == grant.name() || old.0 == 0;
        if let Some(slot) = lease.grants.iter_mut().find(of)
            && slot.until() < grant.until()
        {
            *slot = grant;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_keeps_its_longest_time() {
        let of = |grants: &[(u32, u32)]| {
            let mut lease: Lease = Lease::of(Address::from_ipv4(1));
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
