//! The flows that each rule let out or kept in are counted, by the kernel, once each.

use std::cell::RefCell;

use netfilter_daemon::{
    explain::{Question, explain},
    policy::{self, System, service_tag::Catalogue},
};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::{
    bpffs::{self, Kernel},
    frame::{ACK, LOCAL, SYN, UDP, answer, carrying, datagram, query, segment, tcp, to, udp},
};

const POLICY: &str = "
resolvers: [10.0.0.53]
outbound_rules:
  - { name: wide, type: ip, destination: { cidr: 192.0.2.0/24, protocol: '*', port_ranges: '*' } }
  - { name: narrow, type: ip, destination: { cidr: 192.0.2.128/25, protocol: TCP, port_ranges: '443' } }
  - { name: again, type: ip, destination: { cidr: 192.0.2.128/25, protocol: TCP, port_ranges: '443' } }
  - { name: six, type: ip, destination: { cidr: '2001:db8::/32', protocol: UDP, port_ranges: '5000' } }
  - { name: shut, type: ip, action: deny, destination: { cidr: 192.0.2.64/26, protocol: TCP, port_ranges: '22' } }
  - { name: watched, type: ip, action: audit, destination: { cidr: 198.51.100.0/24, protocol: TCP, port_ranges: '80' } }
  - { name: exact, type: fqdn, destination: a.example.com }
  - { name: below, type: fqdn, destination: { fqdn: '*.example.com', protocol: TCP, port_ranges: '443, 8443' } }
  - { name: unused, type: ip, destination: { cidr: 203.0.113.0/24, protocol: TCP, port_ranges: '443' } }
";

/// What was counted for rules of these names, those without hits left out.
fn hits(kernel: &Kernel, rules: &[&str]) -> Vec<(String, u64)> {
    let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
    let hits = kernel.datapath.state().rule_hits(&rules).unwrap();
    let hits = hits.into_iter().filter(|of| of.hits > 0);
    hits.map(|of| (of.rule, of.hits)).collect()
}

const RULES: [&str; 9] = [
    "wide", "narrow", "again", "six", "shut", "watched", "exact", "below", "unused",
];

fn counted(kernel: &Kernel) -> Vec<(String, u64)> {
    hits(kernel, &RULES)
}

fn of(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter()
        .map(|(rule, hits)| ((*rule).to_owned(), *hits))
        .collect()
}

/// A SYN that begins with this sequence number.
fn syn(destination: &str, port: u16, sequence: u32) -> Vec<u8> {
    let segment = carrying((40_000, port), sequence, 0, SYN, b"");
    to(destination, crate::frame::TCP, segment).bytes()
}

fn resolve(kernel: &mut Kernel, name: &str, address: &str) {
    let question = query(9, name, 1);
    let asked = to("10.0.0.53", UDP, datagram(40_000, 53, &question));
    assert!(kernel.passes(&asked.bytes()), "{name}");
    let answered = datagram(53, 40_000, &answer(&question, 600, &[address]));
    kernel.ingress(&to(LOCAL, UDP, answered).from("10.0.0.53").bytes());
}

#[test]
fn a_connection_is_counted_once_for_the_rule_that_decides() {
    let mut kernel = Kernel::new(POLICY);
    assert!(counted(&kernel).is_empty());
    for _ in 0..3 {
        kernel.egress(&syn("192.0.2.1", 443, 7)); // sent again, for nobody answered
    }
    let established = to("192.0.2.1", crate::frame::TCP, segment(40_000, 443, ACK));
    kernel.egress(&established.bytes());
    let answers = to(
        "192.0.2.1",
        crate::frame::TCP,
        segment(40_000, 443, SYN | ACK),
    );
    kernel.egress(&answers.bytes());
    assert_eq!(counted(&kernel), of(&[("wide", 1)]));
    kernel.egress(&syn("192.0.2.1", 443, 8));
    assert_eq!(counted(&kernel), of(&[("wide", 2)]));
}

#[test]
fn of_rules_that_say_the_same_the_most_specific_is_counted_and_then_the_first() {
    let mut kernel = Kernel::new(POLICY);
    kernel.egress(&syn("192.0.2.200", 443, 1));
    assert_eq!(counted(&kernel), of(&[("narrow", 1)]));
    kernel.egress(&syn("192.0.2.200", 80, 1)); // narrow says nothing of this
    assert_eq!(counted(&kernel), of(&[("wide", 1), ("narrow", 1)]));
}

