//! Reads the frame at hand into this processor's scratch.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netfilter_ebpf::{
    abi::{INTERFACE_BARE, INTERFACE_BONDED, INTERFACE_TAGGED, INTERFACE_UNREADABLE},
    packet::{self, Link, Packet},
    quote, surplus,
    verdict::Reason,
};

use crate::{interface, maps::Scratch, message::scratch, skb::Skb};

pub(crate) enum Frame {
    /// ARP, or LACP of a bond.
    Plumbing,
    Ip(&'static Packet),
}

/// Reads the frame. The reason is that to drop it.
#[inline(always)]
pub(crate) fn read(skb: &Skb) -> Result<Frame, Reason> {
    match netfilter_frame(skb.raw()) {
        PLUMBING => Ok(Frame::Plumbing),
        IP => scratch()
            .map(|scratch| Frame::Ip(&scratch.packet))
            .ok_or(Reason::TableFull),
        reason => Err(Reason::from_number(reason as u8).unwrap_or(Reason::Malformed)),
    }
}

/// Whether the packet in the scratch holds more than it says.
#[inline(always)]
pub(crate) fn has_surplus(skb: &Skb) -> bool {
    netfilter_surplus(skb.raw()) != 0
}

/// A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_surplus(raw: *mut __sk_buff) -> u64 {
    let Some(scratch) = scratch() else {
        return 1;
    };
    u64::from(surplus::check(&Skb::new(TcContext::new(raw)), &scratch.packet).is_err())
}

/// Reads what the ICMP error in the scratch quotes; [`quoted`] has it then.
#[inline(always)]
pub(crate) fn read_quote(skb: &Skb) {
    if let Some(Scratch { packet, quoted, .. }) = scratch() {
        quoted.protocol = NOTHING;
        if quote::is_error(packet.protocol, packet.kind) {
            netfilter_quote(skb.raw());
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

/// A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_quote(raw: *mut __sk_buff) -> u64 {
    let Some(Scratch { packet, quoted, .. }) = scratch() else {
        return 0;
    };
    match quote::answer(&Skb::new(TcContext::new(raw)), packet) {
        Some(answer) => {
            *quoted = answer;
            1
        }
        None => 0,
    }
}

const IP: u64 = 0x100;
const PLUMBING: u64 = 0x101;

/// A global function, see `message`. Returns the reason to drop the frame, or more.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_frame(raw: *mut __sk_buff) -> u64 {
    let Some(scratch) = scratch() else {
        return Reason::TableFull as u64;
    };
    let skb = Skb::new(TcContext::new(raw));
    // Who does not know how frames begin here cannot judge them.
    let Some(flags) = interface::flags(skb.ifindex()) else {
        return Reason::Unready as u64;
    };
    let link = if flags & INTERFACE_UNREADABLE != 0 {
        return Reason::Ethertype as u64;
    } else if flags & INTERFACE_BARE != 0 {
        Link::Bare(skb.ethertype())
    } else if flags & INTERFACE_BONDED != 0 {
        Link::Bonded
    } else if flags & INTERFACE_TAGGED != 0 {
        Link::Tagged
    } else {
        Link::Ethernet
    };
    match packet::parse_on(&skb, link) {
        Ok(packet::Frame::Arp | packet::Frame::Lacp) => PLUMBING,
        Ok(packet::Frame::Ip(packet)) => {
            scratch.packet = packet;
            IP
        }
        Err(reason) => reason as u64,
    }
}
