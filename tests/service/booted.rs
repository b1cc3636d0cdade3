//! The unit under systemd itself, which is the first process of a machine of its own here.

use std::{
    fs,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{self, Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use netfilter_daemon::{
    daemon::privileges::{Capability, KEPT},
    lab::{mounts, raw, tap::Tap},
};

use super::UNIT;
use crate::{
    frame,
    resolvers::servers,
    world::{BINARY, World, eventually},
};

const BOOT: &str = include_str!("boot.sh");
/// What this systemd is to start by itself: nothing.
const TARGET: &str = "[Unit]\nDescription=Nothing but what a test asks for\n";
const LOG: &str = "/run/netfilter-daemon/log";
const DENIED: &str = "203.0.113.9";
const NOBODY: &str = "65534";

/// A systemd in namespaces, and in a part of the cgroups, of its own. Dropping it ends it and
/// all that it has started.
struct Booted<'a> {
    world: &'a World,
    child: Child,
    part: PathBuf,
}

impl<'a> Booted<'a> {
    /// `None` where there is no cgroup v2 for it.
    fn new(world: &'a World, policy: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let root = Path::new(root.split(' ').nth(4)?);
        let part = root.join(format!("netfilter-service-{}", process::id()));
        fs::create_dir(&part).unwrap();
        world.write_policy(policy);
        world.protected().run(write_units).unwrap();

        let systemd = servers::command(world.protected(), "systemd");
        let mut command = world.protected().command("unshare");
        command.args(["--mount", "--pid", "--ipc", "--uts", "--fork"]);
        command.args(["--kill-child", "sh", "-c", BOOT, "sh"]);
        command.arg(systemd.get_program());
        command.args(["--system", "--show-status=no", "--log-target=null"]);
        for (name, value) in systemd.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        // It does to a container what it would do to a machine, less what is the kernel's.
        command.env("container", "test").env("DAEMON", BINARY);
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        let procs = fs::File::options()
            .write(true)
            .open(part.join("cgroup.procs"))
            .unwrap();
        // SAFETY: between fork and exec, a system call.
        unsafe {
            command.pre_exec(move || std::io::Write::write_all(&mut &procs, b"0"));
        }
        let booted = Self {
            world,
            child: command.spawn().unwrap(),
            part,
        };
        let answers =
            || booted.first().is_some() && booted.systemctl(&["list-units"]).status.success();
        assert!(eventually(answers), "systemd does not come up");
        Some(booted)
    }

    /// The number of its first process.
    fn first(&self) -> Option<String> {
        let scope = self.part.join("init.scope/cgroup.procs");
        let first = fs::read_to_string(scope).ok()?.lines().next()?.to_owned();
        Some(first)
    }

    /// Runs a program among its processes.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.protected().command("nsenter");
        command.args(["--target", &self.first().unwrap()]);
        command
            .args(["--mount", "--pid", "--ipc", "--uts"])
            .args(arguments);
        command
    }

    fn systemctl(&self, arguments: &[&str]) -> Output {
        let systemctl = [&["--", "systemctl", "--no-pager"], arguments].concat();
        self.command(&systemctl).output().unwrap()
    }

    fn log(&self) -> String {
        let read = || fs::read_to_string(LOG).unwrap_or_default();
        self.world.protected().run(read).unwrap()
    }

    /// A process of that user, which has the socket and does nothing.
    fn holds(&self, user: &str, socket: BorrowedFd<'_>) -> Child {
        let mut command = self.command(&["--setuid", user, "--", "sleep", "1000"]);
        let socket = socket.as_raw_fd();
        // SAFETY: between fork and exec, a system call, on a descriptor that is open until then.
        unsafe {
            command.pre_exec(move || {
                nix::errno::Errno::result(libc::fcntl(socket, libc::F_SETFD, 0))?;
                Ok(())
            });
        }
        command.spawn().unwrap()
    }
}

