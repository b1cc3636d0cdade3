//! Who has a socket from before, and who may look.

use std::{
    os::fd::{AsFd, AsRawFd},
    process::Child,
};

use super::*;

const NOBODY: u32 = 65534;

/// Ended when it is dropped: a process that has changed its user outlives who started it.
struct Holder(Child);

impl Holder {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}

/// A process with these users, which has the only descriptor of a socket that passes by.
fn holder(world: &World, real: u32, effective: u32) -> Holder {
    let sender = world.protected().run(|| bypass::open("eth0")).unwrap();
    holder_of(&sender.unwrap(), world, real, effective)
}

/// A process with these users, which has this socket, too.
fn holder_of(sender: &bypass::Sender, world: &World, real: u32, effective: u32) -> Holder {
    let mut command = world.protected().command("sleep");
    command.arg("1000");
    let socket = sender.as_fd().as_raw_fd();
    // SAFETY: between fork and exec, system calls, on a descriptor that is open until then.
    unsafe {
        command.pre_exec(move || {
            Errno::result(libc::fcntl(socket, libc::F_SETFD, 0))?;
            let (set, saved) = (libc::SYS_setresuid, effective);
            Errno::result(libc::syscall(set, real, effective, saved))?;
            Ok(())
        });
    }
    Holder(command.spawn().unwrap())
}

/// Runs the daemon under a command until it filters and has said all of this.
fn log_of(world: &World, under: &[&str], all: &[&str]) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let run = ["run", "--interface", "eth0", "--policy", mounts::POLICY];
    let whole = [under, &[BINARY], &run].concat();
    let mut command = world.protected().command(whole[0]);
    command
        .args(&whole[1..])
        .stderr(Stdio::from(log.reopen().unwrap()));
    let mut child = command
        .stdout(Stdio::from(log.reopen().unwrap()))
        .spawn()
        .unwrap();
    let read = || fs::read_to_string(log.path()).unwrap();
    let says = says(read, &[all, &["enforcing on eth0 (policy"]].concat());
    child.kill().and_then(|()| child.wait()).unwrap();
    assert!(says, "{all:?}: {}", read());
}

#[test]
fn a_socket_from_before_is_that_of_the_real_user() {
    let world = World::new(None);
    world.write_policy(&format!("bypass_users: [{NOBODY}]\n{ALLOW}"));
    let (theirs, roots) = (holder(&world, NOBODY, 0), holder(&world, 0, NOBODY));
    let allowed = format!(
        "(pid {}, nobody) has a packet socket that passes by the filter, as `bypass_users` allows",
        theirs.id()
    );
    let closed = format!(
        "(pid {}, root) had a packet socket that passes by the filter; its",
        roots.id()
    );
    log_of(&world, &[], &[&allowed, &closed]);
    // As it is in the kernel now.
    let status = said(&world.daemon(&["status"]));
    assert!(status.contains(&allowed), "{status}");
    assert!(
        !status.contains(&format!("(pid {},", roots.id())),
        "{status}"
    );
}

#[test]
fn a_socket_that_was_handed_on_is_told_of_both_who_have_it() {
    let world = World::new(None);
    world.write_policy(&format!("bypass_users: [root]\n{ALLOW}"));
    let sender = world.protected().run(|| bypass::open("eth0")).unwrap();
    let mut sender = sender.unwrap();
    let holder = holder_of(&sender, &world, 0, 0);
    let told = [process::id(), holder.id()]
        .map(|process| format!("(pid {process}, root) has a packet socket"));
    log_of(&world, &[], &told.each_ref().map(String::as_str));
    sender.send(&frame::udp(DENIED, 2004).bytes()).unwrap();
}

#[test]
fn status_looks_anew_and_changes_nothing() {
    let world = World::new(None);
    let tap = Tap::open(&world.topology.internet).unwrap();
    world.write_policy(&format!("isolation_mode: allow_internet_outbound\n{ALLOW}"));
    let _daemon = world.start();
    let us = format!("(pid {}, root) has a packet socket", process::id());
    let is_told = || said(&world.daemon(&["status"])).contains(&us);
    assert!(!is_told());
    let mut sender = open(&world, WAYS[0].1).unwrap();
    assert!(is_told() && is_told(), "it is as it was");
    assert!(arrives(&tap, &mut sender, DENIED, 2005));
    drop(sender);
    assert!(!is_told());
}

#[test]
fn who_may_not_look_into_other_processes_says_so() {
    let world = World::new(None);
    world.write_policy(ALLOW);
    let holder = holder(&world, 0, 0);
    let without = ["setpriv", "--bounding-set=-sys_ptrace", "--"];
    let unseen = " could not be looked at for sockets that pass by the filter; `status`";
    log_of(&world, &without, &[unseen]);
    let ask = |under: &[&str]| {
        let whole = [under, &[BINARY, "status"]].concat();
        let mut command = world.protected().command(whole[0]);
        said(&command.args(&whole[1..]).output().unwrap())
    };
    // There may be some that no root looks into, where this machine is a container.
    let unseen = |status: &str| {
        let (before, _) = status.split_once(" could not be looked at")?;
        let (before, _) = before.rsplit_once(" process")?;
        before.rsplit(' ').next()?.parse::<u32>().ok()
    };
    let [much, little] = [ask(&without), ask(&[])].map(|status| (unseen(&status), status));
    assert!(much.0 > little.0, "{} {}", much.1, little.1);
    let status = little.1;
    let has = format!("(pid {}, root) has a packet socket", holder.id());
    assert!(status.contains(&has), "{status}");
}

#[test]
fn where_cgroup_v2_is_not_mounted_sockets_are_refused_all_the_same() {
    let world = World::new(None);
    world.write_policy(ALLOW);
    let script =
        "umount -l $(awk '/ - cgroup2 /{ print $5 }' /proc/self/mountinfo) || :; exec \"$@\"";
    let mut command = world.protected().command("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", BINARY]);
    command.args(["run", "--interface", "eth0", "--policy", mounts::POLICY]);
    let daemon = Daemon::start(command).unwrap();
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", daemon.id())).unwrap();
    assert!(!mounts.contains(" - cgroup2 "), "{mounts}");
    assert!(!is_granted(&world));
    let status = said(&world.daemon(&["status"]));
    assert!(!status.contains("are not filtered"), "{status}");
    // And again, with no privilege to mount.
    let detach = || rival::detach(Path::new(GUARD));
    world.protected().run(detach).unwrap().unwrap();
    assert!(eventually(|| !is_granted(&world)));
}
