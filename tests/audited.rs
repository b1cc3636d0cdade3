//! `action: audit` for a name: what only it lets out passes, and is counted as what would have
//! been dropped.

use std::{collections::BTreeMap, thread::sleep, time::Duration};

use netfilter_daemon::policy::Pattern;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use crate::{
    bpffs::{Kernel, PASS, REDIRECT, image},
    frame::{self, ACK, Frame, SYN, answer, datagram, query, record, segment, tcp, to, udp, wire},
};

const RESOLVER: &str = "10.0.0.53";
const POLICY: &str = "
dns: { minimum_ttl: 0, grace: 0 }
resolvers: [10.0.0.53]
outbound_rules:
  - { name: seen, type: fqdn, action: audit, destination: '*.seen.example' }
  - { name: fine, type: fqdn, destination: fine.example }
  - { name: shut, type: fqdn, action: deny, destination: shut.seen.example }
  - { name: no, type: ip, action: deny, destination: { cidr: 192.0.2.66/32, protocol: '*', port_ranges: '*' } }
  - { name: datagrams, type: fqdn, action: audit, destination: { fqdn: udp.example, protocol: UDP, port_ranges: '9' } }
";

/// Asks and has it answered.
fn ask(kernel: &mut Kernel, question: &[u8]) -> i32 {
    let asked = to(RESOLVER, frame::UDP, datagram(40_000, 53, question));
    kernel.egress(&asked.bytes()).action
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passed,
    Audited,
    Dropped,
}
use Fate::{Audited, Dropped, Passed};

/// What became of a packet, and what was counted of it.
fn fate(kernel: &mut Kernel, frame: &[u8]) -> Fate {
    let counted = |kernel: &Kernel| {
        let counters = kernel.datapath.state().counters().unwrap();
        let sum = |audited| {
            let of = counters.dropped.iter().filter(|it| it.audited == audited);
            of.map(|it| it.packets).sum::<u64>()
        };
        [sum(false), sum(true)]
    };
    let [dropped, audited] = counted(kernel);
    let passes = kernel.passes(frame);
    let now = counted(kernel);
    match passes {
        true if now == [dropped, audited] => Passed,
        true if now == [dropped, audited + 1] => Audited,
        false if now == [dropped + 1, audited] => Dropped,
        _ => panic!(
            "{passes}, and counted {:?}",
            [dropped, audited, now[0], now[1]]
        ),
    }
}

fn hits(kernel: &Kernel, rule: &str) -> u64 {
    let hits = kernel.datapath.state().rule_hits(&[rule.to_owned()]);
    hits.unwrap()[0].hits
}

#[test]
fn what_an_audited_name_lends_passes_and_is_counted_for_its_rule() {
    let mut kernel = Kernel::new(POLICY);
    assert_eq!(fate(&mut kernel, &tcp("192.0.2.1", 443).bytes()), Dropped);
    kernel.learn("a.seen.example", 60, &["192.0.2.1"]);
    for count in 1..=2 {
        let source = 1000 + count as u16;
        let syn = to("192.0.2.1", frame::TCP, segment(source, 443, SYN)).bytes();
        assert_eq!(fate(&mut kernel, &syn), Audited);
        assert_eq!(hits(&kernel, "seen"), count);
    }
    // What it says nothing of, and what lent nothing.
    assert_eq!(fate(&mut kernel, &tcp("192.0.2.1", 22).bytes()), Dropped);
    assert_eq!(fate(&mut kernel, &udp("192.0.2.1", 443).bytes()), Dropped);
    assert_eq!(fate(&mut kernel, &tcp("192.0.2.2", 443).bytes()), Dropped);
    // Its question is as good as that for an allowed name, and no other is.
    for (name, action) in [
        ("x.y.seen.example", PASS),
        ("seen.example", REDIRECT),
        ("shut.seen.example", REDIRECT),
        ("other.example", REDIRECT),
    ] {
        assert_eq!(ask(&mut kernel, &query(7, name, 1)), action, "{name}");
    }
}

#[test]
fn allow_wins_over_it_and_deny_over_both() {
    let mut kernel = Kernel::new(POLICY);
    let packet = |address: &str| tcp(address, 443).bytes();
    kernel.learn("a.seen.example", 60, &["192.0.2.1", "192.0.2.66"]);
    assert_eq!(fate(&mut kernel, &packet("192.0.2.66")), Dropped);
    assert_eq!(fate(&mut kernel, &packet("192.0.2.1")), Audited);
    kernel.learn("fine.example", 60, &["192.0.2.1"]);
    let another = to("192.0.2.1", frame::TCP, segment(1000, 443, SYN)).bytes();
    assert_eq!(fate(&mut kernel, &another), Passed);
    assert_eq!([hits(&kernel, "seen"), hits(&kernel, "fine")], [1, 1]);
}

