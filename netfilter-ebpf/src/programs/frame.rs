//! Reads the frame at hand into this processor's scratch.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netfilter_ebpf::{
    packet::{self, Packet},
    verdict::Reason,
};

use crate::{message::scratch, skb::Skb};

pub(crate) enum Frame {
    Arp,
    Ip(&'static Packet),
}

/// Reads the frame. The reason is that to drop it.
#[inline(always)]
pub(crate) fn read(skb: &Skb) -> Result<Frame, Reason> {
    match netfilter_frame(skb.raw()) {
        ARP => Ok(Frame::Arp),
        IP => scratch()
            .map(|scratch| Frame::Ip(&scratch.packet))
            .ok_or(Reason::TableFull),
        reason => Err(Reason::from_number(reason as u8).unwrap_or(Reason::Malformed)),
    }
}

const IP: u64 = 0x100;
const ARP: u64 = 0x101;

/// A global function, see `message`. Returns the reason to drop the frame, or more.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_frame(raw: *mut __sk_buff) -> u64 {
    let Some(scratch) = scratch() else {
        return Reason::TableFull as u64;
    };
    match packet::parse(&Skb::new(TcContext::new(raw))) {
        Ok(packet::Frame::Arp) => ARP,
        Ok(packet::Frame::Ip(packet)) => {
            scratch.packet = packet;
            IP
        }
        Err(reason) => reason as u64,
    }
}
