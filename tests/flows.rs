//! What the tables cannot answer for: replies to what came in, fragments, refusals.

mod icmp;
mod life;
mod world;

use netfilter_ebpf::checksum;

use crate::{
    bpffs::{DROP, Kernel, PASS, REDIRECT},
    frame::{self, ACK, Frame, SYN, datagram, segment, tcp, to, udp},
};

const POLICY: &str = "
resolvers: [10.0.0.53]
outbound_rules:
  - { name: web, type: ip, destination: { cidr: 192.0.2.0/24, protocol: TCP, port_ranges: '443' } }
  - { name: any, type: ip, destination: { cidr: 198.51.100.0/24, protocol: '*', port_ranges: '*' } }
  - { name: any6, type: ip, destination: { cidr: '2001:db8::/32', protocol: '*', port_ranges: '*' } }
  - { name: no, type: ip, action: deny, destination: { cidr: 203.0.113.0/24, protocol: '*', port_ranges: '*' } }
";

fn reply(remote: &str, local_port: u16, remote_port: u16) -> Vec<u8> {
    to(
        remote,
        frame::TCP,
        segment(local_port, remote_port, SYN | ACK),
    )
    .bytes()
}

fn inbound(remote: &str, local_port: u16, remote_port: u16) -> Vec<u8> {
    let local = if remote.contains(':') {
        frame::LOCAL_V6
    } else {
        frame::LOCAL
    };
    to(local, frame::TCP, segment(remote_port, local_port, SYN))
        .from(remote)
        .bytes()
}

#[test]
fn a_reply_passes_to_whoever_came_in_by_ssh_and_to_nobody_else() {
    for remote in ["8.8.8.8", "2a00::8", "203.0.113.7"] {
        let mut kernel = Kernel::new(POLICY);
        assert_eq!(
            kernel.egress(&reply(remote, 22, 5000)).action,
            REDIRECT,
            "before"
        );
        assert_eq!(kernel.ingress(&inbound(remote, 22, 5000)).action, PASS);
        assert_eq!(
            kernel.egress(&reply(remote, 22, 5000)).action,
            PASS,
            "{remote}"
        );
        assert_eq!(
            kernel.egress(&reply(remote, 22, 5001)).action,
            REDIRECT,
            "another port there"
        );
        assert_eq!(
            kernel.egress(&reply(remote, 2222, 5000)).action,
            REDIRECT,
            "another port here"
        );
        let nobody = if remote.contains(':') {
            "2a00::9"
        } else {
            "8.8.8.9"
        };
        assert_eq!(kernel.egress(&reply(nobody, 22, 5000)).action, REDIRECT);
    }
}

#[test]
fn what_came_in_on_another_port_gets_no_reply() {
    let mut kernel = Kernel::new(POLICY);
    assert_eq!(kernel.ingress(&inbound("8.8.8.8", 8080, 5000)).action, PASS);
    assert_eq!(
        kernel.egress(&reply("8.8.8.8", 8080, 5000)).action,
        REDIRECT
    );
}

#[test]
fn a_flow_ends_with_the_rule_that_let_it_in() {
    let mut kernel = Kernel::new(POLICY);
    kernel.ingress(&inbound("8.8.8.8", 22, 5000));
    assert_eq!(kernel.egress(&reply("8.8.8.8", 22, 5000)).action, PASS);
    let closed = format!("inbound: []\n{POLICY}");
    kernel
        .datapath
        .replace(&crate::bpffs::image(&closed))
        .unwrap();
    assert_eq!(kernel.egress(&reply("8.8.8.8", 22, 5000)).action, REDIRECT);
}

#[test]
fn fragments_follow_their_first() {
    let mut kernel = Kernel::new(POLICY);
    for address in ["198.51.100.1", "2001:db8::1"] {
        let first = Frame {
            fragment: Some((0, true, 77)),
            ..to(address, frame::UDP, datagram(1, 2, &[0; 24]))
        };
        let later = Frame {
            fragment: Some((4, false, 77)),
            ..to(address, frame::UDP, vec![0; 64])
        };
        let stray = Frame {
            fragment: Some((4, false, 78)),
            ..later.clone()
        };
        assert_eq!(
            kernel.egress(&later.bytes()).action,
            DROP,
            "before its first"
        );
        assert_eq!(kernel.egress(&first.bytes()).action, PASS);
        assert_eq!(kernel.egress(&later.bytes()).action, PASS);
        assert_eq!(
            kernel.egress(&stray.bytes()).action,
            DROP,
            "of another datagram"
        );
    }
    let denied = Frame {
        fragment: Some((0, true, 5)),
        ..udp("8.8.8.8", 9)
    };
    let behind = Frame {
        fragment: Some((4, false, 5)),
        ..udp("8.8.8.8", 9)
    };
    assert_eq!(kernel.egress(&denied.bytes()).action, DROP);
    assert_eq!(kernel.egress(&behind.bytes()).action, DROP);
}

