//! Which rule let a flow out, or denied it: counted once for each, at its first packet.
//!
//! There is no table of flows that a rule allows. So a TCP flow begins with each SYN of
//! another sequence number, and any other flow with a packet of which none like it was seen
//! for [`FORGOTTEN`] seconds, as far as [`RECENT`] remembers. Packets that begin nothing
//! cost TCP two comparisons, and others the look into one cache line.

use netfilter_ebpf::{
    abi::{DECIDER_ALLOWS, DECIDER_AUDITS, DECIDER_DENIES, NAME_ID_NONE, RECENT_SETS},
    egress::Tables,
    packet::{ACK, Packet, SYN, TCP},
    quote,
    verdict::{Grounds, Reason, Verdict},
};

use crate::{
    atomic::{compare_exchange, increment},
    clock, deciders,
    maps::{HITS, RECENT, Scratch, seed},
    message::scratch,
    tables::Generation,
};

/// Seconds of silence after which a flow that has no SYN begins anew.
const FORGOTTEN: u64 = 60;

/// Counts the rule behind a verdict, if the packet begins a flow. `park` brings it into the scratch.
#[inline(always)]
pub(crate) fn note(
    packet: &Packet,
    verdict: &Verdict,
    generation: &Generation,
    park: impl FnOnce(),
) {
    let (action, name) = match verdict {
        Verdict::Pass(Grounds::Rule) => (DECIDER_ALLOWS, NAME_ID_NONE),
        Verdict::Pass(Grounds::Learned(grant)) => (DECIDER_ALLOWS, grant.name()),
        Verdict::Audit(lent) => (
            DECIDER_AUDITS,
            lent.map_or(NAME_ID_NONE, |grant| grant.name()),
        ),
        Verdict::Drop(Reason::DeniedByRule) => (DECIDER_DENIES, NAME_ID_NONE),
        _ => return,
    };
    if !may_begin(packet) {
        return;
    }
    if netfilter_is_new(hash(packet)) != 0 {
        park();
        netfilter_hit(action, name, generation.slot());
    }
}

/// Whether a flow may begin with the packet.
#[inline(always)]
pub(crate) fn may_begin(packet: &Packet) -> bool {
    match packet.protocol {
        TCP => packet.kind & (SYN | ACK) == SYN,
        protocol => !quote::is_error(protocol, packet.kind),
    }
}

/// A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_hit(action: u32, name: u32, copy: u32) -> u64 {
    let Some(Scratch { packet, .. }) = scratch() else {
        return 0;
    };
    let Some(atom) = Generation::of(copy).atom(packet.protocol, packet.destination_port) else {
        return 0;
    };
    let first = if name == NAME_ID_NONE {
        deciders::of_address(packet.destination, copy)
    } else {
        deciders::of_name(name, copy)
    };
    let decider = deciders::find(first, action, atom);
    if let Some(hits) = decider.and_then(|decider| HITS.get_ptr_mut(&decider.rule)) {
        increment(hits);
    }
    0
}

/// Whether no packet of the flow with this [`hash`] was seen lately. The place that it takes is
/// that of the flow which was silent longest, of the two that share it. A global function, see
/// `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_is_new(hash: u64) -> u64 {
    let now = u64::from(clock::now()) & 0xff_ffff;
    let set = (hash as u32 & (RECENT_SETS - 1)) * 2;
    let word = hash & !0xff_ffff | now;
    let (Some(one), Some(other)) = (RECENT.get_ptr_mut(set), RECENT.get_ptr_mut(set + 1)) else {
        return 1;
    };
    // SAFETY: words of map values; other processors replace them whole.
    let (of_one, of_other) = unsafe { (one.read_volatile(), other.read_volatile()) };
    let silence = |seen: u64| now.wrapping_sub(seen) & 0xff_ffff;
    let is_its = |seen: u64| (seen ^ hash) >> 24 == 0;
    let (place, seen) = if is_its(of_one) {
        (one, of_one)
    } else if is_its(of_other) {
        (other, of_other)
    } else if silence(of_one) >= silence(of_other) {
        (one, of_one)
    } else {
        (other, of_other)
    };
    let known = is_its(seen) && silence(seen) < FORGOTTEN;
    // Written rarely, for all processors read it.
    if known && silence(seen) < FORGOTTEN / 4 {
        return 0;
    }
    // Of two processors with packets of one flow, the second comes too late.
    let is_first = compare_exchange(place, seen, word);
    // SAFETY: as above.
    u64::from(!known && (is_first || !is_its(unsafe { place.read_volatile() })))
}

/// Of its addresses, ports and protocol and, where it is a SYN, of its sequence number. Whoever
/// does not know the seed cannot choose flows that share a place.
#[inline(always)]
fn hash(packet: &Packet) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15; // 2⁶⁴ by the golden ratio (Knuth, TAOCP 6.4)
    let ports = u64::from(packet.source_port) << 16 | u64::from(packet.destination_port);
    let number = if packet.protocol == TCP {
        u64::from(packet.sequence)
    } else {
        0
    };
    let words = [
        packet.source.high,
        packet.source.low,
        packet.destination.high,
        packet.destination.low,
        ports << 8 | u64::from(packet.protocol),
        number,
    ];
    let mut hash = seed();
    for word in words {
        hash = (hash ^ word).wrapping_mul(ODD);
        hash ^= hash >> 29;
    }
    hash
}
