//! What passed a moment ago, of this processor: so that the next packet to the same destination
//! is let out without a look at the tables.
//!
//! Within one generation a rule lets out what it let out before, and a grant stays until its
//! time is over. What could be read of a lease that changed hands at that moment is forgotten
//! with the second. Places are few and found by the address: what needs the place takes it.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use netfilter_ebpf::{
    abi::Address,
    packet::{Packet, UDP},
};

use crate::{clock, flow, tables::Generation};

const PLACES: u32 = 256;

#[repr(C)]
pub(crate) struct Memo {
    address: Address,
    /// By which policy and for which ports; zero is nobody's.
    about: u64,
    /// When it was noted, of what a name lent; or [`BY_RULE`].
    second: u32,
    /// Of the packet that was noted, if a name lent: one number for ports and source.
    flow: u32,
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

    /// Whether the packet's like was let out. If a [name](Self::is_by_name) did, nothing else is to be
    /// done about it: it goes on, or is of the flow that was noted in this second.
    #[inline(always)]
    pub(crate) fn recalls(&self, packet: &Packet, generation: &Generation, atom: u8) -> bool {
        self.address.low == packet.destination.low
            && self.address.high == packet.destination.high
            && self.about == about(generation, atom)
            && (self.second == BY_RULE
                || (flow::goes_on(packet)
                    || packet.protocol == UDP && self.flow == flow_of(packet))
                    && self.second == clock::now())
    }

    /// Whether what it recalls was let out by a name.
    #[inline(always)]
    pub(crate) fn is_by_name(&self) -> bool {
        self.second != BY_RULE
    }

    /// A rule lets out what goes to the address and belongs to the atom.
    #[inline(always)]
    pub(crate) fn note_rule(&mut self, address: Address, generation: &Generation, atom: u8) {
        self.address = address;
        self.about = about(generation, atom);
        self.second = BY_RULE;
    }

    /// Now a name lends the packet's address for the atom, and will not stop soon; its flow is
    /// remembered.
    #[inline(always)]
    pub(crate) fn note_name(&mut self, packet: &Packet, generation: &Generation, atom: u8) {
        self.address = packet.destination;
        self.about = about(generation, atom);
        self.second = clock::now();
        self.flow = flow_of(packet);
    }
}

#[inline(always)]
fn flow_of(packet: &Packet) -> u32 {
    let source = packet.source.high ^ packet.source.low;
    let ports = u32::from(packet.source_port) << 16 | u32::from(packet.destination_port);
    ports ^ source as u32 ^ (source >> 32) as u32
}

#[inline(always)]
fn about(generation: &Generation, atom: u8) -> u64 {
    generation.era() | u64::from(atom)
}
