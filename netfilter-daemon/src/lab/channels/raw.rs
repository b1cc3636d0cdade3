//! What channels of raw frames share.

use std::{io, net::IpAddr};

use crate::lab::{
    battery::{
        each,
        field::{Field, Side},
        frame::{ACK, Packet},
        ledger::{Found, Pieces},
    },
    probe::Knock,
};

/// Of a piece that has the frame for itself, beside headers and tags.
pub(super) const PIECE: usize = 1200;

/// A port that the policy need not know.
pub(super) const PORT: u16 = 9999;

/// Bytes of the secret that most headers' fields carry; their number is in a field
/// of 16 bits.
pub(super) const PART: usize = 4;

/// Sends a frame for each piece.
pub(super) fn pieces(
    field: &Field,
    pieces: &Pieces,
    size: usize,
    frame: impl Fn(&[u8]) -> Vec<u8>,
) -> io::Result<()> {
    let wire = field.wire()?;
    each(pieces.of(size), |piece| wire.send(&frame(&piece)))
}

/// Sends a frame for each part, which is told its number.
pub(super) fn parts<const N: usize>(
    field: &Field,
    pieces: &Pieces,
    frame: impl Fn(u16, [u8; N]) -> Vec<u8>,
) -> io::Result<()> {
    let wire = field.wire()?;
    each(pieces.parts(N), |(offset, bytes)| {
        let number = u16::try_from(offset / N).map_err(io::Error::other)?;
        let bytes = bytes.try_into().map_err(io::Error::other)?;
        wire.send(&frame(number, bytes))
    })
}

/// The part of this number.
pub(super) fn part<const N: usize>(number: [u8; 2], bytes: &[u8]) -> Option<Found> {
    Some(Found::Part {
        offset: usize::from(u16::from_be_bytes(number)) * N,
        bytes: bytes.get(..N)?.to_vec(),
    })
}

/// A datagram to where no rule allows it.
pub(super) fn denied(side: &Side, data: &[u8]) -> Packet {
    Packet::udp((side.local, 40_000), (side.denied, PORT), data)
}

/// A segment to what is approved.
pub(super) fn approved(side: &Side, data: &[u8]) -> io::Result<Packet> {
    approved_from(side, 40_000, data)
}

/// A segment from this port to what is approved.
pub(super) fn approved_from(side: &Side, port: u16, data: &[u8]) -> io::Result<Packet> {
    let to = door(side)?;
    Ok(Packet::tcp((side.local, port), to, (1, 1), ACK, data))
}

/// An address and a TCP port of it that are approved.
pub(super) fn door(side: &Side) -> io::Result<(IpAddr, u16)> {
    match side.approved()? {
        (address, Knock::Tcp(port)) => Ok((address, port)),
        _ => Err(io::Error::other("the policy approves no TCP port")),
    }
}

/// A piece, and zeros up to this length.
pub(super) fn padded(piece: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = piece.to_vec();
    bytes.resize(length, 0);
    bytes
}

/// Whether a frame is IPv4 TCP without options from this port.
pub(super) fn is_segment(frame: &[u8], port: u16) -> bool {
    matches!(frame, [_, _, _, _, _, _, _, _, _, _, _, _, 8, 0, 0x45, ..])
        && frame.get(23) == Some(&6)
        && frame.get(34..36) == Some(&port.to_be_bytes())
}
