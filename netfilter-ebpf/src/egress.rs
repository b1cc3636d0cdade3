//! The decision on a packet that leaves.

use crate::{
    abi::{
        ATOM_NEIGHBOUR, CLASS_RESOLVER, Class, FLOW_IDLE_OTHER, FLOW_IDLE_TCP, FLOW_INBOUND, Flow,
        FlowKey, FragmentKey, Grant, Settings,
    },
    packet::{DNS_PORT, Fragment, Packet, TCP, UDP},
    plumbing,
    verdict::{Grounds, Reason, Verdict},
};

/// What the decision looks up. BPF maps in the kernel; vectors in user space.
pub trait Tables {
    /// The class of a packet's destination; `None` while no policy is loaded.
    fn class(&self, packet: &Packet) -> Option<&Class>;
    /// The atom of (protocol, destination port).
    fn atom(&self, protocol: u8, port: u16) -> Option<u8>;
    /// A grant, in force now, of the atom to the packet's destination, learned from DNS.
    fn learned(&self, packet: &Packet, atom: u8) -> Option<Grant>;
    /// The flow, if it is in force now and its origin still grants the atom.
    fn flow(&self, key: &FlowKey, atom: u8) -> Option<Flow>;
    /// Whether the first fragment of this datagram passed.
    fn fragment(&self, key: &FragmentKey) -> bool;
    /// Seconds of CLOCK_BOOTTIME.
    fn now(&self) -> u32;
}

/// Judges a packet.
#[inline(always)]
pub fn decide<T: Tables>(packet: &Packet, tables: &T) -> Verdict {
    if plumbing::is_plumbing(packet) {
        return Verdict::Pass(Grounds::Plumbing);
    }
    if let Fragment::Later(id) = packet.fragment {
        return if tables.fragment(&fragment_key(packet, id)) {
            Verdict::Pass(Grounds::Fragment)
        } else {
            Verdict::Drop(Reason::Fragment)
        };
    }
    let Some(class) = tables.class(packet) else {
        return Verdict::Drop(Reason::Unready);
    };
    if class.flags & CLASS_RESOLVER != 0 && is_dns(packet.protocol, packet.destination_port) {
        return Verdict::Ask;
    }
    if plumbing::is_neighbour_discovery(packet)
        && matches!(packet.fragment, Fragment::Whole)
        && class.allow.contains(ATOM_NEIGHBOUR)
    {
        return Verdict::Pass(Grounds::Plumbing);
    }
    let Some(atom) = tables.atom(packet.protocol, packet.destination_port) else {
        return Verdict::Drop(Reason::Unready);
    };
    if class.allow.contains(atom) {
        return Verdict::Pass(Grounds::Rule);
    }
    let denied = class.deny.contains(atom);
    if !denied {
        if class.audit.contains(atom) {
            return Verdict::Audit;
        }
        if let Some(grant) = tables.learned(packet, atom) {
            return Verdict::Pass(Grounds::Learned(grant));
        }
    }
    // An outbound deny rule does not cut a connection that came in.
    match tables.flow(&flow_key(packet), atom) {
        Some(flow) if !denied || flow.origin == FLOW_INBOUND => Verdict::Pass(Grounds::Flow(flow)),
        _ if denied => Verdict::Drop(Reason::DeniedByRule),
        _ => Verdict::Drop(Reason::NoRule),
    }
}

/// Whether this protocol and the resolver's port are those of DNS as the filter reads it.
#[must_use]
#[inline(always)]
pub const fn is_dns(protocol: u8, port: u16) -> bool {
    (protocol == UDP || protocol == TCP) && port == DNS_PORT
}

/// The flow of a packet that leaves.
#[must_use]
#[inline(always)]
pub const fn flow_key(packet: &Packet) -> FlowKey {
    FlowKey {
        local: packet.source,
        remote: packet.destination,
        local_port: packet.source_port,
        remote_port: packet.destination_port,
        protocol: packet.protocol,
        padding: [0; 3],
    }
}

/// The flow of a packet that arrives.
#[must_use]
#[inline(always)]
pub const fn inbound_flow_key(packet: &Packet) -> FlowKey {
    FlowKey {
        local: packet.destination,
        remote: packet.source,
        local_port: packet.destination_port,
        remote_port: packet.source_port,
        protocol: packet.protocol,
        padding: [0; 3],
    }
}

#[must_use]
#[inline(always)]
pub const fn fragment_key(packet: &Packet, id: u32) -> FragmentKey {
    FragmentKey {
        source: packet.source,
        destination: packet.destination,
        id,
        protocol: packet.protocol,
        padding: [0; 3],
    }
}

/// Seconds that a flow of this protocol may be silent.
#[must_use]
#[inline(always)]
pub const fn idle(protocol: u8) -> u32 {
    if protocol == TCP {
        FLOW_IDLE_TCP
    } else {
        FLOW_IDLE_OTHER
    }
}

/// Whether a flow may go on: not silent for too long, and what admitted it is
/// still granted. `atom_of` cuts (protocol, port); `name_allows` asks a name for the packet's atom.
#[inline(always)]
pub fn flow_in_force(
    flow: &Flow,
    key: &FlowKey,
    now: u32,
    settings: &Settings,
    atom_of: impl Fn(u8, u16) -> Option<u8>,
    name_allows: impl Fn(u32) -> bool,
) -> bool {
    if flow.until <= now {
        return false;
    }
    if flow.origin == FLOW_INBOUND {
        return atom_of(key.protocol, key.local_port)
            .is_some_and(|atom| settings.inbound.contains(atom));
    }
    name_allows(flow.origin)
}
