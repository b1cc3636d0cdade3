//! Who is denied without end does not drown what others are denied once.

use std::{thread, time::Duration};

use netfilter_daemon::lab::raw::bypass;

use super::*;

fn lost(world: &World) -> u64 {
    world.metric("netfilter_events_lost_total{stage=\"rate_limit\"}")
}

fn dropped(world: &World) -> u64 {
    world.metric("netfilter_dropped_packets_total{reason=\"no_rule\"")
}

/// Of perl: datagrams to ever other ports for some seconds, then a single one.
fn scan(seconds: u32, pause: u32, last: u16) -> String {
    format!(
        "socket(S, PF_INET, SOCK_DGRAM, 0); my $to = inet_aton('{DENIED}'); my $end = time + {seconds}; my $n = 0; \
         while (time < $end) {{ send(S, 'x', 0, sockaddr_in(10000 + $n++ % 20000, $to)) }} \
         sleep {pause}; send(S, 'x', 0, sockaddr_in({last}, $to));"
    )
}

#[test]
fn a_scan_drowns_nobody_and_what_was_not_told_of_it_is_counted_and_said() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    thread::scope(|scope| {
        let scanner = scope.spawn(|| perl(&world, &scan(4, 3, 3001)));
        assert!(eventually(|| lost(&world) > 1000), "no scan");
        // Of the same user and cgroup, and of another user.
        let pid = bash(&world, &connected(DENIED, 3002));
        is_by(&to_port(&world, 3002), pid, &path_of("bash"), "connect");
        let script = connected(DENIED, 3003);
        let pid = run(
            &world,
            "setpriv",
            &["--reuid=65534", "--clear-groups", "bash", "-c", &script],
        );
        is_by(&to_port(&world, 3003), pid, &path_of("bash"), "connect");

        let pid = scanner.join().unwrap();
        let last = to_port(&world, 3001);
        is_by(&last, pid, &path_of("perl"), "send");
        let of_scan = events(&world, &["--process", &pid.to_string()]);
        let told: u64 = of_scan
            .iter()
            .map(|event| event["untold"].as_u64().unwrap())
            .sum();
        assert!(of_scan.len() < 200, "{}", of_scan.len());
        assert!(told > 1000, "{told}");
        assert_eq!(
            told,
            lost(&world),
            "each that was lost is said, the last by the last"
        );
        let all = events(&world, &[]).len() as u64;
        assert_eq!(
            all + told,
            dropped(&world),
            "each that was dropped is told or counted"
        );
        let said = world.daemon(&["events", "--process", &pid.to_string()]);
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(
            said.contains(" more from this source were not told"),
            "{said}"
        );
    });
}

#[test]
fn forged_senders_are_one_source() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    let flood = || {
        let mut sender = bypass::ordinary("eth0").unwrap();
        let mut bytes = frame::udp(DENIED, 4000).bytes();
        for number in 0..100_000u32 {
            // The source address, whose checksum nobody looks at before the verdict.
            bytes[26..30].copy_from_slice(&(0x0a00_0000 | number).to_be_bytes());
            sender.send(&bytes).ok();
        }
    };
    thread::scope(|scope| {
        let flooding = scope.spawn(|| world.protected().run(flood).unwrap());
        assert!(eventually(|| lost(&world) > 1000), "no flood");
        let pid = bash(&world, &connected(DENIED, 3101));
        is_by(&to_port(&world, 3101), pid, &path_of("bash"), "connect");
        flooding.join().unwrap();
    });
    let forged = events(&world, &["--destination", DENIED]).len();
    assert!(forged < 250, "{forged}");
}

/// A process is told 150 at once, its user and cgroup 600.
#[test]
fn ever_new_processes_of_a_user_do_not_drown_another_user() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    let forks = format!(
        "for (1..1000) {{ if (!fork()) {{ {} exit }} wait }}",
        unconnected(3201)
    );
    perl(&world, &forks);
    assert!(eventually(|| lost(&world) > 100), "{}", lost(&world));
    let script = connected(DENIED, 3202);
    let pid = run(
        &world,
        "setpriv",
        &["--reuid=65534", "--clear-groups", "bash", "-c", &script],
    );
    is_by(&to_port(&world, 3202), pid, &path_of("bash"), "connect");
    thread::sleep(Duration::from_millis(10));
}
