//! Nearly every packet is judged in a shorter way (`packet::plain`). It must make no difference.

use netfilter_daemon::{
    compile::Image,
    datapath::{
        Datapath,
        test_run::{Context, Program},
    },
};
use netfilter_ebpf::{
    packet::{self, Frame as Parsed, plain},
    surplus,
    verdict::{Reason, Verdict},
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use crate::{
    bpffs::{DROP, Kernel, PASS, image},
    frame::{self, ACK, FIN, Frame, PSH, RST, SYN, answer, carrying, datagram, query, to},
};

const POLICY: &str = "
resolvers: [10.0.0.53, 'fd00::53']
on_deny: drop
dns: { on_deny: drop }
inbound: [{ protocol: TCP, port_ranges: '22' }, { protocol: UDP, port_ranges: '5000' }]
outbound_rules:
  - { name: web, type: ip, destination: { cidr: 192.0.2.0/24, protocol: TCP, port_ranges: '443' } }
  - { name: six, type: ip, destination: { cidr: '2001:db8::/32', protocol: '*', port_ranges: '*' } }
  - { name: any, type: ip, destination: { cidr: 198.51.100.0/25, protocol: '*', port_ranges: '*' } }
  - { name: watched, type: ip, action: audit, destination: { cidr: 198.51.100.128/25, protocol: TCP, port_ranges: '80' } }
  - { name: no, type: ip, action: deny, destination: { cidr: 203.0.113.0/24, protocol: '*', port_ranges: '*' } }
  - { name: no6, type: ip, action: deny, destination: { cidr: '2001:db8:f::/48', protocol: TCP, port_ranges: '22, 443' } }
  - { name: exact, type: fqdn, destination: { fqdn: a.example, protocol: TCP, port_ranges: '443' } }
  - { name: below, type: fqdn, destination: { fqdn: '*.b.example', protocol: UDP, port_ranges: '5000, 8443' } }
";
const RULES: [&str; 8] = [
    "web", "six", "any", "watched", "no", "no6", "exact", "below",
];
const DESTINATIONS: [&str; 18] = [
    "192.0.2.1",
    "198.51.100.1",
    "198.51.100.129",
    "203.0.113.5",
    "198.18.0.1",
    "198.18.0.2",
    "8.8.8.8",
    "10.0.0.53",
    "169.254.169.254",
    "224.0.0.251",
    "2001:db8::1",
    "2001:db8:f::1",
    "2001:db9::1",
    "2001:db9::2",
    "2a00::8",
    "fd00::53",
    "fe80::1",
    "ff02::fb",
];

#[derive(Debug, Clone)]
struct Draft {
    destination: &'static str,
    tcp: bool,
    ports: (u16, u16),
    flags: u8,
    sequence: u32,
    data: usize,
    times: usize,
}

impl Draft {
    fn frame(&self) -> Frame {
        let data = vec![7; self.data];
        let (protocol, payload) = match self.tcp {
            true => {
                let segment = carrying(self.ports, self.sequence, 1, self.flags, &data);
                (frame::TCP, segment)
            }
            false => (frame::UDP, datagram(self.ports.0, self.ports.1, &data)),
        };
        to(self.destination, protocol, payload)
    }

    /// The same packet, with what is allowed beside a plain one.
    fn less_plain(&self) -> Frame {
        let mut frame = self.frame();
        match frame.destination.is_ipv4() {
            true => frame.options = vec![148, 4, 0, 0], // a router alert
            false => frame.extensions = vec![(44, vec![0, 0, 0, 0, 1, 2, 3, 4])], // an atomic fragment
        }
        frame
    }
}

/// Without questions, around which nothing else may leave.
fn draft() -> impl Strategy<Value = Draft> {
    let local = prop::sample::select(&[22, 5000, 40_000, 40_001][..]);
    let remote = prop::sample::select(&[22, 80, 443, 5000, 8443, 853, 5353][..]);
    let flags = [SYN, ACK, SYN | ACK, FIN | ACK, RST, PSH | ACK, 0];
    (
        prop::sample::select(&DESTINATIONS[..]),
        any::<bool>(),
        (local, remote),
        prop::sample::select(flags.to_vec()),
        1..4u32,
        0..20usize,
        1..4usize,
    )
        .prop_map(
            |(destination, tcp, ports, flags, sequence, data, times)| Draft {
                destination,
                tcp,
                ports,
                flags,
                sequence,
                data,
                times,
            },
        )
}

fn drawn<T>(strategy: &impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

fn learn(kernel: &mut Kernel, name: &str, qtype: u16, address: &str) {
    let question = query(7, name, qtype);
    let asked = to("10.0.0.53", frame::UDP, datagram(40_000, 53, &question));
    assert_eq!(kernel.egress(&asked.bytes()).action, PASS, "{name}");
    let answered = datagram(53, 40_000, &answer(&question, 600, &[address]));
    let answered = to(frame::LOCAL, frame::UDP, answered).from("10.0.0.53");
    assert_eq!(kernel.ingress(&answered.bytes()).action, PASS, "{name}");
}

/// Knows addresses of names, and who came in.
fn experienced(policy: &str) -> Kernel {
    let mut kernel = Kernel::new(policy);
    for (name, address) in [
        ("a.example", "198.18.0.1"),
        ("x.b.example", "198.18.0.2"),
        ("a.example", "203.0.113.5"),
        ("a.example", "2001:db9::1"),
        ("x.b.example", "2001:db9::2"),
    ] {
        learn(
            &mut kernel,
            name,
            if address.contains(':') { 28 } else { 1 },
            address,
        );
    }
    for remote in ["8.8.8.8", "203.0.113.5", "2a00::8", "2001:db8:f::1"] {
        let local = match remote.contains(':') {
            true => frame::LOCAL_V6,
            false => frame::LOCAL,
        };
        for remote_port in [443, 5000] {
            for payload in [
                (frame::TCP, carrying((remote_port, 22), 9, 0, SYN, b"")),
                (frame::UDP, datagram(remote_port, 5000, b"x")),
            ] {
                let came = to(local, payload.0, payload.1).from(remote);
                assert_eq!(kernel.ingress(&came.bytes()).action, PASS);
            }
        }
    }
    kernel
}

/// Says to who came in that nobody is there, which quotes what came. What was read of it must
/// not be taken for the next packet's.
fn an_error() -> Vec<u8> {
    let came = carrying((443, 22), 9, 0, SYN, b"");
    let came = to(frame::LOCAL, frame::TCP, came).from("8.8.8.8").bytes();
    let quoted = &came[packet::ETHERNET_HEADER..][..28];
    let unreachable = [&[3, 3, 0, 0, 0, 0, 0, 0][..], quoted].concat();
    to("8.8.8.8", 1, unreachable).bytes()
}

/// All that is counted and remembered of what left.
fn remembered(datapath: &Datapath) -> impl PartialEq + std::fmt::Debug {
    let state = datapath.state();
    let counters = state.counters().unwrap();
    let passed: Vec<_> = counters
        .passed
        .into_iter()
        .map(|passed| (passed.family, passed.protocol, passed.packets))
        .collect();
    let dropped: Vec<_> = counters
        .dropped
        .into_iter()
        .map(|it| (it.reason, it.family, it.protocol, it.audited, it.packets))
        .collect();
    let hits: Vec<_> = state
        .rule_hits(&RULES.map(str::to_owned))
        .unwrap()
        .into_iter()
        .map(|of| (of.rule, of.hits))
        .collect();
    let mut wanted: Vec<_> = state
        .audit()
        .unwrap()
        .wanted
        .into_iter()
        .map(|it| (it.address, it.protocol, it.port, it.packets, it.begun))
        .collect();
    wanted.sort();
    (passed, dropped, hits, wanted, state.flows().unwrap())
}

fn assert_no_difference(policy: &str, program: Program) {
    let mut kernels = [experienced(policy), experienced(policy)];
    let error = an_error();
    let mut passed = 0;
    let mut drafts = drawn(&draft(), 4_000);
    // Flow by flow: where many are mixed, which of them are forgotten is a matter of chance.
    drafts.sort_by_key(|draft| (draft.destination, draft.tcp, draft.ports));
    for draft in drafts {
        let frames = [draft.frame().bytes(), draft.less_plain().bytes()];
        let plain = frames
            .each_ref()
            .map(|frame| plain::read(frame.as_slice(), Some));
        assert!(plain[0].is_some() && plain[1].is_none(), "{draft:?}");
        for kernel in &mut kernels {
            let action = kernel.run(program, &error, Context::default()).action;
            assert_eq!(action, PASS);
        }
        for _ in 0..draft.times {
            let run = |at: usize, kernels: &mut [Kernel; 2]| {
                kernels[at].run(program, &frames[at], Context::default())
            };
            let actions = [0, 1].map(|at| run(at, &mut kernels).action);
            assert_eq!(actions[0], actions[1], "{draft:?}");
            passed += usize::from(actions[0] == PASS);
        }
    }
    assert!(passed > 1_000, "{passed}");
    let [one, other] = kernels
        .each_ref()
        .map(|kernel| remembered(&kernel.datapath));
    assert_eq!(one, other);
}

#[test]
fn a_plain_packet_is_judged_counted_and_remembered_as_one_that_is_less_plain() {
    for program in [Program::Egress, Program::Workload] {
        assert_no_difference(POLICY, program);
    }
}

#[test]
fn so_it_is_where_all_is_let_pass_and_remembered() {
    let audit = format!("isolation_mode: allow_internet_outbound\n{POLICY}");
    assert_no_difference(&audit, Program::Egress);
}

/// Changes to a frame: bytes that are overwritten, and bytes behind it or missing.
fn changed() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), (0..8u32).prop_map(|bit| 1 << bit)];
    // Nearly all that is read lies here.
    let changes = prop::collection::vec((12..80usize, byte), 0..4);
    let behind = prop_oneof![6 => Just(0), 1 => -60..0isize, 1 => 1..60isize];
    let zeros = any::<bool>();
    (draft(), changes, behind, zeros).prop_map(|(draft, changes, behind, zeros)| {
        let mut frame = draft.frame().bytes();
        for (at, byte) in changes {
            let length = frame.len();
            frame[at % length] = byte;
        }
        let length = frame.len().saturating_add_signed(behind).max(14);
        frame.resize(length, if zeros { 0 } else { 1 });
        frame
    })
}

