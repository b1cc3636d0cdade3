//! What a processor remembers of a lease lets nothing out that the lease itself would not.
//!
//! Each test keeps the memo fresh with segments that begin nothing and end nothing: no flow is
//! remembered of those, so only a lease, or what is remembered of one, lets them out.

use std::{
    mem,
    thread::sleep,
    time::{Duration, Instant},
};

use netfilter_daemon::datapath::{Terms, test_run::Program};
use nix::time::{ClockId, clock_gettime};

use crate::{
    bpffs::{Kernel, PASS, image},
    frame::{self, ACK, datagram, query, segment, to},
};

const A: &str =
    "{ name: a, type: fqdn, destination: { fqdn: a.example, protocol: TCP, port_ranges: '443' } }";
const B: &str =
    "{ name: b, type: fqdn, destination: { fqdn: b.example, protocol: TCP, port_ranges: '8443' } }";
const DATAGRAMS: &str =
    "{ name: u, type: fqdn, destination: { fqdn: u.example, protocol: UDP, port_ranges: '443' } }";
const DENY: &str = "{ name: no, type: ip, action: deny, \
     destination: { cidr: 192.0.2.0/24, protocol: '*', port_ranges: '*' } }";

/// Rules elsewhere see to it that the same ports are the same atoms in every policy.
fn policy(rules: &[&str]) -> String {
    const ELSEWHERE: [&str; 2] = ["443", "8443"];
    let elsewhere = ELSEWHERE.map(|port| {
        format!(
            "{{ name: p{port}, type: ip, \
             destination: {{ cidr: 198.51.100.1/32, protocol: TCP, port_ranges: '{port}' }} }}"
        )
    });
    let rules = [rules, &elsewhere.each_ref().map(String::as_str)].concat();
    format!(
        "dns: {{ minimum_ttl: 0, grace: 0 }}\nresolvers: [10.0.0.53]\noutbound_rules: [{}]",
        rules.join(", ")
    )
}

/// What is remembered is of one processor.
fn stay_on_one_processor() {
    // SAFETY: a set of processors may be all zeros; the rest are system calls on it.
    let stays = unsafe {
        let mut one: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap(), &mut one);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const one)
    };
    assert_eq!(stays, 0);
}

/// What is remembered is forgotten with the second: what changes it must come within one.
fn begin_a_second() {
    let passed = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap().tv_nsec();
    sleep(Duration::from_nanos(
        u64::try_from(1_005_000_000 - passed).unwrap(),
    ));
}

fn goes_on(address: &str, port: u16) -> Vec<u8> {
    to(address, frame::TCP, segment(40_000, port, ACK)).bytes()
}

/// Twice, so that the second time it is remembered.
fn passes(kernel: &mut Kernel, address: &str, port: u16) -> bool {
    let segment = goes_on(address, port);
    let first = kernel.passes(&segment);
    assert_eq!(kernel.passes(&segment), first);
    first
}

#[test]
fn a_grant_ends_when_its_time_is_over_however_often_it_was_used() {
    const TTL: u64 = 12;
    stay_on_one_processor();
    let mut kernel = Kernel::new(&policy(&[A]));
    let begun = Instant::now();
    kernel.learn("a.example", TTL as u32, &["192.0.2.1"]);
    let mut last = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(TTL + 3) {
        // From another port each time: near its end a grant leaves flows behind.
        let port = 20_000 + u16::try_from(begun.elapsed().as_millis()).unwrap();
        let segment = to("192.0.2.1", frame::TCP, segment(port, 443, ACK)).bytes();
        let before = begun.elapsed();
        if kernel.passes(&segment) {
            last = before;
        }
        sleep(Duration::from_millis(20));
    }
    let (least, most) = (TTL - 1, TTL + 2);
    assert!(
        (Duration::from_secs(least)..Duration::from_secs(most)).contains(&last),
        "{last:?}"
    );
}

/// Whatever was recalled between, each flow is remembered, for when the grant is over, and counted.
#[test]
fn a_datagram_is_recalled_by_its_own_flow_and_no_other() {
    const TTL: u64 = 12;
    const FLOWS: u16 = 4;
    stay_on_one_processor();
    let mut kernel = Kernel::new(&policy(&[DATAGRAMS]));
    begin_a_second();
    kernel.learn("u.example", TTL as u32, &["192.0.2.1"]);
    let of = |source: &str, port| {
        let datagram = to("192.0.2.1", frame::UDP, datagram(port, 443, b"x"));
        datagram.from(source).bytes()
    };
    for _ in 0..3 {
        for port in 0..FLOWS {
            for _ in 0..3 {
                assert!(kernel.passes(&of("10.99.0.2", 5_000 + port)));
                assert!(kernel.passes(&of("10.99.0.3", 5_000 + port)));
            }
        }
    }
    let hits = kernel.datapath.state().rule_hits(&["u".to_owned()]);
    assert_eq!(hits.unwrap()[0].hits, u64::from(2 * FLOWS));
    sleep(Duration::from_secs(TTL + 2));
    for port in 0..FLOWS {
        assert!(kernel.passes(&of("10.99.0.2", 5_000 + port)), "{port}");
        assert!(kernel.passes(&of("10.99.0.3", 5_000 + port)), "{port}");
    }
    assert!(!kernel.passes(&of("10.99.0.2", 5_000 + FLOWS)));
    assert!(!kernel.passes(&of("10.99.0.4", 5_000)));
}

