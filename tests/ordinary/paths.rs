//! What a path or a router says is heard, and said: its MTU, its prefix, its leases.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    thread,
    time::Duration,
};

use netfilter_daemon::lab::namespace::{Namespace, veth};

use crate::{
    plumbing::{said, within},
    resolvers::servers::Server,
    workload::site::{ALLOWED, ALLOWED_IPV6, Site, policy},
    world::World,
};

const LARGE: usize = 1 << 20;

/// Of a route into a cable whose other end takes packets of 1,300 bytes: that end drops what is
/// larger without a word, and a kernel that sends many at once hides it. What comes may be larger,
/// or nobody would have to be told of an MTU.
const NARROW: &str = "mtu 1300 advmss 1440";

/// Sends much and wants as much back.
fn exchanges(address: SocketAddr) -> std::io::Result<()> {
    let wait = Duration::from_secs(10);
    let stream = TcpStream::connect_timeout(&address, wait)?;
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(wait))?;
    let (mut to, mut from) = (stream.try_clone()?, stream);
    thread::scope(|scope| {
        let sent = scope.spawn(move || to.write_all(&vec![7; LARGE]));
        let mut back = vec![0; LARGE];
        from.read_exact(&mut back)?;
        sent.join().unwrap()
    })
}

/// Says again what it is told.
fn echo(namespace: &Namespace, port: u16) {
    let listen = || TcpListener::bind(("::", port)).unwrap();
    let listener = namespace.run(listen).unwrap();
    // Ends with the test program.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut back = stream.try_clone().unwrap();
            thread::spawn(move || std::io::copy(&mut stream, &mut back));
        }
    });
}

/// What the kernel has learned of the way there.
fn route(namespace: &Namespace, to: &str) -> String {
    let mut ip = namespace.command("ip");
    said(&ip.args(["route", "get", to]).output().unwrap())
}

/// Of both families, behind a router whose next cable carries less.
#[test]
fn the_mtu_of_a_path_is_learned_and_what_is_sent_arrives() {
    const FAR: [&str; 2] = ["198.51.100.1", "2001:db8:666::1"];
    let world = World::new(None);
    let router = &world.topology.internet;
    let far = Namespace::new().unwrap();
    veth(router, "far0", &far, "eth0").unwrap();
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        router.sysctl(key, "1").unwrap();
    }
    for command in [
        "link set far0 mtu 1300",
        "address add 198.51.100.254/24 dev far0",
        "address add 2001:db8:666::ff/64 dev far0 nodad",
        "route add 198.51.100.0/24 dev far0 table local",
        "route add 2001:db8:666::/64 dev far0 table local",
    ] {
        router.ip(command).unwrap();
    }
    for command in [
        "address add 198.51.100.1/24 dev eth0",
        "address add 2001:db8:666::1/64 dev eth0 nodad",
        &format!("route add default via 198.51.100.254 {NARROW}"),
        &format!("route add default via 2001:db8:666::ff {NARROW}"),
    ] {
        far.ip(command).unwrap();
    }
    echo(&far, 443);
    let _daemon = world.enforce(
        "outbound_rules: [{ name: far, type: ip, destination: { cidr: [198.51.100.0/24, 2001:db8:666::/64], protocol: TCP, port_ranges: '443' } }]",
    );
    for address in FAR {
        let target = SocketAddr::new(address.parse().unwrap(), 443);
        let done = world.protected().run(|| exchanges(target)).unwrap();
        let way = route(world.protected(), address);
        assert!(
            done.is_ok() && way.contains("mtu 1300"),
            "{address}: {done:?}, {way}"
        );
    }
    world.dropped_only(&[]);
}

