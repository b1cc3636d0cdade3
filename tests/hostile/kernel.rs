//! Capabilities, file systems and limits that are not as they should be.

use std::{
    fs,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use netfilter_daemon::lab::daemon::Daemon;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{POLICY, files, in_force, limited, orphaned, refused, run, without, world};
use crate::world::{World, eventually};

const CAP_SYS_ADMIN: u64 = 21;
const CAP_SYS_RESOURCE: u64 = 24;
const CAP_PERFMON: u64 = 38;
const CAP_BPF: u64 = 39;

fn hide(world: &World, directory: &str) {
    let hide = || {
        if !fs::exists(directory).unwrap() {
            return Ok(());
        }
        let flags = MsFlags::empty();
        mount::<_, _, _, str>(Some("lab"), directory, Some("tmpfs"), flags, None)
    };
    world.protected().run(hide).unwrap().unwrap();
}

#[test]
fn the_capabilities_that_are_missing_are_named() {
    let world = world();
    orphaned(&world);
    let mut command = run(&world);
    without(&mut command, &[CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF]);
    refused(
        command,
        &["lacks CAP_PERFMON and CAP_BPF", "run it as root"],
    );
    in_force(&world);
}

#[test]
fn a_bpf_file_system_is_mounted_where_none_is_and_asked_for_where_it_may_not_be() {
    let world = world();
    world.write_policy(POLICY);
    let unmount = || umount2("/sys/fs/bpf", MntFlags::MNT_DETACH).unwrap();
    world.protected().run(unmount).unwrap();
    // The machine may have one below; ours is for this place only.
    hide(&world, "/sys/fs/bpf");
    let clutter = || fs::write("/sys/fs/bpf/netfilter", "not a directory").unwrap();
    world.protected().run(clutter).unwrap();

    let mut command = run(&world);
    without(&mut command, &[CAP_SYS_ADMIN]);
    let remedy = [
        "cannot mount a BPF file system",
        "mount -t bpf bpf",
        "--state-dir",
    ];
    refused(command, &remedy);
    let mut command = run(&world);
    command.args(["--state-dir", "/run/netfilter-daemon/state"]);
    let remedy = "mount -t bpf bpf /run/netfilter-daemon/state";
    refused(command, &["is not on a BPF file system", remedy]);
    assert!(world.connects("192.0.2.66", 443), "nothing is attached");

    let _daemon = world.start();
    in_force(&world);
}

#[test]
fn neither_btf_nor_a_unified_control_group_is_needed() {
    let world = world();
    hide(&world, "/sys/kernel/btf");
    hide(&world, "/sys/fs/cgroup/unified");
    let _daemon = world.enforce(POLICY);
    in_force(&world);
    let status = String::from_utf8(world.daemon(&["status"]).stdout).unwrap();
    let said = "events do not name the paths of executables and cgroups, nor containers: this kernel does not describe";
    assert!(status.contains(said), "{status}");
}

#[test]
fn a_low_limit_of_open_files_is_raised_or_refused() {
    let world = world();
    orphaned(&world);
    let mut command = run(&world);
    limited(&mut command, libc::RLIMIT_NOFILE, 64, 64);
    without(&mut command, &[CAP_SYS_RESOURCE]);
    refused(command, &["may have 64 files open", "LimitNOFILE=512"]);
    in_force(&world);
    let mut command = run(&world);
    limited(&mut command, libc::RLIMIT_NOFILE, 64, 1024);
    let daemon = Daemon::start(command).unwrap_or_else(|error| panic!("{error}"));
    assert!(files(&daemon) < 150, "{} files", files(&daemon));
    assert!(world.daemon(&["reload"]).status.success());
    in_force(&world);
}

fn started(world: &World) -> Child {
    run(world)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn of_two_that_start_at_once_one_filters_and_the_other_says_so() {
    let world = world();
    world.write_policy(POLICY);
    let mut both = [started(&world), started(&world)];
    let mut ended = None;
    assert!(eventually(|| {
        let statuses = both.each_mut().map(|child| child.try_wait().unwrap());
        ended = statuses.iter().position(Option::is_some);
        ended.is_some()
    }));
    let [first, second] = both;
    let (loser, winner) = match ended.unwrap() {
        0 => (first, second),
        _ => (second, first),
    };
    let output = loser.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(super::told(&output).contains("a daemon already runs"));
    assert!(eventually(|| !world.connects("192.0.2.66", 443)));
    in_force(&world);
    end(winner);
}

#[test]
fn nobody_needs_to_read_what_the_daemon_says() {
    let world = world();
    world.write_policy(POLICY);
    let mut child = started(&world);
    drop(child.stderr.take());
    assert!(eventually(|| !world.connects("192.0.2.66", 443)));
    thread::sleep(Duration::from_millis(500));
    in_force(&world);
    assert!(world.daemon(&["reload"]).status.success());
    assert!(world.get("/healthz").ends_with("ok\n"));
    end(child);
    in_force(&world);
}
