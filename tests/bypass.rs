//! What tc cannot see does not leave: sockets are refused the ways past it.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::unix::process::CommandExt,
    path::Path,
    process::{self, Stdio},
    thread,
    time::Duration,
};

use netfilter_daemon::{
    datapath::test_run::Size,
    lab::{
        daemon::Daemon,
        mounts,
        namespace::Namespace,
        raw::{bypass, xsk},
        tap::Tap,
    },
};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::{
    bpffs::Kernel,
    frame,
    interfaces::rival,
    world::{BINARY, World, eventually, problems},
};

mod options;
mod owners;
mod uring;

const ALLOWED: &str = "192.0.2.1";
const DENIED: &str = "203.0.113.9";
const ALLOW: &str = "
outbound_rules:
  - { name: a, type: ip, destination: { cidr: 192.0.2.1/32, protocol: UDP, port_ranges: '443' } }
";
const GUARD: &str = "/sys/fs/bpf/netfilter/links/guard";

type Send = Box<dyn FnMut(&[u8]) -> io::Result<()> + std::marker::Send>;

type Open = fn() -> io::Result<Send>;

/// The ways past tc. AF_XDP only where the kernel has it.
const WAYS: [(&str, Open); 3] = [
    ("bypass", || {
        sender(bypass::open("eth0"), bypass::Sender::send)
    }),
    ("ring", || {
        sender(bypass::ring("eth0"), bypass::Sender::send)
    }),
    ("xsk", || sender(xsk::open("eth0"), xsk::Sender::send)),
];

fn sender<S: std::marker::Send + 'static>(
    opened: io::Result<S>,
    send: fn(&mut S, &[u8]) -> io::Result<()>,
) -> io::Result<Send> {
    let mut sender = opened?;
    Ok(Box::new(move |frame| send(&mut sender, frame)))
}

fn is_missing(way: &str, error: &io::Error) -> bool {
    way == "xsk" && error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// Of this network namespace, by a real user; the effective one stays root.
fn opened_by(namespace: &Namespace, user: u32, way: fn() -> io::Result<Send>) -> io::Result<Send> {
    let open = || {
        // SAFETY: three numbers; of this thread alone, which ends here.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, user, -1, -1) };
        assert_eq!(changed, 0);
        way()
    };
    namespace.run(open).unwrap()
}

fn open(world: &World, way: fn() -> io::Result<Send>) -> io::Result<Send> {
    opened_by(world.protected(), 0, way)
}

fn refused(world: &World) -> u32 {
    let refusals = WAYS.iter().map(|(name, way)| match open(world, *way) {
        Err(error) if is_missing(name, &error) => 0,
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{name}: {error}");
            1
        }
        Ok(_) => panic!("{name} was granted"),
    });
    refusals.sum()
}

fn is_granted(world: &World) -> bool {
    open(world, WAYS[0].1).is_ok()
}

/// Each port is used once, so that nothing of an earlier step is seen.
fn arrives(tap: &Tap, send: &mut Send, to: &str, port: u16) -> bool {
    send(&frame::udp(to, port).bytes()).unwrap();
    let to: IpAddr = to.parse().unwrap();
    // The cable hands over at once; a little is left to a busy machine.
    (0..20).any(|_| {
        tap.look().unwrap().packet(to, 17, Some(port)) || {
            thread::sleep(Duration::from_millis(5));
            false
        }
    })
}

fn raw_sockets(world: &World, metric: &str) -> u64 {
    world.metric(&format!(
        "netfilter_{metric}_total{{reason=\"raw_socket\",family=\"other\",protocol=\"other\",interface=\"\"}}"
    ))
}