/// What the longer way says of a frame; `None` of a question.
fn slowly(image: &Image, frame: &[u8]) -> Option<Result<(), Reason>> {
    let packet = match packet::parse(frame) {
        Ok(Parsed::Ip(packet)) => packet,
        Ok(_) => return Some(Ok(())),
        Err(reason) => return Some(Err(reason)),
    };
    if let Err(reason) = surplus::check(frame, &packet) {
        return Some(Err(reason));
    }
    match image.decide(&packet) {
        Verdict::Drop(reason) => Some(Err(reason)),
        Verdict::Ask => None,
        Verdict::Pass(_) | Verdict::Audit(_) => Some(Ok(())),
    }
}

/// As the kernel's test run wants them.
fn has_whole_header(frame: &[u8]) -> bool {
    let header = match frame[12..14] {
        [8, 0] => 20,
        [0x86, 0xdd] => 40,
        _ => 0,
    };
    frame.len() >= 14 + header
}

fn dropped(kernel: &Kernel, reason: Reason) -> u64 {
    let counters = kernel.datapath.state().counters().unwrap();
    let of = counters.dropped.iter().filter(|it| it.reason == reason);
    of.filter(|it| !it.audited).map(|it| it.packets).sum()
}

#[test]
fn frames_that_were_changed_anywhere_are_judged_as_the_longer_way_would() {
    let image = image(POLICY);
    for program in [Program::Egress, Program::Workload] {
        let mut kernel = Kernel::of(&image);
        let mut expected = vec![0; Reason::ALL.len()];
        let (mut passed, mut short) = (0, 0);
        for frame in drawn(&changed(), 6_000) {
            if program == Program::Egress && !has_whole_header(&frame) {
                continue;
            }
            let Some(verdict) = slowly(&image, &frame) else {
                continue;
            };
            let action = kernel.run(program, &frame, Context::default()).action;
            let wanted = if verdict.is_ok() { PASS } else { DROP };
            assert_eq!(action, wanted, "{verdict:?} {frame:02x?}");
            match verdict {
                Ok(()) => passed += 1,
                Err(reason) => {
                    let place = Reason::ALL.iter().position(|&each| each == reason);
                    expected[place.unwrap()] += 1;
                }
            }
            short += usize::from(plain::read(frame.as_slice(), Some).is_some());
        }
        for (&reason, expected) in Reason::ALL.iter().zip(expected) {
            assert_eq!(dropped(&kernel, reason), expected, "{reason:?}");
        }
        assert!(passed > 500 && short > 2_000, "{passed} {short}");
    }
}
