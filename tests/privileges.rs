//! What the daemon may do once it runs, and who may tell it to.

use std::{
    fmt::Write as _,
    fs::{self, Permissions},
    io::{ErrorKind, Read, Write as _},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
        process::CommandExt,
    },
    path::Path,
    time::Duration,
};

use netfilter_daemon::{
    daemon::privileges::{Capability, KEPT},
    lab::{daemon::Daemon, mounts},
};
use nix::sys::stat::{Mode, umask};

use crate::world::{BINARY, World, eventually};

const SOCKET: &str = "/run/netfilter-daemon/sys-fs-bpf-netfilter.sock";
const NOBODY: u32 = 65534;

/// So many addresses, no two of which may the same: 1,225 outgrow the first tables.
fn policy(addresses: u32) -> String {
    let mut policy = String::from(
        "outbound_rules:\n  - { name: a, type: ip, destination: { cidr: 192.0.2.1/32, protocol: TCP, port_ranges: '443' } }\n",
    );
    for address in 0..addresses {
        let [_, a, b, c] = (address * 2).to_be_bytes();
        let (one, other) = (8000 + 2 * (address % 35), 9000 + 2 * (address / 35));
        writeln!(
            policy,
            "  - {{ name: r{address}, type: ip, destination: {{ cidr: 20.{a}.{b}.{c}/32, protocol: TCP, port_ranges: '443, {one}, {other}' }} }}"
        )
        .unwrap();
    }
    policy
}

/// The tables in force, of which each set has a name.
fn tables(world: &World) -> String {
    let list = || fs::read_dir(mounts::STATE_DIR).unwrap();
    let names = world.protected().run(|| {
        list()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .find(|name| name.starts_with("tables-"))
    });
    names.unwrap().unwrap()
}

fn mask(capabilities: &[Capability]) -> u64 {
    capabilities
        .iter()
        .fold(0, |mask, capability| mask | 1 << *capability as u64)
}

/// A line of each thread's status, as a number.
fn of_threads(daemon: &Daemon, line: &str) -> Vec<u64> {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
    let of_thread = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        let value = status.lines().find_map(|each| each.strip_prefix(line));
        u64::from_str_radix(value.unwrap().trim(), 16).unwrap()
    };
    threads.map(|thread| of_thread(thread.unwrap())).collect()
}

fn keeps(daemon: &Daemon, kept: u64) {
    for (line, wanted) in [
        ("CapPrm:", kept),
        ("CapEff:", kept),
        ("CapBnd:", kept),
        ("CapInh:", 0),
        ("CapAmb:", 0),
        ("NoNewPrivs:", 1),
    ] {
        let found = of_threads(daemon, line);
        assert!(found.len() >= 3, "the runtime's threads are there");
        let all = found.iter().all(|found| *found == wanted);
        assert!(all, "{line} {found:x?} and not {wanted:x}");
    }
}

#[test]
fn every_thread_keeps_what_it_needs_and_that_is_enough() {
    let world = World::new(None);
    let daemon = world.enforce(&policy(0));
    keeps(&daemon, mask(&KEPT));
    assert!(world.connects("192.0.2.1", 443) && !world.connects("20.0.0.2", 443));
    // Other tables, and programs that read them.
    let first = tables(&world);
    for (addresses, connects) in [(1, false), (1225, true), (0, false)] {
        world.write_policy(&policy(addresses));
        let reload = world.daemon(&["reload"]);
        let said = String::from_utf8_lossy(&reload.stderr);
        assert!(reload.status.success(), "{addresses}: {said}");
        assert_eq!(world.connects("20.0.0.2", 443), connects, "{addresses}");
    }
    assert_ne!(tables(&world), first);
    // A local resolver: a program for the loopback interface.
    let local = format!("resolvers: [127.0.0.53]\n{}", policy(0));
    let write = || fs::write(mounts::POLICY, local);
    world.protected().run(write).unwrap().unwrap();
    assert!(world.daemon(&["reload"]).status.success());
    keeps(&daemon, mask(&KEPT));
    assert!(world.daemon(&["status"]).status.success());
    // The next one takes over with no more than that.
    drop(daemon);
    let daemon = world.start();
    keeps(&daemon, mask(&KEPT));
    assert!(world.daemon(&["detach"]).status.success());
    assert!(eventually(|| world.connects("20.0.0.2", 443)), "lifted");
}

#[test]
fn whoever_may_not_is_told_which_right_is_missing_in_one_line() {
    let world = World::new(None);
    world.write_policy("outbound_rules: []\n");
    // linux/capability.h; CAP_SYS_ADMIN stands for some.
    for (dropped, missing) in [
        ([39, 21], "CAP_BPF"),
        ([38, 21], "CAP_PERFMON"),
        ([12, 12], "CAP_NET_ADMIN"),
    ] {
        let mut command = world.protected().command(BINARY);
        command.args(["run", "--interface", "eth0", "--policy", mounts::POLICY]);
        command.env("RUST_LOG", "error");
        // SAFETY: between fork and exec, system calls with numbers.
        unsafe {
            command.pre_exec(move || {
                for capability in dropped {
                    libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
                }
                Ok(())
            });
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        let told = format!("error: this process lacks {missing}: run it as root");
        assert!(
            said.starts_with(&told) && said.lines().count() == 1,
            "{said}"
        );
    }
}

#[test]
fn a_policy_in_somebody_elses_home_can_still_be_read_again() {
    let world = World::new(None);
    world.write_policy(&policy(0));
    let home = Path::new(mounts::POLICY).with_file_name("home");
    let theirs = home.join("policy.yaml");
    let moved = || -> std::io::Result<()> {
        fs::create_dir(&home)?;
        fs::rename(mounts::POLICY, &theirs)?;
        fs::set_permissions(&home, Permissions::from_mode(0o700))?;
        std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY))?;
        std::os::unix::fs::symlink(&theirs, mounts::POLICY)
    };
    world.protected().run(moved).unwrap().unwrap();
    let daemon = world.start();
    keeps(&daemon, mask(&KEPT) | mask(&[Capability::DacReadSearch]));
    assert!(world.daemon(&["reload"]).status.success());
}

