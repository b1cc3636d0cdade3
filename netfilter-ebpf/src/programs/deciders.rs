//! Which rule decides: chains beside the tables, made by `compile::deciders` in user space.

use netfilter_ebpf::{
    abi::{Address, DECIDERS_AT_ONCE, Decider, NAME_IDS},
    table::{self, LEAF, Memory, Node, ROOTS_PER_FAMILY},
};

use crate::{
    maps::{DECIDERS, LEAF_DECIDERS, NAME_DECIDERS, NODES, ROOT_DECIDERS, ROOTS},
    tables::pick,
};

/// The same tables, asked for who decides.
struct Deciders {
    table: u32,
}

impl Memory for Deciders {
    #[inline(always)]
    fn root(&self, index: u32) -> Option<u32> {
        let index = self.table * ROOTS_PER_FAMILY + index;
        match pick(&ROOTS, index)? {
            class if class & LEAF != 0 => pick(&ROOT_DECIDERS, index).map(|first| LEAF | first),
            node => Some(node),
        }
    }

    #[inline(always)]
    fn node(&self, index: u32) -> Option<&Node> {
        NODES.get(index)
    }

    #[inline(always)]
    fn leaf(&self, index: u32) -> Option<u32> {
        pick(&LEAF_DECIDERS, index)
    }
}

/// Where the chain of an address begins.
#[inline(always)]
pub(crate) fn of_address(address: Address, copy: u32) -> u32 {
    let table = copy * 2 + u32::from(!address.is_ipv4());
    table::lookup(&Deciders { table }, address.left_aligned()).unwrap_or(0)
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
