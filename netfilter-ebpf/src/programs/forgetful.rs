//! Maps that make room by themselves: what comes in and what is taken out is
//! counted, so user space can tell what was forgotten.

use aya_ebpf::{
    bindings::{BPF_EXIST, BPF_NOEXIST},
    maps::LruHashMap,
};
use netfilter_ebpf::{abi::Turnover, verdict::Forgetful};

use crate::maps::TURNOVER;

const EEXIST: i32 = -17;
const ENOENT: i32 = -2;

/// Stores a value, whether or not the key is there. The error is the kernel's.
#[inline(always)]
pub(crate) fn put<K, V>(
    map: &LruHashMap<K, V>,
    which: Forgetful,
    key: &K,
    value: &V,
) -> Result<(), i32> {
    let mut result = Ok(());
    for _ in 0..2 {
        result = add(map, which, key, value);
        if result != Err(EEXIST) {
            break;
        }
        // Only in its place, or a new one would go uncounted.
        result = map.insert(key, value, u64::from(BPF_EXIST));
        if result != Err(ENOENT) {
            break;
        }
    }
    result
}

/// Stores a value where there is none.
#[inline(always)]
pub(crate) fn add<K, V>(
    map: &LruHashMap<K, V>,
    which: Forgetful,
    key: &K,
    value: &V,
) -> Result<(), i32> {
    map.insert(key, value, u64::from(BPF_NOEXIST))?;
    note(which, 1, 0);
    Ok(())
}

#[inline(always)]
pub(crate) fn remove<K, V>(map: &LruHashMap<K, V>, which: Forgetful, key: &K) -> Result<(), i32> {
    map.remove(key)?;
    note(which, 0, 1);
    Ok(())
}

/// What a caller of the map's own functions did.
#[inline(always)]
pub(crate) fn note(which: Forgetful, inserted: u64, deleted: u64) {
    if let Some(turnover) = TURNOVER.get_ptr_mut(which as u32) {
        let turnover: *mut Turnover = turnover;
        // SAFETY: a map value of this processor.
        unsafe {
            (*turnover).inserted += inserted;
            (*turnover).deleted += deleted;
        }
    }
}
