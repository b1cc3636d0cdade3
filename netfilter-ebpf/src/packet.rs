//! Bytes to a packet: Ethernet, VLAN tags, IPv4 and IPv6 with their options
//! and extension headers, ports. Whatever is truncated, contradicts itself or
//! asks for another route is refused with its reason.

use crate::{
    abi::Address,
    surplus,
    verdict::{Family, ProtocolLabel, Reason},
};

/// The bytes of a packet, from its Ethernet header on.
pub trait Bytes {
    /// Bytes of the whole packet.
    fn length(&self) -> usize;
    /// `N` bytes at `offset`; `None` where the packet is shorter.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
    /// `N` words of eight bytes at `offset`, as numbers in network order; `None` where the
    /// packet is shorter.
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u64; N]> {
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            *word = u64::from_be_bytes(self.read(offset + index * 8)?);
        }
        Some(words)
    }
    /// Eight bytes at `offset`; those behind the end are of any value.
    fn word(&self, offset: usize) -> [u8; 8] {
        core::array::from_fn(|index| self.read(offset + index).map_or(0, |[byte]| byte))
    }
    /// [`hash`] of these bytes.
    #[inline(always)]
    fn hash(&self, at: usize, length: usize, seed: u64) -> u64 {
        hash(self, at, length, seed)
    }
    /// The same number. At the head of a loop it makes the BPF verifier forget
    /// what the paths to here have taught it of the number, so that they all
    /// meet in one state and a loop costs its length, not its paths.
    #[must_use]
    #[inline(always)]
    fn widen(number: usize) -> usize {
        number
    }
}

impl Bytes for [u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

/// What a question of DNS has: a name with its root, type and class.
pub const MAX_HASHED: usize = 259;

/// A keyed hash of `length` bytes at `at`, at most [`MAX_HASHED`]. Not cryptographic: it only has to tell apart the questions that one
/// port asks at one time.
#[inline(always)]
pub fn hash<B: Bytes + ?Sized>(bytes: &B, at: usize, length: usize, seed: u64) -> u64 {
    let mut hash = seed;
    for index in 0..MAX_HASHED.div_ceil(8) {
        let before = index * 8;
        if before >= length {
            break;
        }
        let unused = 64usize.saturating_sub((length - before) * 8);
        let word = u64::from_le_bytes(bytes.word(at + before)) << unused;
        let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = product ^ product >> 29;
    }
    hash
}

pub mod plain;

pub const ETHERNET_HEADER: usize = 14;
/// IEEE 802.1Q allows more; two are what networks use.
const MAX_VLAN_TAGS: usize = 2;
/// RFC 8200 section 4.1 lists seven.
const MAX_EXTENSION_HEADERS: usize = 7;
/// Bytes of extension headers, so that the rest lies within what a hook can see.
const MAX_EXTENSION_BYTES: usize = 512;
/// Options of an IPv4 header: 60 bytes less the fixed 20.
const MAX_IPV4_OPTIONS: usize = 40;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const ETHERTYPE_SLOW: u16 = 0x8809;

pub const ICMP: u8 = 1;
pub const IGMP: u8 = 2;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

pub const DNS_PORT: u16 = 53;

// Flags of a TCP segment (RFC 9293 section 3.1).
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// A frame that may be let out if its content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Exactly an ARP packet for IPv4 over Ethernet (RFC 826).
    Arp,
    /// Exactly a message by which a bond negotiates with the switch.
    Lacp,
    Ip(Packet),
}

/// An IPv4 or IPv6 packet. Offsets are in bytes from the start of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    pub source: Address,
    pub destination: Address,
    /// IP protocol number, behind the extension headers.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hops: u8,
    pub fragment: Fragment,
    /// Zero where the protocol has no ports. Of ICMP echo: its identifier, in both.
    pub source_port: u16,
    pub destination_port: u16,
    /// Type of an ICMP or ICMPv6 message; flags of a TCP segment; else zero.
    pub kind: u8,
    /// Of a TCP segment, else zero: its first number, the one that acknowledges
    /// it whole, and what it acknowledges.
    pub sequence: u32,
    pub next: u32,
    pub acknowledged: u32,
    /// Offset of the IP header.
    pub network: usize,
    /// Offset behind the IP header and its extensions.
    pub transport: usize,
    /// Offset behind the packet's last byte.
    pub end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// Not a fragment, or an atomic one (RFC 6946).
    Whole,
    First(u32),
    Later(u32),
}

