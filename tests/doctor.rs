//! The doctor finds out what `run` would, tells it apart, and leaves nothing behind.

use std::{
    io,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::Command,
};

use netfilter_daemon::lab::{
    mounts,
    namespace::Namespace,
    topology::{PROTECTED, Topology},
};
use nix::mount::{MntFlags, umount2};
use serde_json::Value;

use crate::{
    interfaces::rival::Rival,
    world::{BINARY, World},
};

// linux/capability.h
const NET_ADMIN: u64 = 12;
const SYS_ADMIN: u64 = 21;
const PERFMON: u64 = 38;
const BPF: u64 = 39;

/// What it found, and its exit code.
struct Found(Vec<Value>, i32);

impl Found {
    fn by(mut command: Command, arguments: &[&str]) -> Self {
        let output = command.args(["doctor", "--json"]).args(arguments).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let findings = serde_json::from_slice(&output.stdout);
        Self(
            findings.unwrap_or_else(|error| panic!("{error}: {said}")),
            output.status.code().unwrap(),
        )
    }

    /// Whether a finding has this verdict, and these words in what it says.
    fn says(&self, check: &str, verdict: &str, words: &str) -> bool {
        let found = self.0.iter().any(|finding| {
            finding["check"] == check
                && finding["verdict"] == verdict
                && finding.to_string().contains(words)
        });
        if !found {
            eprintln!("{:#?}", self.0);
        }
        found
    }

    fn failed(&self) -> Vec<&str> {
        let failed = self.0.iter().filter(|each| each["verdict"] == "failed");
        failed.map(|each| each["check"].as_str().unwrap()).collect()
    }

    /// Whoever is told that something is wrong is told what to do.
    fn has_remedies(&self) {
        for finding in &self.0 {
            let is_ok = finding["verdict"] == "ok";
            assert_eq!(finding["remedy"].is_null(), is_ok, "{finding}");
        }
    }
}