#[test]
fn what_a_rule_denies_or_has_audited_is_counted_for_it_and_what_no_rule_mentions_for_none() {
    let mut kernel = Kernel::new(POLICY);
    assert!(!kernel.passes(&syn("192.0.2.65", 22, 1)));
    assert!(kernel.passes(&syn("198.51.100.9", 80, 1)));
    assert!(!kernel.passes(&syn("8.8.8.8", 443, 1)));
    assert_eq!(counted(&kernel), of(&[("shut", 1), ("watched", 1)]));
}

#[test]
fn datagrams_of_a_flow_are_counted_once_and_another_port_is_another_flow() {
    let mut kernel = Kernel::new(POLICY);
    for _ in 0..5 {
        assert!(kernel.passes(&udp("2001:db8::1", 5000).bytes()));
    }
    assert_eq!(counted(&kernel), of(&[("six", 1)]));
    let other = to("2001:db8::1", UDP, datagram(40_001, 5000, b"hello"));
    kernel.egress(&other.bytes());
    assert_eq!(counted(&kernel), of(&[("six", 2)]));
    // Many flows at once push out few of each other.
    for port in 0..2_000 {
        let datagram = to("192.0.2.1", UDP, datagram(10_000 + port, 9, b"hello")).bytes();
        kernel.egress(&datagram);
        kernel.egress(&datagram);
    }
    assert_eq!(counted(&kernel), of(&[("wide", 2_000), ("six", 2)]));
}

#[test]
fn a_learned_address_is_counted_for_the_name_that_lends_it() {
    let mut kernel = Kernel::new(POLICY);
    resolve(&mut kernel, "a.example.com", "198.18.0.1");
    resolve(&mut kernel, "b.example.com", "198.18.0.2");
    assert!(counted(&kernel).is_empty(), "a question is no flow");
    assert!(kernel.passes(&syn("198.18.0.1", 443, 1)));
    assert_eq!(counted(&kernel), of(&[("exact", 1)]));
    assert!(kernel.passes(&syn("198.18.0.1", 8443, 1)), "a wildcard's");
    assert!(kernel.passes(&syn("198.18.0.2", 443, 1)));
    assert_eq!(counted(&kernel), of(&[("exact", 1), ("below", 2)]));
}

#[test]
fn reloads_and_restarts_forget_no_hits_of_rules_that_stay() {
    let mut kernel = Kernel::new(POLICY);
    kernel.egress(&syn("192.0.2.1", 443, 1));
    kernel.egress(&syn("192.0.2.200", 443, 1));
    let before = of(&[("wide", 1), ("narrow", 1)]);
    // In another order, beside other rules, with other addresses.
    let other = "
outbound_rules:
  - { name: new, type: ip, destination: { cidr: 10.0.0.0/8, protocol: TCP, port_ranges: '443' } }
  - { name: narrow, type: ip, destination: { cidr: 198.51.100.0/24, protocol: UDP, port_ranges: '9' } }
  - { name: wide, type: ip, destination: { cidr: 192.0.2.0/23, protocol: TCP, port_ranges: '443' } }
";
    kernel.datapath.replace(&bpffs::image(other)).unwrap();
    assert_eq!(counted(&kernel), before);
    kernel.egress(&syn("192.0.3.1", 443, 1));
    kernel.egress(&udp("198.51.100.1", 9).bytes());
    kernel.egress(&syn("10.1.2.3", 443, 1));
    let rules = ["wide", "narrow", "new"];
    let now = of(&[("wide", 2), ("narrow", 2), ("new", 1)]);
    assert_eq!(hits(&kernel, &rules), now);
    kernel.restart(&bpffs::image(other));
    assert_eq!(hits(&kernel, &rules), now);
}

#[test]
fn a_rule_that_is_gone_is_forgotten_once_no_policy_has_it_that_could_come_back() {
    let mut kernel = Kernel::new(POLICY);
    kernel.egress(&syn("192.0.2.1", 443, 1));
    let other = bpffs::image("outbound_rules: []");
    kernel.datapath.replace(&other).unwrap();
    assert_eq!(
        counted(&kernel),
        of(&[("wide", 1)]),
        "its policy is the former"
    );
    kernel.datapath.replace(&other).unwrap();
    assert!(counted(&kernel).is_empty());
}

