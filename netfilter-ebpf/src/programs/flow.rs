//! Flows: what leaves and arrives writes their lives, see [`netfilter_ebpf::flow`].

use aya_ebpf::bindings::BPF_NOEXIST;
use netfilter_ebpf::{
    abi::{FLOW_INBOUND, Flow, Grant},
    egress::{self, Origin},
    flow::{self, Next},
    packet::{ACK, FIN, Fragment, ICMP, ICMPV6, Packet, RST, SYN, TCP},
    quote,
    verdict::{Forgetful, LostFlow},
};

use crate::{
    clock, forgetful, frame, lease,
    maps::{HALF_OPEN, INBOUND, LOST_FLOWS, OUTBOUND, Scratch, count},
    message::scratch,
    remotes,
    tables::Generation,
};

/// A learned flow is remembered when it begins, and again when its grant has less
/// than this many seconds to live: from then on its own life counts.
const NEARLY_EXPIRED: u32 = 10;

const EEXIST: i32 = -17;

/// The flow of a packet that leaves, or of one that an ICMP error stands for.
#[inline(always)]
pub(crate) fn leaving(packet: &Packet, atom: u8, generation: &Generation) -> Option<Origin> {
    let quoted = frame::quoted().is_some();
    let came_in = generation.lets_in(packet.protocol, packet.source_port);
    let about = u64::from(atom)
        | u64::from(generation.slot()) << 8
        | u64::from(quoted) << 9
        | u64::from(came_in) << 10;
    match netfilter_leaving(about) {
        INBOUND_FLOW => Some(Origin::Inbound),
        NAMED_FLOW => Some(Origin::Name),
        AUDITED_FLOW => Some(Origin::Audited),
        _ => None,
    }
}

const NAMED_FLOW: u64 = 1;
const INBOUND_FLOW: u64 = 2;
const AUDITED_FLOW: u64 = 3;

/// A global function, see `message`. `about`: the atom, the copy of the policy,
/// whether a quote stands for the packet, whether its local port lets in.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_leaving(about: u64) -> u64 {
    let Some(Scratch {
        packet,
        quoted,
        connection: key,
        ..
    }) = scratch()
    else {
        return 0;
    };
    let (atom, slot) = (about as u8, (about >> 8) as u32 & 1);
    let (stands_for, came_in) = (about & 0x200 != 0, about & 0x400 != 0);
    let packet = if stands_for { &*quoted } else { &*packet };
    *key = egress::flow_key(packet);
    let now = clock::now();
    let mut table = Table::Inbound;
    let mut found = if came_in && packet.protocol == TCP {
        INBOUND.get_ptr_mut(&*key)
    } else {
        None
    };
    if found.is_none() {
        table = Table::Outbound;
        found = OUTBOUND.get_ptr_mut(&*key);
    }
    // Of what left first only TCP comes there, when it is over.
    if found.is_none() && (came_in || packet.protocol == TCP) {
        table = Table::HalfOpen;
        found = HALF_OPEN.get_ptr_mut(&*key);
    }
    let Some(flow) = found else {
        return 0;
    };
    // SAFETY: a map value; the words of the other program may change meanwhile.
    let flow = unsafe { &mut *flow };
    let inbound = flow.origin == FLOW_INBOUND;
    let origin = if inbound {
        if came_in { INBOUND_FLOW } else { 0 }
    } else if lease::name_allows(slot, flow.origin, atom) {
        NAMED_FLOW
    } else if lease::name_audits(slot, flow.origin, atom) {
        AUDITED_FLOW
    } else {
        0
    };
    if flow.until <= now || origin == 0 {
        return 0;
    }
    if !stands_for {
        if packet.protocol == TCP {
            let next = flow.leaves(packet, now);
            if next != Next::Goes {
                end(table, flow.origin, next, now);
            }
        } else {
            flow.until = now + flow::idle(packet.protocol);
        }
    }
    origin
}

/// Which map a flow is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Inbound,
    Outbound,
    HalfOpen,
}

