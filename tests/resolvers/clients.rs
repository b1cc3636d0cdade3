//! Programs that look names up, each in its own way, and connect at once.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RData, RecordType},
};

use crate::world::{World, echo_tcp};

/// Looks a name up, and connects to the first address that came: whether both succeeded.
pub type Client = fn(&World, &str) -> bool;

/// Those that ask again over TCP if a datagram was too short.
pub const PROGRAMS: &[(&str, Client)] = &[
    ("getaddrinfo", |world, name| {
        world.connects_by_name(name, 443)
    }),
    ("curl", curl),
    ("python", |world, name| python(world, name, "")),
    ("python-edns0", |world, name| python(world, name, "edns0")),
    ("dig", |world, name| dig(world, name, &["+noedns"])),
    ("dig-cookie", |world, name| dig(world, name, &["+cookie"])),
    ("dig-dnssec", |world, name| dig(world, name, &["+dnssec"])),
    ("dig-4096", |world, name| {
        dig(world, name, &["+bufsize=4096"])
    }),
];

pub const IN_PARALLEL: &[(&str, Client)] = &[
    ("go", |world, name| in_parallel(world, name, 2, BOTH)),
    ("musl", |world, name| in_parallel(world, name, 1, BOTH)),
    ("browser", |world, name| {
        in_parallel(
            world,
            name,
            3,
            &[RecordType::HTTPS, RecordType::A, RecordType::AAAA],
        )
    }),
];

pub const OVER_TCP: &[(&str, Client)] = &[
    ("python-use-vc", |world, name| python(world, name, "use-vc")),
    ("dig-tcp", |world, name| dig(world, name, &["+tcp"])),
];

/// The echo gives back what curl requests: this is a response, too.
fn curl(world: &World, name: &str) -> bool {
    let url = format!("http://{name}:443/");
    world.succeeds(
        "curl",
        &["-sf", "--max-time", "3", "-X", "HTTP/1.1 204", &url],
    )
}

/// With options for the C library, as in resolv.conf.
fn python(world: &World, name: &str, options: &str) -> bool {
    const PROGRAM: &str = "
import socket, sys
connection = socket.create_connection((sys.argv[1], 443), 2)
connection.sendall(b'hello')
assert connection.recv(5) == b'hello'
";
    world
        .protected()
        .command("/usr/bin/python3")
        .args(["-IS", "-c", PROGRAM, name])
        .env("RES_OPTIONS", options)
        .output()
        .unwrap()
        .status
        .success()
}

pub fn dig(world: &World, name: &str, options: &[&str]) -> bool {
    let addresses = answers(world, name, options);
    addresses
        .first()
        .is_some_and(|first| world.connects(first, 443))
}

/// The addresses that dig shows.
pub fn answers(world: &World, name: &str, options: &[&str]) -> Vec<String> {
    let output = world
        .protected()
        .command("dig")
        .args(["+short", "+tries=1", "+time=2", "@10.99.0.1", name])
        .args(options)
        .output()
        .unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .split([' ', '\n', '='])
        .filter(|word| word.parse::<IpAddr>().is_ok())
        .map(str::to_owned)
        .collect()
}

const BOTH: &[RecordType] = &[RecordType::A, RecordType::AAAA];

/// Asks for records of several types at the same time: Go's resolver does so
/// from a socket for each, and musl from one.
fn in_parallel(world: &World, name: &str, sockets: usize, kinds: &[RecordType]) -> bool {
    let ask = || -> Option<Vec<SocketAddr>> {
        let sockets: Vec<_> = (0..sockets)
            .map(|_| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect("10.99.0.1:53")?;
                socket.set_read_timeout(Some(Duration::from_secs(2)))?;
                Ok::<_, io::Error>(socket)
            })
            .collect::<Result<_, _>>()
            .ok()?;
        for ((&kind, id), socket) in kinds.iter().zip(7..).zip(sockets.iter().cycle()) {
            socket.send(&question(id, name, kind)).ok()?;
        }
        let mut first = Vec::new();
        for (_, socket) in kinds.iter().zip(sockets.iter().cycle()) {
            let mut bytes = [0; 4096];
            let length = socket.recv(&mut bytes).ok()?;
            let message = Message::from_vec(&bytes[..length]).ok()?;
            first.extend(message.answers.iter().find_map(|record| match record.data {
                RData::A(address) => Some(SocketAddr::new(address.0.into(), 443)),
                RData::AAAA(address) => Some(SocketAddr::new(address.0.into(), 443)),
                _ => None,
            }));
        }
        Some(first)
    };
    world
        .protected()
        .run(|| ask().is_some_and(|first| !first.is_empty() && first.into_iter().all(echo_tcp)))
        .unwrap()
}

fn question(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message.to_vec().unwrap()
}
