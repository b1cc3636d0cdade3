//! Builds DNS messages, honest ones and others, and finds what arrives of them.

use crate::lab::battery::{
    frame::{IPV4, IPV6, TCP, UDP},
    ledger::Found,
};

pub(super) const PORT: u16 = 53;

pub(super) const A: u16 = 1;
pub(super) const CNAME: u16 = 5;
pub(super) const SOA: u16 = 6;
pub(super) const NULL: u16 = 10;
pub(super) const PTR: u16 = 12;
pub(super) const TXT: u16 = 16;
pub(super) const AAAA: u16 = 28;
const OPT: u16 = 41;

pub(super) const IN: u16 = 1;

/// What an honest question has: recursion is desired.
pub(super) const RECURSION: u16 = 0x0100;
pub(super) const RESPONSE: u16 = 0x8000;

/// The longest label.
pub(super) const LABEL: usize = 63;

/// As many bytes go into one name, in base 32, below a zone of up to 50 bytes.
pub(super) const IN_NAME: usize = 120;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

const HEADER: usize = 12;

/// A message; questions and records are as they stand in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Message {
    pub(super) id: u16,
    pub(super) flags: u16,
    pub(super) questions: Vec<Vec<u8>>,
    pub(super) answers: Vec<Vec<u8>>,
    pub(super) authorities: Vec<Vec<u8>>,
    pub(super) additionals: Vec<Vec<u8>>,
}

impl Message {
    /// An honest question of class IN. The name is in wire form.
    pub(super) fn ask(id: u16, name: &[u8], kind: u16) -> Self {
        Self {
            id,
            flags: RECURSION,
            questions: vec![question(name, kind, IN)],
            ..Self::default()
        }
    }

    /// With an OPT record (RFC 6891): what stands for its TTL, and one option.
    pub(super) fn extended(mut self, fields: u32, option: Option<(u16, &[u8])>) -> Self {
        let option = option.map_or_else(Vec::new, |(code, bytes)| {
            [&code.to_be_bytes()[..], &short(bytes.len()), bytes].concat()
        });
        self.additionals
            .push(record(&[0], OPT, 1232, fields, &option));
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let sections = [
            &self.questions,
            &self.answers,
            &self.authorities,
            &self.additionals,
        ];
        let mut bytes = [self.id.to_be_bytes(), self.flags.to_be_bytes()].concat();
        for section in sections {
            bytes.extend(short(section.len()));
        }
        bytes.extend(sections.into_iter().flatten().flatten());
        bytes
    }

    /// With its length before it, as in a stream.
    pub(super) fn framed(&self) -> Vec<u8> {
        framed(&self.bytes())
    }
}

pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    [&short(message.len())[..], message].concat()
}

pub(super) fn question(name: &[u8], kind: u16, class: u16) -> Vec<u8> {
    [name, &kind.to_be_bytes(), &class.to_be_bytes()].concat()
}

pub(super) fn record(name: &[u8], kind: u16, class: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let fixed = [kind.to_be_bytes(), class.to_be_bytes()].concat();
    [name, &fixed, &ttl.to_be_bytes(), &short(data.len()), data].concat()
}

/// A name in wire form.
pub(super) fn wire(name: &str) -> Vec<u8> {
    labels(name.split('.').map(str::as_bytes), &[0])
}

/// A name below a zone that carries bytes in letters and digits, before the label `mark`.
pub(super) fn name(bytes: &[u8], mark: &str, zone: &str) -> Vec<u8> {
    labels(
        encode(bytes).chunks(LABEL),
        &wire(&format!("{mark}.{zone}")),
    )
}

/// A name below a zone that carries at most a label of bytes as they are.
pub(super) fn binary_name(bytes: &[u8], zone: &str) -> Vec<u8> {
    labels([bytes], &wire(zone))
}

fn labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>, below: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in labels {
        wire.push(u8::try_from(label.len()).unwrap_or_default());
        wire.extend(label);
    }
    wire.extend(below);
    wire
}

/// Reads what the first name with this mark carries, of those asked for in a frame to a
/// DNS server.
pub(super) fn read(frame: &[u8], mark: &str) -> Option<Found> {
    let arrived = Arrived::read(frame)?;
    if !arrived.is_tcp {
        return carried(arrived.data, mark).map(Found::Pieces);
    }
    let mut rest = arrived.data;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let (message, behind) = behind.split_at_checked(length)?;
        if let Some(bytes) = carried(message, mark) {
            return Some(Found::Pieces(bytes));
        }
        rest = behind;
    }
    None
}

