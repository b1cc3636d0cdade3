//! The systemd unit gives the daemon what it uses, and little else.

use std::{fs, process::Output};

use netfilter_daemon::{
    daemon::privileges::{KEPT, LOOKING},
    lab::namespace::Namespace,
};

use crate::{resolvers::servers, world::BINARY};

mod booted;

const UNIT: &str = include_str!("../packaging/netfilter-daemon.service");
const INSTALLED: &str = "/usr/bin/netfilter-daemon";

/// Of ten, in tenths: a bound that was reached, for what comes later to keep. Half a point
/// is for [`LOOKING`], which the daemon gives up after its start.
const EXPOSURE: u32 = 30;

fn values(key: &str) -> impl Iterator<Item = &str> {
    let lines = UNIT.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(move |(name, _)| *name == key)
        .map(|(_, value)| value)
}

/// Asks systemd about the unit, with the daemon where these tests have it.
fn analyze(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("netfilter-daemon.service");
    fs::write(&unit, UNIT.replace(INSTALLED, BINARY)).unwrap();
    let mut analyze = servers::command(&Namespace::new().unwrap(), "systemd-analyze");
    analyze.args(arguments).arg(&unit).output().unwrap()
}

#[test]
fn the_unit_gives_the_capabilities_that_the_daemon_uses_and_no_other() {
    let used = KEPT.iter().chain(&LOOKING);
    let mut used: Vec<String> = used.map(ToString::to_string).collect();
    let bounds = values("CapabilityBoundingSet").flat_map(str::split_whitespace);
    let mut bounds: Vec<&str> = bounds.collect();
    used.sort();
    bounds.sort_unstable();
    assert_eq!(bounds, used);
    assert_eq!(values("AmbientCapabilities").collect::<Vec<_>>(), [""]);
}

#[test]
fn the_unit_can_be_enabled_and_comes_before_the_network() {
    assert_eq!(values("WantedBy").collect::<Vec<_>>(), ["sysinit.target"]);
    assert!(values("Before").any(|units| units.contains("network-pre.target")));
}

#[test]
fn systemd_knows_every_line_of_the_unit() {
    let verified = analyze(&["verify", "--man=no"]);
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}

#[test]
fn systemd_finds_the_unit_little_exposed() {
    let threshold = format!("--threshold={EXPOSURE}");
    let scored = analyze(&["security", "--offline=true", "--no-pager", &threshold]);
    let said = String::from_utf8_lossy(&scored.stdout);
    assert!(said.contains("Overall exposure level"), "{scored:?}");
    assert!(scored.status.success(), "{said}");
}
