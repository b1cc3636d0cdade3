//! Packets within packets.

use std::io;

use crate::lab::{
    battery::{
        Channel,
        field::Field,
        frame::{Packet, UDP},
        join,
        ledger::Pieces,
    },
    probe::Family,
};

use super::plain::packets;

mod ip;
mod udp;

pub(super) const CHANNELS: &[Channel] = &join::<COUNT>(LISTS);

const LISTS: &[&[Channel]] = &[ip::CHANNELS, udp::CHANNELS];

const COUNT: usize = ip::CHANNELS.len() + udp::CHANNELS.len();

/// Where the tunnel's other end is.
#[derive(Clone, Copy)]
enum End {
    /// Where no rule allows anything.
    Denied,
    /// At an address that a rule approves for TCP; what is inside goes elsewhere.
    Approved,
}

/// What stands between the outer IP header and the inner one: the protocol, and bytes.
type Header = fn(inner: usize) -> (u8, Vec<u8>);

/// A segment to a denied address in each packet, which is of the family `outer`.
fn tunnel(
    field: &Field,
    pieces: &Pieces,
    end: End,
    (outer, inner): (Family, Family),
    header: Header,
) -> io::Result<()> {
    let (near, far) = (field.side(outer)?, field.side(inner)?);
    let to = match end {
        End::Denied => near.denied,
        End::Approved => near.approved()?.0,
    };
    packets(field, pieces, |piece| {
        let (from, denied) = ((far.local, 40_004), (far.denied, 443));
        let inside = Packet::tcp(from, denied, (1, 1), 0x18, piece).bytes();
        let (protocol, header) = header(inside.len());
        let payload = [header, inside].concat();
        let packet = Packet::new(near.local, to, protocol, payload);
        match protocol {
            UDP => packet.checked(6),
            _ => packet,
        }
    })
}