/// Without these, whatever root it is.
fn without(mut command: Command, capabilities: &'static [u64], user: Option<u32>) -> Command {
    // SAFETY: between fork and exec, system calls with numbers.
    unsafe {
        command.pre_exec(move || {
            for capability in capabilities {
                if libc::prctl(libc::PR_CAPBSET_DROP, *capability, 0, 0, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            match user {
                Some(user) if libc::syscall(libc::SYS_setresuid, user, user, user) != 0 => {
                    Err(io::Error::last_os_error())
                }
                _ => Ok(()),
            }
        });
    }
    command
}

/// A namespace of its own, that has an interface and nothing else.
fn inside() -> (Topology, Namespace) {
    let topology = Topology::build().unwrap();
    let protected = topology.protected.clone();
    (topology, protected)
}

fn has_pins(inside: &Namespace) -> bool {
    inside
        .run(|| std::fs::exists(mounts::STATE_DIR).unwrap())
        .unwrap()
}

#[test]
fn a_machine_that_can_is_ready_and_nothing_is_left_behind() {
    let (_topology, inside) = inside();
    let found = Found::by(inside.command(BINARY), &[]);
    assert_eq!((found.failed(), found.1), (vec![], 0));
    found.has_remedies();
    assert!(found.says("programs", "ok", "took every program"));
    assert!(found.says("hook", "ok", "works"));
    assert!(found.says("xdp", "ok", "works"));
    assert!(found.says("interfaces", "ok", "eth0 would be filtered"));
    assert!(found.says("daemon", "ok", "none runs"));
    assert!(!has_pins(&inside));
    let rivals = Found::by(inside.command(BINARY), &[]);
    assert!(
        !rivals
            .0
            .iter()
            .any(|each| each.to_string().contains("hangs on"))
    );
}

#[test]
fn capabilities_that_are_missing_are_named_and_nothing_else_is_blamed() {
    let (_topology, inside) = inside();
    for (capabilities, named, user) in [
        (&[BPF, SYS_ADMIN][..], "lacks CAP_BPF\"", None),
        (&[PERFMON, SYS_ADMIN], "lacks CAP_PERFMON\"", None),
        (&[NET_ADMIN], "lacks CAP_NET_ADMIN\"", None),
        (
            &[],
            "lacks CAP_NET_ADMIN and CAP_PERFMON and CAP_BPF",
            Some(65534),
        ),
    ] {
        let command = without(inside.command(BINARY), capabilities, user);
        let found = Found::by(command, &[]);
        assert_eq!(found.1, 1);
        assert!(found.says("capabilities", "failed", named));
        assert!(found.says("programs", "failed", "this process lacks CAP_"));
        found.has_remedies();
        let failed = found.failed();
        let blamed = ["capabilities", "programs", "bpffs", "daemon"];
        assert!(
            failed.iter().all(|check| blamed.contains(check)),
            "{failed:?}"
        );
    }
    // What it takes to try, and not to run.
    let command = without(inside.command(BINARY), &[SYS_ADMIN], None);
    let found = Found::by(command, &[]);
    assert_eq!((found.failed(), found.1), (vec![], 0));
    assert!(found.says("hook", "warning", "CAP_SYS_ADMIN to make it"));
}

#[test]
fn a_bpf_file_system_that_is_missing_is_no_trouble_for_who_can_mount_it() {
    let prepare = || {
        mounts::prepare()?;
        Ok(umount2("/sys/fs/bpf", MntFlags::MNT_DETACH)?)
    };
    let inside = Namespace::new().unwrap();
    let inside = inside.with_private_mounts(prepare).unwrap();
    let is_mounted = || {
        let mounted = nix::sys::statfs::statfs("/sys/fs/bpf").unwrap();
        mounted.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC
    };
    if inside.run(is_mounted).unwrap() {
        // The machine's own lies below.
        return;
    }
    let found = Found::by(inside.command(BINARY), &[]);
    assert!(found.says("bpffs", "ok", "`run` mounts it"));
    assert!(!inside.run(is_mounted).unwrap(), "it was to be tried only");

    let command = without(inside.command(BINARY), &[SYS_ADMIN], None);
    let found = Found::by(command, &[]);
    assert!(found.says("bpffs", "failed", "mount -t bpf bpf /sys/fs/bpf"));
    let found = Found::by(inside.command(BINARY), &["--state-dir", "/run/elsewhere"]);
    assert!(found.says("bpffs", "failed", "mkdir -p /run/elsewhere"));
    assert_eq!(found.1, 1);
}

#[test]
fn who_has_our_port_and_place_already_is_told() {
    let world = World::new(None);
    let taken = world
        .protected()
        .run(|| TcpListener::bind("127.0.0.1:9477"));
    let taken = taken.unwrap().unwrap();
    let look = || Found::by(world.protected().command(BINARY), &[]);
    let found = look();
    assert!(found.says("listen", "failed", "choose another address with --listen"));
    assert_eq!(found.failed(), ["listen"]);
    drop(taken);

    let rival = Rival::passing_on(world.protected(), "eth0");
    assert!(look().says("interfaces", "warning", "hangs on eth0 already"));
    drop(rival);

    let daemon = world.enforce("outbound_rules: []\n");
    let found = look();
    let process = format!("(process {})", daemon.id());
    assert!(found.says("daemon", "warning", &process));
    assert!(found.says("listen", "warning", "127.0.0.1:9477"));
    assert_eq!((found.failed(), found.1), (vec![], 0));
    drop(daemon);
    assert!(look().says("daemon", "ok", "in force on eth0"));
}

#[test]
fn a_policy_is_checked_against_this_machine() {
    let world = World::new(None);
    let look = || {
        let mut command = world.protected().command(BINARY);
        command.env("SSH_CONNECTION", "192.0.2.9 50022 10.99.0.2 2222");
        Found::by(command, &["--policy", mounts::POLICY])
    };
    world.write_policy("outbound_rulez: []\n");
    let found = look();
    assert!(found.says("policy", "failed", "demonstration.yaml:2:1"));
    assert!(found.says("programs", "ok", "took every program"));

    let listener = world
        .protected()
        .run(|| TcpListener::bind((PROTECTED[0], 2222)));
    let listener = listener.unwrap().unwrap();
    let connect = || TcpStream::connect((PROTECTED[0], 2222));
    let _session = world.topology.internet.run(connect).unwrap().unwrap();
    let _accepted = listener.accept().unwrap();
    for (policy, verdict, words) in [
        (
            "outbound_rules: []\n",
            "failed",
            "port_ranges: \\\"2222\\\"",
        ),
        (
            "isolation_mode: allow_internet_outbound\n",
            "warning",
            "once it is enforced",
        ),
        (
            "inbound: [{ protocol: TCP, port_ranges: '2222' }]\n",
            "ok",
            "by port 2222 stay",
        ),
    ] {
        world.write_policy(policy);
        assert!(look().says("ssh", verdict, words), "{policy}");
    }
    assert!(look().says("policy", "ok", "0 rules"));
    world.write_policy("interfaces: [eth7]\n");
    assert!(look().says("interfaces", "failed", "name one of those"));
}
