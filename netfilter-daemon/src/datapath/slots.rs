//! What the programs know of each interface, and the counters that are its own.
//!
//! Counters are told by an interface's name, so what comes back under its former name
//! goes on counting where it stopped. Those of one that is gone stay until their slot
//! is needed; then they begin at zero for another.

use aya::{maps::PerCpuValues, util::nr_cpus};
use netfilter_ebpf::abi::{
    COUNTERS_PER_SLOT, Counter, DropKey, INTERFACE_PROBES, INTERFACE_SLOTS, Interface,
    interface_place,
};

use super::{
    Error,
    mapping::Table,
    maps::{self, PerCpuArrayOf, PerCpuHashOf, Plain},
    pins::Pins,
};

pub(super) struct Slots {
    map: Table<Interface>,
    passed: PerCpuArrayOf<Counter>,
    dropped: PerCpuHashOf<DropKey, Counter>,
}

impl Slots {
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        Ok(Self {
            map: Table::open(pins, maps::INTERFACES, 1)?,
            passed: maps::open(pins, maps::PASSED)?,
            dropped: maps::open(pins, maps::DROPPED)?,
        })
    }

    /// Tells the programs of an interface, before they are attached to it.
    pub(super) fn describe(&mut self, ifindex: u32, name: &str, flags: u32) -> Result<(), Error> {
        let entries = self.entries()?;
        let place = place(&entries, ifindex, name).ok_or(Error::TooManyInterfaces)?;
        if place.fresh {
            self.clear(place.slot)?;
        }
        if let Some(former) = place.vacated {
            self.store(former, Interface::default())?;
        }
        let interface = Interface {
            ifindex,
            slot: place.slot,
            flags,
            padding: 0,
            name: bytes(name),
        };
        self.store(place.at, interface)
    }

    /// Keeps the counters of all that are not there any more, and their names.
    pub(super) fn retire(&mut self, is_there: impl Fn(u32) -> bool) -> Result<(), Error> {
        for (at, entry) in self.entries()? {
            if entry.ifindex != 0 && !is_there(entry.ifindex) {
                self.store(
                    at,
                    Interface {
                        ifindex: 0,
                        ..entry
                    },
                )?;
            }
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(usize, Interface)>, Error> {
        let all = self.map.read(0..self.map.len())?.enumerate();
        Ok(all
            .filter(|(_, entry)| *entry != Interface::default())
            .collect())
    }

    fn store(&mut self, at: usize, entry: Interface) -> Result<(), Error> {
        self.map.store(at, std::iter::once(entry))
    }

    /// No program counts there: the slot is nobody's.
    fn clear(&mut self, slot: u32) -> Result<(), Error> {
        let system = |source| Error::System {
            operation: "count the processors",
            source,
        };
        let cpus = nr_cpus().map_err(|(_, error)| system(error))?;
        for within in 0..COUNTERS_PER_SLOT {
            let zero =
                PerCpuValues::try_from(vec![Plain(Counter::default()); cpus]).map_err(system)?;
            self.passed
                .set(slot * COUNTERS_PER_SLOT + within, zero, 0)
                .map_err(maps::failed("clear", maps::PASSED))?;
        }
        let keys: Vec<_> = self.dropped.keys().filter_map(Result::ok).collect();
        for key in keys.iter().filter(|key| key.0.interface == slot) {
            self.dropped
                .remove(key)
                .map_err(maps::failed("clear", maps::DROPPED))?;
        }
        Ok(())
    }
}

/// The name of an entry.
pub(super) fn name(entry: &Interface) -> String {
    let end = entry.name.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&entry.name[..end.unwrap_or(entry.name.len())]).into_owned()
}

/// A kernel's name has at most 15 bytes.
fn bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    at: usize,
    slot: u32,
    /// The slot may hold what another has counted.
    fresh: bool,
    /// Where the retired entry was whose counters go on here.
    vacated: Option<usize>,
}

