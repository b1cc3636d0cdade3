//! More denials than anybody reads.

use std::{
    fs,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::daemon::Daemon;
use nix::sys::signal::Signal;

use super::{POLICY, in_force, signal, world};
use crate::world::{World, eventually};

/// Of users and processes enough that what the programs report of all fills the ring, if each
/// report has a long path.
const MANY: &str = "for my $user (1..4) { for (1..6) { next if fork(); \
    ($<, $>) = ($user, $user); socket(S, PF_INET, SOCK_DGRAM, 0); \
    send(S, 'x', 0, sockaddr_in(9, inet_aton('192.0.2.66'))) for 1..400; exit } } \
    1 while wait() != -1";

fn flood(world: &World, time: Duration) {
    let flood = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let until = Instant::now() + time;
        while Instant::now() < until {
            for _ in 0..20 {
                // Refused, of course.
                socket.send_to(b"x", "192.0.2.66:9").ok();
            }
            thread::sleep(Duration::from_millis(5));
        }
    };
    let both = || {
        thread::scope(|scope| {
            scope.spawn(flood);
            scope.spawn(flood);
        });
    };
    world.protected().run(both).unwrap();
}

/// Processor time, in ticks of 10 ms.
fn ticks(daemon: &Daemon) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.id())).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn what_nobody_reads_is_counted_as_lost_and_as_denied() {
    let world = world();
    let daemon = world.enforce(POLICY);
    let directory = tempfile::tempdir().unwrap();
    let long = ["a", "b"].map(|letter| letter.repeat(110)).join("/");
    let long = directory.path().join(long);
    let perl = long.join("perl");
    world.install("/usr/bin/perl", perl.to_str().unwrap());
    signal(&daemon, Signal::SIGSTOP);
    assert!(world.succeeds(perl.to_str().unwrap(), &["-MSocket", "-e", MANY]));
    in_force(&world);
    signal(&daemon, Signal::SIGCONT);
    assert!(eventually(|| world.get("/healthz").ends_with("ok\n")));

    let lost =
        |stage: &str| world.metric(&format!("netfilter_events_lost_total{{stage=\"{stage}\"}}"));
    let exact = || {
        let told = world.daemon(&["events", "--json"]).stdout;
        let told = told.iter().filter(|byte| **byte == b'\n').count() as u64;
        let before = world.metric("netfilter_dropped_packets_total");
        let lost = lost("rate_limit") + lost("ring_full");
        before == told + lost && before == world.metric("netfilter_dropped_packets_total")
    };
    assert!(eventually(exact), "{}", world.metrics());
    assert!(lost("ring_full") > 0, "the ring did not overflow");
    assert!(lost("rate_limit") > 0);

    let before = ticks(&daemon);
    flood(&world, Duration::from_secs(1));
    let used = ticks(&daemon) - before;
    assert!(used < 50, "{used}0 ms for a flood of a second");
    in_force(&world);
}
