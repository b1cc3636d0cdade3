//! Answers that nobody asked for, in numbers and at the worst moment; tables that
//! are full. What they open: nothing. What they cost: a bounded time and memory.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use netfilter_daemon::datapath::State;
use netfilter_ebpf::verdict::Answer;

use crate::{
    bpffs::{DROP, Kernel, PASS},
    frame::{self, answer, datagram, query, tcp, to},
};

const POLICY: &str = "
resolvers: [10.0.0.53]
dns: { minimum_ttl: 0, grace: 0 }
outbound_rules:
  - { name: exact, type: fqdn, destination: { fqdn: a.example, protocol: TCP, port_ranges: '443' } }
  - { name: below, type: fqdn, destination: { fqdn: '*.b.example', protocol: TCP, port_ranges: '443' } }
";
const RESOLVER: &str = "10.0.0.53";
const FORGED: &str = "192.0.2.66";

fn question(port: u16, message: &[u8]) -> Vec<u8> {
    to(RESOLVER, frame::UDP, datagram(port, 53, message)).bytes()
}

fn reply(port: u16, message: &[u8]) -> Vec<u8> {
    to(frame::LOCAL, frame::UDP, datagram(53, port, message))
        .from(RESOLVER)
        .bytes()
}

fn outcome(kernel: &Kernel, wanted: Answer) -> u64 {
    let counters = kernel.datapath.state().counters().unwrap();
    let of = |(outcome, _): &&(Answer, u64)| *outcome == wanted;
    counters.answers.iter().find(of).unwrap().1
}

/// A forger who knows all but the id sends every other one, before and after the
/// real answer.
#[test]
fn a_flood_of_forged_answers_opens_nothing_and_the_real_one_is_believed() {
    let mut kernel = Kernel::new(POLICY);
    let asked = query(0x4242, "a.example", 1);
    assert_eq!(kernel.egress(&question(40_000, &asked)).action, PASS);
    let forge = |kernel: &mut Kernel, ids: std::ops::RangeInclusive<u16>| {
        for id in ids {
            let forged = answer(&query(id, "a.example", 1), 60, &[FORGED]);
            assert_eq!(kernel.ingress(&reply(40_000, &forged)).action, DROP, "{id}");
        }
    };
    forge(&mut kernel, 0..=0x4241);
    forge(&mut kernel, 0x4243..=u16::MAX);
    assert!(!kernel.passes(&tcp(FORGED, 443).bytes()));
    let real = answer(&asked, 60, &["192.0.2.1"]);
    assert_eq!(kernel.ingress(&reply(40_000, &real)).action, PASS);
    forge(&mut kernel, 0x4242..=0x4242);
    assert!(kernel.passes(&tcp("192.0.2.1", 443).bytes()));
    assert!(!kernel.passes(&tcp(FORGED, 443).bytes()));
    assert_eq!(outcome(&kernel, Answer::Unsolicited), 65_536);
}

/// Two answers to one question, on two processors at once: one is believed.
/// Which one, nobody can say; here both are the resolver's by all that can be seen.
#[test]
fn of_two_answers_at_the_same_moment_one_is_learned() {
    let kernel = Kernel::new(POLICY);
    let ends: Vec<_> = (0..2).map(|_| kernel.twin()).collect();
    let (mut asker, rounds) = (kernel, 300);
    let mut both = 0;
    for round in 0..rounds {
        let asked = query(7, "a.example", 1);
        let port = 20_000 + round;
        assert_eq!(asker.egress(&question(port, &asked)).action, PASS);
        let start = std::sync::Barrier::new(2);
        let passed: usize = thread::scope(|scope| {
            let answers = ends.iter().enumerate().map(|(end, twin)| {
                let message = answer(
                    &asked,
                    60,
                    &[&format!("198.{}.{}.{}", 18 + end, round / 256, round % 256)],
                );
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    usize::from(twin.ingress(&reply(port, &message)) == PASS)
                })
            });
            answers
                .collect::<Vec<_>>()
                .into_iter()
                .map(|end| end.join().unwrap())
                .sum()
        });
        let learned = (0..2)
            .filter(|end| {
                let address = format!("198.{}.{}.{}", 18 + end, round / 256, round % 256);
                asker.passes(&tcp(&address, 443).bytes())
            })
            .count();
        assert_eq!((passed, learned), (1, 1), "round {round}");
        both += passed;
    }
    assert_eq!(both, usize::from(rounds));
}