impl Drop for Booted<'_> {
    fn drop(&mut self) {
        fs::write(self.part.join("cgroup.kill"), "1").ok();
        self.child.wait().ok();
        let gone = eventually(|| remove(&self.part).is_ok());
        assert!(gone || thread::panicking(), "{}", self.part.display());
    }
}

/// A cgroup and those below.
fn remove(part: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(part)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(part)
}

/// The unit, but for where its program and its policy are, and where one can read what it says.
fn write_units() {
    let units = Path::new("/run/netfilter-daemon/units");
    fs::create_dir_all(units).unwrap();
    let unit = UNIT.replace("/etc/netfilter-daemon/policy.yaml", mounts::POLICY);
    // A directory that can be hidden from a machine without its missing anything.
    let unit = unit.replace("/usr/bin", "/usr/local/sbin");
    let unit = unit.replace(
        "[Service]",
        &format!("[Service]\nStandardError=append:{LOG}"),
    );
    fs::write(units.join("netfilter-daemon.service"), unit).unwrap();
    fs::write(units.join("default.target"), TARGET).unwrap();
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn under_the_unit_a_socket_from_before_is_found_whoever_has_it_and_made_an_ordinary_one() {
    let world = World::new(None);
    let tap = Tap::open(&world.topology.internet).unwrap();
    let Some(machine) = Booted::new(&world, "outbound_rules: []\n") else {
        return eprintln!("no cgroup v2 here: systemd has nowhere to be");
    };
    let open = || raw::bypass::open("eth0");
    let mut holders = Vec::new();
    let mut senders = ["0", NOBODY].map(|user| {
        let sender = world.protected().run(open).unwrap().unwrap();
        holders.push(machine.holds(user, sender.as_fd()));
        sender
    });
    let arrives = |port| {
        thread::sleep(Duration::from_millis(100));
        let seen = tap.look().unwrap();
        seen.packet(DENIED.parse().unwrap(), 17, Some(port))
    };
    for (sender, port) in senders.iter_mut().zip([3001, 3002]) {
        sender.send(&frame::udp(DENIED, port).bytes()).unwrap();
        assert!(arrives(port));
    }
    let started = machine.systemctl(&["start", "netfilter-daemon"]);
    let log = machine.log();
    assert!(started.status.success(), "{}{log}", said(&started));
    for user in ["root", "nobody"] {
        let told = format!(
            ", {user}) had a packet socket that passes by the filter; its packets are filtered"
        );
        assert!(
            log.contains("sleep (pid ") && log.contains(&told),
            "{user}: {log}"
        );
    }
    assert!(!log.contains("could not be looked at"), "{log}");
    for (sender, port) in senders.iter_mut().zip([3003, 3004]) {
        sender.send(&frame::udp(DENIED, port).bytes()).ok();
        assert!(!arrives(port));
    }
    let refused = world.protected().run(open).unwrap().map(drop).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    keeps_no_more(&machine);
    for mut holder in holders {
        holder.kill().and_then(|()| holder.wait()).unwrap();
    }
}

/// What it has looked with is gone from every thread.
fn keeps_no_more(machine: &Booted<'_>) {
    let service = machine.part.join("system.slice/netfilter-daemon.service");
    let process = fs::read_to_string(service.join("cgroup.procs")).unwrap();
    let mask = |capabilities: &[Capability]| {
        let bits = capabilities.iter().map(|each| 1u64 << *each as u32);
        bits.sum::<u64>()
    };
    let threads = fs::read_dir(format!("/proc/{}/task", process.trim())).unwrap();
    for thread in threads {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        for line in ["CapPrm:", "CapEff:"] {
            let value = status.lines().find_map(|each| each.strip_prefix(line));
            let value = u64::from_str_radix(value.unwrap().trim(), 16).unwrap();
            assert_eq!(value, mask(&KEPT), "{line} {value:x}");
        }
    }
}