impl Packet {
    /// A whole packet of which no more than this was read. `transport` is where what follows
    /// the IP header begins.
    #[must_use]
    #[inline(always)]
    pub const fn between(
        source: Address,
        destination: Address,
        protocol: u8,
        transport: usize,
    ) -> Self {
        Self {
            source,
            destination,
            protocol,
            hops: 0,
            fragment: Fragment::Whole,
            source_port: 0,
            destination_port: 0,
            kind: 0,
            sequence: 0,
            next: 0,
            acknowledged: 0,
            network: 0,
            transport,
            end: 0,
        }
    }

    #[must_use]
    pub const fn family(&self) -> Family {
        if self.destination.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        }
    }

    #[must_use]
    pub const fn protocol_label(&self) -> ProtocolLabel {
        match self.protocol {
            TCP => ProtocolLabel::Tcp,
            UDP => ProtocolLabel::Udp,
            ICMP | ICMPV6 => ProtocolLabel::Icmp,
            _ => ProtocolLabel::Other,
        }
    }
}

/// What stands before the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header. A VLAN's tag is set aside by the kernel until the frame is
    /// on the wire, so there is none.
    Ethernet,
    /// An Ethernet header, and tags that are not set aside, as of a VLAN in a VLAN.
    Tagged,
    /// As [`Tagged`](Self::Tagged), of a member of a bond.
    Bonded,
    /// Nothing; the kernel says that this EtherType is what it is.
    Bare(u16),
}

/// Reads a frame from its Ethernet header on.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(bytes: &B) -> Result<Frame, Reason> {
    parse_on(bytes, Link::Ethernet)
}

/// Reads a frame of an interface of this kind.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn parse_on<B: Bytes + ?Sized>(bytes: &B, link: Link) -> Result<Frame, Reason> {
    let (ethertype, network) = match link {
        Link::Bare(ethertype) => (ethertype, 0),
        Link::Ethernet => ethernet(bytes, 0)?,
        Link::Tagged | Link::Bonded => ethernet(bytes, MAX_VLAN_TAGS)?,
    };
    let network = B::widen(network);
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(bytes, network).map(Frame::Ip),
        ETHERTYPE_IPV6 => ipv6(bytes, network).map(Frame::Ip),
        ETHERTYPE_ARP if !matches!(link, Link::Bare(_)) => arp(bytes, network),
        ETHERTYPE_SLOW if link == Link::Bonded => lacp(bytes),
        _ => Err(Reason::Ethertype),
    }
}

/// The EtherType behind the tags, and where what it names begins.
#[inline(always)]
fn ethernet<B: Bytes + ?Sized>(bytes: &B, tags: usize) -> Result<(u16, usize), Reason> {
    let mut offset = ETHERNET_HEADER - 2;
    let mut ethertype = u16::from_be_bytes(bytes.read(offset).ok_or(Reason::Malformed)?);
    for tag in 0..MAX_VLAN_TAGS {
        if tag >= tags {
            break;
        }
        if ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ {
            offset += 4;
            ethertype = u16::from_be_bytes(bytes.read(offset).ok_or(Reason::Malformed)?);
        }
    }
    Ok((ethertype, offset + 2))
}

/// An LACPDU, untagged, to the group that bridges never forward (IEEE 802.1AX-2014
/// sections 6.2.10 and 6.4.2.3): with its TLVs and nothing in what is reserved.
#[inline(always)]
fn lacp<B: Bytes + ?Sized>(bytes: &B) -> Result<Frame, Reason> {
    const LENGTH: usize = ETHERNET_HEADER + 110;
    let exact = bytes.length() == LENGTH
        && bytes.read(0) == Some([0x01, 0x80, 0xc2, 0, 0, 2])
        && bytes.read(12) == Some([0x88, 0x09, 1, 1, 1, 20]) // LACP version 1, actor
        && bytes.read(33) == Some([0, 0, 0, 2, 20]) // partner
        && bytes.read(53) == Some([0, 0, 0, 3, 16]) // collector
        && bytes.read(60) == Some([0; 14]) // terminator
        && bytes.read(74) == Some([0; 50]);
    if exact {
        Ok(Frame::Lacp)
    } else {
        Err(Reason::Ethertype)
    }
}

