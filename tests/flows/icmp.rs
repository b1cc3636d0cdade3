//! ICMP: echoes, and errors, which are judged by what they quote.

use std::{net::UdpSocket, time::Duration};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockProtocol, SockType};

use crate::{
    bpffs::{DROP, Kernel, PASS},
    frame::{self, Frame, LOCAL, LOCAL_V6, SYN, datagram, segment, to},
    world::World,
};

const POLICY: &str = "
resolvers: [10.0.0.53]
inbound: [{ protocol: TCP, port_ranges: '22' }, { protocol: ICMP, port_ranges: '*' }]
outbound_rules:
  - { name: web, type: ip, destination: { cidr: 192.0.2.0/24, protocol: TCP, port_ranges: '443' } }
  - { name: web6, type: ip, destination: { cidr: '2001:db8::/32', protocol: TCP, port_ranges: '443' } }
  - { name: no, type: ip, action: deny, destination: { cidr: 203.0.113.0/24, protocol: '*', port_ranges: '*' } }
";

fn local(remote: &str) -> &'static str {
    if remote.contains(':') {
        LOCAL_V6
    } else {
        LOCAL
    }
}

/// An ICMP message of either family: type, code, the rest of the header, its body.
fn icmp(remote: &str, kind: (u8, u8), rest: [u8; 4], body: &[u8]) -> Frame {
    let protocol = if remote.contains(':') { 58 } else { 1 };
    let message = [&[kind.0, kind.1, 0, 0], &rest[..], body].concat();
    to(remote, protocol, message)
}

/// The IP packet without its Ethernet header.
fn packet(frame: &Frame) -> Vec<u8> {
    frame.bytes().split_off(14)
}

/// From a port there to one here.
fn segment_of(remote: &str, there: u16, here: u16) -> Frame {
    to(local(remote), frame::TCP, segment(there, here, SYN)).from(remote)
}

/// Every error that may leave, about this packet, to whom it came from.
fn errors(remote: &str, quoted: &[u8]) -> Vec<Vec<u8>> {
    let kinds: &[(u8, u8)] = if remote.contains(':') {
        &[(1, 4), (2, 0), (3, 0), (4, 1)]
    } else {
        &[(3, 3), (3, 4), (11, 0), (12, 0)]
    };
    let error = |&kind: &(u8, u8)| icmp(remote, kind, [0, 0, 5, 0], quoted).bytes();
    kinds.iter().map(error).collect()
}

fn assert_errors(kernel: &mut Kernel, remote: &str, quoted: &[u8], action: i32, about: &str) {
    for error in errors(remote, quoted) {
        let outcome = kernel.egress(&error);
        assert_eq!(
            outcome.action,
            action,
            "{remote} {about} {:?}",
            &error[34..36]
        );
        assert_eq!(outcome.frame, error, "it is never answered");
    }
}

#[test]
fn an_error_leaves_where_an_answer_to_what_it_quotes_would() {
    for (remote, nobody) in [("192.0.2.1", "192.0.2.9"), ("2001:db8::1", "2001:db8::9")] {
        let mut kernel = Kernel::new(POLICY);
        let header = if remote.contains(':') { 40 } else { 20 };
        let permitted = packet(&segment_of(remote, 443, 40_000));
        assert_errors(&mut kernel, remote, &permitted, PASS, "by a rule");
        assert_errors(
            &mut kernel,
            remote,
            &permitted[..header + 8],
            PASS,
            "eight bytes",
        );
        assert_errors(&mut kernel, remote, &permitted[..header + 7], DROP, "seven");
        let other = packet(&segment_of(remote, 80, 40_000));
        assert_errors(&mut kernel, remote, &other, DROP, "another port");
        let reversed = packet(&segment_of(remote, 40_000, 443));
        assert_errors(&mut kernel, remote, &reversed, DROP, "the ports exchanged");
        let of_other = packet(&segment_of(nobody, 443, 40_000));
        assert_errors(
            &mut kernel,
            remote,
            &of_other,
            DROP,
            "not sent by whom it is for",
        );
        let forged = packet(&to(remote, frame::TCP, segment(443, 40_000, SYN)));
        assert_errors(&mut kernel, remote, &forged, DROP, "as if we had sent it");
        let own = icmp(
            local(remote),
            if header == 40 { (1, 4) } else { (3, 3) },
            [0; 4],
            &permitted,
        );
        assert_errors(
            &mut kernel,
            remote,
            &packet(&own.from(remote)),
            DROP,
            "about an error",
        );
        for (fragment, action) in [
            ((0, true, 7), PASS),
            ((1, true, 7), DROP),
            ((185, false, 7), DROP),
        ] {
            let part = Frame {
                fragment: Some(fragment),
                ..segment_of(remote, 443, 40_000)
            };
            assert_errors(&mut kernel, remote, &packet(&part), action, "of a fragment");
        }
    }
}

#[test]
fn an_error_about_a_flow_leaves_while_the_flow_is_there() {
    for remote in ["8.8.8.8", "2a00::8", "203.0.113.7"] {
        let mut kernel = Kernel::new(POLICY);
        let syn = segment_of(remote, 5_000, 22);
        assert_errors(&mut kernel, remote, &packet(&syn), DROP, "before");
        kernel.ingress(&syn.bytes());
        assert_errors(&mut kernel, remote, &packet(&syn), PASS, "of the flow");
        let other = packet(&segment_of(remote, 5_001, 22));
        assert_errors(&mut kernel, remote, &other, DROP, "of another");
    }
}

