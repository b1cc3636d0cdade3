//! What the machine must say to live on its network, and how much of it.

use netfilter_ebpf::{
    gate,
    packet::Packet,
    plumbing::{self, KINDS, Kind, Plumbing},
};

use crate::{
    atomic::compare_exchange,
    buffer::{Buffer, seam},
    clock, interface,
    maps::PLUMBING,
    message::scratch,
};

/// Whether a packet need not be [`read`].
#[inline(always)]
pub(crate) fn is_other(packet: &Packet) -> bool {
    plumbing::kind(packet).is_none()
}

/// Reads the packet in the scratch as plumbing; [`at_hand`] has it then.
#[inline(always)]
pub(crate) fn read<B: Buffer>(buffer: &B) {
    if let Some(scratch) = scratch() {
        scratch.plumbing = 0;
        if !is_other(&scratch.packet) {
            note(buffer);
        }
    }
}

/// What the packet was read as.
#[inline(always)]
pub(crate) fn at_hand() -> Option<Plumbing> {
    let scratch = scratch()?;
    Some(Plumbing {
        kind: Kind::from_number(scratch.plumbing)?,
        costs: scratch.costs,
    })
}

/// Whether the interface has not said too much of it lately for what is at hand.
#[inline(always)]
pub(crate) fn affords<B: Buffer>(buffer: &B) -> bool {
    netfilter_affords(u64::from(interface::slot(buffer.ifindex()))) != 0
}

seam! {
    fn note = (netfilter_plumbing, xdp_plumbing)<B>(buffer) {
        let Some(scratch) = scratch() else {
            return 0;
        };
        buffer.gather();
        match plumbing::read(buffer, &scratch.packet) {
            Some(Plumbing { kind, costs }) => {
                scratch.costs = costs;
                scratch.plumbing = kind as u32;
                1
            }
            None => 0,
        }
    }
}

/// A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_affords(slot: u64) -> u64 {
    let Some(Plumbing { kind, costs }) = at_hand() else {
        return 0;
    };
    let Some(bucket) = PLUMBING.get_ptr_mut(slot as u32 * KINDS + kind as u32) else {
        return 0;
    };
    let (per_minute, full) = kind.rate();
    for _ in 0..4 {
        // SAFETY: a map value, replaced as a whole word.
        let old = unsafe { bucket.read_volatile() };
        let Some(left) = gate::take(old, clock::now(), per_minute, full, costs) else {
            return 0;
        };
        if compare_exchange(bucket, old, left) {
            return 1;
        }
    }
    0
}
