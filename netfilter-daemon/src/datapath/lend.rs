//! Lends addresses that user space has learned itself: at a start, the programs have
//! seen no answer yet, and connections to approved names are open already.

use std::collections::HashMap;

use aya::maps::MapError;
use netfilter_ebpf::{
    abi::{Address, Crowd, GRANTS, Grant, LEASE_GRANTS, Lease},
    lease,
};

use super::{
    Datapath, Error,
    maps::{self, HashOf, Plain},
    names,
    pins::Pins,
    remotes,
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
        let mut grants: HashMap<Address, Vec<Grant>> = HashMap::new();
        for Lent { name, address, ttl } in lent {
            let entry = image.name(name.wire());
            let Some(&id) = entry.and_then(|entry| ids.get(&names::key(&entry.pattern))) else {
                continue;
            };
            let address = compile::address(*address);
            let settings = &image.settings;
            let grant = lease::grant(id, *ttl, now, settings.minimum_ttl, settings.grace);
            grants.entry(address).or_default().push(grant);
        }
        remotes::unmarked(&self.pins, || lend_all(&self.pins, grants))
    }
}

fn lend_all(pins: &Pins, grants: HashMap<Address, Vec<Grant>>) -> Result<(), Error> {
    let mut leases: HashOf<Address, Lease> = maps::open(pins, maps::LEASES)?;
    let mut crowds: HashOf<Address, Crowd> = maps::open(pins, maps::CROWDS)?;
    for (address, mut grants) in grants {
        grants.truncate(GRANTS);
        let (few, more) = grants.split_at(grants.len().min(LEASE_GRANTS));
        if !more.is_empty() {
            lend(&mut crowds, maps::CROWDS, address, more)?;
        }
        lend(&mut leases, maps::LEASES, address, few)?;
    }
    Ok(())
}

fn lend<const COUNT: usize>(
    map: &mut HashOf<Address, Lease<COUNT>>,
    name: &'static str,
    address: Address,
    grants: &[Grant],
) -> Result<(), Error> {
    let mut lease = Lease::of(address);
    for (slot, grant) in lease.grants.iter_mut().zip(grants) {
        *slot = *grant;
    }
    match map.insert(Plain(address), Plain(lease), BPF_NOEXIST) {
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::AlreadyExists =>
        {
            Ok(())
        }
        done => done.map_err(maps::failed("write", name)),
    }
}
