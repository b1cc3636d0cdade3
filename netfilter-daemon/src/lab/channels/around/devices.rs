//! Interfaces beside the one that leads out, and on top of it.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd,
};

use nix::{errno::Errno, libc};

use crate::lab::{
    battery::{
        Channel, each,
        field::{Field, hardware},
        ledger::Pieces,
    },
    namespace::Namespace,
    raw::bypass,
};

use super::{BEHIND, Link, NEW, containers::routed, frames, ip, own, process};

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "macvlan",
        "frames past the tc of a macvlan child, in a network namespace of its own",
        "Docker's macvlan networks, LXC",
        |field, pieces| child(field, pieces, "type macvlan mode private"),
    ),
    Channel::stop(
        "ipvlan",
        "frames past the tc of an ipvlan child, in a network namespace of its own",
        "Docker's ipvlan networks, Kubernetes CNI plugins",
        |field, pieces| child(field, pieces, "type ipvlan mode l2"),
    ),
    Channel::stop(
        "tap",
        "packets that a process writes to a tap device, for which the machine forwards",
        "virtual machines, VPN programs, slirp4netns",
        |field, pieces| {
            let own = own(field)?;
            let mut tap = tap()?;
            ip(&own, &[&format!("link set {NEW} up")])?;
            let link = Link {
                namespace: &own,
                name: NEW,
            };
            link.forward()?;
            each(routed(field, pieces)?, |frame| tap.write_all(&frame))
        },
    ),
    Channel::stop(
        "tap-bridge",
        "frames that a process writes to a tap device, which is bridged to the interface",
        "virtual machines with bridged networks: QEMU, libvirt",
        |field, pieces| {
            let own = own(field)?;
            let mut tap = tap()?;
            let _link = Link {
                namespace: &own,
                name: NEW,
            };
            let bridge = Link::add(&own, "lab1", "type bridge")?;
            let commands = [NEW, &field.interface]
                .map(|port| format!("link set {port} master {} up", bridge.name));
            ip(&own, &commands.each_ref().map(String::as_str))?;
            frames(field, pieces, |mut frame| {
                // Not from the machine's own address, which bridges drop.
                frame[6..12].copy_from_slice(&hardware(NEW)?);
                tap.write_all(&frame)
            })
        },
    ),
];

/// A child of the interface, moved to where nobody filters.
fn child(field: &Field, pieces: &Pieces, kind: &str) -> io::Result<()> {
    let own = own(field)?;
    let child = Namespace::new().map_err(io::Error::other)?;
    let (interface, there) = (&field.interface, child.path());
    let add = format!("link add link {interface} name {BEHIND} netns {there} {kind}");
    ip(&own, &[&add])?;
    let link = Link {
        namespace: &child,
        name: BEHIND,
    };
    ip(&child, &[&format!("link set {BEHIND} up")])?;
    let send = || {
        let mut sender = bypass::open(link.name)?;
        frames(field, pieces, |frame| sender.send(&frame))
    };
    child.run(send).map_err(io::Error::other)?
}

/// A tap device of the calling thread's namespace, which is there while this is.
fn tap() -> io::Result<File> {
    let tap = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: zero is a value of every field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    process::name(&mut request, NEW);
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the request lives on.
    Errno::result(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw const request) })?;
    Ok(tap)
}
