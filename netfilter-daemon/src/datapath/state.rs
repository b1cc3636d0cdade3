//! The read side: what is pinned, counted and learned.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::MapData;
use netfilter_ebpf::{
    abi::{
        Address, COUNTERS_PER_SLOT, Counter, Crowd, DropKey, FlowKey, FragmentKey, Grant,
        Interface, Lease, NAME_ID_NONE, NAME_WILDCARD, QuestionKey, Settings, Turnover, slot,
    },
    name::KEY_DATA,
    verdict::{Family, Forgetful, ProtocolLabel},
};

use super::{
    Attachment, Counters, Error, Learned, Occupancy, Passed, Totals, attach, fill,
    mapping::Table,
    maps::{self, ArrayOf, HashOf, LpmOf, PerCpuArrayOf},
    names,
    pins::Pins,
    slots,
};

/// The read side of what is pinned under a state directory.
pub struct State {
    directory: PathBuf,
    /// Of whatever tables are in force when they are read.
    pins: Pins,
    /// By [`Forgetful`]: the most evictions that were ever seen, for a map that
    /// changes while it is walked makes them seem fewer.
    evicted: [AtomicU64; Forgetful::ALL.len()],
}

impl State {
    /// `None` when nothing is pinned there.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn open(state_dir: &Path) -> Result<Option<Self>, Error> {
        // A start that was refused leaves directories.
        Ok(match Pins::open(state_dir)? {
            Some(pins) if pins.has_tables()? => Some(Self::at(state_dir)),
            _ => None,
        })
    }

    /// Of what is pinned there when it is read.
    pub fn at(state_dir: &Path) -> Self {
        Self {
            directory: state_dir.to_owned(),
            pins: Pins::at(state_dir),
            evicted: [const { AtomicU64::new(0) }; Forgetful::ALL.len()],
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) const fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Zero before the first policy.
    ///
    /// # Errors
    /// As all below: where a map cannot be read.
    pub fn generation(&self) -> Result<u32, Error> {
        let active: ArrayOf<u32> = maps::open(&self.pins, maps::ACTIVE)?;
        Ok(active
            .get(&0, 0)
            .map_err(maps::failed("read", maps::ACTIVE))?
            .0)
    }

    /// Seconds until the policy in force gives way to its predecessor, for nobody has confirmed
    /// it yet. `None` where it stays.
    pub fn gives_way_in(&self) -> Result<Option<u32>, Error> {
        let settings: ArrayOf<Settings> = maps::open(&self.pins, maps::SETTINGS)?;
        let maps::Plain(settings) = settings
            .get(&slot(self.generation()?), 0)
            .map_err(maps::failed("read", maps::SETTINGS))?;
        let expires = Some(settings.expires).filter(|second| *second != 0);
        expires
            .map(|second| Ok(second.saturating_sub(now()?)))
            .transpose()
    }

    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        attach::attachments(&self.pins)
    }

    /// As metrics show them.
    pub fn counters(&self) -> Result<Counters, Error> {
        let interfaces = self.interfaces()?;
        let name = |slot: u32| {
            interfaces
                .iter()
                .find(|(known, _)| *known == slot)
                .map_or_else(|| "other".to_owned(), |(_, name)| name.clone())
        };
        Totals::open(&self.pins)?.judged(self.passed(&interfaces)?, &name)
    }

    /// Slots and the names of their interfaces.
    fn interfaces(&self) -> Result<Vec<(u32, String)>, Error> {
        let map: Table<Interface> = Table::open(&self.pins, maps::INTERFACES, 1)?;
        let mut names = Vec::new();
        for interface in map.read(0..map.len())? {
            if interface.slot != 0 {
                let name = attach::name_of(interface.ifindex);
                let name = name.unwrap_or_else(|| slots::name(&interface));
                names.push((interface.slot, name));
            }
        }
        Ok(names)
    }

    fn passed(&self, interfaces: &[(u32, String)]) -> Result<Vec<Passed>, Error> {
        let map: PerCpuArrayOf<Counter> = maps::open(&self.pins, maps::PASSED)?;
        let mut passed: Vec<Passed> = Vec::new();
        for (slot, interface) in std::iter::once(&(0, "other".to_owned())).chain(interfaces) {
            for (family, &family_label) in Family::ALL.iter().enumerate() {
                for (protocol, &protocol_label) in ProtocolLabel::ALL.iter().enumerate() {
                    let within = family * ProtocolLabel::ALL.len() + protocol;
                    let index = slot * COUNTERS_PER_SLOT + u32::try_from(within).unwrap_or(0);
                    let values = map
                        .get(&index, 0)
                        .map_err(maps::failed("read", maps::PASSED))?;
                    let (packets, bytes) = sum(values.iter().map(|value| value.0));
                    if packets > 0 {
                        let interface = interface.clone();
                        // One that is gone may have had the name of another.
                        let same = |known: &&mut Passed| {
                            (&known.interface, known.family, known.protocol)
                                == (&interface, family_label, protocol_label)
                        };
                        if let Some(known) = passed.iter_mut().find(same) {
                            known.packets += packets;
                            known.bytes += bytes;
                            continue;
                        }
                        passed.push(Passed {
                            interface,
                            family: family_label,
                            protocol: protocol_label,
                            packets,
                            bytes,
                        });
                    }
                }
            }
        }
        Ok(passed)
    }

    /// Addresses learned from DNS whose time has not passed.
    pub fn learned(&self) -> Result<Vec<Learned>, Error> {
        let patterns = self.patterns()?;
        let now = now()?;
        let mut learned = Vec::new();
        let mut lent = |address: Address, grants: &[Grant]| {
            let grants = grants.iter().take_while(|grant| grant.0 != 0);
            for grant in grants.filter(|grant| grant.until() > now) {
                if let Some(pattern) = patterns.get(&grant.name()) {
                    let (address, pattern) = (fill::ip(address), pattern.clone());
                    learned.push(Learned {
                        address,
                        pattern,
                        expires_in: grant.until() - now,
                    });
                }
            }
        };
        let leases: HashOf<Address, Lease> = maps::open(&self.pins, maps::LEASES)?;
        for entry in leases.iter() {
            let (address, lease) = entry.map_err(maps::failed("read", maps::LEASES))?;
            lent(address.0, &lease.0.grants);
        }
        let crowds: HashOf<Address, Crowd> = maps::open(&self.pins, maps::CROWDS)?;
        for entry in crowds.iter() {
            let (address, crowd) = entry.map_err(maps::failed("read", maps::CROWDS))?;
            lent(address.0, &crowd.0.grants);
        }
        learned.sort_by(|one, other| {
            (&one.pattern, one.address).cmp(&(&other.pattern, other.address))
        });
        Ok(learned)
    }

    /// The names of the policy in force, as text, by their ids.
    fn patterns(&self) -> Result<HashMap<u32, String>, Error> {
        let names: LpmOf<[u8; KEY_DATA], u32> = maps::open(&self.pins, maps::NAMES)?;
        let active = slot(self.generation()?);
        let mut patterns = HashMap::new();
        for entry in names.iter() {
            let (key, id) = entry.map_err(maps::failed("read", maps::NAMES))?;
            let data = key.data().0;
            let id = id.0 & !NAME_WILDCARD;
            if id != NAME_ID_NONE && u32::from(data[0]) == active {
                patterns.insert(id, names::text(key.prefix_len(), &data));
            }
        }
        Ok(patterns)
    }

    /// How full each map is that packets or policies fill.
    pub fn occupancy(&self) -> Result<Vec<Occupancy>, Error> {
        Ok(vec![
            self.keys::<Address>(maps::LEASES, None)?,
            self.keys::<Address>(maps::CROWDS, None)?,
            self.keys::<QuestionKey>(maps::QUESTIONS, Some(Forgetful::Questions))?,
            self.keys::<u64>(maps::ALIASES, Some(Forgetful::Aliases))?,
            self.keys::<FlowKey>(maps::STREAMS, Some(Forgetful::Streams))?,
            self.keys::<u64>(maps::SEEN, Some(Forgetful::Seen))?,
            self.keys::<FlowKey>(maps::INBOUND, None)?,
            self.keys::<FlowKey>(maps::OUTBOUND, None)?,
            self.keys::<FlowKey>(maps::HALF_OPEN, Some(Forgetful::HalfOpen))?,
            self.keys::<FragmentKey>(maps::FRAGMENTS, Some(Forgetful::Fragments))?,
            self.keys::<DropKey>(maps::DROPPED, None)?,
            self.names()?,
        ])
    }

    /// Flows that are remembered, IPv4 and IPv6.
    pub fn flows(&self) -> Result<[u64; 2], Error> {
        let mut flows = [0; 2];
        for map in [maps::INBOUND, maps::OUTBOUND, maps::HALF_OPEN] {
            let data = maps::data(&self.pins, map)?;
            let visit = |key: &FlowKey| flows[usize::from(!key.remote.is_ipv4())] += 1;
            super::keys::walk(&data, visit).map_err(walking)?;
        }
        Ok(flows)
    }

    fn keys<K: Copy + 'static>(
        &self,
        map: &'static str,
        forgetful: Option<Forgetful>,
    ) -> Result<Occupancy, Error> {
        // In this order, so that what changes meanwhile never makes more of the evictions.
        let inserted = self.turnover(forgetful, |turnover| turnover.inserted)?;
        let data = maps::data(&self.pins, map)?;
        let mut entries = 0;
        super::keys::walk(&data, |_: &K| entries += 1).map_err(walking)?;
        let deleted = self.turnover(forgetful, |turnover| turnover.deleted)?;
        let evictions = forgetful.map(|which| {
            let now = inserted.saturating_sub(deleted).saturating_sub(entries);
            let before = self.evicted[which as usize].fetch_max(now, Ordering::Relaxed);
            before.max(now)
        });
        Ok(Occupancy {
            map,
            entries,
            max_entries: capacity(&data, map)?,
            evictions,
        })
    }

    fn turnover(
        &self,
        forgetful: Option<Forgetful>,
        part: impl Fn(Turnover) -> u64,
    ) -> Result<u64, Error> {
        let Some(which) = forgetful else {
            return Ok(0);
        };
        let map: PerCpuArrayOf<Turnover> = maps::open(&self.pins, maps::TURNOVER)?;
        let values = map
            .get(&(which as u32), 0)
            .map_err(maps::failed("read", maps::TURNOVER))?;
        Ok(values.iter().map(|value| part(value.0)).sum())
    }

    /// A trie has no batches before Linux 6.8.
    fn names(&self) -> Result<Occupancy, Error> {
        let map = maps::NAMES;
        let data = maps::data(&self.pins, map)?;
        Ok(Occupancy {
            map,
            entries: super::keys::count::<[u8; KEY_DATA + 4]>(&data).map_err(walking)?,
            max_entries: capacity(&data, map)?,
            evictions: None,
        })
    }
}

fn capacity(data: &MapData, map: &'static str) -> Result<u64, Error> {
    let info = data.info().map_err(maps::failed("inspect", map))?;
    Ok(info.max_entries().into())
}

fn walking(source: io::Error) -> Error {
    Error::System {
        operation: "count the keys of a map",
        source,
    }
}

fn sum(values: impl Iterator<Item = Counter>) -> (u64, u64) {
    values.fold((0, 0), |(packets, bytes), value| {
        (packets + value.packets, bytes + value.bytes)
    })
}

/// Seconds of CLOCK_BOOTTIME, as the programs count them.
pub(super) fn now() -> Result<u32, Error> {
    let system = |source: nix::Error| Error::System {
        operation: "read the clock",
        source: io::Error::from(source),
    };
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_err(system)?;
    Ok(u32::try_from(time.tv_sec()).unwrap_or(u32::MAX))
}