#[test]
fn a_list_of_service_tags_in_somebody_elses_home_can_still_be_read_again() {
    let world = World::new(None);
    let home = tempfile::tempdir().unwrap();
    let (list, store) = (home.path().join("own.json"), tempfile::tempdir().unwrap());
    let write = |last: u8| {
        let text = format!(
            r#"{{"changeNumber": 1, "values": [{{"name": "A", "properties": {{"addressPrefixes": ["192.0.2.{last}"]}}}}]}}"#
        );
        fs::write(&list, text).unwrap();
    };
    world.write_policy(&format!(
        "service_tags: {}\noutbound_rules:\n  - {{ name: a, type: service_tag, destination: {{ service_tag: A, protocol: TCP, port_ranges: '443' }} }}\n",
        list.display()
    ));
    let start = || {
        let mut command = world.protected().command(BINARY);
        command.args(["run", "--interface", "eth0", "--policy", mounts::POLICY]);
        command.arg("--tags-dir").arg(store.path());
        Daemon::start(command).unwrap()
    };
    write(1);
    let daemon = start();
    keeps(&daemon, mask(&KEPT));
    drop(daemon);
    fs::set_permissions(&home, Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let daemon = start();
    keeps(&daemon, mask(&KEPT) | mask(&[Capability::DacReadSearch]));
    write(2);
    assert!(world.daemon(&["reload"]).status.success());
    assert!(world.connects("192.0.2.2", 443) && !world.connects("192.0.2.1", 443));
}

#[test]
fn nobody_but_root_is_answered_even_where_the_modes_would_let_him() {
    let world = World::new(None);
    let _daemon = world.enforce(&policy(0));
    let open = || -> std::io::Result<()> {
        fs::set_permissions("/run/netfilter-daemon", Permissions::from_mode(0o755))?;
        fs::set_permissions(SOCKET, Permissions::from_mode(0o777))
    };
    world.protected().run(open).unwrap().unwrap();
    let ask = |user: u32| {
        let asked = world
            .protected()
            .run(|| ask_as(user, b"{\"request\":\"status\"}\n"));
        asked.unwrap().unwrap()
    };
    assert_eq!(ask(NOBODY), "");
    assert!(ask(0).starts_with("{\"answer\":\"status\""));
}

/// To be called on a thread of its own: of a thread, for the C library would change all.
fn ask_as(user: u32, request: &[u8]) -> std::io::Result<String> {
    // SAFETY: the system call takes three numbers.
    let changed = unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) };
    assert_eq!(changed, 0);
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut answer = String::new();
    let asked = stream.write_all(request);
    match asked.and_then(|()| stream.read_to_string(&mut answer)) {
        // Closed before the request came, or with it unread.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ) =>
        {
            Ok(answer)
        }
        read => read.map(|_| answer),
    }
}

#[test]
fn nobody_but_root_can_open_what_the_daemon_makes_whatever_its_umask() {
    let world = World::new(None);
    world.write_policy(&policy(0));
    let mut command = world.protected().command(BINARY);
    command.args(["run", "--interface", "eth0", "--policy", mounts::POLICY]);
    // SAFETY: between fork and exec, a system call.
    unsafe {
        command.pre_exec(|| {
            umask(Mode::empty());
            Ok(())
        });
    }
    let daemon = Daemon::start(command).unwrap();
    let loose = || {
        let mut loose = Vec::new();
        let places = ["/run/netfilter-daemon", mounts::STATE_DIR];
        let mut made = Vec::new();
        for place in places {
            look(Path::new(place), &mut |path, metadata| {
                made.push(path.to_owned());
                if metadata.mode() & 0o077 != 0 && !is_the_labs(path) {
                    loose.push(format!("{} {:o}", path.display(), metadata.mode()));
                }
            });
        }
        (made, loose)
    };
    let (made, loose) = world.protected().run(loose).unwrap();
    assert_eq!(loose, Vec::<String>::new());
    for file in [
        SOCKET,
        "/sys/fs/bpf/netfilter/learned",
        "/sys/fs/bpf/netfilter/tables-",
    ] {
        let there = made
            .iter()
            .any(|path| path.to_str().unwrap().starts_with(file));
        assert!(there, "{file}");
    }
    drop(daemon);
}

/// What the test has put beside it.
fn is_the_labs(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    matches!(name, Some("resolv.conf" | "nsswitch.conf" | "hosts"))
        || path == Path::new(mounts::POLICY)
}

fn look(path: &Path, tell: &mut impl FnMut(&Path, fs::Metadata)) {
    tell(path, fs::symlink_metadata(path).unwrap());
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries {
            look(&entry.unwrap().path(), tell);
        }
    }
}
