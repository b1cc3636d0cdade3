//! Tells the sender: the denied packet becomes its own refusal and is handed
//! back to the interface as if it had arrived.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_INVALIDATE_HASH, BPF_F_MARK_MANGLED_0},
    helpers::{
        bpf_redirect,
        generated::{bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_store_bytes},
    },
};
use netfilter_ebpf::{
    abi::INTERFACE_BARE,
    packet::{Fragment, ICMP, ICMPV6, Packet, TCP},
    refusal,
};

use crate::{
    interface,
    maps::{MAX_QUESTIONS, Scratch, refusal_mark},
    message::{UDP_HEADER, scratch},
    skb::{Skb, load},
    widen::widen,
};

/// Answers a denied question where it stands. `None` where that fails.
#[inline(always)]
pub(crate) fn question(skb: &Skb, packet: &Packet, rcode: u8) -> Option<i32> {
    let raw = skb.raw();
    let ipv6 = u64::from(!packet.destination.is_ipv4());
    (netfilter_answer(
        raw,
        packet.network as u64,
        packet.transport as u64,
        u64::from(rcode),
        ipv6,
    ) != 0)
        .then_some(())?;
    bounce(skb)
}

/// Refuses a packet with a reset or ICMP. `None` where there is nothing to send
/// back, or it fails: then the packet is dropped in silence.
#[inline(always)]
pub(crate) fn packet(skb: &Skb, packet: &Packet) -> Option<i32> {
    // Nobody is told of an error, of a part of a datagram, or for a group (RFC 1122 section 3.2.2).
    let error = match packet.protocol {
        ICMP => packet.kind != 8,
        ICMPV6 => packet.kind != 128,
        _ => false,
    };
    if error || !matches!(packet.fragment, Fragment::Whole) || is_group(packet) {
        return None;
    }
    let raw = skb.raw();
    let (network, transport) = (packet.network as u64, packet.transport as u64);
    let payload = (packet.end - packet.transport) as u64;
    let written = match (packet.protocol == TCP, packet.destination.is_ipv4()) {
        (true, true) => netfilter_reset_ipv4(raw, network, transport, payload),
        (true, false) => netfilter_reset_ipv6(raw, network, transport, payload),
        // Options would have to be quoted too.
        (false, true) if transport != network + 20 => return None,
        (false, true) => netfilter_prohibited_ipv4(raw, network),
        (false, false) => netfilter_prohibited_ipv6(raw, network),
    };
    (written != 0).then_some(())?;
    bounce(skb)
}

/// Answers the questions of a TCP segment where they stand, and ends the
/// connection; resets it where that cannot be. `None` where both fail.
#[inline(always)]
pub(crate) fn stream(skb: &Skb, packet: &Packet) -> Option<i32> {
    let in_place = scratch().is_some_and(|scratch| scratch.questions != 0);
    if in_place {
        let written = netfilter_answer_stream(
            skb.raw(),
            packet.network as u64,
            packet.transport as u64,
            packet.end as u64,
            u64::from(!packet.destination.is_ipv4()),
        );
        if written != 0 {
            return bounce(skb);
        }
    }
    self::packet(skb, packet)
}

/// Whether the packet is one that we handed back. It is like any other from here on.
#[inline(always)]
pub(crate) fn is_refusal(skb: &Skb) -> bool {
    let raw = skb.raw();
    // SAFETY: the context pointer that the kernel passed.
    unsafe {
        let ours = (*raw).mark == refusal_mark();
        if ours {
            (*raw).mark = 0;
        }
        ours
    }
}

/// Multicast or broadcast.
#[inline(always)]
const fn is_group(packet: &Packet) -> bool {
    let to = packet.destination;
    if to.is_ipv4() {
        to.low as u32 >= 0xe000_0000
    } else {
        to.high >> 56 == 0xff
    }
}

// What writes a refusal over the packet; not zero where that worked. Global
// functions, see `message`, each with a stack of its own.

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_answer(
    raw: *mut __sk_buff,
    network: u64,
    transport: u64,
    rcode: u64,
    ipv6: u64,
) -> u64 {
    u64::from(
        answer(
            raw,
            network as usize,
            transport as usize,
            rcode as u8,
            ipv6 != 0,
        )
        .is_some(),
    )
}

#[inline(always)]
fn answer(
    raw: *mut __sk_buff,
    network: usize,
    transport: usize,
    rcode: u8,
    ipv6: bool,
) -> Option<()> {
    let flags_at = transport + UDP_HEADER + 2;
    let flags: [u8; 2] = load(raw, flags_at)?;
    let response = refusal::response_flags(flags, rcode);
    turn_around(raw, network, transport, ipv6)?;
    replace(raw, transport, flags_at, flags, response, UDP_CHECKSUM)
}