fn said(output: &process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Whether a daemon that starts comes to say all of this. Its log is behind what it does.
fn says(read: impl Fn() -> String, all: &[&str]) -> bool {
    (0..20).any(|_| eventually(|| all.iter().all(|each| read().contains(each))))
}

#[test]
fn ways_past_tc_pass_by_the_filter_and_are_refused_to_all_but_named_users() {
    let world = World::new(None);
    let tap = Tap::open(&world.topology.internet).unwrap();
    let _daemon = world.enforce(&format!("bypass_users: [root]\n{ALLOW}"));
    let mut port = 1000;
    for (name, way) in WAYS {
        match open(&world, way) {
            Ok(mut send) => {
                port += 1;
                assert!(arrives(&tap, &mut send, DENIED, port), "{name}");
            }
            Err(error) if is_missing(name, &error) => eprintln!("no AF_XDP here"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
    assert_eq!(raw_sockets(&world, "dropped_packets"), 0);

    world.write_policy(&format!("bypass_users: [65534, 1001]\n{ALLOW}"));
    assert!(world.daemon(&["reload"]).status.success());
    let count = refused(&world);
    assert!(count >= 2);
    assert_eq!(raw_sockets(&world, "dropped_packets"), u64::from(count));
    for user in [65534, 1001] {
        opened_by(world.protected(), user, WAYS[0].1)
            .map(drop)
            .unwrap();
    }
    assert!(opened_by(world.protected(), 1002, WAYS[0].1).is_err());
    let status = said(&world.daemon(&["status"]));
    assert!(status.contains("packet_qdisc_bypass"), "{status}");
    assert_eq!(problems(&status), Vec::<&str>::new());
    let events = said(&world.daemon(&["events"]));
    let told = format!(
        "(pid {}, root) asked for a packet socket that passes by the filter (raw_socket)",
        process::id()
    );
    assert!(events.contains(&told), "{events}");
    assert!(events.contains("user 1002) asked for"), "{events}");
}

#[test]
fn an_ordinary_packet_socket_works_on_and_is_judged() {
    let world = World::new(None);
    let tap = Tap::open(&world.topology.internet).unwrap();
    let _daemon = world.enforce(ALLOW);
    let ordinary: fn() -> io::Result<Send> =
        || sender(bypass::ordinary("eth0"), bypass::Sender::send);
    let mut send = open(&world, ordinary).unwrap();
    assert!(arrives(&tap, &mut send, ALLOWED, 443));
    let mut denied = |port| {
        // The kernel says that tc has dropped it, or says nothing.
        send(&frame::udp(DENIED, port).bytes()).ok();
        thread::sleep(Duration::from_millis(100));
        !tap.look()
            .unwrap()
            .packet(DENIED.parse().unwrap(), 17, Some(port))
    };
    assert!(denied(443) && denied(444));
    // And what is switched off may be.
    let off = || bypass::ordinary("eth0").and_then(|sender| sender.bypass(false));
    world.protected().run(off).unwrap().unwrap();
}

#[test]
fn audit_grants_and_counts_them() {
    let world = World::new(None);
    world.write_policy(&format!("isolation_mode: allow_internet_outbound\n{ALLOW}"));
    let _daemon = world.start();
    assert!(is_granted(&world));
    assert_eq!(raw_sockets(&world, "would_drop_packets"), 1);
    assert_eq!(raw_sockets(&world, "dropped_packets"), 0);
    assert!(eventually(|| {
        said(&world.daemon(&["events"])).contains("would deny: ")
    }));
}

#[test]
fn a_socket_from_before_is_found_named_and_made_an_ordinary_one() {
    let world = World::new(None);
    let tap = Tap::open(&world.topology.internet).unwrap();
    let mut earlier = open(&world, WAYS[0].1).unwrap();
    let mut ring = open(&world, WAYS[1].1).unwrap();
    let xsk = open(&world, WAYS[2].1).ok();
    assert!(arrives(&tap, &mut earlier, DENIED, 2001));
    world.write_policy(ALLOW);
    let us = format!("(pid {}, root)", process::id());
    let planned = said(&world.daemon(&["run", "--dry-run", "--policy", mounts::POLICY]));
    let has = format!("{us} has a packet socket that passes by the filter; end that process");
    assert!(planned.contains(&has), "{planned}");

    let daemon = world.start_on(&["eth0"]);
    for (name, send) in [("plain", &mut earlier), ("ring", &mut ring)] {
        send(&frame::udp(DENIED, 2002).bytes()).ok();
        thread::sleep(Duration::from_millis(100));
        let seen = tap.look().unwrap();
        assert!(
            !seen.packet(DENIED.parse().unwrap(), 17, Some(2002)),
            "{name}"
        );
    }
    assert!(arrives(&tap, &mut earlier, ALLOWED, 443));
    let status = said(&world.daemon(&["status"]));
    assert!(!status.contains("has a packet socket"), "{status}");
    // AF_XDP cannot be made anything else.
    let has = format!("{us} has an AF_XDP socket, which passes by the filter; end that process");
    assert_eq!(status.contains(&has), xsk.is_some(), "{status}");
    // Nobody else's.
    let other = World::new(None);
    let _theirs = open(&other, WAYS[0].1).unwrap();
    let status = said(&world.daemon(&["status"]));
    assert!(!status.contains("has a packet socket"), "{status}");
    drop(daemon);
}

#[test]
fn the_log_names_a_socket_from_before_and_audit_leaves_it_as_it_is() {
    let world = World::new(None);
    let tap = Tap::open(&world.topology.internet).unwrap();
    let mut earlier = open(&world, WAYS[0].1).unwrap();
    world.write_policy(ALLOW);
    let log = tempfile::NamedTempFile::new().unwrap();
    let us = format!("(pid {}, root)", process::id());
    for (mode, told, passes) in [
        (
            &["--audit"][..],
            "has a packet socket that passes by the filter; end",
            true,
        ),
        (
            &[],
            "had a packet socket that passes by the filter; its packets are",
            false,
        ),
    ] {
        let mut command = world.protected().command(BINARY);
        command.args(["run", "--interface", "eth0", "--policy", mounts::POLICY]);
        command
            .args(mode)
            .stderr(Stdio::from(log.reopen().unwrap()));
        let mut child = command.spawn().unwrap();
        let read = || fs::read_to_string(log.path()).unwrap();
        let told = format!("{us} {told}");
        let says = says(read, &["ing on eth0 (policy", &told]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(says, "{mode:?}: {}", read());
        earlier(&frame::udp(DENIED, 2003).bytes()).ok();
        thread::sleep(Duration::from_millis(100));
        let seen = tap
            .look()
            .unwrap()
            .packet(DENIED.parse().unwrap(), 17, Some(2003));
        assert_eq!(seen, passes, "{mode:?}");
        log.as_file().set_len(0).unwrap();
    }
}

#[test]
fn daemons_of_several_namespaces_do_not_disturb_each_other_nor_anybody_else() {
    let (one, other) = (World::new(None), World::new(None));
    let _one = one.enforce(ALLOW);
    assert!(!is_granted(&one) && is_granted(&other));
    let daemon = other.enforce(ALLOW);
    assert!(!is_granted(&one) && !is_granted(&other));
    other.write_policy(&format!("bypass_users: [root]\n{ALLOW}"));
    assert!(other.daemon(&["reload"]).status.success());
    assert!(!is_granted(&one) && is_granted(&other));
    assert!(other.daemon(&["detach"]).status.success());
    assert!(!is_granted(&one) && is_granted(&other));
    drop(daemon);
    assert_eq!(raw_sockets(&one, "dropped_packets"), 4);
    // A process outside with a socket inside counts as inside: every thread here does so.
    let bystander = Namespace::new().unwrap();
    bystander
        .ip("link add eth0 type veth peer name eth1")
        .unwrap();
    opened_by(&bystander, 0, WAYS[0].1).map(drop).unwrap();
}

#[test]
fn it_stays_without_a_daemon_is_taken_over_and_is_lifted_by_detach() {
    let world = World::new(None);
    let mut daemon = world.enforce(ALLOW);
    assert!(!is_granted(&world));
    daemon.kill();
    assert!(!is_granted(&world), "by the dead one's program");
    let daemon = world.start();
    assert!(!is_granted(&world));
    assert_eq!(raw_sockets(&world, "dropped_packets"), 3, "counters go on");
    // Larger tables, other programs.
    let mut large = ALLOW.to_owned();
    for number in 0..1225u32 {
        let (one, two) = (8000 + 2 * (number % 35), 9000 + 2 * (number / 35));
        large.push_str(&format!("  - {{ name: r{number}, type: ip, destination: {{ cidr: 20.0.{}.{}/32, protocol: TCP, port_ranges: '443, {one}, {two}' }} }}\n", number * 2 / 256, number * 2 % 256));
    }
    world.write_policy(&large);
    let reload = world.daemon(&["reload"]);
    assert!(reload.status.success(), "{}", said(&reload));
    assert!(!is_granted(&world), "of the larger tables");
    world.write_policy(&format!("bypass_users: [root]\n{large}"));
    assert!(world.daemon(&["reload"]).status.success());
    assert!(is_granted(&world), "the program reads the tables in force");
    world.write_policy(&large);
    assert!(world.daemon(&["reload"]).status.success());
    assert!(!is_granted(&world));
    assert!(world.daemon(&["detach"]).status.success());
    assert!(is_granted(&world));
    drop(daemon);
}

#[test]
fn an_unconfirmed_policys_users_go_with_it() {
    let world = World::new(None);
    let _daemon = world.enforce(ALLOW);
    world.write_policy(&format!("bypass_users: [root]\n{ALLOW}"));
    assert!(
        world
            .daemon(&["reload", "--confirm", "2s"])
            .status
            .success()
    );
    assert!(is_granted(&world));
    assert!(eventually(|| !is_granted(&world)));
}

#[test]
fn another_tool_that_detaches_or_unpins_it_is_noticed_and_put_right() {
    let world = World::new(None);
    let daemon = world.enforce(ALLOW);
    let repairs = |cause: &str| {
        world.metric(&format!(
            "netfilter_repairs_total{{interface=\"\",cause=\"{cause}\"}}"
        ))
    };
    let inside = |work: fn(&Path) -> io::Result<()>| {
        let done = world.protected().run(|| work(Path::new(GUARD)));
        done.unwrap().unwrap();
    };
    inside(rival::detach);
    assert!(eventually(|| repairs("detached") == 1));
    assert!(eventually(|| !is_granted(&world)));
    inside(|pin| fs::remove_file(pin));
    assert!(eventually(|| repairs("unpinned") == 1));
    drop(daemon);
    assert!(!is_granted(&world), "the new pin keeps it");
    let status = said(&world.daemon(&["status"]));
    assert_eq!(problems(&status), Vec::<&str>::new());
    inside(rival::detach);
    let status = said(&world.daemon(&["status"]));
    assert!(
        status.contains("are not filtered: no program is attached to the root"),
        "{status}"
    );
    let _next = world.start();
    assert!(!is_granted(&world), "made anew");
}

#[test]
fn no_other_option_of_any_socket_is_touched_however_long() {
    let world = World::new(None);
    let _daemon = world.enforce(ALLOW);
    let set = || -> io::Result<()> {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::empty(),
            None,
        )?;
        // Longer than what a program is shown, as the rules of iptables are.
        for length in [4, 4096, 4097, 8192, 100_000] {
            let mut value = vec![0u8; length];
            value[..4].copy_from_slice(&8192i32.to_ne_bytes());
            // SAFETY: as long as is said.
            let set = unsafe {
                libc::setsockopt(
                    std::os::fd::AsRawFd::as_raw_fd(&socket),
                    libc::SOL_SOCKET,
                    libc::SO_RCVBUF,
                    value.as_ptr().cast(),
                    length as libc::socklen_t,
                )
            };
            Errno::result(set)
                .map_err(|errno| io::Error::other(format!("{length} bytes: {errno}")))?;
        }
        Ok(())
    };
    world.protected().run(set).unwrap().unwrap();
    // And in this machine's own namespace.
    set().unwrap();
}

#[test]
fn where_the_root_of_cgroup_v2_is_out_of_sight_the_filter_runs_and_says_what_is_lost() {
    let world = World::new(None);
    world.write_policy(ALLOW);
    let root = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = root.lines().find(|line| line.contains(" - cgroup2 "));
    let Some(root) = root.and_then(|line| line.split(' ').nth(4)) else {
        return eprintln!("cgroup v2 is not mounted here: nothing to hide");
    };
    // A part of the machine's own tree, with one process for as long as it lives.
    let part = Path::new(root).join(format!("netfilter-test-{}", process::id()));
    fs::create_dir(&part).unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = world.protected().command("unshare");
    command
        .args(["--cgroup", "--mount", "sh", "-c"])
        .arg("umount -l $(awk '/ - cgroup2 /{ print $5 }' /proc/self/mountinfo); exec \"$@\"");
    command.args([
        "sh",
        BINARY,
        "run",
        "--interface",
        "eth0",
        "--policy",
        mounts::POLICY,
    ]);
    command.stderr(Stdio::from(log.reopen().unwrap()));
    let procs = File::options()
        .write(true)
        .open(part.join("cgroup.procs"))
        .unwrap();
    // SAFETY: between fork and exec, a system call.
    unsafe {
        command.pre_exec(move || io::Write::write_all(&mut &procs, b"0"));
    }
    let mut child = command.spawn().unwrap();
    let read = || fs::read_to_string(log.path()).unwrap();
    let runs = says(read, &["enforcing on eth0 (policy", "are not filtered"]);
    let status = said(&world.daemon(&["status"]));
    let (denied, granted) = (world.udp_echoes(DENIED, 443), is_granted(&world));
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_dir(&part).unwrap();
    assert!(runs, "{}", read());
    assert!(!denied && granted);
    let lost = "packets of packet sockets with PACKET_QDISC_BYPASS, and of AF_XDP sockets, are not \
                filtered: the root of cgroup v2 cannot be seen from here";
    assert_eq!(read().matches(lost).count(), 1, "{}", read());
    assert_eq!(status.matches(lost).count(), 1, "{status}");
}

#[test]
fn the_program_that_does_not_name_processes_loads_too() {
    let mut kernel = Kernel::new(ALLOW);
    let sizes = kernel.datapath.sizes_of_guards().unwrap();
    println!("{sizes:?}");
    let few = |size: &Size| size.verified.is_none_or(|count| count < 10_000);
    assert!(sizes.iter().all(few));
    assert_eq!(sizes.len(), 2);
}

#[test]
fn io_uring_is_no_way_round_it() {
    let world = World::new(None);
    let ask = || world.protected().run(uring::ask_for_bypass).unwrap();
    match ask() {
        None => return eprintln!("no setsockopt by io_uring here"),
        Some(granted) => granted.unwrap(),
    }
    let _daemon = world.enforce(ALLOW);
    let refused = ask().unwrap().unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    assert_eq!(raw_sockets(&world, "dropped_packets"), 1);
}