#[test]
fn an_error_about_an_answer_of_a_resolver_is_dropped_in_silence() {
    let mut kernel = Kernel::new(POLICY);
    let late = to(LOCAL, frame::UDP, datagram(53, 40_000, b"late")).from("10.0.0.53");
    assert_errors(&mut kernel, "10.0.0.53", &packet(&late), DROP, "DNS");
    let counters = kernel.datapath.state().counters().unwrap();
    assert_eq!(counters.dropped.len(), 1);
    assert_eq!(counters.dropped[0].protocol.label(), "icmp");
    assert_eq!(counters.dropped[0].reason.label(), "no_rule");
    let asked: u64 = counters.questions.iter().map(|(_, count)| count).sum();
    assert_eq!(asked, 0, "nobody reads it as a question");
}

#[test]
fn an_echo_that_came_in_is_answered_and_no_other() {
    let mut kernel = Kernel::new(POLICY);
    let (request, reply) = ((8, 0), (0, 0));
    let answer = |id: u8| icmp("8.8.8.8", reply, [0, id, 0, 1], b"abc").bytes();
    assert_eq!(kernel.egress(&answer(7)).action, DROP, "nobody asked");
    let asks = icmp(LOCAL, request, [0, 7, 0, 1], b"abc").from("8.8.8.8");
    assert_eq!(kernel.ingress(&asks.bytes()).action, PASS);
    assert_eq!(kernel.egress(&answer(7)).action, PASS);
    assert_eq!(kernel.egress(&answer(8)).action, DROP, "another identifier");
    // What answers, or is an error, begins nothing.
    let unasked = icmp(LOCAL, reply, [0, 8, 0, 1], b"abc").from("8.8.8.8");
    kernel.ingress(&unasked.bytes());
    assert_eq!(kernel.egress(&answer(8)).action, DROP);
}

#[test]
fn our_own_echo_leaves_where_a_rule_has_icmp_and_what_comes_back_arrives() {
    const RULES: &str = "
outbound_rules:
  - { name: icmp, type: ip, destination: { cidr: 192.0.2.0/25, protocol: ICMP, port_ranges: '*' } }
  - { name: icmp6, type: ip, destination: { cidr: '2001:db8:1::/48', protocol: ICMP, port_ranges: '*' } }
  - { name: any, type: ip, destination: { cidr: 198.51.100.0/24, protocol: '*', port_ranges: '*' } }
  - { name: any6, type: ip, destination: { cidr: '2001:db8:2::/48', protocol: '*', port_ranges: '*' } }
  - { name: web, type: ip, destination: { cidr: 203.0.113.0/24, protocol: TCP, port_ranges: '443' } }
  - { name: web6, type: ip, destination: { cidr: '2001:db8:3::/48', protocol: TCP, port_ranges: '443' } }
";
    let mut kernel = Kernel::new(RULES);
    for (remote, allowed) in [
        ("192.0.2.1", true),
        ("2001:db8:1::1", true),
        ("198.51.100.1", true),
        ("2001:db8:2::1", true),
        ("192.0.2.200", false),
        ("203.0.113.1", false),
        ("2001:db8:3::1", false),
        ("2001:db8:4::1", false),
    ] {
        let (request, reply) = match remote.contains(':') {
            true => ((128, 0), (129, 0)),
            false => ((8, 0), (0, 0)),
        };
        let asks = icmp(remote, request, [0, 7, 0, 1], b"abc").bytes();
        assert_eq!(kernel.egress(&asks).action == PASS, allowed, "{remote}");
        let comes = icmp(local(remote), reply, [0, 7, 0, 1], b"abc").from(remote);
        let arrived = kernel.ingress(&comes.bytes());
        assert_eq!((arrived.action, arrived.frame), (PASS, comes.bytes()));
    }
}

#[test]
fn a_path_mtu_about_our_own_packet_arrives() {
    let mut kernel = Kernel::new(POLICY);
    for (remote, router, kind) in [
        ("192.0.2.1", "10.0.0.1", (3, 4)),
        ("2001:db8::1", "fd00::1", (2, 0)),
    ] {
        for ours in [frame::tcp(remote, 443), frame::udp(remote, 443)] {
            kernel.egress(&ours.bytes());
            let error = icmp(local(remote), kind, [0, 0, 5, 0], &packet(&ours)).from(router);
            let arrived = kernel.ingress(&error.bytes());
            assert_eq!((arrived.action, arrived.frame), (PASS, error.bytes()));
        }
    }
}

/// Sends an echo request, as `ping` does.
fn pings(world: &World, remote: &str) -> bool {
    let ping = || {
        let (family, kind, remote) = (AddressFamily::Inet, SockType::Datagram, remote);
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(family, kind, flags, SockProtocol::Icmp).unwrap();
        let socket = UdpSocket::from(socket);
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        // The port says nothing.
        let request = [8, 0, 0, 0, 0, 0, 0, 1, b'x'];
        let sent = socket
            .connect((remote, 1))
            .and_then(|()| socket.send(&request));
        let mut reply = [0; 64];
        sent.is_ok() && socket.recv(&mut reply).is_ok_and(|_| reply[0] == 0)
    };
    world.protected().run(ping).unwrap()
}

#[test]
fn a_ping_of_ours_is_answered_where_a_rule_allows_it() {
    let world = World::new(None);
    let protected = world.protected();
    protected
        .sysctl("net/ipv4/ping_group_range", "0 0")
        .unwrap();
    let _daemon = world.enforce(
        "outbound_rules:
  - { name: icmp, type: ip, destination: { cidr: 192.0.2.1/32, protocol: ICMP, port_ranges: '*' } }
  - { name: any, type: ip, destination: { cidr: 192.0.2.2/32, protocol: '*', port_ranges: '*' } }
  - { name: web, type: ip, destination: { cidr: 192.0.2.3/32, protocol: TCP, port_ranges: '443' } }
",
    );
    let answers = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|remote| pings(&world, remote));
    assert_eq!(answers, [true, true, false]);
}
