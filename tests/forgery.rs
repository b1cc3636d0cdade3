//! Answers that nobody asked for, in numbers and at the worst moment; tables that
//! are full. What they open: nothing. What they cost: a bounded time and memory.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use netfilter_daemon::datapath::{State, test_run::Program};
use netfilter_ebpf::verdict::Answer;

use crate::{
    bpffs::{DROP, Kernel, PASS, at_once},
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
/// Enough for two processors to meet, when nothing keeps them apart.
const ROUNDS: u16 = 1000;

fn question(port: u16, message: &[u8]) -> Vec<u8> {
    to(RESOLVER, frame::UDP, datagram(port, 53, message)).bytes()
}

fn reply(port: u16, message: &[u8]) -> Vec<u8> {
    to(frame::LOCAL, frame::UDP, datagram(53, port, message))
        .from(RESOLVER)
        .bytes()
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
    assert_eq!(kernel.answers(Answer::Unsolicited), 65_536);
}

/// Two answers to one question, on two processors at once: one is believed.
/// Which one, nobody can say; here both are the resolver's by all that can be seen.
#[test]
fn of_two_answers_at_the_same_moment_one_is_learned() {
    let mut kernel = Kernel::new(POLICY);
    let twins = [(); 2].map(|()| kernel.twin(Program::Ingress));
    let asked = query(7, "a.example", 1);
    for round in 0..ROUNDS {
        let port = 20_000 + round;
        assert_eq!(kernel.egress(&question(port, &asked)).action, PASS);
        let addresses = [18, 19].map(|end| format!("198.{end}.{}.{}", round / 256, round % 256));
        let frames = addresses
            .each_ref()
            .map(|address| reply(port, &answer(&asked, 60, &[address])));
        let passed = at_once(&twins, &frames).map(|action| action == PASS);
        let learned = addresses.map(|address| kernel.passes(&tcp(&address, 443).bytes()));
        assert_ne!(passed[0], passed[1], "round {round}");
        assert_eq!(passed, learned, "round {round}");
    }
    assert_eq!(kernel.answers(Answer::Learned), u64::from(ROUNDS));
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
        kernel.answers(Answer::Learned),
        409,
        "65,536 fit, and no more"
    );
    assert_eq!(kernel.answers(Answer::TableFull), 1);
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

/// Addresses that expire, are forgotten and learned again at the same moments:
/// all at once, as a second begins.
#[test]
fn an_address_that_is_learned_while_it_is_forgotten_is_usable() {
    let mut kernel = Kernel::new(POLICY);
    let state = State::open(kernel.state_dir()).unwrap().unwrap();
    let done = AtomicBool::new(false);
    let addresses: Vec<String> = (0..2000u32)
        .map(|n| std::net::Ipv4Addr::from_bits(0xc612_0000 + n).to_string())
        .collect();
    let refs: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let forgotten = thread::scope(|scope| {
        let tidier = scope.spawn(|| {
            let mut forgotten = 0;
            while !done.load(Ordering::Relaxed) {
                forgotten += state.forget_expired().unwrap();
            }
            forgotten
        });
        let lost: Vec<String> = (1000..1006)
            .flat_map(|port| {
                // Until the next one: what takes longer, beside other loads, tells nothing.
                let second = second_begins();
                for some in refs.chunks(10) {
                    let asked = query(7, "a.example", 1);
                    kernel.egress(&question(40_000, &asked));
                    kernel.ingress(&reply(40_000, &answer(&asked, 0, some)));
                    // Not so fast that nothing is left to forget.
                    thread::sleep(Duration::from_micros(50));
                }
                // From a port of its own, or it would be a connection in use, which goes on.
                let is_lost = |address: &&String| {
                    let syn = frame::segment(port, 443, frame::SYN);
                    let passes = kernel.passes(&to(address, frame::TCP, syn).bytes());
                    !passes && now().tv_sec() == second
                };
                addresses
                    .iter()
                    .filter(is_lost)
                    .cloned()
                    .collect::<Vec<_>>()
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        let forgotten = tidier.join().unwrap();
        assert_eq!(lost, [""; 0]);
        forgotten
    });
    assert!(forgotten > 100, "{forgotten} were forgotten");
}

/// Returns it.
fn second_begins() -> i64 {
    let into = now().tv_nsec();
    thread::sleep(Duration::from_nanos(1_000_000_000 - into.cast_unsigned()));
    now().tv_sec()
}

fn now() -> nix::sys::time::TimeSpec {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap()
}
