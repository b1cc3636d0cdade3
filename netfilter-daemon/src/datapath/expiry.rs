//! Makes room among the learned addresses: those whose time has passed go.
//!
//! The programs may prolong a lease at the very moment that it is removed here.
//! They look, when they have, whether it is still there, and lend anew if not; and
//! what was prolonged before the removal is seen in the removed value and put back.
//! So no address that was learned stays away for longer than between two calls.

use netfilter_ebpf::abi::{Address, Grant, Lease};

use super::{
    Error, State, keys,
    maps::{self, HashOf, Plain},
    state::now,
};

impl State {
    /// Removes the learned addresses that nothing grants any more, and returns how many.
    ///
    /// # Errors
    /// Where the map cannot be read or written.
    pub fn forget_expired(&self) -> Result<usize, Error> {
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
            let taken = keys::take(&data, &address).map_err(|source| Error::System {
                operation: "remove an expired address",
                source,
            })?;
            match taken {
                Some(lease) if is_in_force(&lease, moment) => {
                    put_back(&mut leases, address, lease)?;
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

/// With what was lent meanwhile. A program that extends what this replaces looks
/// again.
fn put_back(
    leases: &mut HashOf<Address, Lease>,
    address: Address,
    mut lease: Lease,
) -> Result<(), Error> {
    if let Ok(meanwhile) = leases.get(&Plain(address), 0) {
        for grant in meanwhile.0.grants.into_iter().filter(|grant| grant.0 != 0) {
            let of = |old: &&mut Grant| old.name() == grant.name() || old.0 == 0;
            if let Some(slot) = lease.grants.iter_mut().find(of)
                && slot.until() < grant.until()
            {
                *slot = grant;
            }
        }
    }
    leases
        .insert(Plain(address), Plain(lease), 0)
        .map_err(maps::failed("write", maps::LEASES))
}
