//! Tells the sender: the denied packet becomes its own refusal and is handed
//! back to the interface as if it had arrived.

use aya_ebpf::bindings::BPF_F_MARK_MANGLED_0;
use netfilter_ebpf::{
    abi::INTERFACE_BARE,
    packet::{Fragment, ICMP, ICMPV6, Packet, TCP},
    refusal,
};

use crate::{
    buffer::{Buffer, seam},
    interface,
    maps::{MAX_QUESTIONS, Scratch, refusal_mark},
    message::{UDP_HEADER, scratch},
    skb::Skb,
    widen::widen,
};

/// Answers a denied question where it stands. `None` where that fails.
#[inline(always)]
pub(crate) fn question<B: Buffer>(buffer: &B, packet: &Packet, rcode: u8) -> Option<i32> {
    let ipv6 = u64::from(!packet.destination.is_ipv4());
    (answer(
        buffer,
        packet.network as u64,
        packet.transport as u64,
        u64::from(rcode),
        ipv6,
    ) != 0)
        .then_some(())?;
    bounce(buffer)
}

/// Refuses a packet with a reset or ICMP. `None` where there is nothing to send
/// back, or it fails: then the packet is dropped in silence.
#[inline(always)]
pub(crate) fn packet<B: Buffer>(buffer: &B, packet: &Packet) -> Option<i32> {
    // Nobody is told of an error, of a part of a datagram, or for a group (RFC 1122 section 3.2.2).
    let error = match packet.protocol {
        ICMP => packet.kind != 8,
        ICMPV6 => packet.kind != 128,
        _ => false,
    };
    if error || !matches!(packet.fragment, Fragment::Whole) || is_group(packet) {
        return None;
    }
    let (network, transport) = (packet.network as u64, packet.transport as u64);
    let payload = (packet.end - packet.transport) as u64;
    let written = match (packet.protocol == TCP, packet.destination.is_ipv4()) {
        (true, true) => reset_ipv4(buffer, network, transport, payload),
        (true, false) => reset_ipv6(buffer, network, transport, payload),
        // Options would have to be quoted too.
        (false, true) if transport != network + 20 => return None,
        (false, true) => prohibited_ipv4(buffer, network),
        (false, false) => prohibited_ipv6(buffer, network),
    };
    (written != 0).then_some(())?;
    bounce(buffer)
}

/// Answers the questions of a TCP segment where they stand, and ends the
/// connection; resets it where that cannot be. `None` where both fail.
#[inline(always)]
pub(crate) fn stream<B: Buffer>(buffer: &B, packet: &Packet) -> Option<i32> {
    let in_place = scratch().is_some_and(|scratch| scratch.questions != 0);
    if in_place {
        let written = answer_stream(
            buffer,
            packet.network as u64,
            packet.transport as u64,
            packet.end as u64,
            u64::from(!packet.destination.is_ipv4()),
        );
        if written != 0 {
            return bounce(buffer);
        }
    }
    self::packet(buffer, packet)
}

