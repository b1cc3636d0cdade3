//! Marks the addresses of which something is stored, see [`netfilter_ebpf::remote`].

use netfilter_ebpf::{
    abi::Address,
    remote::{STATE, WORDS, place},
};

use crate::{atomic, maps::REMOTES};

/// Whether a lease or a flow may be stored for an address; no is certain.
#[inline(always)]
pub(crate) fn is_known(address: Address) -> bool {
    let (word, mark) = place(address);
    let Some(state) = REMOTES.get_ptr(STATE) else {
        return true;
    };
    // SAFETY: a word of a map value; volatile, for others write to it.
    let copy = unsafe { state.read_volatile() } as u32 & 1;
    REMOTES
        .get_ptr(copy * WORDS + word)
        // SAFETY: as above.
        .is_none_or(|marks| unsafe { marks.read_volatile() } & mark != 0)
}

/// To be called before something is stored for the address.
#[inline(always)]
pub(crate) fn note(address: Address) {
    let (word, mark) = place(address);
    for copy in 0..2 {
        if let Some(marks) = REMOTES.get_ptr_mut(copy * WORDS + word)
            // SAFETY: as above.
            && unsafe { marks.read_volatile() } & mark == 0
        {
            atomic::set(marks, mark);
        }
    }
}
