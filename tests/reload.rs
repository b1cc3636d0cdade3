//! Reload, restart, death: the filter does not open, and nothing approved is cut.

use netfilter_daemon::lab::mounts;
use nix::sys::signal::{Signal, kill};

use crate::world::{World, eventually};

const ONE: &str = "outbound_rules: [{ name: a, type: ip, destination: { cidr: 192.0.2.1/32, protocol: TCP, port_ranges: '443' } }]";
const OTHER: &str = "outbound_rules: [{ name: b, type: ip, destination: { cidr: 192.0.2.2/32, protocol: TCP, port_ranges: '443' } }]";

#[test]
fn a_reload_is_whole_and_a_wrong_policy_changes_nothing() {
    let world = World::new(None);
    let _daemon = world.enforce(ONE);
    assert!(world.connects("192.0.2.1", 443) && !world.connects("192.0.2.2", 443));
    world.write_policy(OTHER);
    let reload = world.daemon(&["reload"]);
    assert!(
        reload.status.success(),
        "{}",
        String::from_utf8_lossy(&reload.stderr)
    );
    assert!(!world.connects("192.0.2.1", 443) && world.connects("192.0.2.2", 443));

    world.write_policy("outbound_rules: [{ name: c, type: ip, destination: { cidr: nonsense } }]");
    let reload = world.daemon(&["reload"]);
    assert_eq!(reload.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&reload.stderr).contains(&format!("{}:2:", mounts::POLICY)));
    assert!(!world.connects("192.0.2.1", 443) && world.connects("192.0.2.2", 443));
    assert!(eventually(|| world
        .metric("netfilter_policy_reload_failures_total")
        >= 1));
}

#[test]
fn the_filter_outlives_its_daemon_and_the_next_one_adopts_it() {
    let world = World::new(None);
    let daemon = world.enforce(ONE);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).unwrap());
    assert!(!world.connects("192.0.2.2", 443));
    let before = world.metric("netfilter_dropped_packets_total");
    assert!(before > 0);
    kill(pid, Signal::SIGKILL).unwrap();
    drop(daemon);
    assert!(
        world.connects("192.0.2.1", 443) && !world.connects("192.0.2.2", 443),
        "with no daemon"
    );
    let status = world.daemon(&["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("eth0"));
    let next = world.start();
    assert!(next.said.contains("generation 2"), "{}", next.said);
    assert!(world.connects("192.0.2.1", 443) && !world.connects("192.0.2.2", 443));
    assert!(
        world.metric("netfilter_dropped_packets_total") > before,
        "counters go on"
    );
    let detach = world.daemon(&["detach"]);
    assert!(detach.status.success());
    assert!(String::from_utf8_lossy(&detach.stdout).contains("eth0"));
    assert!(eventually(|| world.connects("192.0.2.2", 443)), "lifted");
}
