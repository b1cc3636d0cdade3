//! Names and types of the maps, as user space opens them.

use std::path::Path;

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuHashMap},
};

use super::{Error, pins::Pins};

pub(super) const ACTIVE: &str = "ACTIVE";
pub(super) const SETTINGS: &str = "SETTINGS";
pub(super) const ROOTS: &str = "ROOTS";
pub(super) const NODES: &str = "NODES";
pub(super) const HELD: &str = "HELD";
pub(super) const CLASSES: &str = "CLASSES";
pub(super) const ATOMS: &str = "ATOMS";
pub(super) const NAMES: &str = "NAMES";
pub(super) const NAME_SETS: &str = "NAME_SETS";
pub(super) const DECIDERS: &str = "DECIDERS";
pub(super) const NAME_DECIDERS: &str = "NAME_DECIDERS";
pub(super) const HITS: &str = "HITS";
pub(super) const RECENT: &str = "RECENT";
pub(super) const USERS: &str = "USERS";
pub(super) const NETWORK: &str = "NETWORK";
pub(super) const NAME_CURSOR: &str = "NAME_CURSOR";
pub(super) const SEED: &str = "SEED";
pub(super) const LEASES: &str = "LEASES";
pub(super) const CROWDS: &str = "CROWDS";
pub(super) const REMOTES: &str = "REMOTES";
pub(super) const QUESTIONS: &str = "QUESTIONS";
pub(super) const ALIASES: &str = "ALIASES";
pub(super) const STREAMS: &str = "STREAMS";
pub(super) const SEEN: &str = "SEEN";
pub(super) const RATES: &str = "RATES";
pub(super) const INBOUND: &str = "INBOUND";
pub(super) const OUTBOUND: &str = "OUTBOUND";
pub(super) const HALF_OPEN: &str = "HALF_OPEN";
pub(super) const FRAGMENTS: &str = "FRAGMENTS";
pub(super) const INTERFACES: &str = "INTERFACES";
pub(super) const PASSED: &str = "PASSED";
pub(super) const DROPPED: &str = "DROPPED";
pub(super) const QUESTION_COUNTS: &str = "QUESTION_COUNTS";
pub(super) const ANSWER_COUNTS: &str = "ANSWER_COUNTS";
pub(super) const LOST: &str = "LOST";
pub(super) const LOST_FLOWS: &str = "LOST_FLOWS";
pub(super) const TURNOVER: &str = "TURNOVER";
pub(super) const SOURCES: &str = "SOURCES";
pub(super) const WHO: &str = "WHO";
pub(super) const PATHS: &str = "PATHS";
pub(super) const EVENTS: &str = "EVENTS";
pub(super) const ATTEMPTS: &str = "ATTEMPTS";
pub(super) const ATTEMPT_BUDGET: &str = "ATTEMPT_BUDGET";
pub(super) const RESOLVED: &str = "RESOLVED";
pub(super) const WANTED: &str = "WANTED";
pub(super) const ASKED: &str = "ASKED";
pub(super) const NAMED: &str = "NAMED";

/// Of this process only: what the relays jump to.
pub(super) const RELAYED: &str = "RELAYED";

/// A policy's tables, of the layout [`netfilter_ebpf::abi::TABLES_LAYOUT`]. The first
/// tells whether there are any.
pub(super) const TABLES: [&str; 12] = [
    ACTIVE,
    SETTINGS,
    ROOTS,
    NODES,
    HELD,
    CLASSES,
    ATOMS,
    NAMES,
    NAME_SETS,
    DECIDERS,
    NAME_DECIDERS,
    USERS,
];

/// What outlives policies, daemons and builds, with the version of each layout.
pub(super) const LEARNED: [(&str, u32); 35] = [
    (NETWORK, 1),
    (NAME_CURSOR, 1),
    (SEED, 1),
    (LEASES, 2),
    (CROWDS, 1),
    (REMOTES, 1),
    (QUESTIONS, 1),
    (ALIASES, 1),
    (STREAMS, 1),
    (SEEN, 1),
    (RATES, 1),
    (INBOUND, 1),
    (OUTBOUND, 1),
    (HALF_OPEN, 1),
    (FRAGMENTS, 1),
    (INTERFACES, 2),
    (PASSED, 1),
    (DROPPED, 1),
    (HITS, 1),
    (RECENT, 1),
    (QUESTION_COUNTS, 1),
    (ANSWER_COUNTS, 1),
    (LOST, 1),
    (LOST_FLOWS, 1),
    (TURNOVER, 1),
    (SOURCES, 1),
    (WHO, 2),
    (PATHS, 1),
    (EVENTS, 3),
    (ATTEMPTS, 1),
    (ATTEMPT_BUDGET, 1),
    (RESOLVED, 3),
    (WANTED, 1),
    (ASKED, 1),
    (NAMED, 1),
];

/// Everything that outlives the daemon.
pub(super) fn pinned() -> impl Iterator<Item = &'static str> {
    let learned = LEARNED.iter().map(|(name, _)| *name);
    TABLES.into_iter().chain(learned)
}

/// A type of `netfilter_ebpf::abi` as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Plain<T>(pub(super) T);

// SAFETY: used with types of `netfilter_ebpf::abi` and integers only, which are
// `repr(C)`, without implicit padding, and valid for every bit pattern.
unsafe impl<T: Copy + 'static> Pod for Plain<T> {}

pub(super) type ArrayOf<T> = Array<MapData, Plain<T>>;
pub(super) type HashOf<K, V> = HashMap<MapData, Plain<K>, Plain<V>>;
pub(super) type PerCpuArrayOf<T> = PerCpuArray<MapData, Plain<T>>;
pub(super) type PerCpuHashOf<K, V> = PerCpuHashMap<MapData, Plain<K>, Plain<V>>;
pub(super) type LpmOf<K, V> = LpmTrie<MapData, Plain<K>, Plain<V>>;

pub(super) fn data(pins: &Pins, name: &'static str) -> Result<MapData, Error> {
    MapData::from_pin(pins.map(name)?).map_err(failed("open", name))
}

/// Opens a map that is pinned at `path` as its type.
pub(super) fn open_at<T: TryFrom<Map, Error = MapError>>(
    path: &Path,
    name: &'static str,
) -> Result<T, Error> {
    let data = MapData::from_pin(path).map_err(failed("open", name))?;
    let map = Map::from_map_data(data).map_err(failed("open", name))?;
    T::try_from(map).map_err(failed("open", name))
}

/// Opens a pinned map as its type.
pub(super) fn open<T: TryFrom<Map, Error = MapError>>(
    pins: &Pins,
    name: &'static str,
) -> Result<T, Error> {
    open_at(&pins.map(name)?, name)
}

pub(super) fn failed(operation: &'static str, map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map {
        operation,
        map,
        source: Box::new(source),
    }
}