/// ARP passes only if nothing else can hide in it: no other hardware or
/// protocol type, nothing behind it but padding, and no hardware addresses that
/// its frame has not. Of a target that is not known, some send all ones.
#[inline(always)]
fn arp<B: Bytes + ?Sized>(bytes: &B, offset: usize) -> Result<Frame, Reason> {
    const LENGTH: usize = 28;
    let header: [u8; 8] = bytes.read(offset).ok_or(Reason::Malformed)?;
    let [receiver, frame_sender]: [[u8; 6]; 2] =
        [0, 6].map(|at| bytes.read(at).unwrap_or_default());
    let sender: [u8; 6] = bytes.read(offset + 8).ok_or(Reason::Malformed)?;
    let target: [u8; 6] = bytes.read(offset + 18).ok_or(Reason::Malformed)?;
    let exact = matches!(header, [0, 1, 8, 0, 6, 4, 0, 1 | 2])
        && bytes.length() >= offset + LENGTH
        && sender == frame_sender
        && (target == [0; 6] || target == [0xff; 6] || target == receiver || target == sender)
        && surplus::is_padding(bytes, offset + LENGTH, offset);
    if exact {
        Ok(Frame::Arp)
    } else {
        Err(Reason::Ethertype)
    }
}

#[inline(always)]
fn ipv4<B: Bytes + ?Sized>(bytes: &B, network: usize) -> Result<Packet, Reason> {
    let header: [u8; 20] = bytes.read(network).ok_or(Reason::Malformed)?;
    let header_length = (header[0] & 0x0f) as usize * 4;
    let total_length = u16::from_be_bytes([header[2], header[3]]) as usize;
    let end = network + total_length;
    if header[0] >> 4 != 4
        || header_length < 20
        || total_length < header_length
        || end > bytes.length()
    {
        return Err(Reason::Malformed);
    }
    if header_length > 20 {
        ipv4_options(bytes, network + 20, network + header_length)?;
    }
    let id = u16::from_be_bytes([header[4], header[5]]) as u32;
    let flags = u16::from_be_bytes([header[6], header[7]]);
    if flags & 0x8000 != 0 {
        return Err(Reason::Malformed); // reserved, must be zero (RFC 791)
    }
    let source = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
    let destination = u32::from_be_bytes([header[16], header[17], header[18], header[19]]);
    let packet = Packet {
        hops: header[8],
        fragment: fragment(flags & 0x1fff, flags & 0x2000 != 0, id),
        network,
        end,
        ..Packet::between(
            Address::from_ipv4(source),
            Address::from_ipv4(destination),
            header[9],
            network + header_length,
        )
    };
    transport(bytes, packet)
}

/// Options that choose a route are refused (LSRR, SSRR: RFC 7126 section 4.3).
#[inline(always)]
fn ipv4_options<B: Bytes + ?Sized>(bytes: &B, mut offset: usize, end: usize) -> Result<(), Reason> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    for _ in 0..MAX_IPV4_OPTIONS {
        offset = B::widen(offset);
        if offset >= end {
            return Ok(());
        }
        let [kind] = bytes.read(offset).ok_or(Reason::Malformed)?;
        match kind {
            END => return Ok(()),
            NOP => offset += 1,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(Reason::SourceRouting),
            _ => {
                let [length] = bytes.read(offset + 1).ok_or(Reason::Malformed)?;
                if length < 2 {
                    return Err(Reason::Malformed);
                }
                offset += length as usize;
            }
        }
    }
    Ok(())
}

#[inline(always)]
fn ipv6<B: Bytes + ?Sized>(bytes: &B, network: usize) -> Result<Packet, Reason> {
    const FIXED: usize = 40;
    let header: [u8; FIXED] = bytes.read(network).ok_or(Reason::Malformed)?;
    let end = network + FIXED + u16::from_be_bytes([header[4], header[5]]) as usize;
    let (_, addresses) = header.split_at(8);
    let (source, destination) = addresses.split_at(16);
    let (Some(source), Some(destination)) = (source.first_chunk(), destination.first_chunk())
    else {
        return Err(Reason::Malformed);
    };
    let (source, destination) = (
        Address::from_ipv6(*source),
        Address::from_ipv6(*destination),
    );
    let mut packet = Packet {
        hops: header[7],
        network,
        end,
        ..Packet::between(source, destination, header[6], network + FIXED)
    };
    // An IPv4-mapped address does not belong on a wire (RFC 4291 section 2.5.5.2),
    // and would be looked up as the IPv4 address.
    if header[0] >> 4 != 6
        || end > bytes.length()
        || packet.destination.is_ipv4()
        || packet.source.is_ipv4()
    {
        return Err(Reason::Malformed);
    }
    if packet.protocol == HOP_BY_HOP && end == network + FIXED {
        return Err(Reason::ExtensionHeader); // a jumbogram (RFC 2675)
    }
    for _ in 0..=MAX_EXTENSION_HEADERS {
        packet.transport = B::widen(packet.transport);
        let at = packet.transport;
        match packet.protocol {
            HOP_BY_HOP | DESTINATION_OPTIONS => {
                let [next, length] = bytes.read(at).ok_or(Reason::Malformed)?;
                packet.protocol = next;
                packet.transport += (length as usize + 1) * 8;
            }
            FRAGMENT => {
                let header: [u8; 8] = bytes.read(at).ok_or(Reason::Malformed)?;
                let field = u16::from_be_bytes([header[2], header[3]]);
                let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                if !matches!(packet.fragment, Fragment::Whole) {
                    return Err(Reason::ExtensionHeader); // twice
                }
                packet.protocol = header[0];
                packet.transport += 8;
                packet.fragment = fragment(field >> 3, field & 1 != 0, id);
                if matches!(packet.fragment, Fragment::Later(_)) {
                    return transport(bytes, packet);
                }
            }
            ROUTING => return Err(Reason::SourceRouting),
            _ => return transport(bytes, packet),
        }
        if packet.transport > network + FIXED + MAX_EXTENSION_BYTES {
            return Err(Reason::ExtensionHeader);
        }
    }
    Err(Reason::ExtensionHeader)
}

