//! Hostile conditions: a clear message or a bounded cost, and enforcement unharmed.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, Output},
};

use netfilter_daemon::lab::{daemon::Daemon, dns::Zone, mounts};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::world::{BINARY, World, number};

mod clients;
mod disk;
mod kernel;
mod log;
mod memory;
mod policies;
mod reports;

const POLICY: &str = "outbound_rules:
  - { name: fixed, type: ip, destination: { cidr: 192.0.2.1/32, protocol: TCP, port_ranges: '443' } }
  - { name: names, type: fqdn, destination: { fqdn: '*.approved.example', protocol: TCP, port_ranges: '443' } }
";

/// What was in force still is.
fn in_force(world: &World) {
    assert!(world.connects("192.0.2.1", 443), "what is approved is cut");
    assert!(
        !world.connects("192.0.2.66", 443),
        "what is denied gets out"
    );
}

fn world() -> World {
    World::new(Some(Zone::new()))
}

/// A filter that is in force, and no daemon.
fn orphaned(world: &World) {
    world.enforce(POLICY).kill();
    in_force(world);
}

fn run(world: &World) -> Command {
    let mut command = world.protected().command(BINARY);
    command.args(["run", "--interface", "eth0", "--policy", mounts::POLICY]);
    command
}

/// Runs it to its end: the system refused, with these words.
fn refused(mut command: Command, words: &[&str]) {
    let output = command.output().unwrap();
    let told = told(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    for word in words {
        assert!(told.contains(word), "no `{word}` in: {told}");
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn signal(daemon: &Daemon, signal: Signal) {
    kill(Pid::from_raw(daemon.id().cast_signed()), signal).unwrap();
}

/// Without these capabilities, whoever is root.
fn without(command: &mut Command, capabilities: &'static [u64]) {
    // SAFETY: system calls only.
    unsafe {
        command.pre_exec(move || {
            for capability in capabilities {
                if libc::prctl(libc::PR_CAPBSET_DROP, *capability, 0, 0, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

fn limited(command: &mut Command, resource: libc::__rlimit_resource_t, soft: u64, hard: u64) {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: a system call, and the pointer is valid for it.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(resource, &raw const limit) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// A number that the kernel tells of a process, such as `VmRSS`, in its unit.
fn of_process(daemon: &Daemon, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    number(&status, field).unwrap()
}

fn files(daemon: &Daemon) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", daemon.id())).unwrap();
    files.count()
}