/// Makes room: what is over, or reset, is kept for a while where it can be pushed
/// out. Its key is in the scratch.
#[inline(always)]
fn end(table: Table, origin: u32, next: Next, now: u32) {
    netfilter_end(table as u64, origin, now, u64::from(next == Next::Over));
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_end(table: u64, origin: u32, now: u32, over: u64) -> u64 {
    let Some(Scratch {
        connection: key,
        flow,
        ..
    }) = scratch()
    else {
        return 0;
    };
    let next = if over != 0 { Next::Over } else { Next::Reset };
    // Another processor may have been first.
    let removed = if table == Table::Inbound as u64 {
        INBOUND.remove(&*key).is_ok()
    } else if table == Table::Outbound as u64 {
        OUTBOUND.remove(&*key).is_ok()
    } else {
        true
    };
    if removed {
        *flow = Flow::ended(origin, now, next);
        keep(key, flow);
    }
    0
}

/// Where a flood can push it out.
#[inline(always)]
fn keep(key: &netfilter_ebpf::abi::FlowKey, flow: &Flow) {
    remotes::note(key.remote);
    if forgetful::put(&HALF_OPEN, Forgetful::HalfOpen, key, flow).is_err() {
        count(&LOST_FLOWS, LostFlow::HalfOpen as u8);
    }
}

/// Whether a packet neither begins nor ends anything. What a lease lets out that does, or ends
/// [soon](ends_soon), is to be [`learned`], for when the lease ends.
#[inline(always)]
pub(crate) fn goes_on(packet: &Packet) -> bool {
    packet.protocol == TCP && packet.kind & (SYN | FIN | RST) == 0
}

#[inline(always)]
pub(crate) fn ends_soon(grant: Grant, now: u32) -> bool {
    grant.until() < now.saturating_add(NEARLY_EXPIRED)
}

/// Remembers the flow of the packet in the scratch, which a lease lets out.
#[inline(always)]
pub(crate) fn learned(grant: Grant, now: u32) {
    netfilter_learned(grant.name(), grant.until(), now);
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_learned(name: u32, granted: u32, now: u32) -> u64 {
    let Some(Scratch {
        packet,
        connection: key,
        flow: fresh,
        ..
    }) = scratch()
    else {
        return 0;
    };
    *key = egress::flow_key(packet);
    let tcp = packet.protocol == TCP;
    if let Some(flow) = OUTBOUND.get_ptr_mut(&*key) {
        // SAFETY: a map value; the words of the other program may change meanwhile.
        let flow = unsafe { &mut *flow };
        flow.origin = name;
        if flow.granted < granted {
            flow.granted = granted;
        }
        if tcp {
            let next = flow.leaves(packet, now);
            if next != Next::Goes {
                end(Table::Outbound, name, next, now);
            }
        } else {
            flow.until = granted.saturating_add(flow::idle(packet.protocol));
        }
        return 0;
    }
    // What only ends, or answers, begins nothing.
    if tcp && (packet.kind & (FIN | RST) != 0 || packet.kind & (SYN | ACK) == SYN | ACK) {
        return 0;
    }
    *fresh = Flow::left(packet, name, granted, now);
    remotes::note(key.remote);
    match OUTBOUND.insert(&*key, &*fresh, u64::from(BPF_NOEXIST)) {
        Ok(()) | Err(EEXIST) => {}
        Err(_) => count(&LOST_FLOWS, LostFlow::Outbound as u8),
    }
    0
}

/// Whether the policy lets in an arriving packet, and whether it may be the beginning or
/// the end of a flow; `None` where no flow is concerned.
#[inline(always)]
pub(crate) fn concerns(packet: &Packet, generation: &Generation) -> Option<(bool, bool)> {
    let came_in = generation.lets_in(packet.protocol, packet.destination_port);
    let marks = packet.protocol == TCP
        && (packet.kind & (FIN | RST) != 0 || packet.kind & (SYN | ACK) == SYN | ACK)
        && remotes::is_known(packet.source);
    (came_in || marks).then_some((came_in, marks))
}

/// Remembers a flow that the policy lets in, so that its replies may leave; and
/// what the remote of another says of its beginning and end.
#[inline(always)]
pub(crate) fn arriving(packet: &Packet, generation: &Generation) {
    if matches!(packet.fragment, Fragment::Later(_)) {
        return;
    }
    match concerns(packet, generation) {
        None => {}
        Some((came_in, marks)) if packet.protocol == TCP => {
            netfilter_segment(u64::from(came_in), u64::from(marks));
        }
        Some(_) => {
            netfilter_datagram();
        }
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_datagram() -> u64 {
    let Some(Scratch {
        packet,
        connection: key,
        flow: fresh,
        ..
    }) = scratch()
    else {
        return 0;
    };
    // An error answers something; it begins nothing.
    if quote::is_error(packet.protocol, packet.kind)
        || matches!((packet.protocol, packet.kind), (ICMP, 0) | (ICMPV6, 129))
    {
        return 0;
    }
    *key = egress::inbound_flow_key(packet);
    let now = clock::now();
    *fresh = Flow::arrived(packet.protocol, now);
    if let Some(flow) = HALF_OPEN.get_ptr_mut(&*key) {
        // SAFETY: a map value, written by whole words.
        let flow = unsafe { &mut *flow };
        if flow.origin == FLOW_INBOUND {
            if flow.until + flow::REFRESH <= fresh.until {
                flow.until = fresh.until;
            }
            return 0;
        }
    }
    keep(key, fresh);
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_segment(came_in: u64, marks: u64) -> u64 {
    let Some(Scratch {
        packet,
        connection: key,
        flow: fresh,
        ..
    }) = scratch()
    else {
        return 0;
    };
    *key = egress::inbound_flow_key(packet);
    let now = clock::now();
    let mut table = Table::Inbound;
    let mut found = if came_in != 0 {
        INBOUND.get_ptr_mut(&*key)
    } else {
        None
    };
    if found.is_none() && marks != 0 {
        table = Table::Outbound;
        found = OUTBOUND.get_ptr_mut(&*key);
    }
    if let Some(flow) = found {
        // SAFETY: a map value; the words of the other program may change meanwhile.
        let flow = unsafe { &mut *flow };
        let next = flow.arrives(packet, now);
        if next != Next::Goes {
            end(table, flow.origin, next, now);
        }
        return 0;
    }
    if came_in == 0 {
        return 0;
    }
    let known = HALF_OPEN.get_ptr_mut(&*key);
    if let Some(flow) = known {
        // SAFETY: as above.
        let flow = unsafe { &mut *flow };
        if flow.origin == FLOW_INBOUND && flow.until > now {
            let next = flow.arrives(packet, now);
            if next != Next::Goes {
                end(Table::HalfOpen, FLOW_INBOUND, next, now);
            } else if flow.is_open() {
                *fresh = *flow;
                promote(flow);
            }
            return 0;
        }
    }
    if packet.kind & RST == 0 {
        *fresh = Flow::arrived(TCP, now);
        keep(key, fresh);
    }
    0
}

/// Puts the flow in the scratch where no flood can push it out. `flow` is the same
/// in the map that it comes from.
#[inline(always)]
fn promote(flow: &mut Flow) {
    let Some(Scratch {
        connection: key,
        flow: fresh,
        ..
    }) = scratch()
    else {
        return;
    };
    remotes::note(key.remote);
    match INBOUND.insert(&*key, &*fresh, u64::from(BPF_NOEXIST)) {
        Ok(()) | Err(EEXIST) => {
            _ = forgetful::remove(&HALF_OPEN, Forgetful::HalfOpen, &*key);
        }
        Err(_) => {
            if flow.note_lost() {
                count(&LOST_FLOWS, LostFlow::Inbound as u8);
            }
        }
    }
}
