//! Ordinary traffic to where no rule allows it.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use crate::lab::{
    battery::{Aim, Channel, each, field::Field, ledger::Pieces},
    probe::Family,
};

/// A connection that nobody answers is given up then.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) const CHANNELS: &[Channel] = &[
    Channel {
        name: "tcp",
        how: "a TCP connection to an address that no rule allows",
        seen_in: "curl, netcat, every reverse shell",
        aim: Aim::Stop,
        carry: |field, pieces| tcp(field.side(Family::V4)?.denied, 443, pieces),
        read: None,
    },
    Channel {
        name: "udp6",
        how: "UDP datagrams over IPv6 to an address that no rule allows",
        seen_in: "QUIC, netcat -u",
        aim: Aim::Stop,
        carry: |field, pieces| udp(field, Family::V6, 443, pieces),
        read: None,
    },
];

fn tcp(address: IpAddr, port: u16, pieces: &Pieces) -> io::Result<()> {
    let address = SocketAddr::new(address, port);
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_write_timeout(Some(PATIENCE))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut echoes = connection.try_clone()?;
    std::thread::spawn(move || io::copy(&mut echoes, &mut io::sink()).ok());
    for piece in pieces.of(8192) {
        connection.write_all(&piece)?;
    }
    connection.shutdown(Shutdown::Write)?;
    // The sink has read all when it hangs up.
    while let Ok(1..) = connection.read(&mut [0; 1024]) {}
    Ok(())
}

fn udp(field: &Field, family: Family, port: u16, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(family)?;
    let socket = UdpSocket::bind((side.local, 0))?;
    each(pieces.of(1024), |piece| {
        socket.send_to(&piece, (side.denied, port)).map(drop)
    })
}