#[test]
fn the_last_of_a_crowd_audits_too() {
    let mut policy = format!("resolvers: [{RESOLVER}]\noutbound_rules:\n");
    for name in 0..netfilter_ebpf::abi::GRANTS {
        policy += &format!(
            "  - {{ name: n{name}, type: fqdn, action: audit, destination: {{ fqdn: n{name}.example, \
             protocol: TCP, port_ranges: '{}' }} }}\n",
            1000 + name
        );
    }
    let mut kernel = Kernel::new(&policy);
    for name in 0..netfilter_ebpf::abi::GRANTS {
        let packet = tcp("192.0.2.1", 1000 + name as u16).bytes();
        assert_eq!(fate(&mut kernel, &packet), Dropped, "n{name}");
        kernel.learn(&format!("n{name}.example"), 60, &["192.0.2.1"]);
        assert_eq!(fate(&mut kernel, &packet), Audited, "n{name}");
        assert_eq!(hits(&kernel, &format!("n{name}")), 1);
    }
}

#[test]
fn a_connection_outlives_its_answer_and_not_its_rule() {
    let mut kernel = Kernel::new(POLICY);
    kernel.learn("a.seen.example", 1, &["192.0.2.1"]);
    kernel.learn("udp.example", 1, &["192.0.2.2"]);
    let segment = |port, flags| to("192.0.2.1", frame::TCP, segment(port, 443, flags)).bytes();
    assert_eq!(fate(&mut kernel, &segment(1000, SYN)), Audited);
    assert_eq!(fate(&mut kernel, &udp("192.0.2.2", 9).bytes()), Audited);
    sleep(Duration::from_millis(3_100));
    assert_eq!(fate(&mut kernel, &segment(1001, SYN)), Dropped, "a new one");
    assert_eq!(fate(&mut kernel, &segment(1000, ACK)), Audited);
    assert_eq!(fate(&mut kernel, &udp("192.0.2.2", 9).bytes()), Audited);
    let with = |action: &str| image(&POLICY.replace("action: audit", action));
    kernel.datapath.replace(&with("action: allow")).unwrap();
    assert_eq!(fate(&mut kernel, &segment(1000, ACK)), Passed);
    kernel.datapath.replace(&with("action: deny")).unwrap();
    assert_eq!(fate(&mut kernel, &segment(1000, ACK)), Dropped);
    assert_eq!(fate(&mut kernel, &udp("192.0.2.2", 9).bytes()), Dropped);
}

#[test]
fn what_follows_a_first_fragment_passes_with_it() {
    let policy = "
resolvers: [10.0.0.53]
outbound_rules:
  - { name: udp, type: fqdn, action: audit, destination: { fqdn: udp.example, protocol: UDP, port_ranges: '9' } }
  - { name: address, type: ip, action: audit, destination: { cidr: 198.51.100.0/24, protocol: UDP, port_ranges: '9' } }
";
    let mut kernel = Kernel::new(policy);
    kernel.learn("udp.example", 60, &["192.0.2.1"]);
    for (address, id) in [("192.0.2.1", 7), ("198.51.100.1", 8)] {
        let part = |offset, more, payload: Vec<u8>| {
            let frame = to(address, frame::UDP, payload);
            let fragment = Some((offset, more, id));
            Frame { fragment, ..frame }.bytes()
        };
        let later = part(4, false, vec![0; 16]);
        assert_eq!(fate(&mut kernel, &later), Dropped, "{address}");
        let first = part(0, true, datagram(40_000, 9, &[0; 24]));
        assert_eq!(fate(&mut kernel, &first), Audited, "{address}");
        assert_eq!(fate(&mut kernel, &later), Passed, "{address}");
    }
}

