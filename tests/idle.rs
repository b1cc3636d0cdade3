//! What the daemon takes while nothing happens.

use std::{fs, thread, time::Duration};

use crate::world::{World, eventually, number};

/// Kilobytes of tables that stay mapped: the word that flips, and where each ring has been read.
const TABLES: u64 = 64;

/// How often its threads have gone to sleep.
fn sleeps(daemon: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{daemon}/task")).unwrap();
    let sleeps = threads.map(|thread| {
        let status = fs::read_to_string(thread.unwrap().path().join("status"));
        number(&status.unwrap_or_default(), "voluntary_ctxt_switches:").unwrap_or(0)
    });
    sleeps.sum()
}

/// Kilobytes that it may reach, and those that are in its memory, of what is mapped in this way.
fn mapped(daemon: u32, permissions: &str, file: &str) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{daemon}/smaps")).unwrap();
    let (mut reach, mut resident, mut is_meant) = (0, 0, false);
    for line in text.lines() {
        let (first, rest) = line.split_once(' ').unwrap();
        if first.contains('-') {
            is_meant = rest.starts_with(permissions) && rest.ends_with(file);
        } else if is_meant {
            reach += number(line, "Size:").unwrap_or(0);
            resident += number(line, "Rss:").unwrap_or(0);
        }
    }
    (reach, resident)
}

#[test]
fn it_wakes_twice_a_second_and_no_oftener() {
    let world = World::new(None);
    let daemon = world.enforce("outbound_rules: []\n");
    let slept = || {
        let before = sleeps(daemon.id());
        thread::sleep(Duration::from_secs(5));
        sleeps(daemon.id()) - before
    };
    // A new namespace's interfaces say something at first.
    let slept: Vec<u64> = (0..6).map(|_| slept()).collect();
    assert!(slept.iter().all(|slept| *slept >= 8), "{slept:?}");
    assert!(slept.iter().any(|slept| *slept <= 15), "{slept:?}");
}

#[test]
fn tables_are_mapped_only_while_they_are_filled() {
    let world = World::new(None);
    let daemon = world.enforce("presets: [azure-ml]\n");
    for _ in 0..3 {
        let (tables, _) = mapped(daemon.id(), "rw-s", "bpf-map");
        assert!((1..=TABLES).contains(&tables), "{tables} kB");
        assert!(world.daemon(&["reload"]).status.success());
    }
}

#[test]
fn most_of_what_a_start_took_of_the_program_is_let_go() {
    let world = World::new(None);
    let daemon = world.enforce("presets: [azure-ml]\n");
    for permissions in ["r-xp", "r--p"] {
        let part = || mapped(daemon.id(), permissions, "netfilter-daemon");
        assert!(eventually(|| part().1 < part().0 / 2), "{:?}", part());
    }
}
