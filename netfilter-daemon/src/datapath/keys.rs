//! Counts the entries of a map by walking its keys: `bpf(BPF_MAP_GET_NEXT_KEY)`.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use aya::maps::MapData;

use super::test_run::bpf;

/// The part of `union bpf_attr` that the command reads.
#[repr(C)]
struct NextKey {
    map: u32,
    padding: u32,
    key: u64,
    next_key: u64,
}

const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;

/// `K` must be the map's key type. Entries that come and go meanwhile may be missed.
pub(super) fn count<K: Copy>(map: &MapData) -> io::Result<u64> {
    let (mut key, mut next) = (
        std::mem::MaybeUninit::<K>::zeroed(),
        std::mem::MaybeUninit::<K>::zeroed(),
    );
    let max = u64::from(map.info().map_err(io::Error::other)?.max_entries());
    let mut count = 0;
    // A walk restarts where its key was deleted meanwhile; so it is bounded.
    while count < max {
        let mut attributes = NextKey {
            map: u32::try_from(map.fd().as_fd().as_raw_fd()).unwrap_or(u32::MAX),
            padding: 0,
            key: if count == 0 { 0 } else { key.as_ptr() as u64 },
            next_key: next.as_mut_ptr() as u64,
        };
        match bpf(BPF_MAP_GET_NEXT_KEY, &mut attributes) {
            Ok(()) => count += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
        std::mem::swap(&mut key, &mut next);
    }
    Ok(count)
}
