//! The decision on a packet that leaves.

use crate::{
    abi::{ATOM_LINK, Address, CLASS_RESOLVER, Class, FlowKey, FragmentKey, Grant},
    packet::{DNS_PORT, Fragment, Packet, TCP, UDP},
    plumbing, quote,
    verdict::{Grounds, Reason, Verdict},
};

/// What the decision looks up. BPF maps in the kernel; vectors in user space.
pub trait Tables {
    /// The atom of (protocol, destination port).
    fn atom(&self, protocol: u8, port: u16) -> Option<u8>;
    /// Whether a lease or a flow may be stored for an address. Where it says no, there is none.
    fn knows(&self, remote: Address) -> bool;
    /// What names lend the packet's destination for this atom now.
    fn learned(&self, packet: &Packet, atom: u8) -> Option<Lent>;
    /// Whether the packet belongs to a flow that is in force now and whose
    /// origin still grants the atom.
    fn flow(&self, packet: &Packet, atom: u8) -> Option<Origin>;
    /// Of an ICMP error: the packet that would answer the one it quotes.
    fn quoted(&self, error: &Packet) -> Option<&Packet>;
    /// Whether [`plumbing::read`] takes the packet for such.
    fn is_plumbing(&self, packet: &Packet) -> bool;
    /// Whether the first fragment of this datagram passed.
    fn fragment(&self, key: &FragmentKey) -> bool;
    /// Seconds of CLOCK_BOOTTIME.
    fn now(&self) -> u32;
}

/// A grant that is in force, by what its name's rules do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lent {
    Allowed(Grant),
    /// No name allows it.
    Audited(Grant),
}

/// What admitted a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Name,
    /// A name whose rules only audit it.
    Audited,
    Inbound,
}

/// Judges a packet, of whose destination this is the class; `None` while no policy is loaded. An
/// ICMP error that no rule lets out is judged as the packet that would answer the one it quotes.
#[inline(always)]
pub fn decide<T: Tables>(packet: &Packet, class: Option<&Class>, tables: &T) -> Verdict {
    let is_plumbing = tables.is_plumbing(packet);
    if is_plumbing && plumbing::is_on_link(packet.destination) {
        return Verdict::Pass(Grounds::Plumbing);
    }
    if let Fragment::Later(id) = packet.fragment {
        return if tables.fragment(&fragment_key(packet, id)) {
            Verdict::Pass(Grounds::Fragment)
        } else {
            Verdict::Drop(Reason::Fragment)
        };
    }
    let Some(class) = class else {
        return Verdict::Drop(Reason::Unready);
    };
    if class.flags & CLASS_RESOLVER != 0 && is_dns(packet.protocol, packet.destination_port) {
        return Verdict::Ask;
    }
    let Some(mut atom) = tables.atom(packet.protocol, packet.destination_port) else {
        return Verdict::Drop(Reason::Unready);
    };
    // What a rule allows has no rate.
    if class.allow.contains(atom) {
        return Verdict::Pass(Grounds::Rule);
    }
    if is_plumbing && class.allow.contains(ATOM_LINK) {
        return Verdict::Pass(Grounds::Plumbing);
    }
    let mut judged = packet;
    if quote::is_error(packet.protocol, packet.kind) {
        // Its own destination is that of what it stands for.
        let Some(answer) = tables.quoted(packet) else {
            return Verdict::Drop(Reason::NoRule);
        };
        // Nobody reads what a quoted question says.
        if class.flags & CLASS_RESOLVER != 0 && is_dns(answer.protocol, answer.destination_port) {
            return Verdict::Drop(Reason::NoRule);
        }
        let Some(of_answer) = tables.atom(answer.protocol, answer.destination_port) else {
            return Verdict::Drop(Reason::Unready);
        };
        (judged, atom) = (answer, of_answer);
        if class.allow.contains(atom) {
            return Verdict::Pass(Grounds::Rule);
        }
    }
    let denied = class.deny.contains(atom);
    if !denied && class.audit.contains(atom) {
        return Verdict::Audit(None);
    }
    let is_known = tables.knows(judged.destination);
    let mut audited = None;
    if !denied && is_known {
        audited = match tables.learned(judged, atom) {
            Some(Lent::Allowed(grant)) => return Verdict::Pass(Grounds::Learned(grant)),
            Some(Lent::Audited(grant)) => Some(grant),
            None => None,
        };
    }
    let flow = match is_known {
        true => tables.flow(judged, atom),
        false => None,
    };
    match flow {
        // An outbound deny rule does not cut a connection that came in.
        Some(Origin::Inbound) => Verdict::Pass(Grounds::Flow),
        _ if denied => Verdict::Drop(Reason::DeniedByRule),
        Some(Origin::Name) => Verdict::Pass(Grounds::Flow),
        Some(Origin::Audited) => Verdict::Audit(audited),
        None if audited.is_some() => Verdict::Audit(audited),
        None => Verdict::Drop(Reason::NoRule),
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
        padding: 0,
        more_padding: 0,
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
        padding: 0,
        more_padding: 0,
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
        padding: 0,
        more_padding: 0,
    }
}
