//! What aya has no call for: walking the keys of a map, and taking out an entry
//! with its last value (bpf(2): `BPF_MAP_GET_NEXT_KEY`, `BPF_MAP_LOOKUP_AND_DELETE_ELEM`).

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
};

use aya::{maps::MapData, util::nr_cpus};

use super::test_run::bpf;

/// The part of `union bpf_attr` that the commands read.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value_or_next_key: u64,
    flags: u64,
}

/// That of the batch commands.
#[repr(C)]
struct Batch {
    /// Where to begin, or null; and where to go on.
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;

/// Counts the keys of a map that is walked by keys. `K` must be the map's key type.
/// Entries that come and go meanwhile may be missed.
pub(super) fn count<K: Copy>(map: &MapData) -> io::Result<u64> {
    let (mut key, mut next) = (MaybeUninit::<K>::zeroed(), MaybeUninit::<K>::zeroed());
    let max = u64::from(map.info().map_err(io::Error::other)?.max_entries());
    let mut count = 0;
    // A walk restarts where its key was deleted meanwhile; so it is bounded.
    while count < max {
        let mut attributes = Element {
            map: descriptor(map),
            padding: 0,
            key: if count == 0 { 0 } else { key.as_ptr() as u64 },
            value_or_next_key: next.as_mut_ptr() as u64,
            flags: 0,
        };
        match bpf(BPF_MAP_GET_NEXT_KEY, &mut attributes) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
        std::mem::swap(&mut key, &mut next);
    }
    Ok(count)
}

/// Visits the keys of a hash map, bucket by bucket, so that it never begins anew.
/// `K` must be the map's key type, and be valid for every bit pattern.
pub(super) fn walk<K: Copy>(map: &MapData, mut visit: impl FnMut(&K)) -> io::Result<()> {
    batches(map, 1, |key, _| visit(key))
}

/// As [`walk`], of a map that each processor has for itself, or an array: with the words of their
/// values, one processor's after the other's.
pub(super) fn walk_per_cpu<K: Copy>(
    map: &MapData,
    visit: impl FnMut(&K, &[u64]),
) -> io::Result<()> {
    batches(map, nr_cpus().map_err(|(_, error)| error)?, visit)
}

/// As [`walk`], with the values; the same holds for `V`.
pub(super) fn walk_entries<K: Copy, V: Copy>(
    map: &MapData,
    mut visit: impl FnMut(&K, &V),
) -> io::Result<()> {
    batches(map, 1, |key, value| {
        // SAFETY: the caller's promise; it has the size of a value.
        visit(key, &unsafe { value.as_ptr().cast::<V>().read_unaligned() });
    })
}

/// `values`: of each key.
fn batches<K: Copy>(
    map: &MapData,
    values: usize,
    mut visit: impl FnMut(&K, &[u64]),
) -> io::Result<()> {
    /// What scrapers cause should be small. No bucket has as many entries as are read at least.
    const WORDS: usize = 1 << 13;
    let info = map.info().map_err(io::Error::other)?;
    let words = (info.value_size() as usize).div_ceil(8) * values;
    let at_once = u32::try_from((WORDS / words).clamp(64, 1024)).unwrap_or(64);
    // One more than there are, so that the first batch of a small map is known to be the last.
    let at_once = at_once.min(info.max_entries() + 1);
    let mut keys = vec![MaybeUninit::<K>::zeroed(); at_once as usize];
    let mut values = vec![0u64; words * at_once as usize];
    let (mut from, mut to) = (0u32, 0u32);
    let mut begun = false;
    loop {
        let mut attributes = Batch {
            from: if begun { (&raw const from) as u64 } else { 0 },
            to: (&raw mut to) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: at_once,
            map: descriptor(map),
            element_flags: 0,
            flags: 0,
        };
        let end = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        let entries = keys.iter().zip(values.chunks_exact(words));
        for (key, value) in entries.take(attributes.count as usize) {
            // SAFETY: the caller's promise, and it was zeroed before.
            visit(unsafe { key.assume_init_ref() }, value);
        }
        if end {
            return Ok(());
        }
        (from, begun) = (to, true);
    }
}

/// Removes an entry of a hash map and returns its value, as one step. `K` and
/// `V` must be the map's types; `V` must be valid for every bit pattern.
pub(super) fn take<K: Copy, V: Copy>(map: &MapData, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::zeroed();
    let mut attributes = Element {
        map: descriptor(map),
        padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value_or_next_key: value.as_mut_ptr() as u64,
        flags: 0,
    };
    match bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attributes) {
        // SAFETY: the caller's promise, and it was zeroed before.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn descriptor(map: &MapData) -> u32 {
    u32::try_from(map.fd().as_fd().as_raw_fd()).unwrap_or(u32::MAX)
}