#[test]
fn a_grant_is_of_its_address_port_and_protocol() {
    stay_on_one_processor();
    let mut kernel = Kernel::new(&policy(&[A, B, DATAGRAMS]));
    kernel.learn("a.example", 600, &["192.0.2.1"]);
    assert!(passes(&mut kernel, "192.0.2.1", 443));
    // Every other address of the network: some share the place of the first.
    for last in 2..=255 {
        let other = format!("192.0.2.{last}");
        assert!(!passes(&mut kernel, &other, 443), "{other}");
        assert!(kernel.passes(&goes_on("192.0.2.1", 443)));
        assert!(!passes(&mut kernel, "192.0.2.1", 8443));
        assert!(!passes(&mut kernel, "192.0.2.1", 80));
    }
    let datagram = |address| to(address, frame::UDP, datagram(40_000, 443, b"x")).bytes();
    assert!(kernel.passes(&goes_on("192.0.2.1", 443)));
    assert!(!kernel.passes(&datagram("192.0.2.1")));
    // The same flow, to another address and by another protocol.
    kernel.learn("u.example", 600, &["192.0.2.2"]);
    for _ in 0..2 {
        assert!(kernel.passes(&datagram("192.0.2.2")));
        assert!(!kernel.passes(&datagram("192.0.2.1")));
        assert!(!passes(&mut kernel, "192.0.2.2", 443));
    }
    // An IPv6 address, whose place is the same.
    assert!(!passes(&mut kernel, "2001:db8::2001:f247:c000:201", 443));
    kernel.learn("b.example", 600, &["192.0.2.1"]);
    assert!(passes(&mut kernel, "192.0.2.1", 8443) && passes(&mut kernel, "192.0.2.1", 443));
}

#[test]
fn a_policy_without_the_name_ends_it_at_once_and_one_with_it_brings_it_back() {
    stay_on_one_processor();
    let mut kernel = Kernel::new(&policy(&[A, B]));
    kernel.learn("a.example", 600, &["192.0.2.1"]);
    kernel.learn("b.example", 600, &["192.0.2.1"]);
    // As many generations as there are copies, and more.
    for _ in 0..2 {
        for (rules, opens) in [
            (&[A, B][..], [true, true]),
            (&[B], [false, true]),
            (&[A], [true, false]),
            (&[A, B], [true, true]),
            (&[A, B, DENY], [false, false]),
            (&[A, B], [true, true]),
            (&[], [false, false]),
        ] {
            begin_a_second();
            for port in [443, 8443] {
                passes(&mut kernel, "192.0.2.1", port);
            }
            kernel.datapath.replace(&image(&policy(rules))).unwrap();
            for (port, opens) in [(443, opens[0]), (8443, opens[1])] {
                assert_eq!(
                    passes(&mut kernel, "192.0.2.1", port),
                    opens,
                    "{port} {rules:?}"
                );
            }
        }
    }
}

/// The programs of the former daemon run on until they are replaced.
#[test]
fn a_restart_with_another_policy_ends_it_in_both_programs() {
    stay_on_one_processor();
    let mut kernel = Kernel::new(&policy(&[A]));
    kernel.learn("a.example", 600, &["192.0.2.1"]);
    assert!(passes(&mut kernel, "192.0.2.1", 443));
    let former = kernel.twin(Program::Egress);
    let segment = goes_on("192.0.2.1", 443);
    for (rules, opens) in [(&[B][..], false), (&[A], true), (&[], false)] {
        begin_a_second();
        assert_eq!(kernel.passes(&segment), former.run(&segment) == PASS);
        kernel.restart(&image(&policy(rules)));
        assert_eq!(former.run(&segment) == PASS, opens, "{rules:?}");
        assert_eq!(passes(&mut kernel, "192.0.2.1", 443), opens, "{rules:?}");
    }
}

