//! Reads the frame at hand into this processor's scratch.

use netfilter_ebpf::{
    abi::{INTERFACE_BARE, INTERFACE_BONDED, INTERFACE_TAGGED, INTERFACE_UNREADABLE},
    packet::{self, Link, Packet},
    quote, surplus,
    verdict::Reason,
};

use crate::{
    buffer::{Buffer, seam},
    interface::{self, Place},
    maps::Scratch,
    message::scratch,
};

pub(crate) enum Frame {
    /// ARP, or LACP of a bond.
    Plumbing,
    Ip(&'static Packet),
}

/// What `then` makes of a plain packet, as nearly every one is, without the scratch; see
/// [`packet::plain::read`]. `None` of itself: it must be [`read`], or there is none.
#[inline(always)]
pub(crate) fn plain<B: Buffer, T>(
    buffer: &B,
    interface: Place,
    then: impl FnOnce(Packet) -> Option<T>,
) -> Option<T> {
    match interface.flags & (INTERFACE_UNREADABLE | INTERFACE_BARE) {
        0 => packet::plain::read(buffer, then),
        _ => None,
    }
}

/// Puts a plain packet into the scratch, for what looks for it there.
#[inline(always)]
pub(crate) fn park(packet: &Packet) {
    if let Some(scratch) = scratch() {
        scratch.packet = *packet;
        scratch.quoted.protocol = NOTHING;
        scratch.plumbing = 0;
    }
}

/// The packet in the scratch.
#[inline(always)]
pub(crate) fn parked() -> Option<&'static Packet> {
    scratch().map(|scratch| &scratch.packet)
}

/// Reads the frame. The reason is that to drop it.
#[inline(always)]
pub(crate) fn read<B: Buffer>(buffer: &B) -> Result<Frame, Reason> {
    match parse(buffer) {
        PLUMBING => Ok(Frame::Plumbing),
        IP => scratch()
            .map(|scratch| Frame::Ip(&scratch.packet))
            .ok_or(Reason::TableFull),
        reason => Err(Reason::from_number(reason as u8).unwrap_or(Reason::Malformed)),
    }
}

/// Whether the packet in the scratch holds more than it says.
#[inline(always)]
pub(crate) fn has_surplus<B: Buffer>(buffer: &B) -> bool {
    surplus(buffer) != 0
}

seam! {
    fn surplus = (netfilter_surplus, xdp_surplus)<B>(buffer) {
        buffer.gather();
        let Some(scratch) = scratch() else {
            return 1;
        };
        u64::from(surplus::check(buffer, &scratch.packet).is_err())
    }
}

/// Reads what the ICMP error in the scratch quotes; [`quoted`] has it then.
#[inline(always)]
pub(crate) fn read_quote<B: Buffer>(buffer: &B) {
    if let Some(Scratch { packet, quoted, .. }) = scratch() {
        quoted.protocol = NOTHING;
        if quote::is_error(packet.protocol, packet.kind) {
            quoting(buffer);
        }
    }
}

/// The packet that would answer what the ICMP error in the scratch quotes.
#[inline(always)]
pub(crate) fn quoted() -> Option<&'static Packet> {
    scratch()
        .map(|scratch| &scratch.quoted)
        .filter(|quoted| quoted.protocol != NOTHING)
}

/// Reserved (IANA).
const NOTHING: u8 = 255;

seam! {
    fn quoting = (netfilter_quote, xdp_quote)<B>(buffer) {
        let Some(Scratch { packet, quoted, .. }) = scratch() else {
            return 0;
        };
        buffer.gather();
        match quote::answer(buffer, packet) {
            Some(answer) => {
                *quoted = answer;
                1
            }
            None => 0,
        }
    }
}

const IP: u64 = 0x100;
const PLUMBING: u64 = 0x101;

seam! {
    /// Returns the reason to drop the frame, or more.
    fn parse = (netfilter_frame, xdp_frame)<B>(buffer) {
        let Some(scratch) = scratch() else {
            return Reason::TableFull as u64;
        };
        buffer.gather();
        // Who does not know how frames begin here cannot judge them.
        let Some(flags) = interface::flags(buffer.ifindex()) else {
            return Reason::Unready as u64;
        };
        let link = if flags & INTERFACE_UNREADABLE != 0 {
            return Reason::Ethertype as u64;
        } else if flags & INTERFACE_BARE != 0 {
            match buffer.bare() {
                Some(link) => link,
                None => return Reason::Ethertype as u64,
            }
        } else if flags & INTERFACE_BONDED != 0 {
            Link::Bonded
        } else if flags & INTERFACE_TAGGED != 0 {
            Link::Tagged
        } else {
            Link::Ethernet
        };
        match packet::parse_on(buffer, link) {
            Ok(packet::Frame::Arp | packet::Frame::Lacp) => PLUMBING,
            Ok(packet::Frame::Ip(packet)) => {
                scratch.packet = packet;
                IP
            }
            Err(reason) => reason as u64,
        }
    }
}