/// What a frame brings to port 53, if its headers are plain.
pub(super) struct Arrived<'a> {
    pub(super) is_tcp: bool,
    pub(super) source_port: u16,
    /// Of IPv4, to tell fragments apart; else zero.
    pub(super) id: u16,
    pub(super) data: &'a [u8],
}

impl<'a> Arrived<'a> {
    /// The message in a datagram from a port.
    pub(super) fn datagram(frame: &'a [u8], source_port: u16) -> Option<&'a [u8]> {
        let arrived = Self::read(frame)?;
        (!arrived.is_tcp && arrived.source_port == source_port).then_some(arrived.data)
    }

    pub(super) fn read(frame: &'a [u8]) -> Option<Self> {
        let (protocol, at, id) = match number(frame, 12)? {
            IPV4 => (frame.get(23)?, 34, number(frame, 18)?),
            IPV6 => (frame.get(20)?, 54, 0),
            _ => return None,
        };
        if number(frame, at + 2)? != PORT {
            return None;
        }
        let header = match *protocol {
            TCP => usize::from(frame.get(at + 12)? >> 4) * 4,
            UDP => 8,
            _ => return None,
        };
        Some(Self {
            is_tcp: *protocol == TCP,
            source_port: number(frame, at)?,
            id,
            data: frame.get(at + header..)?,
        })
    }
}

/// The number at an offset.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The labels of the first question's name.
pub(super) fn asked(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = message.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (&length, behind) = rest.split_first()?;
        let (label, behind) = behind.split_at_checked(length.into())?;
        rest = behind;
        (length != 0).then_some(label)
    })
}

fn carried(message: &[u8], mark: &str) -> Option<Vec<u8>> {
    let before = asked(message).position(|label| label == mark.as_bytes())?;
    Some(decode(asked(message).take(before).flatten()))
}

/// Base 32 (RFC 4648 section 6) in small letters, without padding.
fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut held, mut bits) = (0_u16, 0);
    for &byte in bytes {
        held = held << 8 | u16::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(ALPHABET[usize::from(held >> bits & 31)]);
        }
        held &= 0xff;
    }
    if bits > 0 {
        text.push(ALPHABET[usize::from(held << (5 - bits) & 31)]);
    }
    text
}

fn decode<'a>(text: impl Iterator<Item = &'a u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut held, mut bits) = (0_u16, 0);
    for letter in text {
        let value = match letter.to_ascii_lowercase() {
            letter @ b'a'..=b'z' => letter - b'a',
            digit @ b'2'..=b'7' => digit - b'2' + 26,
            _ => return Vec::new(),
        };
        held = held << 5 | u16::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            let [_, byte] = (held >> bits).to_be_bytes();
            bytes.push(byte);
            held &= (1 << bits) - 1;
        }
    }
    bytes
}

/// A length; of what is longer than messages can say, nonsense.
fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or_default().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::lab::battery::frame::{PSH_ACK, Packet};

    fn frame(packet: &Packet) -> Vec<u8> {
        let ethertype = packet.ethertype().to_be_bytes();
        [&[0; 12][..], &ethertype, &packet.bytes()].concat()
    }

    #[test]
    fn what_a_name_carries_is_read_from_datagrams_and_segments_of_both_families() {
        let carried: Vec<u8> = (0..u8::MAX).take(IN_NAME).collect();
        let message = Message::ask(7, &name(&carried, "mark", "t.example"), TXT);
        let other = Message::ask(7, &wire("other.example"), TXT);
        for address in ["10.0.0.1", "fd00::1"] {
            let address: IpAddr = address.parse().unwrap();
            let ends = ((address, 9), (address, PORT));
            let datagram = Packet::udp(ends.0, ends.1, &message.bytes());
            let both = [other.framed(), message.framed()].concat();
            let segment = Packet::tcp(ends.0, ends.1, (1, 1), PSH_ACK, &both);
            for packet in [datagram, segment] {
                let frame = frame(&packet);
                assert_eq!(read(&frame, "mark"), Some(Found::Pieces(carried.clone())));
                let of_another = read(&frame, "other");
                assert!(of_another.is_none_or(|found| found == Found::Pieces(Vec::new())));
                for cut in 0..frame.len() - 4 {
                    let found = read(&frame[..cut], "mark");
                    assert!(found.is_none_or(|found| found == Found::Pieces(carried.clone())));
                }
            }
        }
    }

    #[test]
    fn base_32_is_that_of_the_standard() {
        assert_eq!(encode(b"foobar"), b"mzxw6ytboi");
        for length in 0..10 {
            let bytes: Vec<u8> = (200..200 + length).collect();
            assert_eq!(decode(encode(&bytes).iter()), bytes);
        }
    }
}
