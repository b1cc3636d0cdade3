//! Devices of other kinds than a cable: without an Ethernet header, upon another, inward.

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _},
    net::{Ipv4Addr, TcpStream},
    os::fd::AsRawFd,
    time::Duration,
};

use netfilter_daemon::{
    datapath::{
        Target,
        test_run::{Context, Program},
    },
    lab::{
        dns::Zone,
        namespace::{Namespace, veth},
    },
};
use netfilter_ebpf::{
    abi::{INTERFACE_BONDED, INTERFACE_TAGGED, INTERFACE_UNREADABLE},
    packet::{self, Frame, Link},
    verdict::Reason,
};

use super::{POLICY, enforcing};
use crate::{
    bpffs::{DROP, Kernel, PASS},
    frame::tcp,
    world::{World, echo_tcp, eventually},
};

/// A tun device of the calling thread's namespace.
fn tun(name: &str) -> io::Result<File> {
    const IFF_TUN_NO_PI: u16 = 0x1001;
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&IFF_TUN_NO_PI.to_ne_bytes());
    // SAFETY: the request is a `struct ifreq`; a valid descriptor.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a valid descriptor.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    Ok(file)
}

#[test]
fn a_device_without_an_ethernet_header_is_judged_and_refuses_at_once() {
    let world = World::new(None);
    world.write_policy(POLICY);
    let _daemon = world.start_on(&[]);
    let protected = world.protected();
    let mut device = protected.run(|| tun("tun0")).unwrap().unwrap();
    protected.ip("address add 10.97.0.2/24 dev tun0").unwrap();
    protected.ip("link set tun0 up").unwrap();
    for destination in ["198.51.100.0/24", "192.0.2.3"] {
        protected
            .ip(&format!("route add {destination} dev tun0"))
            .unwrap();
    }
    assert!(eventually(|| enforcing(&world, "tun0") == Some(1)));
    let connect = |address: &str| {
        let address = address.parse().unwrap();
        let wait = Duration::from_millis(700);
        protected
            .run(|| TcpStream::connect_timeout(&address, wait))
            .unwrap()
            .unwrap_err()
            .kind()
    };
    assert_eq!(connect("198.51.100.1:443"), ErrorKind::ConnectionRefused);
    // Nobody answers at the other end.
    assert_eq!(connect("192.0.2.3:443"), ErrorKind::TimedOut);
    let mut seen = Vec::new();
    let mut packet = [0; 2048];
    while let Ok(length) = device.read(&mut packet) {
        if length >= 20 && packet[0] >> 4 == 4 {
            let to: [u8; 4] = packet[16..20].try_into().unwrap();
            seen.push(Ipv4Addr::from(to));
        }
    }
    assert!(seen.contains(&Ipv4Addr::new(192, 0, 2, 3)), "{seen:?}");
    assert!(!seen.contains(&Ipv4Addr::new(198, 51, 100, 1)), "{seen:?}");
}

/// The port uses up the question, and the bridge believes its answer all the same.
#[test]
fn an_answer_that_passes_a_port_and_its_bridge_is_learned_and_arrives() {
    let mut zone = Zone::new();
    zone.address("a.example", 60, [192, 0, 2, 10].into())
        .unwrap();
    let world = World::new(Some(zone));
    let protected = world.protected();
    for command in [
        "link add br0 type bridge",
        "link set br0 up",
        "address flush dev eth0",
        "link set eth0 master br0",
        "address add 10.99.0.2/24 dev br0",
        "route add default via 10.99.0.1",
    ] {
        protected.ip(command).unwrap();
    }
    world.write_policy("outbound_rules: [{ name: a, type: fqdn, destination: { fqdn: '*.example', protocol: TCP, port_ranges: '443' } }]");
    let _daemon = world.start_on(&[]);
    assert_eq!(enforcing(&world, "br0"), Some(1));
    assert_eq!(enforcing(&world, "eth0"), Some(1));
    assert!(!world.connects("192.0.2.10", 443));
    assert!(world.connects_by_name("a.example", 443));
    let by_tcp = ["+tcp", "+tries=1", "+time=2", "a.example", "@10.99.0.1"];
    assert!(world.succeeds("dig", &by_tcp));
    assert_eq!(
        world.metric("netfilter_dns_answers_total{outcome=\"unsolicited\"}"),
        0
    );
}

#[test]
fn a_containers_traffic_is_judged_where_it_leaves_and_the_hosts_to_it_is_not() {
    let world = World::new(None);
    let protected = world.protected();
    let container = Namespace::new().unwrap();
    protected.ip("link add docker0 type bridge").unwrap();
    protected
        .ip("address add 10.96.0.1/24 dev docker0")
        .unwrap();
    protected.ip("link set docker0 up").unwrap();
    veth(protected, "vethc", &container, "eth0").unwrap();
    protected.ip("link set vethc master docker0").unwrap();
    container.ip("address add 10.96.0.2/24 dev eth0").unwrap();
    container.ip("route add default via 10.96.0.1").unwrap();
    protected.sysctl("net/ipv4/ip_forward", "1").unwrap();
    let internet = &world.topology.internet;
    internet
        .ip("route add 10.96.0.0/24 via 10.99.0.2 dev eth0 table local")
        .unwrap();
    world.write_policy(POLICY);
    let _daemon = world.start_on(&[]);
    let from_container = |address: &str| {
        let address = address.parse().unwrap();
        container.run(|| echo_tcp(address)).unwrap()
    };
    assert!(from_container("192.0.2.1:443"), "forwarded, and allowed");
    assert!(!from_container("198.51.100.1:443"));
    let listener = container
        .run(|| std::net::TcpListener::bind("10.96.0.2:8080").unwrap())
        .unwrap();
    let to_container = || TcpStream::connect("10.96.0.2:8080").is_ok();
    assert!(protected.run(to_container).unwrap());
    drop(listener);
    assert_eq!(enforcing(&world, "docker0"), None);
    let status = String::from_utf8(world.daemon(&["status"]).stdout).unwrap();
    assert!(
        status.contains("leads to this machine's containers only"),
        "{status}"
    );
    assert!(
        status.contains("leads to a container of this machine"),
        "{status}"
    );
}