/// Exchanges addresses and ports, which leaves sums as they are.
#[inline(always)]
fn turn_around(raw: *mut __sk_buff, network: usize, transport: usize, ipv6: bool) -> Option<()> {
    exchange::<2>(raw, transport)?;
    if ipv6 {
        exchange::<16>(raw, network + 8)
    } else {
        exchange::<4>(raw, network + 12)
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_answer_stream(
    raw: *mut __sk_buff,
    network: u64,
    transport: u64,
    end: u64,
    ipv6: u64,
) -> u64 {
    u64::from(
        answer_stream(
            raw,
            network as usize,
            transport as usize,
            end as usize,
            ipv6 != 0,
        )
        .is_some(),
    )
}

/// Makes the segment one from the resolver that goes on where its last one
/// ended, with its questions as responses, and a FIN.
#[inline(always)]
fn answer_stream(
    raw: *mut __sk_buff,
    network: usize,
    transport: usize,
    end: usize,
    ipv6: bool,
) -> Option<()> {
    const TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];
    let header: [u8; refusal::TCP_HEADER] = load(raw, transport)?;
    let length = (header[12] >> 4) as usize * 4;
    if length == refusal::TCP_HEADER + 12 {
        // What each end last heard of the other (RFC 7323 section 3.2).
        let options = transport + refusal::TCP_HEADER;
        let kind: [u8; 4] = load(raw, options)?;
        if kind != TIMESTAMPS {
            return None;
        }
        exchange::<4>(raw, options + 4)?;
    } else if length != refusal::TCP_HEADER {
        return None;
    }
    let payload = transport + length;
    for (at, word) in refusal::answered(&header, (end - payload) as u32) {
        let old = [header[at], header[at + 1]];
        replace(raw, transport, transport + at, old, word, TCP_CHECKSUM)?;
    }
    turn_around(raw, network, transport, ipv6)?;
    let mut at = payload;
    for index in 0..MAX_QUESTIONS {
        at = widen(at);
        if at >= end {
            break;
        }
        let [high, low]: [u8; 2] = load(raw, at)?;
        let flags: [u8; 2] = load(raw, at + 4)?;
        let rcode = scratch().map(|Scratch { rcodes, .. }| rcodes[index])?;
        let response = refusal::response_flags(flags, rcode);
        replace(raw, transport, at + 4, flags, response, TCP_CHECKSUM)?;
        at += 2 + u16::from_be_bytes([high, low]) as usize;
    }
    Some(())
}

/// Where a checksum is in its header; in the high half what to make of a sum of zero.
pub(crate) const TCP_CHECKSUM: u64 = 16;
pub(crate) const UDP_CHECKSUM: u64 = 6 | (BPF_F_MARK_MANGLED_0 as u64) << 32;

/// Replaces two bytes and mends the checksum.
#[inline(always)]
fn replace(
    raw: *mut __sk_buff,
    transport: usize,
    at: usize,
    old: [u8; 2],
    new: [u8; 2],
    checksum: u64,
) -> Option<()> {
    let words = u64::from(u16::from_ne_bytes(old)) << 16 | u64::from(u16::from_ne_bytes(new));
    (netfilter_replace(raw, transport as u64, at as u64, words, checksum) != 0).then_some(())
}

/// Lowers the number at `at` in a UDP datagram to `limit`. `None` where that fails.
#[inline(always)]
pub(crate) fn lower(raw: *mut __sk_buff, transport: usize, at: usize, limit: u16) -> Option<()> {
    let old: [u8; 2] = load(raw, at)?;
    if u16::from_be_bytes(old) <= limit {
        return Some(());
    }
    replace(raw, transport, at, old, limit.to_be_bytes(), UDP_CHECKSUM)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_replace(
    raw: *mut __sk_buff,
    transport: u64,
    at: u64,
    words: u64,
    checksum: u64,
) -> u64 {
    let (old, new) = ((words >> 16) as u16, words as u16);
    // At an odd distance each byte is the other half of a word of the sum.
    let (from, to) = if (at - transport) & 1 == 0 {
        (old, new)
    } else {
        (old.swap_bytes(), new.swap_bytes())
    };
    if store(raw, at as usize, &new).is_none() {
        return 0;
    }
    // SAFETY: the context pointer that the kernel passed.
    let result = unsafe {
        bpf_l4_csum_replace(
            raw,
            transport as u32 + checksum as u32,
            u64::from(from),
            u64::from(to),
            2 | checksum >> 32,
        )
    };
    u64::from(result == 0)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_reset_ipv4(
    raw: *mut __sk_buff,
    network: u64,
    transport: u64,
    payload: u64,
) -> u64 {
    let written = load::<[u8; refusal::IPV4_HEADER]>(raw, network as usize).and_then(|header| {
        let tcp = reset(raw, transport as usize, payload as u32, &header[12..])?;
        write(raw, network as usize + refusal::IPV4_HEADER, &tcp)?;
        store(
            raw,
            network as usize,
            &refusal::ipv4(
                &header,
                (refusal::IPV4_HEADER + refusal::TCP_HEADER) as u8,
                TCP,
            ),
        )
    });
    u64::from(written.is_some())
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_reset_ipv6(
    raw: *mut __sk_buff,
    network: u64,
    transport: u64,
    payload: u64,
) -> u64 {
    let written = load::<[u8; 32]>(raw, network as usize + 8).and_then(|addresses| {
        let tcp = reset(raw, transport as usize, payload as u32, &addresses)?;
        write(raw, network as usize + refusal::IPV6_HEADER, &tcp)?;
        store(
            raw,
            network as usize + 4,
            &refusal::ipv6(refusal::TCP_HEADER as u8, TCP),
        )?;
        exchange::<16>(raw, network as usize + 8)
    });
    u64::from(written.is_some())
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_prohibited_ipv4(raw: *mut __sk_buff, network: u64) -> u64 {
    let written = load(raw, network as usize).and_then(|refused| {
        write(raw, network as usize + refusal::PROHIBITED_IPV4, &refused)?;
        store(raw, network as usize, &refusal::prohibited_ipv4(&refused))
    });
    u64::from(written.is_some())
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_prohibited_ipv6(raw: *mut __sk_buff, network: u64) -> u64 {
    let written = load(raw, network as usize).and_then(|refused| {
        let icmp = network as usize + refusal::IPV6_HEADER;
        write(raw, icmp + refusal::ICMP_HEADER, &refused)?;
        store(raw, icmp, &refusal::prohibited_ipv6(&refused))?;
        store(
            raw,
            network as usize + 4,
            &refusal::ipv6(refusal::PROHIBITED_IPV6 as u8, ICMPV6),
        )?;
        exchange::<16>(raw, network as usize + 8)
    });
    u64::from(written.is_some())
}

#[inline(always)]
fn reset(
    raw: *mut __sk_buff,
    transport: usize,
    payload: u32,
    addresses: &[u8],
) -> Option<[u8; refusal::TCP_HEADER]> {
    let segment: [u8; refusal::TCP_HEADER] = load(raw, transport)?;
    let header = u32::from(segment[12] >> 4) * 4;
    refusal::reset(&segment, payload.saturating_sub(header), addresses)
}

/// Cuts or extends the packet to end behind `bytes` at `offset`.
#[inline(always)]
fn write<const N: usize>(raw: *mut __sk_buff, offset: usize, bytes: &[u8; N]) -> Option<()> {
    // SAFETY: the context pointer that the kernel passed.
    let result = unsafe { bpf_skb_change_tail(raw, (offset + N) as u32, 0) };
    (result == 0).then_some(())?;
    store(raw, offset, bytes)
}

/// Sends the packet back up the interface that it was to leave by.
#[inline(always)]
fn bounce(skb: &Skb) -> Option<i32> {
    let raw = skb.raw();
    if interface::flags(skb.ifindex())? & INTERFACE_BARE == 0 {
        exchange::<6>(raw, 0)?;
    }
    // SAFETY: the context pointer that the kernel passed.
    unsafe { (*raw).mark = refusal_mark() };
    // SAFETY: a helper without pointers.
    Some(unsafe { bpf_redirect(skb.ifindex(), u64::from(BPF_F_INGRESS)) } as i32)
}

/// Exchanges two neighbours of `N` bytes at `offset`.
#[inline(always)]
fn exchange<const N: usize>(raw: *mut __sk_buff, offset: usize) -> Option<()> {
    let [one, other]: [[u8; N]; 2] = load(raw, offset)?;
    store(raw, offset, &other)?;
    store(raw, offset + N, &one)
}

#[inline(always)]
fn store<T: Copy>(raw: *mut __sk_buff, offset: usize, value: &T) -> Option<()> {
    let from = core::ptr::from_ref(value).cast();
    let flags = u64::from(BPF_F_INVALIDATE_HASH);
    // SAFETY: the context pointer that the kernel passed, and the value's own bytes.
    let result =
        unsafe { bpf_skb_store_bytes(raw, offset as u32, from, size_of::<T>() as u32, flags) };
    (result == 0).then_some(())
}
