//! Which rule decides: chains beside the tables, made by `compile::deciders` in user space.

use netfilter_ebpf::abi::{Address, DECIDERS_AT_ONCE, Decider, NAME_IDS};

use crate::{
    maps::{DECIDERS, NAME_DECIDERS},
    tables::{self, pick},
};

/// Where the chain of an address begins.
#[inline(always)]
pub(crate) fn of_address(address: Address, copy: u32) -> u32 {
    tables::held(address, copy).map_or(0, |held| held.decider)
}

/// Where that of a name begins.
#[inline(always)]
pub(crate) fn of_name(name: u32, copy: u32) -> u32 {
    pick(&NAME_DECIDERS, copy * NAME_IDS + (name & (NAME_IDS - 1))).unwrap_or(0)
}

/// The one of a chain that does this to the atom.
#[inline(always)]
pub(crate) fn find(first: u32, action: u32, atom: u8) -> Option<&'static Decider> {
    let mut next = first;
    for _ in 0..DECIDERS_AT_ONCE {
        let decider = DECIDERS.get(next).filter(|_| next != 0)?;
        if decider.action == action && decider.atoms.contains(atom) {
            return Some(decider);
        }
        next = decider.next;
    }
    None
}