/// A host says how much the last cable carries to who answers its workload.
fn says_the_mtu(masquerade: bool, uplinks: &str) {
    let site = Site::new(masquerade);
    let (host, internet) = (site.world.protected(), &site.world.topology.internet);
    host.ip("link set w0 mtu 1300").unwrap();
    for gateway in ["10.88.88.1", "fd88:0:88::1"] {
        let route = format!("route change default via {gateway} {NARROW}");
        site.workload.ip(&route).unwrap();
    }
    let _daemon = site.enforce(&policy(uplinks));
    let own: [IpAddr; 2] = if masquerade {
        ["10.99.0.2", "fd99::2"].map(|own| own.parse().unwrap())
    } else {
        ["10.88.88.2", "fd88:0:88::2"].map(|own| own.parse().unwrap())
    };
    for (address, own) in [ALLOWED, ALLOWED_IPV6].into_iter().zip(own) {
        let target = SocketAddr::new(address.parse().unwrap(), 443);
        let done = site.workload.run(|| exchanges(target)).unwrap();
        let way = route(internet, &own.to_string());
        assert!(
            done.is_ok() && way.contains("mtu 1300"),
            "{address}: {done:?}, {way}"
        );
    }
    site.world.dropped_only(&[]);
}

#[test]
fn a_routed_workloads_mtu_is_said_past_its_filter() {
    says_the_mtu(false, "");
}

#[test]
fn a_routed_workloads_mtu_is_said_past_both_filters() {
    says_the_mtu(false, "eth0, ");
}

#[test]
fn the_mtu_of_a_workload_behind_the_hosts_address_is_said_past_both_filters() {
    says_the_mtu(true, "eth0, ");
}

/// The host is its router and has its leases.
#[test]
fn a_workload_configures_itself_and_renews_its_lease() {
    let site = Site::new(false);
    let (host, workload) = (site.world.protected(), &site.workload);
    let arguments = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--user=root",
        "--pid-file=",
        "--interface=w0",
        "--no-ping",
        "--dhcp-range=10.88.88.100,10.88.88.150,255.255.255.0,2m",
        "--dhcp-range=fd88:0:88::,ra-only",
        "--enable-ra",
        "--dhcp-authoritative",
        "--dhcp-leasefile=DIR/leases",
    ];
    let _router = Server::spawn(host, "dnsmasq", &[], &arguments);
    let _daemon = site.enforce(&policy("eth0, "));
    let shown = || {
        let mut ip = workload.command("ip");
        said(
            &ip.args(["address", "show", "dev", "eth0"])
                .output()
                .unwrap(),
        )
    };
    workload.ip("address flush dev eth0").unwrap();
    workload
        .sysctl("net/ipv6/conf/eth0/accept_dad", "1")
        .unwrap();
    workload.ip("link set eth0 down").unwrap();
    workload.ip("link set eth0 up").unwrap();
    let usable = || {
        let text = shown();
        text.lines().any(|line| {
            line.contains("fd88:0:88:") && line.contains("dynamic") && !line.contains("tentative")
        })
    };
    assert!(within(usable), "{}", shown());

    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    let content =
        "#!/bin/sh\n[ -n \"$ip\" ] && ip address replace $ip/24 dev eth0\necho $1 >>\"$0.said\"\n";
    std::fs::write(&script, content).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut udhcpc = workload.command("busybox");
    udhcpc
        .args(["udhcpc", "-i", "eth0", "-f", "-s"])
        .arg(&script);
    let mut udhcpc = udhcpc.spawn().unwrap();
    let heard = |what: &str| {
        let text = std::fs::read_to_string(directory.path().join("script.said"));
        text.is_ok_and(|text| text.lines().any(|line| line == what))
    };
    let bound = within(|| heard("bound"));
    let id = nix::unistd::Pid::from_raw(udhcpc.id().cast_signed());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGUSR1).unwrap();
    let renewed = within(|| heard("renew"));
    udhcpc.kill().unwrap();
    udhcpc.wait().unwrap();
    assert!(bound && renewed, "bound: {bound}, renewed: {renewed}");
    // Copies of the host's own advertisements, which its kernel hands back to it; and that of an
    // answer to udhcpc no socket was there, for it listens beside the kernel.
    let told = site.world.metrics();
    let dropped = |line: &&str| line.starts_with("netfilter_dropped_packets_total");
    for line in told.lines().filter(dropped) {
        let icmp = line.contains("reason=\"no_rule\"") && line.contains("protocol=\"icmp\"");
        let frame = line.contains("reason=\"ethertype\"") && line.contains("family=\"other\"");
        assert!(icmp || frame, "{line}");
    }
}
