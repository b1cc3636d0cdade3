//! What only the benchmark's object has (feature `bench`), for `cargo xtask bench`.

use std::{
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
};

use aya::{
    maps::{Array, LpmTrie, Map, MapData, MapError, ProgramArray, RingBuf, lpm_trie::Key},
    programs::ProgramFd,
};
use ipnet::IpNet;
use netfilter_ebpf::{
    abi::{Flow, FlowKey, LOOPBACK_IFINDEX},
    packet::TCP,
    source::{self, Source},
};

use super::{
    Datapath, Error, load,
    maps::{self, ArrayOf, HashOf, Plain},
    remotes,
    slots::Slots,
};
use crate::compile::address;

const DESTINATIONS: &str = "DESTINATIONS";
const WALK: &str = "WALK";
const RUN: &str = "RUN";
const TRIE4: &str = "TRIE4";
const TRIE6: &str = "TRIE6";

/// Which packets `bench_walk4` and `bench_walk6` make of the one that they are given. Both
/// numbers are powers of two.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    pub destinations: u32,
    /// Addresses and ports of the sender; one leaves them as they are.
    pub sources: u32,
}

/// A datapath whose object is the benchmark's.
pub struct Bench<'a>(&'a mut Datapath);

impl Datapath {
    pub const fn bench(&mut self) -> Bench<'_> {
        Bench(self)
    }
}

impl Bench<'_> {
    /// Any program of tc, loaded.
    ///
    /// # Errors
    /// Where the object is not the benchmark's, or the kernel refuses.
    pub fn program(&mut self, name: &'static str) -> Result<OwnedFd, Error> {
        let fd = self.load(name)?;
        let copied = fd.as_fd().try_clone_to_owned();
        copied.map_err(|source| Error::System {
            operation: "copy the program's descriptor",
            source,
        })
    }

    fn load(&mut self, name: &'static str) -> Result<ProgramFd, Error> {
        let fd = load::loaded(&mut self.0.ebpf, name)?.fd();
        let fd = fd.and_then(|fd| Ok(fd.try_clone()?));
        fd.map_err(|source| Error::Program {
            program: name,
            source: Box::new(source),
        })
    }

    /// Puts a program behind the walks.
    ///
    /// # Errors
    /// As all here, where the kernel refuses, or a map is missing or cannot be written.
    pub fn run(&mut self, program: &'static str) -> Result<(), Error> {
        let fd = self.load(program)?;
        let mut run: ProgramArray<_> = self.map(RUN)?;
        run.set(0, &fd, 0).map_err(maps::failed("write", RUN))
    }

    /// The interface of test runs has an entry of its own, as those that are filtered have.
    ///
    /// # Errors
    /// As above.
    pub fn loopback(&mut self) -> Result<(), Error> {
        Slots::open(&self.0.pins)?.describe(LOOPBACK_IFINDEX, "lo", 0)
    }

    /// # Errors
    /// As above.
    pub fn walk(&mut self, walk: Walk) -> Result<(), Error> {
        let words = [0, 0, walk.destinations - 1, walk.sources - 1];
        let mut map: Array<_, [u32; 4]> = self.map(WALK)?;
        map.set(0, words, 0).map_err(maps::failed("write", WALK))
    }

    /// # Errors
    /// As above.
    pub fn destinations(&mut self, list: &[IpAddr]) -> Result<(), Error> {
        let mut map: Array<_, [u8; 16]> = self.map(DESTINATIONS)?;
        for (index, address) in (0..).zip(list) {
            let mut bytes = [0; 16];
            match address {
                IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
                IpAddr::V6(address) => bytes = address.octets(),
            }
            map.set(index, bytes, 0)
                .map_err(maps::failed("write", DESTINATIONS))?;
        }
        Ok(())
    }

    /// Puts prefixes into the kernel's own table of their family.
    ///
    /// # Errors
    /// As above.
    pub fn trie(&mut self, prefixes: &[IpNet]) -> Result<(), Error> {
        for prefix in prefixes {
            let length = u32::from(prefix.prefix_len());
            match prefix {
                IpNet::V4(net) => {
                    let mut trie: LpmTrie<_, [u8; 4], u32> = self.map(TRIE4)?;
                    trie.insert(&Key::new(length, net.network().octets()), 1, 0)
                        .map_err(maps::failed("write", TRIE4))?;
                }
                IpNet::V6(net) => {
                    let mut trie: LpmTrie<_, [u8; 16], u32> = self.map(TRIE6)?;
                    trie.insert(&Key::new(length, net.network().octets()), 1, 0)
                        .map_err(maps::failed("write", TRIE6))?;
                }
            }
        }
        Ok(())
    }

    /// Remembers connections that came in, and are open: local, then remote ends.
    ///
    /// # Errors
    /// As above.
    pub fn flows(
        &mut self,
        flows: impl Iterator<Item = (IpAddr, u16, IpAddr, u16)>,
    ) -> Result<(), Error> {
        let mut map: HashOf<FlowKey, Flow> = maps::open(&self.0.pins, maps::INBOUND)?;
        let flow = Flow::adopted(super::state::now()?);
        remotes::unmarked(&self.0.pins, || {
            for (local, local_port, remote, remote_port) in flows {
                let key = FlowKey {
                    local: address(local),
                    remote: address(remote),
                    local_port,
                    remote_port,
                    protocol: TCP,
                    padding: 0,
                    more_padding: 0,
                };
                map.insert(Plain(key), Plain(flow), 0)
                    .map_err(maps::failed("write", maps::INBOUND))?;
            }
            Ok(())
        })?;
        self.0.state().thin_remotes().map(|_| ())
    }

    /// Takes what was reported, and lets every source report as much as it may at once.
    ///
    /// # Errors
    /// As above.
    pub fn forget_reports(&mut self) -> Result<(), Error> {
        let mut events: RingBuf<MapData> = maps::open(&self.0.pins, maps::EVENTS)?;
        while events.next().is_some() {}
        let mut sources: ArrayOf<Source> = maps::open(&self.0.pins, maps::SOURCES)?;
        for place in 0..source::PLACES {
            let stored = sources.set(place, Plain(Source::default()), 0);
            stored.map_err(maps::failed("write", maps::SOURCES))?;
        }
        Ok(())
    }

    fn map<'a, T: TryFrom<&'a mut Map, Error = MapError>>(
        &'a mut self,
        name: &'static str,
    ) -> Result<T, Error> {
        let map = self.0.ebpf.map_mut(name).ok_or(Error::MissingMap(name))?;
        T::try_from(map).map_err(maps::failed("open", name))
    }
}
