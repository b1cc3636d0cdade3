//! Other network namespaces, for which this one forwards, and processes without privileges.

use std::{
    fs::File,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, UdpSocket},
};

use nix::{
    fcntl::OFlag,
    sched::{CloneFlags, unshare},
    unistd::{pipe2, read, write},
};

use crate::lab::{
    battery::{
        Channel, each,
        field::{Field, hardware},
        frame::{IPV4, Packet},
        ledger::Pieces,
    },
    namespace::{Namespace, veth},
    probe::Family,
    raw::bypass,
};

use super::{
    super::raw::{PIECE, PORT},
    BEHIND, Link, NEW, datagrams, ip, own,
    process::{self, Process},
};

/// Of the cable to the namespace behind: this end, and the other.
const HERE: Ipv4Addr = Ipv4Addr::new(198, 18, 99, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(198, 18, 99, 2);

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "namespace",
        "datagrams from another network namespace, for which this one forwards",
        "containers, which rules for the machine's own output forget",
        |field, pieces| {
            let own = own(field)?;
            let child = Namespace::new().map_err(io::Error::other)?;
            let _cable = cable(&own, &child)?;
            ip(&own, &[&format!("address add {HERE}/30 dev {NEW}")])?;
            let address = format!("address add {THERE}/30 dev {BEHIND}");
            ip(
                &child,
                &[&address, &format!("route add default via {HERE}")],
            )?;
            let sent = child.run(|| datagrams(field, pieces));
            sent.map_err(io::Error::other)?
        },
    ),
    Channel::stop(
        "namespace-bypass",
        "frames past the tc of another network namespace, for which this one forwards",
        "containers with CAP_NET_RAW, which Docker gives to all",
        |field, pieces| {
            let own = own(field)?;
            let child = Namespace::new().map_err(io::Error::other)?;
            let _cable = cable(&own, &child)?;
            let frames = routed(field, pieces)?;
            let send = || {
                let mut sender = bypass::open(BEHIND)?;
                each(&frames, |frame| sender.send(frame))
            };
            child.run(send).map_err(io::Error::other)?
        },
    ),
    Channel::stop(
        "container",
        "datagrams of a process without privileges, in a user namespace of its own",
        "whatever runs in a container on the host's network",
        unprivileged,
    ),
    Channel::stop(
        "container-network",
        "frames past the tc of a network namespace that a process without privileges made",
        "rootless containers; exploits that need CAP_NET_RAW get it so",
        rootless,
    ),
];

/// To a namespace behind the protected one, which forwards what comes from there.
fn cable<'a>(own: &'a Namespace, child: &Namespace) -> io::Result<Link<'a>> {
    veth(own, NEW, child, BEHIND).map_err(io::Error::other)?;
    let link = Link {
        namespace: own,
        name: NEW,
    };
    link.forward()?;
    Ok(link)
}

/// Frames to the interface that was made, for it to forward.
pub(super) fn routed(field: &Field, pieces: &Pieces) -> io::Result<Vec<Vec<u8>>> {
    routed_by(hardware(NEW)?, field, pieces)
}

fn routed_by(hardware: [u8; 6], field: &Field, pieces: &Pieces) -> io::Result<Vec<Vec<u8>>> {
    let to = field.side(Family::V4)?.denied;
    let frame = |piece: Vec<u8>| {
        let packet = Packet::udp((IpAddr::V4(THERE), 40_000), (to, PORT), &piece);
        let ethernet = [&hardware[..], &field.hardware, &IPV4.to_be_bytes()].concat();
        [ethernet, packet.bytes()].concat()
    };
    Ok(pieces.of(PIECE).map(frame).collect())
}

fn unprivileged(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let to = field.side(Family::V4)?.denied;
    let pieces: Vec<_> = pieces.of(PIECE).collect();
    let process = Process::start(|| {
        process::become_nobody()?;
        // Where the kernel lets it: without, it is nobody all the same.
        unshare(CloneFlags::CLONE_NEWUSER).ok();
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        each(&pieces, |piece| socket.send_to(piece, (to, PORT)).map(drop))
    });
    process?.end()
}

/// As container runtimes do, root gives it a cable.
fn rootless(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let own = own(field)?;
    // Not for the commands that are run meanwhile.
    let pipe = || pipe2(OFlag::O_CLOEXEC);
    let [(unshared, tell_unshared), (wired, tell_wired)] = [pipe()?, pipe()?];
    // Frames are made before the cable is there: the process may not allocate.
    let frames = routed_by([2, 0, 0, 0, 0, 1], field, pieces)?;
    let process = Process::start(|| {
        process::close([&unshared, &tell_wired]);
        process::become_nobody()?;
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
        write(&tell_unshared, b"u")?;
        if read(&wired, &mut [0])? == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        process::set_up(BEHIND)?;
        let mut sender = bypass::open(BEHIND)?;
        each(&frames, |frame| sender.send(frame))
    })?;
    drop((tell_unshared, wired));
    if read(&unshared, &mut [0])? == 0 {
        // It says why.
        return process.end();
    }
    let rest = format!(
        "address 02:00:00:00:00:01 type veth peer name {BEHIND} netns {}",
        process.id()
    );
    let link = Link::add(&own, NEW, &rest)?;
    link.forward()?;
    File::from(tell_wired).write_all(b"w")?;
    process.end()
}
