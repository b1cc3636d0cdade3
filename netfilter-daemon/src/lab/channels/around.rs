//! Ways around the place where packets are judged.

use std::{io, net::UdpSocket};

use crate::lab::{
    battery::{
        Channel, each,
        field::{Field, missing},
        join,
        ledger::Pieces,
    },
    namespace::{self, Namespace},
    probe::Family,
};

use super::raw::{PIECE, PORT, denied};

mod containers;
mod devices;
mod lifted;
mod process;
mod programs;
mod sockets;

pub(super) const CHANNELS: &[Channel] = &join::<COUNT>(LISTS);

/// Those that lift the filter come last: nothing is tried after them.
const LISTS: &[&[Channel]] = &[
    sockets::CHANNELS,
    containers::CHANNELS,
    devices::CHANNELS,
    programs::CHANNELS,
    lifted::CHANNELS,
];

const COUNT: usize = sockets::CHANNELS.len()
    + containers::CHANNELS.len()
    + devices::CHANNELS.len()
    + programs::CHANNELS.len()
    + lifted::CHANNELS.len();

/// The interface that a channel makes here, and what is behind it.
const NEW: &str = "lab0";
const BEHIND: &str = "eth0";

/// The protected namespace, where it is the lab's own: others live on theirs.
fn own(field: &Field) -> io::Result<Namespace> {
    if field.outside.is_none() {
        return Err(missing(
            "it changes the network of the machine; it is tried in the lab's own only",
        ));
    }
    Namespace::own().map_err(io::Error::other)
}

/// Runs these commands of `ip`. The error is what it says.
fn ip(namespace: &Namespace, commands: &[&str]) -> io::Result<()> {
    let mut commands = commands.iter();
    commands.try_for_each(|command| {
        namespace.ip(command).map_err(|error| match error {
            namespace::Error::Ip { said, .. } => io::Error::other(said),
            other => io::Error::other(other),
        })
    })
}

/// An interface that was made here. Dropping it removes it.
struct Link<'a> {
    namespace: &'a Namespace,
    name: &'static str,
}

impl<'a> Link<'a> {
    fn add(namespace: &'a Namespace, name: &'static str, rest: &str) -> io::Result<Self> {
        ip(namespace, &[&format!("link add {name} {rest}")])?;
        let link = Self { namespace, name };
        ip(namespace, &[&format!("link set {name} up")])?;
        Ok(link)
    }

    /// Packets that come in by it go on to where they are addressed. It ends with
    /// the interface.
    fn forward(&self) -> io::Result<()> {
        let key = format!("net/ipv4/conf/{}/forwarding", self.name);
        self.namespace.sysctl(&key, "1").map_err(io::Error::other)
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        // It may be gone, with what it was the end of.
        self.namespace.ip(&format!("link del {}", self.name)).ok();
    }
}

/// A frame to the gateway for each piece, for an address that no rule allows.
fn frames(
    field: &Field,
    pieces: &Pieces,
    send: impl FnMut(Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    let frames = pieces
        .of(PIECE)
        .map(|piece| field.frame(&denied(side, &piece)));
    each(frames, send)
}

/// By a socket of the calling thread's namespace, to an address that no rule allows.
fn datagrams(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let to = field.side(Family::V4)?.denied;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    each(pieces.of(PIECE), |piece| {
        socket.send_to(&piece, (to, PORT)).map(drop)
    })
}
