//! What passed a moment ago, of this processor: so that the next packet to the same destination
//! is let out without a look at the tables.
//!
//! Within one generation a rule lets out what it let out before, and a grant stays until its
//! time is over. What could be read of a lease that changed hands at that moment is forgotten
//! with the second. Places are few and found by the address: what needs the place takes it.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use netfilter_ebpf::{abi::Address, packet::Packet};

use crate::{clock, flow, tables::Generation};

const PLACES: u32 = 256;

#[repr(C)]
pub(crate) struct Memo {
    address: Address,
    /// By which policy and for which ports; zero is nobody's.
    about: u64,
    /// When it was noted, of what a name lent; or [`BY_RULE`].
    second: u32,
}

const BY_RULE: u32 = u32::MAX;

/// Of the programs that were loaded with it, so it has no layout that others could know.
#[map]
static MEMOS: PerCpuArray<Memo> = PerCpuArray::with_max_entries(PLACES, 0);

impl Memo {
    /// The place of an address.
    #[inline(always)]
    pub(crate) fn of(address: Address) -> Option<&'static mut Self> {
        let hash = (address.high ^ address.low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // SAFETY: a map value of this processor, and none interrupts a tc program but others'.
        MEMOS
            .get_ptr_mut((hash >> 56) as u32)
            .map(|memo| unsafe { &mut *memo })
    }

    /// Whether the packet's like was let out, and nothing else is to be done about it.
    #[inline(always)]
    pub(crate) fn recalls(&self, packet: &Packet, generation: &Generation, atom: u8) -> bool {
        self.address.low == packet.destination.low
            && self.address.high == packet.destination.high
            && self.about == about(generation, atom)
            && (self.second == BY_RULE || flow::goes_on(packet) && self.second == clock::now())
    }

    /// A rule lets out what goes to the address and belongs to the atom.
    #[inline(always)]
    pub(crate) fn note_rule(&mut self, address: Address, generation: &Generation, atom: u8) {
        self.note(address, about(generation, atom), BY_RULE);
    }

    /// Now a name lends the address for the atom, and will not stop soon.
    #[inline(always)]
    pub(crate) fn note_name(&mut self, address: Address, generation: &Generation, atom: u8) {
        self.note(address, about(generation, atom), clock::now());
    }

    #[inline(always)]
    fn note(&mut self, address: Address, about: u64, second: u32) {
        self.address = address;
        self.about = about;
        self.second = second;
    }
}

#[inline(always)]
fn about(generation: &Generation, atom: u8) -> u64 {
    generation.era() | u64::from(atom)
}
