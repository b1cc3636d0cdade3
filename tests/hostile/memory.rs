//! A control group without memory for the maps.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use netfilter_daemon::lab::{daemon::Daemon, dns::Zone, mounts};

use super::{POLICY, in_force, orphaned, refused, run};
use crate::world::{World, eventually, resolve};

/// Enough for the process, and too little for its maps.
const TOO_LITTLE: u64 = 36 << 20;
/// Together more than the kernel has set aside for a group on each processor.
const NAMES: u8 = 150;
const ADDRESSES: u8 = 25;
const ELSEWHERE: &str = "/sys/fs/bpf/elsewhere";

/// A control group of either version, gone when dropped.
struct Group {
    path: PathBuf,
    limit: &'static str,
    usage: &'static str,
}

impl Group {
    /// None, and why, where this machine lets nobody make one.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let versions = [
            (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            ),
            ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ];
        for (root, limit, usage) in versions {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("netfilter-tests-{}-{number}", std::process::id());
            let path = Path::new(root).join(name);
            if fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self { path, limit, usage };
            if group.path.join(limit).exists() {
                return Some(group);
            }
        }
        eprintln!("skipped: no memory control group can be made here");
        None
    }

    fn limit(&self, bytes: u64) {
        fs::write(self.path.join(self.limit), bytes.to_string()).unwrap();
    }

    fn usage(&self) -> u64 {
        let usage = fs::read_to_string(self.path.join(self.usage)).unwrap();
        usage.trim().parse().unwrap()
    }

    /// The command will run in it.
    fn put(&self, command: &mut Command) {
        let procs = self.path.join("cgroup.procs");
        let mut procs = File::options().write(true).open(procs).unwrap();
        // SAFETY: a system call only.
        unsafe { command.pre_exec(move || procs.write_all(b"0")) };
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        eventually(|| fs::remove_dir(&self.path).is_ok());
    }
}

#[test]
fn without_memory_for_the_maps_a_start_names_one_and_leaves_nothing() {
    let Some(group) = Group::new() else { return };
    let world = super::world();
    orphaned(&world);
    group.limit(TOO_LITTLE);
    let elsewhere = || {
        let mut command = run(&world);
        command.args(["--state-dir", ELSEWHERE]);
        group.put(&mut command);
        command
    };
    for _ in 0..2 {
        refused(
            elsewhere(),
            &["failed to create map `", "memory is short", "MemoryMax="],
        );
        in_force(&world);
        let left = |name: &str| {
            let directory = format!("{ELSEWHERE}/{name}");
            let list = || fs::read_dir(directory).map_or(0, Iterator::count);
            world.protected().run(list).unwrap()
        };
        assert_eq!(left("links"), 0, "something is attached");
        assert_eq!(
            left("filling") + left("next"),
            0,
            "tables take memory for nothing"
        );
    }
    group.limit(512 << 20);
    let daemon = Daemon::start(elsewhere());
    daemon.unwrap_or_else(|error| panic!("{error}")).kill();
    in_force(&world);
}

#[test]
fn where_no_memory_is_left_answers_are_learned_all_the_same() {
    let Some(group) = Group::new() else { return };
    let mut zone = Zone::new();
    for number in 0..NAMES {
        let name = format!("n{number}.approved.example");
        for last in 0..ADDRESSES {
            zone.address(&name, 60, [198, 18, number, last].into())
                .unwrap();
        }
    }
    let world = World::new(Some(zone));
    world.write_policy(POLICY);
    let mut command = run(&world);
    group.put(&mut command);
    let daemon = Daemon::start(command);
    daemon.unwrap_or_else(|error| panic!("{error}")).kill();
    // What is left is that of the maps. No more is given.
    thread::sleep(Duration::from_millis(100));
    assert!(eventually(|| {
        let limit = group.path.join(group.limit);
        fs::write(limit, group.usage().to_string()).is_ok()
    }));
    let names = 0..NAMES;
    let resolved = world.protected().run(|| {
        let name = |number| format!("n{number}.approved.example");
        names
            .filter(|number| resolve(&name(*number), 443).is_some())
            .count()
    });
    assert_eq!(resolved.unwrap(), usize::from(NAMES));
    assert!(world.connects("198.18.149.24", 443) && !world.connects("198.18.149.25", 443));
    in_force(&world);

    group.limit(512 << 20);
    let _daemon = world.start();
    let learned = world.metric("netfilter_learned_addresses{family=\"ipv4\"}");
    assert_eq!(learned, u64::from(NAMES) * u64::from(ADDRESSES));
}

#[test]
fn a_reload_that_needs_memory_that_is_not_there_changes_nothing() {
    let Some(group) = Group::new() else { return };
    let world = super::world();
    world.write_policy(POLICY);
    let mut command = run(&world);
    group.put(&mut command);
    let mut daemon = Daemon::start(command).unwrap_or_else(|error| panic!("{error}"));
    assert!(eventually(|| {
        let limit = group.path.join(group.limit);
        fs::write(limit, (group.usage() + (2 << 20)).to_string()).is_ok()
    }));
    let addresses: Vec<String> = (0..60_000u32)
        .map(|n| format!("20.{}.{}.{}/32", n >> 15, n >> 7 & 255, (n & 127) * 2))
        .collect();
    world.write_policy(&format!(
        "outbound_rules: [{{ name: many, type: ip, destination: {{ cidr: [192.0.2.66/32, {}], protocol: TCP, port_ranges: '443' }} }}]",
        addresses.join(", ")
    ));
    // Where the kernel ends the daemon instead, the filter stays as well.
    assert!(!world.daemon(&["reload"]).status.success());
    in_force(&world);
    group.limit(1 << 30);
    daemon.kill();
    let _daemon = world.start();
    assert!(world.connects("192.0.2.66", 443) && !world.connects("192.0.2.1", 443));
    let unfinished = format!("{}/unfinished-1", mounts::STATE_DIR);
    assert!(
        !world
            .protected()
            .run(|| fs::exists(unfinished).unwrap())
            .unwrap()
    );
}