#[test]
fn a_tiny_first_fragment_cannot_hide_its_port() {
    let mut kernel = Kernel::new(POLICY);
    let tiny = Frame {
        fragment: Some((0, true, 5)),
        ..to(
            "198.51.100.1",
            frame::TCP,
            segment(1, 443, SYN)[..16].to_vec(),
        )
    };
    assert_eq!(kernel.egress(&tiny.bytes()).action, DROP);
}

#[test]
fn a_denied_segment_is_reset_with_sums_that_are_right() {
    let mut kernel = Kernel::new(POLICY);
    for address in ["8.8.8.8", "2a00::8"] {
        let outcome = kernel.egress(&tcp(address, 443).bytes());
        assert_eq!(outcome.action, REDIRECT);
        let reset = &outcome.frame;
        let ipv6 = address.contains(':');
        let (network, transport) = (14, if ipv6 { 54 } else { 34 });
        assert_eq!(reset.len(), transport + 20);
        let addresses = if ipv6 {
            &reset[network + 8..network + 40]
        } else {
            &reset[network + 12..network + 20]
        };
        let pseudo = checksum::sum(addresses) + 6 + 20;
        assert_eq!(
            checksum::finish(pseudo + checksum::sum(&reset[transport..])),
            [0, 0],
            "TCP sum"
        );
        if !ipv6 {
            assert_eq!(
                checksum::finish(checksum::sum(&reset[network..network + 20])),
                [0, 0],
                "IPv4 sum"
            );
        }
        assert_eq!(
            reset[transport..transport + 4],
            [1, 187, 0x9c, 0x40],
            "ports exchanged"
        );
        assert_eq!(
            reset[transport + 8..transport + 12],
            1001u32.to_be_bytes(),
            "acknowledges the SYN"
        );
        assert_eq!(reset[transport + 13], 0x14, "RST and ACK");
    }
}

#[test]
fn a_denied_datagram_is_prohibited_with_sums_that_are_right() {
    let mut kernel = Kernel::new(POLICY);
    for address in ["8.8.8.8", "2a00::8"] {
        let denied = udp(address, 9).bytes();
        let outcome = kernel.egress(&denied);
        assert_eq!(outcome.action, REDIRECT);
        let (reply, ipv6) = (&outcome.frame, address.contains(':'));
        let icmp = if ipv6 { 54 } else { 34 };
        assert_eq!(reply[icmp..icmp + 2], if ipv6 { [1, 1] } else { [3, 13] });
        assert_eq!(
            reply[icmp + 8..],
            denied[14..icmp + 8],
            "quotes what it refuses"
        );
        let length = u32::try_from(reply.len() - icmp).unwrap();
        let pseudo = if ipv6 {
            checksum::sum(&reply[22..54]) + 58 + length
        } else {
            0
        };
        assert_eq!(
            checksum::finish(pseudo + checksum::sum(&reply[icmp..])),
            [0, 0]
        );
    }
}

#[test]
fn on_deny_drop_is_silent() {
    let mut kernel = Kernel::new(&format!("on_deny: drop\n{POLICY}"));
    assert_eq!(kernel.egress(&tcp("8.8.8.8", 443).bytes()).action, DROP);
    assert_eq!(kernel.egress(&tcp("192.0.2.1", 443).bytes()).action, PASS);
}

#[test]
fn a_report_only_policy_passes_and_counts() {
    let mut kernel = Kernel::new(&format!(
        "isolation_mode: allow_internet_outbound\n{POLICY}"
    ));
    assert_eq!(kernel.egress(&tcp("8.8.8.8", 443).bytes()).action, PASS);
    let counters = kernel.datapath.state().counters().unwrap();
    assert_eq!(counters.dropped.len(), 1);
    assert!(counters.dropped[0].audited && counters.dropped[0].packets == 1);
}

#[test]
fn counters_are_exact() {
    let mut kernel = Kernel::new(POLICY);
    for _ in 0..1000 {
        kernel.egress(&tcp("8.8.8.8", 443).bytes());
        kernel.egress(&tcp("192.0.2.1", 443).bytes());
        kernel.egress(&tcp("192.0.2.1", 443).bytes());
    }
    let counters = kernel.datapath.state().counters().unwrap();
    let dropped: u64 = counters.dropped.iter().map(|drop| drop.packets).sum();
    let passed: u64 = counters.passed.iter().map(|pass| pass.packets).sum();
    assert_eq!((dropped, passed), (1000, 2000));
    assert_eq!(counters.dropped[0].bytes, 54_000);
}