#[inline(always)]
const fn fragment(offset: u16, more: bool, id: u32) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First(id),
        _ => Fragment::Later(id),
    }
}

/// Ports. The whole fixed header must be there, so a first fragment cannot
/// leave part of it to the second (RFC 1858).
#[inline(always)]
fn transport<B: Bytes + ?Sized>(bytes: &B, mut packet: Packet) -> Result<Packet, Reason> {
    packet.transport = B::widen(packet.transport);
    if packet.transport > packet.end {
        return Err(Reason::Malformed);
    }
    if matches!(packet.fragment, Fragment::Later(_)) {
        return Ok(packet);
    }
    let payload = packet.end - packet.transport;
    match packet.protocol {
        TCP => {
            let header = bytes.words(packet.transport).ok_or(Reason::Malformed)?;
            segment(&mut packet, header, payload).ok_or(Reason::Malformed)?;
        }
        UDP => {
            let header: [u8; 8] = bytes.read(packet.transport).ok_or(Reason::Malformed)?;
            let length = u16::from_be_bytes([header[4], header[5]]) as usize;
            if payload < 8
                || length < 8
                || (length > payload && matches!(packet.fragment, Fragment::Whole))
            {
                return Err(Reason::Malformed);
            }
            packet.source_port = u16::from_be_bytes([header[0], header[1]]);
            packet.destination_port = u16::from_be_bytes([header[2], header[3]]);
        }
        ICMP | ICMPV6 => {
            let header: [u8; 8] = bytes.read(packet.transport).ok_or(Reason::Malformed)?;
            if payload < 8 {
                return Err(Reason::Malformed);
            }
            packet.kind = header[0];
            if is_echo(packet.protocol, packet.kind) {
                packet.source_port = u16::from_be_bytes([header[4], header[5]]);
                packet.destination_port = packet.source_port;
            }
        }
        _ => {}
    }
    Ok(packet)
}

/// What a TCP header, which begins with these words, says of a segment of `length` bytes, with
/// that header.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "parts of words, and a packet has fewer than 2³² bytes"
)]
fn segment(packet: &mut Packet, [ports, numbers]: [u64; 2], length: usize) -> Option<()> {
    let header_length = (numbers >> 28 & 0xf) as usize * 4;
    if length < 20 || header_length < 20 {
        return None;
    }
    packet.source_port = (ports >> 48) as u16;
    packet.destination_port = (ports >> 32) as u16;
    packet.kind = (numbers >> 16) as u8;
    packet.sequence = ports as u32;
    packet.acknowledged = (numbers >> 32) as u32;
    // SYN and FIN take a number each (RFC 9293 section 3.4).
    packet.next = packet
        .sequence
        .wrapping_add(length as u32)
        .wrapping_sub(header_length as u32)
        .wrapping_add((packet.kind & SYN != 0) as u32)
        .wrapping_add((packet.kind & FIN != 0) as u32);
    Some(())
}

/// Echo request and reply (RFC 792; RFC 4443 section 4).
pub(crate) const fn is_echo(protocol: u8, kind: u8) -> bool {
    matches!((protocol, kind), (ICMP, 0 | 8) | (ICMPV6, 128 | 129))
}