#[test]
fn larger_tables_forget_no_hits() {
    let mut kernel = Kernel::new(POLICY);
    kernel.egress(&syn("192.0.2.1", 443, 1));
    let mut large = POLICY.to_owned();
    for number in 0..3_000u32 {
        let address = std::net::Ipv4Addr::from(0x0b00_0000 + number * 256);
        large.push_str(&format!(
            "  - {{ name: many-{number}, type: ip, destination: {{ cidr: {address}/32, protocol: TCP, port_ranges: '443' }} }}\n"
        ));
    }
    kernel.datapath.replace(&bpffs::image(&large)).unwrap();
    kernel.egress(&syn("192.0.2.1", 443, 2));
    kernel.egress(&syn("11.0.5.0", 443, 1));
    assert_eq!(counted(&kernel), of(&[("wide", 2)]));
    assert_eq!(hits(&kernel, &["many-4", "many-5"]), of(&[("many-5", 1)]));
}

#[test]
fn what_came_in_and_what_errors_say_are_no_flows_of_a_rule() {
    let mut kernel = Kernel::new(POLICY);
    kernel.ingress(&tcp(LOCAL, 22).from("192.0.2.9").bytes());
    let reply = to(
        "192.0.2.9",
        crate::frame::TCP,
        segment(22, 40_000, SYN | ACK),
    );
    assert!(kernel.passes(&reply.bytes()));
    assert!(counted(&kernel).is_empty());
}

const PORTS: [&str; 4] = ["443", "80-90", "*", "443, 85"];

/// Rules around 192.0.0.0/22, by the third byte of their prefix, its length less 22, what
/// they do, and which of [`PORTS`].
fn written(rules: &[(u8, u8, &str, usize)]) -> String {
    let mut text = "outbound_rules:\n".to_owned();
    for (number, (at, length, action, which)) in rules.iter().enumerate() {
        let at = if *length == 0 { 0 } else { *at };
        let (length, ports) = (22 + length * 2, PORTS[*which]);
        text.push_str(&format!(
            "  - {{ name: r{number}, type: ip, action: {action}, destination: {{ cidr: 192.0.{at}.0/{length}, protocol: TCP, port_ranges: '{ports}' }} }}\n"
        ));
    }
    text
}

#[test]
fn the_kernel_counts_a_rule_that_explain_names() {
    let action = prop_oneof![3 => Just("allow"), 1 => Just("deny"), 1 => Just("audit")];
    let rules = prop::collection::vec((0u8..4, 0u8..=3, action, 0usize..4), 1..8);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    // What the kernel has seen of one case is no flow of the next.
    let kernel = RefCell::new((Kernel::new("outbound_rules: []"), 0));
    let check = |rules: Vec<(u8, u8, &str, usize)>| {
        let (kernel, number) = &mut *kernel.borrow_mut();
        *number += 1;
        let text = written(&rules);
        let names: Vec<String> = (0..rules.len()).map(|rule| format!("r{rule}")).collect();
        let system = System::default();
        let policy =
            policy::parse(&text, "policy.yaml", &system, &|_| Catalogue::built_in()).unwrap();
        let image = bpffs::image(&text);
        kernel.datapath.replace(&image).unwrap();
        let hits = |kernel: &Kernel| kernel.datapath.state().rule_hits(&names).unwrap();
        for address in [
            "192.0.0.1",
            "192.0.1.1",
            "192.0.2.5",
            "192.0.3.99",
            "192.0.0.200",
        ] {
            for port in [443, 85, 22] {
                let before = hits(kernel);
                kernel.egress(&syn(address, port, *number));
                let after = hits(kernel);
                let pairs = before.iter().zip(&after);
                let hit = pairs.filter(|(one, other)| one.hits + 1 == other.hits);
                let hit: Vec<&str> = hit.map(|(_, other)| other.rule.as_str()).collect();
                let question = Question::parse(&format!("{address}:{port}"), Some("tcp")).unwrap();
                let told = explain(&policy, &image, &question);
                let named: Vec<&str> = told.decisive.iter().map(|it| it.rule.as_str()).collect();
                prop_assert_eq!(hit.len(), usize::from(!named.is_empty()), "{}", &text);
                prop_assert!(
                    hit.iter().all(|rule| named.contains(rule)),
                    "{hit:?} {named:?} {text}"
                );
            }
        }
        Ok(())
    };
    runner.run(&rules, check).unwrap();
}
