//! The daemon in a namespace, with real clients: what the README promises.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use netfilter_daemon::{
    compile,
    lab::{
        daemon::Daemon,
        dns::Zone,
        mounts,
        namespace::{Namespace, veth},
    },
    policy::{self, System, service_tag::Catalogue},
};
use proptest::{prelude::*, strategy::ValueTree};

use crate::world::{BINARY, World, echo_tcp, eventually};

fn zone() -> Zone {
    let mut zone = Zone::new();
    let (mcr, data): (IpAddr, IpAddr) = ([192, 0, 2, 10].into(), [192, 0, 2, 20].into());
    zone.alias("mcr.microsoft.com", 300, "global_frontend.example.net")
        .unwrap();
    zone.alias("global_frontend.example.net", 0, "edge.example.net")
        .unwrap();
    zone.address("edge.example.net", 30, mcr).unwrap();
    zone.alias("eastus.data.mcr.microsoft.com", 60, "d.example.net")
        .unwrap();
    zone.address("d.example.net", 5, data).unwrap();
    zone.address("evil.example.net", 60, [192, 0, 2, 66].into())
        .unwrap();
    zone
}

#[test]
fn the_preset_lets_out_what_it_lists_and_nothing_else() {
    let world = World::new(Some(zone()));
    assert!(
        world.connects("8.8.8.8", 443),
        "without a filter everything answers"
    );
    let daemon = world.enforce("presets: [azure-ml]");
    assert!(
        daemon
            .said
            .starts_with("enforcing on eth0 (policy: 8 rules, generation 1)"),
        "{}",
        daemon.said
    );

    assert!(
        world.connects_by_name("mcr.microsoft.com", 443),
        "a CNAME chain, an underscore, a TTL of 0"
    );
    assert!(world.connects_by_name("eastus.data.mcr.microsoft.com", 443));
    assert!(!world.connects_by_name("evil.example.net", 443));
    assert!(!world.connects("192.0.2.66", 443));
    assert!(
        !world.connects("192.0.2.10", 8443),
        "another port of an approved name"
    );
    assert!(!world.connects("8.8.8.8", 443));
    assert!(!world.connects("2001:db8::1", 443));
    assert!(!world.udp_echoes("192.0.2.10", 443), "another protocol");
    // Real clients.
    let curl = |url: &str| {
        world.succeeds(
            "curl",
            &["-s", "--max-time", "3", "-o", "/dev/null", "--http0.9", url],
        )
    };
    assert!(world.succeeds(
        "dig",
        &["+tries=1", "+time=2", "mcr.microsoft.com", "@10.99.0.1"]
    ));
    assert!(!curl("http://evil.example.net:443/"));
    let refused = world
        .protected()
        .command("dig")
        .args(["+tries=1", "evil.example.net", "@10.99.0.1"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&refused.stdout).contains("NXDOMAIN"));
}

