//! Policies that are too much.

use std::{
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::mounts;

use super::{POLICY, in_force, limited, of_process, told, world};
use crate::world::{BINARY, World};

const RULES: u32 = 100_000;
const NAMES: u32 = 40_000;

fn addresses() -> String {
    let rule = |n: u32| {
        let [_, a, b, c] = (n * 2).to_be_bytes();
        format!(
            "  - {{ name: r{n}, type: ip, destination: {{ cidr: 20.{a}.{b}.{c}/32, protocol: TCP, port_ranges: '443' }} }}\n"
        )
    };
    (0..RULES).map(rule).collect()
}

fn names() -> String {
    let rule = |n| format!("  - {{ name: n{n}, type: fqdn, destination: n{n}.example }}\n");
    (0..NAMES).map(rule).collect()
}

/// `check`, in so many MiB of addresses: what it says, and its code.
fn checked(world: &World, policy: &str, memory: u64) -> (String, Option<i32>) {
    world.write_policy(policy);
    let mut command = world.protected().command(BINARY);
    command.args(["check", mounts::POLICY]);
    limited(&mut command, libc::RLIMIT_AS, memory << 20, memory << 20);
    let output = command.output().unwrap();
    (told(&output), output.status.code())
}

#[test]
fn while_a_hundred_thousand_rules_are_read_the_daemon_answers_and_enforces() {
    let world = world();
    let daemon = world.enforce(POLICY);
    let policy = POLICY.to_owned() + &addresses();
    world.write_policy(&policy);
    let begun = Instant::now();
    thread::scope(|scope| {
        let reload = scope.spawn(|| world.daemon(&["reload"]));
        let (mut asked, mut slowest) = (0, Duration::ZERO);
        while !reload.is_finished() {
            let moment = Instant::now();
            assert!(world.get("/healthz").ends_with("ok\n"));
            assert!(world.daemon(&["status"]).status.success());
            in_force(&world);
            slowest = slowest.max(moment.elapsed());
            asked += 1;
        }
        let output = reload.join().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        eprintln!("asked {asked} times meanwhile, for {slowest:?} at most");
        assert!(asked > 1, "it was over before anybody asked");
        assert!(slowest < begun.elapsed() / 2, "{slowest:?}");
    });
    let (took, peak) = (begun.elapsed(), of_process(&daemon, "VmHWM"));
    eprintln!("{RULES} rules: {took:?}, {peak} KiB at most");
    assert!(took < Duration::from_secs(120), "{took:?}");
    assert!(peak < 1 << 20, "{peak} KiB");
    in_force(&world);
    assert!(world.connects("20.3.13.62", 443) && !world.connects("20.3.13.63", 443));
}

#[test]
fn more_names_than_there_is_room_for_are_refused_with_the_number() {
    let world = world();
    let policy = format!("outbound_rules:\n{}", names());
    let (told, code) = checked(&world, &policy, 1024);
    assert_eq!(code, Some(2), "{told}");
    assert!(
        told.contains("has 40000 names, and there is room for 32767"),
        "{told}"
    );
}

#[test]
fn what_is_no_policy_is_refused_in_little_memory() {
    let world = world();
    let megabytes = |text: &str| text.repeat((4 << 20) / text.len());
    let laughs: String = (1..12)
        .map(|n| {
            format!(
                "a{n}: &a{n} [{}]\n",
                vec![format!("*a{}", n - 1); 9].join(", ")
            )
        })
        .collect();
    let anchors: String = (0..30).map(|n| format!("&a{n} [")).collect();
    let cases = [
        (megabytes("x"), "this is not YAML"),
        (megabytes("["), "nested too deep"),
        (megabytes("- "), "this is not YAML"),
        (megabytes("? :\u{1}\t%@`"), "has no key"),
        (
            format!("a0: &a0 [1, 1, 1]\n{laughs}"),
            "the aliases stand for more than",
        ),
        (
            format!("x: {anchors}{}", megabytes("1, ")),
            "this is not YAML",
        ),
        (
            format!("x: {anchors}[{}]{}", megabytes("1, "), "]".repeat(30)),
            "the anchors stand for more than",
        ),
        (
            format!("outbound_rules:\n{}", megabytes("  - { nam: x, typ: q }\n")),
            "a rule has no key `nam`",
        ),
        (
            (0..300_000).map(|n| format!("k{n}: 1\n")).collect(),
            "has no key `k0`",
        ),
        (format!("on_deny: {}", megabytes("y")), "on_deny"),
    ];
    for (policy, words) in cases {
        let begun = Instant::now();
        let (told, code) = checked(&world, &policy, 1024);
        let case = &policy[..40.min(policy.len())];
        assert_eq!(code, Some(2), "{case}: {}", &told[..told.len().min(500)]);
        assert!(
            told.contains(words),
            "{case}: {}",
            &told[..told.len().min(500)]
        );
        assert!(
            told.len() < 64 << 10,
            "{case}: {} bytes of message",
            told.len()
        );
        // Each takes two seconds at most on an idle machine.
        assert!(begun.elapsed() < Duration::from_secs(30), "{case}");
    }
}
