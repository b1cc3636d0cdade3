//! Of which addresses anything is known is marked before it is stored; the marks are made anew where
//! they are too many. Whatever is stored is found at any time.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use netfilter_daemon::{datapath::State, sessions::Lent};

use crate::{
    bpffs::{Kernel, PASS, image},
    frame::{self, LOCAL, SYN, segment, tcp, to},
};

const POLICY: &str = "
resolvers: [10.0.0.53]
dns: { minimum_ttl: 0, grace: 0 }
inbound: [{ protocol: TCP, port_ranges: '22' }]
outbound_rules:
  - { name: exact, type: fqdn, destination: { fqdn: a.example, protocol: TCP, port_ranges: '443' } }
";
/// More than there may be without need: one of 64.
const MANY: u32 = (1 << 18) / 64 * 5 / 4;
const AT_ONCE: u32 = 20;

fn address(number: u32) -> String {
    Ipv4Addr::from_bits(0xc612_0000 + number).to_string()
}

/// Some, from this one on, by one answer.
fn learn(kernel: &mut Kernel, ttl: u32, first: u32, count: u32) {
    let addresses: Vec<String> = (first..first + count).map(address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    kernel.learn("a.example", ttl, &addresses);
}

fn learn_many(kernel: &mut Kernel, ttl: u32, first: u32, count: u32) {
    for first in (first..first + count).step_by(AT_ONCE as usize) {
        learn(kernel, ttl, first, AT_ONCE);
    }
}

#[test]
fn marks_that_are_made_anew_are_those_of_what_is_stored() {
    let mut kernel = Kernel::new(POLICY);
    let state = State::open(kernel.state_dir()).unwrap().unwrap();
    assert_eq!(state.thin_remotes().unwrap(), None, "nothing is known yet");
    learn(&mut kernel, 600, 0, 1);
    // A flow outlives its lease.
    learn(&mut kernel, 1, 1, 1);
    let flow = |flags| to(&address(1), frame::TCP, segment(5_000, 443, flags)).bytes();
    assert!(kernel.passes(&flow(SYN)));
    let client = to(LOCAL, frame::TCP, segment(6_000, 22, SYN)).from("8.8.8.8");
    assert_eq!(kernel.ingress(&client.bytes()).action, PASS);
    learn_many(&mut kernel, 1, 1_000, MANY);
    let is_usable =
        |kernel: &mut Kernel, number| kernel.passes(&tcp(&address(number), 443).bytes());
    assert!(is_usable(&mut kernel, 1_000));
    assert!(state.thin_remotes().unwrap() > Some(MANY / 2), "too early");
    learn_many(&mut kernel, 1, 100_000, 3 * MANY);
    thread::sleep(Duration::from_millis(2_100));
    state.forget_expired().unwrap();
    assert_eq!(state.thin_remotes().unwrap(), Some(4));
    assert!(is_usable(&mut kernel, 0), "a lease");
    assert!(!is_usable(&mut kernel, 1_001), "one that is over");
    assert!(kernel.passes(&flow(frame::ACK)), "its flow");
    let answer = to("8.8.8.8", frame::TCP, segment(22, 6_000, SYN | frame::ACK));
    assert!(kernel.passes(&answer.bytes()), "who came in");
    learn(&mut kernel, 600, 2_000, 1);
    assert!(is_usable(&mut kernel, 2_000), "what came behind");
}

#[test]
fn what_is_learned_while_marks_are_made_anew_is_usable_at_once_and_from_then_on() {
    let mut kernel = Kernel::new(POLICY);
    let state = State::open(kernel.state_dir()).unwrap().unwrap();
    let done = AtomicBool::new(false);
    let anew = thread::scope(|scope| {
        let thinner = scope.spawn(|| {
            let mut anew = 0;
            while !done.load(Ordering::Relaxed) {
                state.forget_expired().unwrap();
                anew += usize::from(state.thin_remotes().unwrap().is_some());
            }
            anew
        });
        let mut lost = Vec::new();
        for first in (0..20 * MANY).step_by(2 * AT_ONCE as usize) {
            learn(
                &mut kernel,
                600 * u32::from(first % 400 == 0),
                first,
                AT_ONCE,
            );
            let lasts = if first % 400 == 0 {
                first
            } else {
                first / 400 * 400
            };
            for number in [lasts, lasts / 800 * 400] {
                let syn = segment(first as u16 | 1, 443, SYN);
                if !kernel.passes(&to(&address(number), frame::TCP, syn).bytes()) {
                    lost.push(number);
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        let anew = thinner.join().unwrap();
        assert_eq!(lost, [0; 0]);
        for number in (0..20 * MANY).step_by(400) {
            assert!(
                kernel.passes(&tcp(&address(number), 443).bytes()),
                "{number}"
            );
        }
        anew
    });
    assert!(anew > 1, "made anew {anew} times");
}

#[test]
fn what_user_space_lends_is_usable_at_once() {
    let mut kernel = Kernel::new(POLICY);
    let lent = Lent {
        name: "a.example".parse().unwrap(),
        address: "192.0.2.1".parse().unwrap(),
        ttl: 600,
    };
    assert!(!kernel.passes(&tcp("192.0.2.1", 443).bytes()));
    kernel.datapath.lend(&image(POLICY), &[lent]).unwrap();
    assert!(kernel.passes(&tcp("192.0.2.1", 443).bytes()));
    let state = kernel.datapath.state();
    assert_eq!(state.thin_remotes().unwrap(), Some(1));
    assert!(kernel.passes(&tcp("192.0.2.1", 443).bytes()));
}
