//! What a machine sends to live on its network leaves, as the kernel and tools have it.

use std::{net::UdpSocket, process::Command};

use crate::world::{World, eventually};

const POLICY: &str = "on_deny: drop\noutbound_rules: [{ name: a, type: ip, destination: { cidr: 192.0.2.0/24, protocol: TCP, port_ranges: '443' } }]";

/// Packets dropped because of what they are, not of where they go.
fn refused(world: &World) -> u64 {
    ["ethertype", "malformed", "surplus", "extension_header"]
        .map(|reason| {
            world.metric(&format!(
                "netfilter_dropped_packets_total{{reason=\"{reason}\""
            ))
        })
        .iter()
        .sum()
}

fn passed(world: &World, family: &str, protocol: &str) -> u64 {
    world.metric(&format!(
        "netfilter_passed_packets_total{{family=\"{family}\",protocol=\"{protocol}\""
    ))
}

#[test]
fn questions_answers_and_announcements_of_arp_leave() {
    let world = World::new(None);
    let (protected, internet) = (world.protected(), &world.topology.internet);
    let _daemon = world.enforce(POLICY);
    for end in [protected, internet] {
        end.ip("neigh flush dev eth0").unwrap();
    }
    assert!(world.connects("192.0.2.1", 443), "the kernel asks");
    internet.ip("neigh flush dev eth0").unwrap();
    let asks = ["ping", "-c1", "-W2", "10.99.0.2"];
    let mut ping = internet.command("busybox");
    // No echo comes back: what counts is that the kernel answered who it is.
    ping.args(asks).output().unwrap();
    let known = |command: &mut Command| {
        let shown = command.args(["neigh", "show", "10.99.0.2"]).output();
        String::from_utf8(shown.unwrap().stdout)
            .unwrap()
            .contains("lladdr")
    };
    assert!(known(&mut internet.command("ip")), "the kernel answers");
    for options in [
        &["-c1", "-w2"][..],
        &["-c2", "-w3", "-b"],
        &["-c1", "-w2", "-U"],
        &["-c1", "-w2", "-A"],
        &["-c1", "-w2", "-D"],
    ] {
        let before = passed(&world, "other", "other");
        let to = if options.len() == 3 && options[2] != "-b" {
            "10.99.0.2"
        } else {
            "10.99.0.1"
        };
        let arguments = [&["arping", "-I", "eth0"], options, &[to]].concat();
        let answered = world.succeeds("busybox", &arguments);
        assert!(answered || to == "10.99.0.2", "{options:?}");
        assert!(passed(&world, "other", "other") > before, "{options:?}");
    }
    protected
        .sysctl("net/ipv4/conf/eth0/arp_notify", "1")
        .unwrap();
    let before = passed(&world, "other", "other");
    protected
        .ip("link set eth0 address 02:00:00:00:00:77")
        .unwrap();
    assert!(eventually(|| passed(&world, "other", "other") > before));
    assert!(world.connects("192.0.2.1", 443), "from its new address");
    assert_eq!(refused(&world), 0, "{}", world.metrics());
}

/// IGMP and MLD have router alerts, which no other packet may have.
#[test]
fn announcements_of_groups_leave_with_their_router_alerts() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    let before = (
        passed(&world, "ipv4", "other"),
        passed(&world, "ipv6", "icmp"),
    );
    let join = || {
        let ipv4 = UdpSocket::bind("0.0.0.0:0").unwrap();
        ipv4.join_multicast_v4(&[239, 1, 2, 3].into(), &[10, 99, 0, 2].into())
            .unwrap();
        let ipv6 = UdpSocket::bind("[::]:0").unwrap();
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        ipv6.join_multicast_v6(&"ff05::1234".parse().unwrap(), index)
            .unwrap();
        (ipv4, ipv6)
    };
    let _sockets = world.protected().run(join).unwrap();
    assert!(eventually(|| {
        passed(&world, "ipv4", "other") > before.0 && passed(&world, "ipv6", "icmp") > before.1
    }));
    assert_eq!(refused(&world), 0, "{}", world.metrics());
}
