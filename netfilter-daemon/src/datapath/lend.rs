//! Lends addresses that user space has learned itself: at a start, the programs have
//! seen no answer yet, and connections to approved names are open already.

use std::collections::HashMap;

use aya::maps::MapError;
use netfilter_ebpf::{
    abi::{Address, GRANTS, Grant, Lease},
    lease,
};

use super::{
    Datapath, Error,
    maps::{self, HashOf, Plain},
    names,
    state::now,
};
use crate::{
    compile::{self, Image},
    sessions::Lent,
};

/// `BPF_NOEXIST`: only where there is none. What the programs learned is newer.
const BPF_NOEXIST: u64 = 1;

impl Datapath {
    /// Lends addresses as an answer would have, with the policy's floor and grace. Names
    /// that the policy in force does not have lend nothing.
    ///
    /// # Errors
    /// Where a map cannot be read or written.
    pub fn lend(&self, image: &Image, lent: &[Lent]) -> Result<(), Error> {
        let ids = self.writer.ids()?;
        let now = now()?;
        let mut leases: HashMap<Address, Lease> = HashMap::new();
        for Lent { name, address, ttl } in lent {
            let entry = image.name(name.wire());
            let Some(&id) = entry.and_then(|entry| ids.get(&names::key(&entry.pattern))) else {
                continue;
            };
            let address = compile::address(*address);
            let settings = &image.settings;
            let grant = lease::grant(id, *ttl, now, settings.minimum_ttl, settings.grace);
            let lease = leases.entry(address).or_insert(Lease {
                address,
                grants: [Grant::default(); GRANTS],
            });
            let free = lease.grants.iter_mut().find(|slot| slot.0 == 0);
            if let Some(slot) = free {
                *slot = grant;
            }
        }
        let mut map: HashOf<Address, Lease> = maps::open(&self.pins, maps::LEASES)?;
        for (address, lease) in leases {
            match map.insert(Plain(address), Plain(lease), BPF_NOEXIST) {
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == std::io::ErrorKind::AlreadyExists => {}
                done => done.map_err(maps::failed("write", maps::LEASES))?,
            }
        }
        Ok(())
    }
}