/// `explain`, the packets, and so the rules agree on thousands of destinations.
#[test]
fn explain_agrees_with_the_packets_on_thousands_of_destinations() {
    let world = World::new(None);
    let _daemon = world.enforce("presets: [azure-ml]");
    let text = "presets: [azure-ml]\nresolvers: [10.99.0.1, 'fd99::1']";
    let policy = policy::parse(text, "policy", &System::default(), &|_| {
        Catalogue::built_in()
    })
    .unwrap();
    let image = compile::compile(&policy).unwrap();
    let prefixes: Vec<ipnet::IpNet> = policy
        .rules
        .iter()
        .filter_map(|rule| match &rule.destination {
            policy::Destination::Tag { prefixes, .. } => Some(prefixes.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut draw = || {
        any::<(usize, u128, u8)>()
            .new_tree(&mut runner)
            .unwrap()
            .current()
    };
    let mut destinations = Vec::new();
    while destinations.len() < 3_000 {
        let (index, bits, kind) = draw();
        let inside = match prefixes[index % prefixes.len()] {
            ipnet::IpNet::V4(net) => {
                let host = if kind & 3 == 0 {
                    bits as u32
                } else {
                    net.network().to_bits() | bits as u32 & net.hostmask().to_bits()
                };
                IpAddr::from(host.to_be_bytes())
            }
            ipnet::IpNet::V6(net) => {
                let host = if kind & 3 == 0 {
                    0x2000 << 112 | bits >> 3
                } else {
                    net.network().to_bits() | bits & net.hostmask().to_bits()
                };
                IpAddr::from(host.to_be_bytes())
            }
        };
        if netfilter_daemon::lab::topology::routable(inside) && !inside.is_loopback() {
            destinations.push((inside, [443u16, 443, 80, 22][usize::from(kind >> 2 & 3)]));
        }
    }
    let results = world
        .protected()
        .run(|| {
            destinations
                .iter()
                .map(|&(address, port)| echo_tcp(SocketAddr::new(address, port)))
                .collect::<Vec<_>>()
        })
        .unwrap();
    let mut allowed = 0;
    for ((address, port), connected) in destinations.into_iter().zip(results) {
        let expected = image.judge_address(address, 6, port).is_ok();
        assert_eq!(connected, expected, "{address} {port}");
        allowed += usize::from(expected);
    }
    assert!(allowed > 300, "{allowed}");
}

#[test]
fn an_operator_who_came_in_is_answered_before_and_after_the_start() {
    use std::io::{Read, Write};
    let world = World::new(None);
    let listener = world
        .protected()
        .run(|| std::net::TcpListener::bind("10.99.0.2:22").unwrap())
        .unwrap();
    let connect = || {
        let outside = world
            .topology
            .internet
            .run(|| std::net::TcpStream::connect("10.99.0.2:22").unwrap())
            .unwrap();
        let (inside, _) = listener.accept().unwrap();
        inside
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        outside
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        (inside, outside)
    };
    // The machine speaks first: nothing has arrived since the filter started.
    let alive = |(inside, outside): &mut (std::net::TcpStream, std::net::TcpStream)| {
        inside.write_all(b"prompt").unwrap();
        outside.read_exact(&mut [0; 6]).unwrap();
        outside.write_all(b"ls").unwrap();
        inside.read_exact(&mut [0; 2]).unwrap();
    };
    let mut before = connect();
    let daemon = world.enforce("outbound_rules: []");
    alive(&mut before);
    let mut after = connect();
    alive(&mut after);
    drop(daemon);
    alive(&mut before);
    alive(&mut after);
    // Its mirror: what went out before the start is judged by the policy.
    assert!(!world.connects("8.8.8.8", 22));
}

#[test]
fn two_daemons_filter_two_namespaces_side_by_side() {
    let world = World::new(None);
    let _first = world.enforce("outbound_rules: [{ name: a, type: ip, destination: { cidr: 192.0.2.1/32, protocol: TCP, port_ranges: '443' } }]");
    // A second machine on the first one's mounts, with another state directory.
    let second = Namespace::new().unwrap();
    veth(&second, "eth0", &world.topology.internet, "eth1").unwrap();
    second.ip("address add 10.98.0.2/24 dev eth0").unwrap();
    world
        .topology
        .internet
        .ip("address add 10.98.0.1/24 dev eth1")
        .unwrap();
    world
        .topology
        .internet
        .ip("route add 10.98.0.0/24 dev eth1 table local")
        .unwrap();
    second.ip("route add default via 10.98.0.1").unwrap();
    let second = second.with_private_mounts(mounts::prepare).unwrap();
    second
        .run(|| {
            std::fs::write(
                mounts::POLICY,
                "resolvers: [10.98.0.1]\noutbound_rules: [{ name: b, type: ip, destination: { cidr: 192.0.2.2/32, protocol: TCP, port_ranges: '443' } }]",
            )
        })
        .unwrap()
        .unwrap();
    let mut command = second.command(BINARY);
    command.args([
        "run",
        "--policy",
        mounts::POLICY,
        "--state-dir",
        "/sys/fs/bpf/second",
    ]);
    let _second = Daemon::start(command).unwrap_or_else(|error| panic!("{error}"));
    let from_second = |address: &str| {
        second
            .run(|| echo_tcp(SocketAddr::new(address.parse().unwrap(), 443)))
            .unwrap()
    };
    assert!(world.connects("192.0.2.1", 443) && !world.connects("192.0.2.2", 443));
    assert!(from_second("192.0.2.2") && !from_second("192.0.2.1"));
    let status = second
        .command(BINARY)
        .args(["status", "--state-dir", "/sys/fs/bpf/second"])
        .output()
        .unwrap();
    assert!(
        status.status.success(),
        "{}",
        String::from_utf8_lossy(&status.stderr)
    );
    let detached = second
        .command(BINARY)
        .args(["detach", "--state-dir", "/sys/fs/bpf/second"])
        .output()
        .unwrap();
    assert!(detached.status.success());
    assert!(eventually(|| from_second("192.0.2.1")), "lifted there");
    assert!(!world.connects("192.0.2.2", 443), "and not here");
}

#[test]
fn metrics_count_every_packet_and_healthz_answers() {
    let world = World::new(None);
    let _daemon = world.enforce("on_deny: drop\noutbound_rules: []");
    let socket = world
        .protected()
        .run(|| std::net::UdpSocket::bind("10.99.0.2:0").unwrap())
        .unwrap();
    for _ in 0..21 {
        // A dropped packet may be reported to its sender, or not.
        _ = socket.send_to(b"hello", "192.0.2.9:9");
    }
    let metric = "netfilter_dropped_packets_total{reason=\"no_rule\",family=\"ipv4\",protocol=\"udp\",interface=\"eth0\"}";
    assert!(
        eventually(|| world.metric(metric) == 21),
        "{}",
        world.metrics()
    );
    assert!(world.get("/healthz").starts_with("HTTP/1.1 200"));
    assert_eq!(world.metric("netfilter_enforcing{interface=\"eth0\"}"), 1);
}