/// Whether the packet is one that we handed back. It is like any other from here on.
#[inline(always)]
pub(crate) fn is_refusal(skb: &Skb) -> bool {
    let raw = skb.skb();
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

seam! {
    fn answer = (netfilter_answer, xdp_answer)
    <B>(buffer, network: u64, transport: u64, rcode: u64, ipv6: u64) {
        let (network, transport) = (network as usize, transport as usize);
        u64::from(answer_datagram(buffer, network, transport, rcode as u8, ipv6 != 0).is_some())
    }
}

#[inline(always)]
fn answer_datagram<B: Buffer>(
    buffer: &B,
    network: usize,
    transport: usize,
    rcode: u8,
    ipv6: bool,
) -> Option<()> {
    let flags_at = transport + UDP_HEADER + 2;
    let flags: [u8; 2] = buffer.load(flags_at)?;
    let response = refusal::response_flags(flags, rcode);
    turn_around(buffer, network, transport, ipv6)?;
    replace(buffer, transport, flags_at, flags, response, UDP_CHECKSUM)?;
    let end = scratch()?.packet.end;
    buffer.seal(transport, end, UDP_CHECKSUM)
}

/// Exchanges addresses and ports, which leaves sums as they are.
#[inline(always)]
fn turn_around<B: Buffer>(buffer: &B, network: usize, transport: usize, ipv6: bool) -> Option<()> {
    exchange::<_, 2>(buffer, transport)?;
    if ipv6 {
        exchange::<_, 16>(buffer, network + 8)
    } else {
        exchange::<_, 4>(buffer, network + 12)
    }
}

seam! {
    fn answer_stream = (netfilter_answer_stream, xdp_answer_stream)
    <B>(buffer, network: u64, transport: u64, end: u64, ipv6: u64) {
        let (network, transport, end) = (network as usize, transport as usize, end as usize);
        u64::from(answer_segment(buffer, network, transport, end, ipv6 != 0).is_some())
    }
}

/// Makes the segment one from the resolver that goes on where its last one
/// ended, with its questions as responses, and a FIN.
#[inline(always)]
fn answer_segment<B: Buffer>(
    buffer: &B,
    network: usize,
    transport: usize,
    end: usize,
    ipv6: bool,
) -> Option<()> {
    const TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];
    if !B::can_seal(end - transport) {
        return None;
    }
    let header: [u8; refusal::TCP_HEADER] = buffer.load(transport)?;
    let length = (header[12] >> 4) as usize * 4;
    if length == refusal::TCP_HEADER + 12 {
        // What each end last heard of the other (RFC 7323 section 3.2).
        let options = transport + refusal::TCP_HEADER;
        let kind: [u8; 4] = buffer.load(options)?;
        if kind != TIMESTAMPS {
            return None;
        }
        exchange::<_, 4>(buffer, options + 4)?;
    } else if length != refusal::TCP_HEADER {
        return None;
    }
    let payload = transport + length;
    for (at, word) in refusal::answered(&header, (end - payload) as u32) {
        let old = [header[at], header[at + 1]];
        replace(buffer, transport, transport + at, old, word, TCP_CHECKSUM)?;
    }
    turn_around(buffer, network, transport, ipv6)?;
    let mut at = payload;
    for index in 0..MAX_QUESTIONS {
        at = widen(at);
        if at >= end {
            break;
        }
        let [high, low]: [u8; 2] = buffer.load(at)?;
        let flags: [u8; 2] = buffer.load(at + 4)?;
        let rcode = scratch().map(|Scratch { rcodes, .. }| rcodes[index])?;
        let response = refusal::response_flags(flags, rcode);
        replace(buffer, transport, at + 4, flags, response, TCP_CHECKSUM)?;
        at += 2 + u16::from_be_bytes([high, low]) as usize;
    }
    buffer.seal(transport, end, TCP_CHECKSUM)
}

/// Where a checksum is in its header; in the high half what to make of a sum of zero.
pub(crate) const TCP_CHECKSUM: u64 = 16;
pub(crate) const UDP_CHECKSUM: u64 = 6 | (BPF_F_MARK_MANGLED_0 as u64) << 32;

/// Replaces two bytes and mends the checksum.
#[inline(always)]
fn replace<B: Buffer>(
    buffer: &B,
    transport: usize,
    at: usize,
    old: [u8; 2],
    new: [u8; 2],
    checksum: u64,
) -> Option<()> {
    let words = u64::from(u16::from_ne_bytes(old)) << 16 | u64::from(u16::from_ne_bytes(new));
    (replace_word(buffer, transport as u64, at as u64, words, checksum) != 0).then_some(())
}

/// Lowers the number at `at` in a UDP datagram to `limit`. `None` where that fails.
#[inline(always)]
pub(crate) fn lower<B: Buffer>(buffer: &B, transport: usize, at: usize, limit: u16) -> Option<()> {
    let old: [u8; 2] = buffer.load(at)?;
    if u16::from_be_bytes(old) <= limit {
        return Some(());
    }
    replace(
        buffer,
        transport,
        at,
        old,
        limit.to_be_bytes(),
        UDP_CHECKSUM,
    )
}

seam! {
    fn replace_word = (netfilter_replace, xdp_replace)
    <B>(buffer, transport: u64, at: u64, words: u64, checksum: u64) {
        let (old, new) = ((words >> 16) as u16, words as u16);
        // At an odd distance each byte is the other half of a word of the sum.
        let (from, to) = if (at - transport) & 1 == 0 {
            (old, new)
        } else {
            (old.swap_bytes(), new.swap_bytes())
        };
        let mended = buffer
            .store(at as usize, &new)
            .and_then(|()| buffer.mend(transport as usize, from, to, checksum));
        u64::from(mended.is_some())
    }
}

