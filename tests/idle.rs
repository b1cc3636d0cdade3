//! What the daemon takes while nothing happens.

use std::fs;

use crate::world::{World, eventually};

/// Kilobytes of tables that stay mapped: the word that flips, and where each ring has been read.
const TABLES: u64 = 64;

/// A number of a process or thread, as `/proc` tells it in `status`.
fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim_end_matches(" kB").trim().parse().ok()
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
