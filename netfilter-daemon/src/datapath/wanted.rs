//! What audit let pass, as the kernel keeps it, and the names that go with it.

use std::{fmt, net::IpAddr};

use aya::maps::MapError;
use netfilter_ebpf::{
    abi::{self, AskedKey, NamedKey, WantedKey},
    packet,
};

use super::{
    Datapath, Error, Resolution, State, fill,
    maps::{self, ArrayOf, HashOf, PerCpuArrayOf, Plain},
    pins::Pins,
};
use crate::datapath::events::time;
use netfilter_ebpf::verdict::LossStage;

/// Packets of one kind. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where they go; of those that answer, where the first went.
    pub address: IpAddr,
    /// They answer somebody who began, from `port`.
    pub answers: bool,
    /// IP protocol number.
    pub protocol: u8,
    pub port: u16,
    pub packets: u64,
    /// Connections of TCP that they begin.
    pub begun: u64,
    pub first: u64,
    pub last: u64,
    /// The real user and the thread of the first, where they are known.
    pub user: Option<u32>,
    pub program: Option<String>,
}

/// Questions for one name and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// DNS wire form without the root, ASCII-lowercased.
    pub name: Vec<u8>,
    /// The kernel's hash of the name.
    pub hash: u64,
    pub qtype: u16,
    /// A client asked a resolver on this machine for it; it did not leave.
    pub inside: bool,
    pub questions: u64,
    pub first: u64,
    pub last: u64,
}

/// What a name led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Address(IpAddr),
    /// The kernel's hash of another name.
    Alias(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// As in [`Asked`].
    pub name: Vec<u8>,
    pub target: Target,
    pub first: u64,
    pub last: u64,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    pub wanted: Vec<Wanted>,
    pub asked: Vec<Asked>,
    pub named: Vec<Named>,
    /// Packets and questions that found no room.
    pub lost: u64,
}

/// Writes down what names resolve to, where it outlives the daemon.
pub struct Notebook {
    named: HashOf<NamedKey, abi::Named>,
    seed: u64,
}

impl fmt::Debug for Notebook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notebook").finish_non_exhaustive()
    }
}

impl Datapath {
    /// # Errors
    /// Where the map cannot be opened.
    pub fn notebook(&self) -> Result<Notebook, Error> {
        Notebook::open(&self.pins)
    }
}

impl Notebook {
    fn open(pins: &Pins) -> Result<Self, Error> {
        let seed: ArrayOf<u64> = maps::open(pins, maps::SEED)?;
        let seed = seed.get(&0, 0).map_err(maps::failed("read", maps::SEED))?;
        Ok(Self {
            named: maps::open(pins, maps::NAMED)?,
            seed: seed.0,
        })
    }

    /// What finds no room is not kept: its addresses are told by number.
    ///
    /// # Errors
    /// Where the map cannot be written.
    pub fn note(&mut self, resolution: &Resolution) -> Result<(), Error> {
        let name = packet::hash(
            resolution.name.as_slice(),
            0,
            resolution.name.len().min(packet::MAX_HASHED),
            self.seed,
        );
        let addresses = resolution.addresses.iter().map(|&address| NamedKey {
            to: crate::compile::address(address),
            name,
            alias: 0,
        });
        let aliases = resolution.aliases.iter().map(|&low| NamedKey {
            to: abi::Address { high: 0, low },
            name,
            alias: 1,
        });
        for key in addresses.chain(aliases) {
            let first = self.named.get(&Plain(key), 0).ok();
            let mut text = [0; 256];
            let length = resolution.name.len().min(text.len());
            text[..length].copy_from_slice(&resolution.name[..length]);
            let named = abi::Named {
                first: first.map_or(resolution.seen, |known| known.0.first),
                last: resolution.seen,
                name_length: length as u64,
                name: text,
            };
            match self.named.insert(Plain(key), Plain(named), 0) {
                Err(MapError::SyscallError(error)) if is_full(&error.io_error) => {}
                done => done.map_err(maps::failed("write", maps::NAMED))?,
            }
        }
        Ok(())
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOMEM))
}

impl State {
    /// What audit let pass since the filter is in force, or [`Self::forget_audit`].
    ///
    /// # Errors
    /// Where a map cannot be read.
    pub fn audit(&self) -> Result<Audit, Error> {
        let lost: PerCpuArrayOf<u64> = maps::open(self.pins(), maps::LOST)?;
        let lost = lost
            .get(&(LossStage::AuditFull as u32), 0)
            .map_err(maps::failed("read", maps::LOST))?;
        let mut audit = Audit {
            lost: lost.iter().map(|count| count.0).sum(),
            ..Audit::default()
        };
        let map: HashOf<WantedKey, abi::Wanted> = maps::open(self.pins(), maps::WANTED)?;
        audit.wanted = map
            .iter()
            .flatten()
            .map(|(key, it)| wanted(&key.0, &it.0))
            .collect();
        let map: HashOf<AskedKey, abi::Asked> = maps::open(self.pins(), maps::ASKED)?;
        audit.asked = map
            .iter()
            .flatten()
            .map(|(key, it)| asked(&key.0, &it.0))
            .collect();
        let map: HashOf<NamedKey, abi::Named> = maps::open(self.pins(), maps::NAMED)?;
        audit.named = map
            .iter()
            .flatten()
            .map(|(key, it)| named(&key.0, &it.0))
            .collect();
        Ok(audit)
    }

    /// Begins anew.
    ///
    /// # Errors
    /// Where a map cannot be written.
    pub fn forget_audit(&self) -> Result<(), Error> {
        self.clear::<WantedKey, abi::Wanted>(maps::WANTED)?;
        self.clear::<AskedKey, abi::Asked>(maps::ASKED)?;
        self.clear::<NamedKey, abi::Named>(maps::NAMED)
    }

    fn clear<K: Copy + 'static, V: Copy + 'static>(&self, name: &'static str) -> Result<(), Error> {
        let mut map: HashOf<K, V> = maps::open(self.pins(), name)?;
        let keys: Vec<_> = map.keys().flatten().collect();
        for key in keys {
            match map.remove(&key) {
                Err(MapError::KeyNotFound) => {}
                done => done.map_err(maps::failed("write", name))?,
            }
        }
        Ok(())
    }
}

fn wanted(key: &WantedKey, it: &abi::Wanted) -> Wanted {
    let program = String::from_utf8_lossy(&it.program);
    let program = program.split('\0').next().unwrap_or_default();
    Wanted {
        address: fill::ip(it.address),
        answers: key.answers != 0,
        protocol: key.protocol,
        port: key.port,
        packets: it.packets,
        begun: it.begun,
        first: time(it.first),
        last: time(it.last),
        user: (it.user != abi::NO_USER).then_some(it.user),
        program: (it.process != abi::NO_PROCESS).then(|| program.to_owned()),
    }
}

fn asked(key: &AskedKey, it: &abi::Asked) -> Asked {
    let length = usize::from(it.name_length).min(it.name.len());
    Asked {
        name: it.name[..length].to_ascii_lowercase(),
        hash: key.name,
        qtype: key.qtype,
        inside: key.inside != 0,
        questions: it.questions,
        first: time(it.first),
        last: time(it.last),
    }
}

fn named(key: &NamedKey, it: &abi::Named) -> Named {
    let length =
        usize::try_from(it.name_length).map_or(it.name.len(), |length| length.min(it.name.len()));
    Named {
        name: it.name[..length].to_vec(),
        target: match key.alias {
            0 => Target::Address(fill::ip(key.to)),
            _ => Target::Alias(key.to.low),
        },
        first: time(it.first),
        last: time(it.last),
    }
}
