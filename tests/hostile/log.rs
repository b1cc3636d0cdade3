//! Nobody reads stderr any more.

use std::{
    io::{BufRead, BufReader, PipeReader, Read, Write, pipe},
    process::{Child, Stdio},
    thread,
};

use netfilter_daemon::lab::mounts;
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{POLICY, in_force, world};
use crate::{
    interfaces::{enforcing, plug},
    world::{BINARY, World, eventually},
};

/// Each has a line in the log when the policy comes into force; together they are more
/// than wait for a reader.
const NOTED: usize = 3000;

fn noted() -> String {
    let rule = |number| {
        format!(
            "  - {{ name: noted-{number}, type: private_endpoint, destination: \
             {{ service_resource_id: /subscriptions/x, subresource_target: blob }} }}\n"
        )
    };
    let rules: String = (0..NOTED).map(rule).collect();
    format!("{POLICY}{rules}")
}

/// On all interfaces, with a pipe as stderr that takes nothing, before the first line.
fn start(world: &World) -> (Child, BufReader<PipeReader>) {
    let (reader, mut writer) = pipe().unwrap();
    let room = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let filling = "x".repeat(usize::try_from(room).unwrap() - 1) + "\n";
    writer.write_all(filling.as_bytes()).unwrap();
    let child = world
        .protected()
        .command(BINARY)
        .args(["run", "--policy", mounts::POLICY])
        .env_remove("RUST_LOG")
        .stdout(Stdio::null())
        .stderr(writer)
        .spawn()
        .unwrap();
    assert!(eventually(|| !world.connects("192.0.2.66", 443)));
    in_force(world);
    (child, BufReader::new(reader))
}

fn lost(world: &World) -> u64 {
    world.metric("netfilter_log_lines_lost_total")
}

fn ends_well(mut child: Child) -> bool {
    let pid = Pid::from_raw(child.id().cast_signed());
    kill(pid, Signal::SIGTERM).unwrap();
    let mut ended = None;
    let has_ended = eventually(|| {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    if !has_ended {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    ended.is_some_and(|status| status.success())
}

fn goes_on(world: &World) {
    assert!(world.get("/healthz").ends_with("ok\n"));
    assert!(world.daemon(&["reload"]).status.success());
    let events = String::from_utf8(world.daemon(&["events"]).stdout).unwrap();
    assert!(events.contains("192.0.2.66"), "{events}");
    let status = String::from_utf8(world.daemon(&["status"]).stdout).unwrap();
    assert!(status.contains("daemon"), "{status}");
    in_force(world);
}

#[test]
fn a_full_stderr_holds_nothing_up_and_what_was_lost_is_said() {
    let world = world();
    world.write_policy(&noted());
    let (child, mut log) = start(&world);
    goes_on(&world);
    plug(&world, "eth1");
    assert!(eventually(|| enforcing(&world, "eth1") == Some(1)));
    assert!(!world.connects("198.51.100.1", 443));
    // From here on a reload has nothing to note.
    world.write_policy(POLICY);
    goes_on(&world);
    assert!(lost(&world) > NOTED as u64);

    let mut lines = log.by_ref().lines().map(Result::unwrap);
    let said = lines.find(|line| line.contains("lines of the log were lost"));
    let counted = lost(&world);
    let loss = format!("{counted} lines of the log were lost: nobody read in time");
    assert_eq!(said, Some(loss));
    assert!(world.daemon(&["reload"]).status.success());
    assert!(lines.any(|line| line.contains("reloaded because of `reload`")));
    let read = thread::spawn(move || log.lines().map_while(Result::ok).last());
    assert!(ends_well(child));
    let last = read.join().unwrap().unwrap();
    assert!(
        last.contains("stopping; the filter stays in force"),
        "{last}"
    );
}

#[test]
fn a_full_stderr_does_not_keep_the_daemon_from_ending() {
    let world = world();
    world.write_policy(&noted());
    let (child, _log) = start(&world);
    assert!(ends_well(child));
    in_force(&world);
}