seam! {
    fn reset_ipv4 = (netfilter_reset_ipv4, xdp_reset_ipv4)
    <B>(buffer, network: u64, transport: u64, payload: u64) {
        let network = network as usize;
        let header = buffer.load::<[u8; refusal::IPV4_HEADER]>(network);
        let written = header.and_then(|header| {
            let tcp = reset(buffer, transport as usize, payload as u32, &header[12..])?;
            write(buffer, network + refusal::IPV4_HEADER, &tcp)?;
            let length = (refusal::IPV4_HEADER + refusal::TCP_HEADER) as u8;
            buffer.store(network, &refusal::ipv4(&header, length, TCP))
        });
        u64::from(written.is_some())
    }
}

seam! {
    fn reset_ipv6 = (netfilter_reset_ipv6, xdp_reset_ipv6)
    <B>(buffer, network: u64, transport: u64, payload: u64) {
        let network = network as usize;
        let written = buffer.load::<[u8; 32]>(network + 8).and_then(|addresses| {
            let tcp = reset(buffer, transport as usize, payload as u32, &addresses)?;
            write(buffer, network + refusal::IPV6_HEADER, &tcp)?;
            let header = refusal::ipv6(refusal::TCP_HEADER as u8, TCP);
            buffer.store(network + 4, &header)?;
            exchange::<_, 16>(buffer, network + 8)
        });
        u64::from(written.is_some())
    }
}

seam! {
    fn prohibited_ipv4 = (netfilter_prohibited_ipv4, xdp_prohibited_ipv4)
    <B>(buffer, network: u64) {
        let network = network as usize;
        let written = buffer.load(network).and_then(|refused| {
            write(buffer, network + refusal::PROHIBITED_IPV4, &refused)?;
            buffer.store(network, &refusal::prohibited_ipv4(&refused))
        });
        u64::from(written.is_some())
    }
}

seam! {
    fn prohibited_ipv6 = (netfilter_prohibited_ipv6, xdp_prohibited_ipv6)
    <B>(buffer, network: u64) {
        let network = network as usize;
        let written = buffer.load(network).and_then(|refused| {
            let icmp = network + refusal::IPV6_HEADER;
            write(buffer, icmp + refusal::ICMP_HEADER, &refused)?;
            buffer.store(icmp, &refusal::prohibited_ipv6(&refused))?;
            let header = refusal::ipv6(refusal::PROHIBITED_IPV6 as u8, ICMPV6);
            buffer.store(network + 4, &header)?;
            exchange::<_, 16>(buffer, network + 8)
        });
        u64::from(written.is_some())
    }
}

#[inline(always)]
fn reset<B: Buffer>(
    buffer: &B,
    transport: usize,
    payload: u32,
    addresses: &[u8],
) -> Option<[u8; refusal::TCP_HEADER]> {
    let segment: [u8; refusal::TCP_HEADER] = buffer.load(transport)?;
    let header = u32::from(segment[12] >> 4) * 4;
    refusal::reset(&segment, payload.saturating_sub(header), addresses)
}

/// Cuts or extends the packet to end behind `bytes` at `offset`.
#[inline(always)]
fn write<B: Buffer, const N: usize>(buffer: &B, offset: usize, bytes: &[u8; N]) -> Option<()> {
    buffer.resize((offset + N) as u32)?;
    buffer.store(offset, bytes)
}

/// Sends the packet back to its sender.
#[inline(always)]
fn bounce<B: Buffer>(buffer: &B) -> Option<i32> {
    if interface::flags(buffer.ifindex())? & INTERFACE_BARE == 0 {
        exchange::<_, 6>(buffer, 0)?;
    }
    buffer.bounce()
}

/// Exchanges two neighbours of `N` bytes at `offset`.
#[inline(always)]
fn exchange<B: Buffer, const N: usize>(buffer: &B, offset: usize) -> Option<()> {
    let [one, other]: [[u8; N]; 2] = buffer.load(offset)?;
    buffer.store(offset, &other)?;
    buffer.store(offset + N, &one)
}