#[test]
fn nothing_leaves_by_an_interface_that_nobody_described_or_whose_frames_are_unknown() {
    let mut kernel = Kernel::new(POLICY);
    let machine = Namespace::new().unwrap();
    machine
        .ip("link add eth0 type veth peer name eth1")
        .unwrap();
    let ifindex = machine
        .run(|| nix::net::if_::if_nametoindex("eth0").unwrap())
        .unwrap();
    let with = Context { ifindex, mark: 0 };
    let allowed = tcp("192.0.2.1", 443).bytes();
    for (flags, action) in [
        (None, DROP),
        (Some(0), PASS),
        (Some(INTERFACE_UNREADABLE), DROP),
    ] {
        if let Some(flags) = flags {
            let target = Target {
                index: ifindex,
                name: "eth0".to_owned(),
                flags,
            };
            kernel.datapath.hooks().unwrap().describe(&target).unwrap();
        }
        let outcome = machine
            .run(|| kernel.run(Program::Egress, &allowed, with))
            .unwrap();
        assert_eq!(outcome.action, action, "{flags:?}");
    }
}

/// Up to two; elsewhere the kernel has set them aside.
#[test]
fn tags_leave_only_by_an_interface_that_has_some() {
    let mut kernel = Kernel::new(POLICY);
    let machine = Namespace::new().unwrap();
    let ifindex = machine
        .run(|| nix::net::if_::if_nametoindex("lo").unwrap())
        .unwrap();
    let with = Context { ifindex, mark: 0 };
    for (flags, link, most) in [
        (0, Link::Ethernet, 0),
        (INTERFACE_TAGGED, Link::Tagged, 2),
        (INTERFACE_BONDED, Link::Bonded, 2),
    ] {
        let target = Target {
            index: ifindex,
            name: "lo".to_owned(),
            flags,
        };
        kernel.datapath.hooks().unwrap().describe(&target).unwrap();
        for tags in 0..=3 {
            let mut frame = tcp("192.0.2.1", 443);
            frame.vlans = vec![7; tags];
            let bytes = frame.bytes();
            let passes = tags <= most;
            let read = packet::parse_on(bytes.as_slice(), link);
            assert_eq!(read.is_ok(), passes, "host: {tags} on {link:?}");
            let outcome = machine
                .run(|| kernel.run(Program::Egress, &bytes, with))
                .unwrap();
            let expected = if passes { PASS } else { DROP };
            assert_eq!(outcome.action, expected, "kernel: {tags} on {link:?}");
        }
    }
}

#[test]
fn exactly_an_lacpdu_of_a_member_of_a_bond_is_plumbing() {
    let mut lacpdu = vec![0; 124];
    lacpdu[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, 2]);
    lacpdu[12..18].copy_from_slice(&[0x88, 0x09, 1, 1, 1, 20]);
    lacpdu[36..38].copy_from_slice(&[2, 20]);
    lacpdu[56..58].copy_from_slice(&[3, 16]);
    let read = |bytes: &[u8], link| packet::parse_on(bytes, link);
    assert_eq!(read(&lacpdu, Link::Bonded), Ok(Frame::Lacp));
    assert_eq!(read(&lacpdu, Link::Ethernet), Err(Reason::Ethertype));
    for at in [5, 14, 15, 35, 55, 60, 72, 74, 123] {
        let mut other = lacpdu.clone();
        other[at] ^= 1;
        assert_eq!(read(&other, Link::Bonded), Err(Reason::Ethertype), "{at}");
    }
    lacpdu.push(0);
    assert_eq!(read(&lacpdu, Link::Bonded), Err(Reason::Ethertype));
}

/// The kernel may say that a packet is what its bytes are not.
#[test]
fn without_an_ethernet_header_the_bytes_must_be_what_the_kernel_says() {
    const IPV4: u16 = 0x0800;
    let frame = tcp("192.0.2.1", 443).bytes();
    let bare = &frame[14..];
    let read = |ethertype| packet::parse_on(bare, Link::Bare(ethertype));
    assert!(matches!(read(IPV4), Ok(Frame::Ip(packet)) if packet.network == 0));
    assert_eq!(read(0x86dd), Err(Reason::Malformed));
    assert_eq!(read(0x0806), Err(Reason::Ethertype));
    assert_eq!(read(0x8137), Err(Reason::Ethertype));
}