/// Sixty thousand questions in flight, four times what the table holds: the
/// oldest are forgotten, and their answers dropped; nothing else changes.
#[test]
fn a_full_table_of_questions_forgets_the_oldest_and_opens_nothing() {
    let mut kernel = Kernel::new(POLICY);
    let asked = |n: u16| query(n, "a.example", 1);
    for n in 0..60_000u16 {
        assert_eq!(
            kernel
                .egress(&question(1024 + (n % 50_000), &asked(n)))
                .action,
            PASS
        );
    }
    let last = answer(&asked(59_999), 60, &["192.0.2.1"]);
    assert_eq!(kernel.ingress(&reply(1024 + 9_999, &last)).action, PASS);
    assert!(kernel.passes(&tcp("192.0.2.1", 443).bytes()));
    let first = answer(&asked(0), 60, &["192.0.2.2"]);
    assert_eq!(kernel.ingress(&reply(1024, &first)).action, DROP);
    assert!(!kernel.passes(&tcp("192.0.2.2", 443).bytes()));
    // Denied questions are not kept, so they push out none that is in flight.
    assert_eq!(kernel.egress(&question(900, &asked(1))).action, PASS);
    for n in 0..40_000u16 {
        kernel.egress(&question(1024 + n, &query(n, "evil.test", 1)));
    }
    let kept = answer(&asked(1), 60, &["192.0.2.3"]);
    assert_eq!(kernel.ingress(&reply(900, &kept)).action, PASS);
    assert!(kernel.passes(&tcp("192.0.2.3", 443).bytes()));
}

/// Addresses fill the table, and it is said; when they have expired there is room again.
#[test]
fn a_full_table_of_addresses_opens_nothing_more_until_some_expire() {
    let mut kernel = Kernel::new(POLICY);
    let learn = |kernel: &mut Kernel, n: u32, ttl: u32, count: u32| {
        let asked = query(7, "a.example", 1);
        kernel.egress(&question(40_000, &asked));
        let addresses: Vec<String> = (n..n + count)
            .map(|n| std::net::Ipv4Addr::from_bits(0xc612_0000 + n).to_string())
            .collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        kernel.ingress(&reply(40_000, &answer(&asked, ttl, &addresses)));
    };
    for n in 0..410 {
        learn(&mut kernel, n * 160, 5, 160);
    }
    assert_eq!(
        outcome(&kernel, Answer::Learned),
        409,
        "65,536 fit, and no more"
    );
    assert_eq!(outcome(&kernel, Answer::TableFull), 1);
    learn(&mut kernel, 100_000, 60, 1);
    let address = std::net::Ipv4Addr::from_bits(0xc612_0000 + 100_000).to_string();
    assert!(!kernel.passes(&tcp(&address, 443).bytes()));
    let state = kernel.datapath.state();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let mut forgotten = 0;
    while forgotten < 65_536 && std::time::Instant::now() < deadline {
        forgotten += state.forget_expired().unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(forgotten, 65_536);
    learn(&mut kernel, 100_000, 60, 1);
    assert!(kernel.passes(&tcp(&address, 443).bytes()));
}

/// Addresses that expire, are forgotten and learned again at the same moments.
#[test]
fn an_address_that_is_learned_while_it_is_forgotten_is_usable() {
    let mut kernel = Kernel::new(POLICY);
    let state = State::open(kernel.state_dir()).unwrap().unwrap();
    let done = AtomicBool::new(false);
    let forgotten = thread::scope(|scope| {
        let tidier = scope.spawn(|| {
            let mut forgotten = 0;
            while !done.load(Ordering::Relaxed) {
                forgotten += state.forget_expired().unwrap();
            }
            forgotten
        });
        let end = std::time::Instant::now() + Duration::from_secs(5);
        let mut round = 0u16;
        while std::time::Instant::now() < end {
            round = round.wrapping_add(1);
            let host = round % 200;
            let asked = query(round, "a.example", 1);
            kernel.egress(&question(40_000, &asked));
            let address = format!("192.0.2.{host}");
            // Of a second: it expires before its next turn, or nearly.
            kernel.ingress(&reply(40_000, &answer(&asked, 0, &[&address])));
            assert!(
                kernel.passes(&tcp(&address, 443).bytes()),
                "{address}, round {round}"
            );
            thread::sleep(Duration::from_millis(5));
        }
        done.store(true, Ordering::Relaxed);
        tidier.join().unwrap()
    });
    assert!(forgotten > 100, "{forgotten} were forgotten");
}