#[test]
fn what_it_points_to_may_be_asked_for_on_its_behalf() {
    let mut kernel = Kernel::new(POLICY);
    let target = query(9, "edge.cdn.test", 1);
    assert_eq!(ask(&mut kernel, &target), REDIRECT);
    let question = query(7, "a.seen.example", 1);
    assert_eq!(ask(&mut kernel, &question), PASS);
    let mut message = answer(&question, 60, &[]);
    message[7] = 1;
    message.extend(record(&[0xc0, 12], 5, 1, 60, &wire("edge.cdn.test")));
    let reply = to(frame::LOCAL, frame::UDP, datagram(53, 40_000, &message));
    kernel.ingress(&reply.from(RESOLVER).bytes());
    kernel.learn("edge.cdn.test", 60, &["192.0.2.1"]);
    assert_eq!(fate(&mut kernel, &tcp("192.0.2.1", 443).bytes()), Audited);
}

const PATTERNS: [&str; 5] = [
    "a.example",
    "*.example",
    "*.a.example",
    "b.example",
    "*.b.a.example",
];
const NAMES: [&str; 5] = [
    "a.example",
    "x.a.example",
    "y.b.a.example",
    "b.example",
    "c.example",
];
const PORTS: [(&str, &[u16]); 4] = [
    ("443", &[443]),
    ("80, 443", &[80, 443]),
    ("8443", &[8443]),
    ("*", &[22, 80, 443, 8443]),
];
const ACTIONS: [&str; 3] = ["allow", "audit", "deny"];

/// Indices into the lists above.
type RandomRule = (usize, usize, usize);

/// The obvious evaluation: a deny that covers wins, else an allow, else an audit.
fn slowly(rules: &[RandomRule], name: &str, port: u16) -> Fate {
    let name: Pattern = name.parse().unwrap();
    let any = |action: &str| {
        rules.iter().any(|(pattern, ports, does)| {
            let pattern: Pattern = PATTERNS[*pattern].parse().unwrap();
            ACTIONS[*does] == action
                && pattern.matches(name.wire())
                && PORTS[*ports].1.contains(&port)
        })
    };
    match () {
        () if any("deny") => Dropped,
        () if any("allow") => Passed,
        () if any("audit") => Audited,
        () => Dropped,
    }
}

#[test]
fn tables_and_kernel_agree_with_the_rules() {
    let mut runner = TestRunner::deterministic();
    let rule = (0..PATTERNS.len(), 0..PORTS.len(), 0..ACTIONS.len());
    let rules = prop::collection::vec(rule, 1..8);
    let mut fates = BTreeMap::new();
    for _ in 0..25 {
        let rules = rules.new_tree(&mut runner).unwrap().current();
        let mut text = format!("resolvers: [{RESOLVER}]\noutbound_rules:\n");
        for (number, (pattern, ports, action)) in rules.iter().enumerate() {
            text += &format!(
                "  - {{ name: r{number}, type: fqdn, action: {}, destination: {{ fqdn: '{}', \
                 protocol: TCP, port_ranges: '{}' }} }}\n",
                ACTIONS[*action], PATTERNS[*pattern], PORTS[*ports].0
            );
        }
        let image = image(&text);
        let mut kernel = Kernel::of(&image);
        let mut of_all = BTreeMap::new();
        for (number, name) in NAMES.iter().enumerate() {
            let wire = name.parse::<Pattern>().unwrap();
            let address = format!("192.0.2.{}", number + 1);
            let asked = image.judge_name(wire.wire()).is_some();
            if asked {
                // The last address is everybody's.
                kernel.learn(name, 60, &[&address, "192.0.2.99"]);
            }
            for port in [22, 80, 443, 8443] {
                let expected = slowly(&rules, name, port);
                assert!(asked || expected == Dropped, "{name} {text}");
                let judged = image.judge_learned(address.parse().unwrap(), 6, port, wire.wire());
                assert_eq!(judged.is_ok(), expected != Dropped, "{name} {port} {text}");
                let packet = tcp(&address, port).bytes();
                assert_eq!(fate(&mut kernel, &packet), expected, "{name} {port} {text}");
                *fates.entry(format!("{expected:?}")).or_insert(0) += 1;
                let best = of_all.entry(port).or_insert(Dropped);
                *best = match (*best, expected) {
                    (Passed, _) | (_, Passed) => Passed,
                    (Audited, _) | (_, Audited) => Audited,
                    _ => Dropped,
                };
            }
        }
        for (port, expected) in of_all {
            let packet = tcp("192.0.2.99", port).bytes();
            assert_eq!(fate(&mut kernel, &packet), expected, "{port} {text}");
        }
    }
    assert!(fates.values().all(|count| *count > 50), "{fates:?}");
}