#[test]
fn a_policy_that_nobody_confirms_takes_its_grants_along_and_gives_those_of_the_former_back() {
    stay_on_one_processor();
    for (former, unconfirmed) in [(B, A), (A, B)] {
        let mut kernel = Kernel::new(&policy(&[A, B]));
        kernel.learn("a.example", 600, &["192.0.2.1"]);
        kernel.learn("b.example", 600, &["192.0.2.1"]);
        kernel.datapath.replace(&image(&policy(&[former]))).unwrap();
        let terms = Terms::to_confirm(Duration::from_secs(2));
        let image = image(&policy(&[unconfirmed]));
        let begun = Instant::now();
        kernel.datapath.replace_on(&image, terms).unwrap();
        let opens = |kernel: &mut Kernel| [443, 8443].map(|port| passes(kernel, "192.0.2.1", port));
        let of = |rule| [rule == A, rule == B];
        let segments = [443, 8443].map(|port| goes_on("192.0.2.1", port));
        // Compared only if its time was not over between two looks.
        let seen = [(); 2].map(|()| segments.each_ref().map(|segment| kernel.passes(segment)));
        if begun.elapsed() < Duration::from_secs(1) {
            assert_eq!(seen, [of(unconfirmed); 2]);
        }
        while begun.elapsed() < Duration::from_millis(4_000) {
            for segment in &segments {
                kernel.passes(segment);
            }
            sleep(Duration::from_millis(10));
        }
        assert_eq!(opens(&mut kernel), of(former));
        kernel.datapath.revert().unwrap();
        assert_eq!(opens(&mut kernel), of(former));
    }
}

const RULE: &str = "{ name: r, type: ip, \
     destination: { cidr: 192.0.2.0/25, protocol: TCP, port_ranges: '443' } }";

#[test]
fn what_a_rule_let_out_ends_with_it_whoever_looks() {
    stay_on_one_processor();
    let mut kernel = Kernel::new(&policy(&[RULE]));
    let segment = goes_on("192.0.2.1", 443);
    assert!(passes(&mut kernel, "192.0.2.1", 443));
    assert!(!passes(&mut kernel, "192.0.2.1", 8443));
    assert!(!passes(&mut kernel, "192.0.2.129", 443));
    for (rules, opens) in [
        (&[][..], false),
        (&[RULE], true),
        (&[RULE, DENY], false),
        (&[RULE], true),
    ] {
        kernel.datapath.replace(&image(&policy(rules))).unwrap();
        assert_eq!(passes(&mut kernel, "192.0.2.1", 443), opens, "{rules:?}");
        let former = kernel.twin(Program::Egress);
        kernel.restart(&image(&policy(&[])));
        assert_ne!(former.run(&segment), PASS, "{rules:?}");
        assert!(!passes(&mut kernel, "192.0.2.1", 443), "{rules:?}");
        kernel.restart(&image(&policy(rules)));
        assert_eq!(former.run(&segment) == PASS, opens, "{rules:?}");
        assert_eq!(passes(&mut kernel, "192.0.2.1", 443), opens, "{rules:?}");
    }
    let terms = Terms::to_confirm(Duration::from_secs(1));
    kernel.datapath.replace(&image(&policy(&[]))).unwrap();
    let unconfirmed = image(&policy(&[RULE]));
    kernel.datapath.replace_on(&unconfirmed, terms).unwrap();
    let begun = Instant::now();
    let mut last = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(3) {
        let before = begun.elapsed();
        if kernel.passes(&segment) {
            last = before;
        }
    }
    assert!(last < Duration::from_millis(2_100), "{last:?}");
    kernel.datapath.revert().unwrap();
    assert!(!passes(&mut kernel, "192.0.2.1", 443));
}

/// One atom may be of port 53 and of others: it is not enough to know a packet's like.
#[test]
fn a_question_is_judged_by_its_name_whatever_passed_before_it() {
    stay_on_one_processor();
    let all = "{ name: all, type: ip, \
         destination: { cidr: 10.0.0.53/32, protocol: '*', port_ranges: '*' } }";
    let text = format!("resolvers: [10.0.0.53]\noutbound_rules: [{A}, {all}]");
    let mut kernel = Kernel::new(&text);
    for _ in 0..2 {
        let other = to("10.0.0.53", frame::UDP, datagram(40_000, 54, b"x"));
        assert!(kernel.passes(&other.bytes()));
        let question = query(7, "evil.example", 1);
        let question = to("10.0.0.53", frame::UDP, datagram(40_000, 53, &question));
        assert!(!kernel.passes(&question.bytes()));
        let segment = to("10.0.0.53", frame::TCP, segment(40_000, 53, ACK));
        assert!(!kernel.passes(&segment.bytes()), "in no stream");
    }
}
