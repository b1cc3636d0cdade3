//! Flows of real sockets, in namespaces.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::namespace::Namespace;

use crate::{
    frame::{self, SYN, segment, to},
    world::World,
};

const WAIT: Duration = Duration::from_secs(10);

/// Both ends of a connection to port 22.
fn session(world: &World) -> [TcpStream; 2] {
    let listen = || TcpListener::bind("10.99.0.2:22").unwrap();
    let listener = world.protected().run(listen).unwrap();
    let connect = || TcpStream::connect("10.99.0.2:22").unwrap();
    let outside = world.topology.internet.run(connect).unwrap();
    let (inside, _) = listener.accept().unwrap();
    for end in [&inside, &outside] {
        end.set_read_timeout(Some(WAIT)).unwrap();
        end.set_nodelay(true).unwrap();
    }
    [inside, outside]
}

fn says([from, to]: [&mut TcpStream; 2], bytes: &[u8]) {
    from.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    to.read_exact(&mut back).unwrap();
    assert_eq!(back, bytes);
}

/// A socket that sends IPv4 packets as they are given.
fn raw(namespace: &Namespace) -> OwnedFd {
    let open = || {
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW) };
        assert!(fd >= 0);
        // SAFETY: a new descriptor that nobody else has.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    namespace.run(open).unwrap()
}

/// A SYN to port 22 from the `number`-th address.
fn spoof(socket: &OwnedFd, number: u32) -> bool {
    let [_, b, c, d] = number.to_be_bytes();
    let source = format!("30.{b}.{c}.{d}");
    let syn = to("10.99.0.2", frame::TCP, segment(9, 22, SYN)).from(&source);
    let packet = syn.checked().bytes().split_off(14);
    // SAFETY: zero is a value of each of its fields.
    let mut there: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    there.sin_family = libc::AF_INET as u16;
    there.sin_addr.s_addr = u32::from_ne_bytes([10, 99, 0, 2]);
    // SAFETY: the packet's own bytes, and an address of the length that is given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const there).cast(),
            size_of::<libc::sockaddr_in>() as u32,
        )
    };
    sent == packet.len() as isize
}

#[test]
fn a_session_stays_up_under_a_flood_of_syns() {
    const SYNS: u64 = 100_000;
    let world = World::new(None);
    let _daemon = world.enforce("outbound_rules: []");
    let [mut inside, mut outside] = session(&world);
    says([&mut inside, &mut outside], b"prompt");
    let socket = raw(&world.topology.internet);
    let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                sent.fetch_add(spoof(&socket, number).into(), Ordering::Relaxed);
            }
        });
        let begun = Instant::now();
        while sent.load(Ordering::Relaxed) < SYNS && begun.elapsed() < 4 * WAIT {
            says([&mut outside, &mut inside], b"ls");
            says([&mut inside, &mut outside], b"file");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(sent.load(Ordering::Relaxed) >= SYNS);
    says([&mut inside, &mut outside], b"still here");
    let forgotten = world.metric("netfilter_map_evictions_total{map=\"HALF_OPEN\"}");
    assert!(forgotten > 0, "the flood did not overflow the table");
    assert_eq!(world.metric("netfilter_map_entries{map=\"INBOUND\"}"), 1);
    assert_eq!(world.metric("netfilter_flows_lost_total"), 0);
    drop(outside);
    drop(inside);
}

/// The internet's side learns only from the router's messages that 1280 bytes fit.
#[test]
fn path_mtu_messages_reach_both_who_came_in_and_whom_we_reach() {
    const MEGABYTE: usize = 1 << 20;
    let world = World::new(None);
    // The far end lies behind a narrow cable; what the internet's end forwards is too long.
    let far = Namespace::new().unwrap();
    let internet = &world.topology.internet;
    netfilter_daemon::lab::namespace::veth(&far, "eth0", internet, "narrow").unwrap();
    far.ip("address add 10.97.0.2/24 dev eth0").unwrap();
    far.ip("route add default via 10.97.0.1").unwrap();
    internet.ip("address add 10.97.0.1/24 dev narrow").unwrap();
    internet
        .ip("route add 10.97.0.0/24 dev narrow table local")
        .unwrap();
    internet.ip("link set narrow mtu 1280").unwrap();
    internet.sysctl("net/ipv4/ip_forward", "1").unwrap();
    let _daemon = world.enforce(
        "outbound_rules: [{ name: far, type: ip, destination: { cidr: 10.97.0.0/24, protocol: TCP, port_ranges: '443' } }]",
    );
    let protected = world.protected();
    for (listens, connects, address) in [
        (&far, protected, "10.97.0.2:443"),
        (protected, &far, "10.99.0.2:22"),
    ] {
        let listener = listens.run(|| TcpListener::bind(address).unwrap()).unwrap();
        let connected = connects
            .run(|| TcpStream::connect_timeout(&address.parse().unwrap(), WAIT))
            .unwrap();
        let connected = connected.unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let (mut ours, mut theirs) = if address.starts_with("10.97") {
            (connected, accepted)
        } else {
            (accepted, connected)
        };
        theirs.set_read_timeout(Some(WAIT)).unwrap();
        let reader = thread::spawn(move || theirs.read_exact(&mut vec![0; MEGABYTE]));
        ours.write_all(&vec![7; MEGABYTE]).unwrap();
        reader.join().unwrap().unwrap();
    }
    let learned = protected
        .command("ip")
        .args(["route", "get", "10.97.0.2"])
        .output()
        .unwrap();
    let learned = String::from_utf8(learned.stdout).unwrap();
    assert!(
        learned.contains("mtu 1280"),
        "the router said so: {learned}"
    );
}