/// Where the entry of an interface goes. An entry without an index is retired.
fn place(entries: &[(usize, Interface)], ifindex: u32, name: &str) -> Option<Place> {
    if let Some((at, entry)) = entries.iter().find(|(_, entry)| entry.ifindex == ifindex) {
        return Some(Place {
            at: *at,
            slot: entry.slot,
            fresh: false,
            vacated: None,
        });
    }
    let retired = || entries.iter().filter(|(_, entry)| entry.ifindex == 0);
    let name = bytes(name);
    let former = retired().find(|(_, entry)| entry.name == name);
    let places = (0..INTERFACE_PROBES).map(|probe| interface_place(ifindex, probe) as usize);
    let taken = |at: &usize| entries.iter().find(|(each, _)| each == at);
    let empty = places.clone().find(|at| taken(at).is_none());
    let at = empty.or_else(|| {
        let mut places = places.clone();
        places.find(|at| taken(at).is_some_and(|(_, entry)| entry.ifindex == 0))
    })?;
    if let Some((former, entry)) = former {
        return Some(Place {
            at,
            slot: entry.slot,
            fresh: false,
            vacated: (*former != at).then_some(*former),
        });
    }
    let used = |slot: &u32| entries.iter().any(|(_, entry)| entry.slot == *slot);
    if let Some(slot) = (1..INTERFACE_SLOTS).find(|slot| !used(slot)) {
        return Some(Place {
            at,
            slot,
            fresh: true,
            vacated: None,
        });
    }
    let former = retired().find(|(_, entry)| entry.slot != 0);
    Some(Place {
        at,
        // Without one of its own it is counted as "other".
        slot: former.map_or(0, |(_, entry)| entry.slot),
        fresh: former.is_some(),
        vacated: former
            .map(|(former, _)| *former)
            .filter(|former| *former != at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u32, ifindex: u32, slot: u32, name: &str) -> (usize, Interface) {
        let interface = Interface {
            ifindex,
            slot,
            name: bytes(name),
            ..Interface::default()
        };
        (at as usize, interface)
    }

    #[test]
    fn an_interface_keeps_its_slot_under_another_name() {
        let entries = [entry(2, 2, 1, "eth0"), entry(3, 3, 2, "eth1")];
        let place = place(&entries, 3, "lan0").unwrap();
        assert_eq!((place.at, place.slot, place.fresh), (3, 2, false));
    }

    #[test]
    fn what_comes_back_under_its_name_counts_on() {
        let entries = [entry(2, 2, 1, "eth0"), entry(3, 0, 2, "eth1")];
        let expected = Place {
            at: 9,
            slot: 2,
            fresh: false,
            vacated: Some(3),
        };
        assert_eq!(place(&entries, 9, "eth1"), Some(expected));
    }

    #[test]
    fn another_begins_at_zero_and_leaves_alone_what_a_gone_one_counted() {
        let entries = [entry(2, 2, 1, "eth0"), entry(3, 0, 2, "eth1")];
        let place = place(&entries, 9, "wg0").unwrap();
        assert_eq!((place.slot, place.fresh, place.vacated), (3, true, None));
    }

    #[test]
    fn where_all_slots_are_given_a_gone_ones_is_taken_and_else_none() {
        let mut entries: Vec<_> = (1..INTERFACE_SLOTS)
            .map(|slot| entry(slot, slot, slot, &format!("eth{slot}")))
            .collect();
        let other = place(&entries, 1000, "wg0").unwrap();
        assert_eq!((other.slot, other.fresh), (0, false));
        entries[4].1.ifindex = 0;
        let taken = place(&entries, 1000, "wg0").unwrap();
        assert_eq!((taken.slot, taken.fresh, taken.vacated), (5, true, Some(5)));
    }

    #[test]
    fn indexes_that_share_a_place_are_told_apart() {
        let first = entry(interface_place(5, 0), 5, 1, "eth0");
        let far = 5 + netfilter_ebpf::abi::INTERFACE_INDEXES;
        let second = place(&[first], far, "wg0").unwrap();
        assert_eq!(second.at, interface_place(far, 1) as usize);
    }
}
