//! The program by itself, frame by frame, and beside that of tc.

use std::process::Command;

use netfilter_ebpf::checksum;

use crate::{
    bpffs::{BY_WORKLOAD, DROP, Kernel, PASS, REDIRECT},
    frame::{self, Frame, TCP, UDP, carrying, datagram, query, segment, tcp, to},
};

const POLICY: &str = "
resolvers: [10.0.0.53, 'fd00::53']
outbound_rules:
  - { name: exact, type: fqdn, destination: { fqdn: a.example, protocol: TCP, port_ranges: '443' } }
";
const RESOLVERS: [&str; 2] = ["10.0.0.53", "fd00::53"];
const PORT: u16 = 40_000;

/// Names, streams, forgeries: what was tested of egress is tested of workloads.
#[test]
fn what_holds_where_packets_leave_the_host_holds_where_they_leave_a_workload() {
    let modules = ["names::", "streams::", "forgery::"];
    let output = Command::new(std::env::current_exe().unwrap())
        .args(modules)
        .env(BY_WORKLOAD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.matches("... ok").count() > 60, "{said}");
}

#[test]
fn the_same_refusals_go_back_to_a_workload() {
    let mut kernel = Kernel::new(POLICY);
    let question = query(7, "evil.example", 1);
    let mut frames = Vec::new();
    for address in ["198.51.100.1", "2001:db8::1"] {
        frames.push(to(address, TCP, segment(PORT, 443, frame::SYN)));
        frames.push(to(
            address,
            TCP,
            carrying((PORT, 443), 7, 9, frame::ACK, &[b'x'; 900]),
        ));
        frames.push(to(address, UDP, datagram(PORT, 443, b"x")));
        frames.push(to(address, UDP, datagram(PORT, 443, &[b'x'; 900])));
    }
    frames.push(to("198.51.100.1", 1, vec![8, 0, 0, 0, 0, 1, 0, 1]));
    frames.push(to("2001:db8::1", 58, vec![128, 0, 0, 0, 0, 1, 0, 1]));
    for resolver in RESOLVERS {
        frames.push(to(resolver, UDP, datagram(PORT, 53, &question)).checked());
        let long = query(9, &format!("{}.test", "x".repeat(60)), 1);
        frames.push(to(resolver, UDP, datagram(PORT, 53, &long)).checked());
    }
    for frame in frames {
        // No interface of this kernel has VLANs.
        for (vlans, action) in [(vec![], REDIRECT), (vec![7], DROP), (vec![7, 8], DROP)] {
            let sent = Frame {
                vlans,
                ..frame.clone()
            };
            let bytes = sent.bytes();
            let (by_host, by_workload) = (kernel.egress(&bytes), kernel.workload(&bytes));
            assert_eq!(by_host.action, action, "{sent:?}");
            assert_eq!(by_workload.action, action, "{sent:?}");
            assert_eq!(by_workload.frame, by_host.frame, "{sent:?}");
        }
    }
}

/// As drivers of virtual cables hand it over: the sum of addresses, protocol and length.
fn left_to_be_made(mut frame: Frame) -> Frame {
    let whole = frame.clone().checked();
    let at = if frame.protocol == TCP { 16 } else { 6 };
    frame.payload[at..at + 2].fill(0);
    let payload = checksum::sum(&frame.payload);
    let made = u16::from_be_bytes([whole.payload[at], whole.payload[at + 1]]);
    // What is missing to the sum of all.
    let sum = u32::from(!made) + 0xffff * 8 - payload % 0xffff;
    let [high, low] = checksum::finish(sum);
    frame.payload[at..at + 2].copy_from_slice(&[!high, !low]);
    frame
}

#[test]
fn a_checksum_that_is_left_to_be_made_is_made_in_what_goes_back() {
    let mut kernel = Kernel::new(POLICY);
    for resolver in RESOLVERS {
        for name in ["evil.example", "evill.example"] {
            let sent = to(resolver, UDP, datagram(PORT, 53, &query(7, name, 1)));
            let whole = kernel.egress(&sent.clone().checked().bytes());
            let left = kernel.workload(&left_to_be_made(sent).bytes());
            assert_eq!((left.action, left.frame), (REDIRECT, whole.frame));
        }
    }
}

/// A question that asks for an answer of `size` bytes.
fn edns(name: &str, size: u16) -> Vec<u8> {
    let mut message = query(7, name, 1);
    message[11] = 1;
    message.extend([0, 0, 41]);
    message.extend(size.to_be_bytes());
    message.extend([0; 6]);
    message
}

#[test]
fn a_checksum_is_mended_where_it_is_made_and_stays_where_it_is_not() {
    let mut kernel = Kernel::new(POLICY);
    let site = netfilter_daemon::lab::namespace::Namespace::new().unwrap();
    site.ip("link add w0 type veth peer name w1").unwrap();
    let index = || nix::net::if_::if_nametoindex("w0").unwrap();
    let ifindex = site.run(index).unwrap();
    let target = netfilter_daemon::datapath::Target {
        index: ifindex,
        name: String::new(),
        flags: 0,
    };
    kernel.datapath.hooks().unwrap().describe(&target).unwrap();
    let with = netfilter_daemon::datapath::test_run::Context { ifindex, mark: 0 };
    for resolver in RESOLVERS {
        for asked in [4096, 1232] {
            let frame = |size| to(resolver, UDP, datagram(PORT, 53, &edns("a.example", size)));
            let mut run = |sent: &[u8]| {
                let program = netfilter_daemon::datapath::test_run::Program::Workload;
                site.run(|| kernel.run(program, sent, with)).unwrap()
            };
            let made = run(&frame(asked).checked().bytes());
            assert_eq!(made.action, PASS);
            assert_eq!(made.frame, frame(1232).checked().bytes());
            let left = left_to_be_made(frame(asked));
            let mut expected = frame(1232);
            expected.payload[6..8].copy_from_slice(&left.payload[6..8]);
            assert_eq!(run(&left.bytes()).frame, expected.bytes());
        }
    }
}

#[test]
fn what_a_workload_is_lent_is_lent_to_the_host_and_the_other_way_round() {
    let mut kernel = Kernel::new(POLICY);
    let question = query(7, "a.example", 1);
    let asked = to(RESOLVERS[0], UDP, datagram(PORT, 53, &question)).bytes();
    assert_eq!(kernel.workload(&asked).action, PASS);
    assert!(!kernel.passes(&tcp("192.0.2.9", 443).bytes()));
    let reply = frame::answer(&question, 60, &["192.0.2.9"]);
    let reply = to(frame::LOCAL, UDP, datagram(53, PORT, &reply)).from(RESOLVERS[0]);
    assert_eq!(kernel.ingress(&reply.bytes()).action, PASS);
    assert!(kernel.passes(&tcp("192.0.2.9", 443).bytes()));
    assert_eq!(kernel.workload(&tcp("192.0.2.9", 443).bytes()).action, PASS);
    let other = kernel.workload(&tcp("192.0.2.9", 80).bytes());
    assert_eq!(other.action, REDIRECT, "another port");
}
