//! What DHCP clients say to servers.

use crate::packet::{Bytes, Packet};

use super::{hardware, is_link_local, is_zero};

const UDP_HEADER: usize = 8;

/// Of a message: what every server takes (RFC 2131 section 2: 576 less IP and UDP).
const LONGEST: usize = 548;
/// Options of a message, of which no client sends one twice, and single padding bytes
/// among them.
const MAX_OPTIONS: usize = 32;
/// Bytes of all options. Clients send half of that.
const LONGEST_OPTIONS: usize = 256;

/// A request of this interface, with options that clients send, and zeros in and behind
/// all else (RFC 2131 section 2, RFC 2132).
#[inline(always)]
pub(super) fn ipv4<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> bool {
    const OPTIONS: usize = 240;
    const HLEN: u8 = 6;
    let Some((message, end)) = message(bytes, packet, 20) else {
        return false;
    };
    let Some(fixed) = bytes.read::<34>(message) else {
        return false;
    };
    let [
        op,
        htype,
        hlen,
        hops,
        _,
        _,
        _,
        _,
        _,
        _,
        broadcast,
        flags,
        a,
        b,
        c,
        d,
        rest @ ..,
    ] = fixed;
    let client = u32::from_be_bytes([a, b, c, d]) as u64;
    let (others, chaddr) = rest.split_at(12);
    // Without hardware addresses, modems take zeros.
    let own = hardware(bytes, packet).unwrap_or([0; 6]);
    let fixed = [op, htype, hlen, hops] == [1, 1, HLEN, 0]
        && (broadcast & 0x7f, flags) == (0, 0)
        && (client == 0 || client == packet.source.low & 0xffff_ffff)
        && others == [0; 12]
        && chaddr == own
        // The rest of the hardware address, the server's name and the file.
        && is_zero(bytes, message + 34, message + 236)
        && bytes.read(message + 236) == Some([99, 130, 83, 99]);
    fixed && options(bytes, message + OPTIONS, end)
}

/// See [`is_sent`].
const CODES: u8 = 58;

/// Up to the end option, behind which there is nothing.
#[inline(always)]
fn options<B: Bytes + ?Sized>(bytes: &B, mut at: usize, end: usize) -> bool {
    const PAD: u8 = 0;
    const END: u8 = 255;
    let last = at + LONGEST_OPTIONS;
    let mut seen = 0usize;
    for _ in 0..MAX_OPTIONS {
        at = B::widen(at);
        seen = B::widen(seen);
        let Some([code]) = bytes.read(at) else {
            return false;
        };
        if at >= end || at > last {
            return false;
        }
        if code == END {
            return is_zero(bytes, at + 1, end);
        }
        at += 1;
        if code != PAD {
            let Some([length]) = bytes.read(at) else {
                return false;
            };
            let option = 1usize << (code % CODES);
            if !is_sent(code, length) || seen & option != 0 {
                return false;
            }
            seen |= option;
            at += 1 + length as usize;
        }
    }
    false
}

/// Whether clients send an option of this length; no two of their codes leave the
/// same of [`CODES`]. ISC's, dhcpcd, systemd's and
/// `NetworkManager`'s, busybox's, the Azure agent's, and firmware's, as they come.
#[inline(always)]
const fn is_sent(code: u8, length: u8) -> bool {
    match code {
        // Requested address, lease time, server.
        50 | 51 | 54 => length == 4,
        // Message type, and of Windows, whether to configure oneself.
        53 | 116 => length == 1,
        // Longest message.
        57 => length == 2,
        // Host name, message, client identifier.
        12 | 56 | 61 => length <= 64,
        // Wanted parameters.
        55 => length <= 48,
        // Vendor class.
        60 => length <= 96,
        // Rapid commit.
        80 => length == 0,
        // The whole name (RFC 4702).
        81 => length <= 128,
        // Architecture, network interface and identifier of firmware (RFC 4578).
        93 => length == 2,
        94 => length == 3,
        97 => length == 17,
        // Can be told to renew, by these means (RFC 6704).
        145 => length <= 4,
        _ => false,
    }
}

/// A client's message with options that clients send (RFC 8415 sections 8 and 21).
#[inline(always)]
pub(super) fn ipv6<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> bool {
    const HEADER: usize = 4;
    let Some((message, end)) = message(bytes, packet, 40) else {
        return false;
    };
    let Some([kind]) = bytes.read(message) else {
        return false;
    };
    // Solicit, request, confirm, renew, rebind, release, decline, information request.
    if !matches!(kind, 1 | 3..=6 | 8 | 9 | 11) || !is_link_local(packet.source) {
        return false;
    }
    let mut at = message + HEADER;
    let last = at + LONGEST_OPTIONS;
    for _ in 0..MAX_OPTIONS {
        at = B::widen(at);
        if at >= end {
            return at == end && at <= last;
        }
        let Some([high, code, long, length]) = bytes.read(at) else {
            return false;
        };
        let length = (long as usize) << 8 | length as usize;
        if high != 0 || !is_sent_v6(code, length) {
            return false;
        }
        at += 4 + length;
    }
    false
}

#[inline(always)]
const fn is_sent_v6(code: u8, length: usize) -> bool {
    match code {
        // Identifiers of client and server.
        1 | 2 => length <= 130,
        // Addresses and prefixes, with those that are asked for.
        3 | 4 | 25 => length <= 256,
        // Wanted options.
        6 => length <= 64,
        // Time since the first try.
        8 => length == 2,
        // Rapid commit; can be told to renew.
        14 | 20 => length == 0,
        // Classes of user and vendor.
        15 | 16 => length <= 128,
        // The whole name (RFC 4704).
        39 => length <= 128,
        _ => false,
    }
}

/// Where the message begins and ends: behind nothing but fixed headers, and in all that
/// the packet holds.
#[inline(always)]
fn message<B: Bytes + ?Sized>(bytes: &B, packet: &Packet, header: usize) -> Option<(usize, usize)> {
    let length = packet.end.checked_sub(packet.transport)?;
    let [high, low] = bytes.read(packet.transport + 4)?;
    let exact = packet.transport == packet.network + header
        && u16::from_be_bytes([high, low]) as usize == length
        && length <= UDP_HEADER + LONGEST;
    exact.then_some((packet.transport + UDP_HEADER, packet.end))
}
