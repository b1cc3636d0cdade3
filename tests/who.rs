//! A denied packet names its process, user, executable, cgroup and container: of processes
//! that are gone, too.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::Duration,
};

use netfilter_daemon::{
    datapath::Datapath,
    lab::{dns::Zone, mounts, raw::bypass},
};
use serde_json::Value;

use crate::{
    bpffs::{self, StateDir},
    frame,
    interfaces::rival,
    world::{BINARY, World, eventually},
};

mod flood;
mod journal;

/// Seen inside only, and gone with the test.
const PRIVATE: &str = "/run/netfilter-daemon";
const DENIED: &str = "203.0.113.9";
const POLICY: &str = "
outbound_rules:
  - { name: a, type: ip, destination: { cidr: 192.0.2.1/32, protocol: UDP, port_ranges: '443' } }
  - { name: no-metadata, type: ip, action: deny, destination: { cidr: 169.254.169.254/32, protocol: '*', port_ranges: '*' } }
";

fn events(world: &World, arguments: &[&str]) -> Vec<Value> {
    let output = world.daemon(&[&["events", "--json"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The first event of a packet to this port, once there is one.
fn to_port(world: &World, port: u16) -> Value {
    let mut found = None;
    eventually(|| {
        let mut events = events(world, &[]).into_iter();
        found = events.find(|event| event["destination_port"] == port);
        found.is_some()
    });
    found.unwrap_or_else(|| panic!("no event of port {port}"))
}

/// Runs a script inside and waits for it. Returns its number.
fn run(world: &World, program: &str, arguments: &[&str]) -> u32 {
    let mut command = world.protected().command(program);
    command.args(arguments);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

fn bash(world: &World, script: &str) -> u32 {
    run(world, "bash", &["-c", script])
}

fn perl(world: &World, script: &str) -> u32 {
    run(world, "perl", &["-MSocket", "-e", script])
}

/// Of bash, with `connect`.
fn connected(address: &str, port: u16) -> String {
    format!("echo x > /dev/udp/{address}/{port}")
}

/// Of perl, without.
fn unconnected(port: u16) -> String {
    format!(
        "socket(S, PF_INET, SOCK_DGRAM, 0); send(S, 'x', 0, sockaddr_in({port}, inet_aton('{DENIED}')));"
    )
}

fn own_cgroup() -> String {
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
    own.unwrap_or("/").to_owned()
}

fn is_by(event: &Value, pid: u32, executable: &str, seen_at: &str) {
    let sender = &event["sender"];
    let told = (&sender["pid"], &sender["executable"], &sender["seen_at"]);
    let expected = (&pid.into(), &executable.into(), &seen_at.into());
    assert_eq!(told, expected, "{event}");
}

fn path_of(program: &str) -> String {
    let paths = ["/usr/bin", "/bin"]
        .iter()
        .map(|at| Path::new(at).join(program));
    let path = paths.into_iter().find(|path| path.exists()).unwrap();
    fs::canonicalize(path).unwrap().display().to_string()
}

#[test]
fn two_hundred_processes_that_are_gone_at_once_are_each_named() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    let pids: Vec<u32> = (0..200)
        .map(|number| bash(&world, &connected(DENIED, 2000 + number)))
        .collect();
    to_port(&world, 2199);
    let events = events(&world, &[]);
    let (executable, cgroup) = (path_of("bash"), own_cgroup());
    for (number, pid) in pids.iter().enumerate() {
        let mut found = events.iter();
        let event = found.find(|event| event["destination_port"] == 2000 + number);
        let event = event.unwrap_or_else(|| panic!("no event of process {number}"));
        is_by(event, *pid, &executable, "connect");
        let sender = &event["sender"];
        let told = (&sender["program"], &sender["user"], &sender["uid"]);
        assert_eq!(told, (&"bash".into(), &"root".into(), &0.into()));
        assert_eq!(sender["cgroup"], cgroup.as_str());
        assert_eq!(sender["shared"], false);
    }
}

#[test]
fn each_kind_of_socket_tells_who_used_it_and_when_that_was_seen() {
    let world = World::new(None);
    world
        .protected()
        .sysctl("net/ipv4/ping_group_range", "0 2147483647")
        .unwrap();
    let _daemon = world.enforce(POLICY);
    let (bash_at, perl_at) = (path_of("bash"), path_of("perl"));

    let pid = bash(&world, &format!("echo x > /dev/tcp/{DENIED}/2001"));
    is_by(&to_port(&world, 2001), pid, &bash_at, "connect");
    let pid = bash(&world, &connected("2001:db8::1", 2002));
    is_by(&to_port(&world, 2002), pid, &bash_at, "connect");
    let pid = perl(&world, &unconnected(2003));
    is_by(&to_port(&world, 2003), pid, &perl_at, "send");
    let pid = perl(
        &world,
        "socket(S, PF_INET6, SOCK_DGRAM, 0); send(S, 'x', 0, pack_sockaddr_in6(2004, Socket::inet_pton(AF_INET6, '2001:db8::1')));",
    );
    is_by(&to_port(&world, 2004), pid, &perl_at, "send");
    // An IPv4 address by a socket of IPv6.
    let pid = perl(
        &world,
        "socket(S, PF_INET6, SOCK_DGRAM, 0); send(S, 'x', 0, pack_sockaddr_in6(2005, Socket::inet_pton(AF_INET6, '::ffff:203.0.113.9')));",
    );
    is_by(&to_port(&world, 2005), pid, &perl_at, "send");

    let to = |address: &str| {
        let mut found = Vec::new();
        eventually(|| {
            found = events(&world, &["--destination", address]);
            !found.is_empty()
        });
        found
            .first()
            .cloned()
            .unwrap_or_else(|| panic!("no event of {address}"))
    };
    let echo = "pack('C2n3', 8, 0, 0xf7ff - $$ % 1000, 0, 0)";
    for (kind, address) in [("SOCK_RAW", "203.0.113.21"), ("SOCK_DGRAM", "203.0.113.22")] {
        let pid = perl(
            &world,
            &format!(
                "socket(S, PF_INET, {kind}, 1) or die; send(S, {echo}, 0, sockaddr_in(0, inet_aton('{address}')));"
            ),
        );
        is_by(&to(address), pid, &perl_at, "socket");
    }

    // A packet socket belongs to somebody, and no hook sees it.
    let send = || -> std::io::Result<()> {
        bypass::ordinary("eth0")?.send(&frame::udp(DENIED, 2010).bytes())
    };
    world.protected().run(send).unwrap().ok();
    let event = to_port(&world, 2010);
    let sender = &event["sender"];
    assert_eq!(
        (&sender["seen_at"], &sender["uid"]),
        (&"owner".into(), &0.into())
    );
    assert!(sender["pid"].is_null() && sender["executable"].is_null());
    assert_eq!(sender["cgroup"], own_cgroup().as_str(), "{event}");

    // What nobody denies is not told.
    bash(&world, &connected("192.0.2.1", 443));
    assert!(events(&world, &["--destination", "192.0.2.1"]).is_empty());
}

#[test]
fn users_renamed_processes_and_the_rule_are_told() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    let script = connected(DENIED, 2101);
    let pid = run(
        &world,
        "setpriv",
        &["--reuid=65534", "--clear-groups", "bash", "-c", &script],
    );
    let event = to_port(&world, 2101);
    is_by(&event, pid, &path_of("bash"), "connect");
    let sender = &event["sender"];
    assert_eq!(
        (&sender["uid"], &sender["user"]),
        (&65534.into(), &"nobody".into())
    );

    let pid = perl(
        &world,
        &format!("$0 = \"sshd\\e[2K\\r\"; {}", unconnected(2102)),
    );
    let event = to_port(&world, 2102);
    is_by(&event, pid, &path_of("perl"), "send");
    assert_eq!(event["sender"]["program"], "sshd\\u{1b}[2K\\r");
    let said = world.daemon(&["events", "--process", &pid.to_string()]);
    let said = String::from_utf8(said.stdout).unwrap();
    let sentence = format!(
        " on eth0: {} as `sshd\\u{{1b}}[2K\\r` (pid {pid}, root), UDP from ",
        path_of("perl")
    );
    assert!(said.contains(&sentence), "{said}");
    assert_eq!(said.lines().count(), 1);

    bash(&world, &connected("169.254.169.254", 2103));
    let event = to_port(&world, 2103);
    assert_eq!(
        (&event["reason"], &event["rule"]),
        (&"denied_by_rule".into(), &"no-metadata".into())
    );
    assert_eq!(events(&world, &["--rule", "no-metadata"]), [event]);
    assert!(to_port(&world, 2101)["rule"].is_null());
    let wrong = world.daemon(&["events", "--reason", "moon_phase"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_socket_that_goes_from_hand_to_hand_tells_who_used_it() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    // A child sends on what its parent has connected: the parent is told.
    let pid = bash(
        &world,
        &format!("exec 3<>/dev/udp/{DENIED}/2201; (echo x >&3)"),
    );
    is_by(&to_port(&world, 2201), pid, &path_of("bash"), "connect");
    // Without connect each datagram tells who sent it, and that another may have.
    let script = |port, then| {
        format!(
            "{} {then}; {}",
            unconnected(port),
            unconnected(port + 1).split_once(';').unwrap().1
        )
    };
    let parent = perl(
        &world,
        &script(2202, "my $c = fork(); if ($c) { waitpid($c, 0); exit }"),
    );
    let (first, second) = (to_port(&world, 2202), to_port(&world, 2203));
    is_by(&first, parent, &path_of("perl"), "send");
    assert_eq!(first["sender"]["shared"], false);
    assert_ne!(second["sender"]["pid"], parent);
    assert_eq!(second["sender"]["shared"], true, "{second}");
    // Another program in the same process is another.
    let pid = perl(
        &world,
        &format!(
            "$^F = 9; {} exec('bash', '-c', 'echo x > /dev/udp/{DENIED}/2205');",
            unconnected(2204)
        ),
    );
    is_by(&to_port(&world, 2204), pid, &path_of("perl"), "send");
    is_by(&to_port(&world, 2205), pid, &path_of("bash"), "connect");
    // Over the very same socket, with the same name.
    let copy = &format!("{PRIVATE}/perl");
    world.install(&path_of("perl"), copy);
    let again = format!(
        "open(S, '+<&=', $ARGV[0]); send(S, 'x', 0, sockaddr_in(2207, inet_aton('{DENIED}')));"
    );
    let pid = run(
        &world,
        "perl",
        &[
            "-MSocket",
            "-e",
            &format!(
                "$^F = 9; {} exec('{copy}', '-MSocket', '-e', $ARGV[0], fileno(S));",
                unconnected(2206)
            ),
            &again,
        ],
    );
    is_by(&to_port(&world, 2206), pid, &path_of("perl"), "send");
    is_by(&to_port(&world, 2207), pid, copy, "send");
}

/// A part of the machine's tree, for as long as the test lets it be.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let path = Path::new(root.split(' ').nth(4)?).join(name);
        fs::create_dir_all(&path).unwrap();
        Some(Self(path))
    }

    fn put(&self, command: &mut Command) {
        let mut processes = fs::File::options();
        let processes = processes
            .write(true)
            .open(self.0.join("cgroup.procs"))
            .unwrap();
        // SAFETY: between fork and exec, a system call.
        unsafe {
            command.pre_exec(move || (&processes).write_all(b"0"));
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has ended may be in it for a moment.
        assert!(eventually(|| fs::remove_dir(&self.0).is_ok()));
    }
}

#[test]
fn a_container_that_is_gone_is_named_with_its_processes_numbers_of_the_host() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    let id = format!("{:0>64x}", process::id());
    let name = format!("docker-{id}.scope");
    let Some(cgroup) = Cgroup::new(&name) else {
        return eprintln!("cgroup v2 is not mounted here");
    };
    let mut command = world.protected().command("unshare");
    // What is /proc here is the host's.
    let script = format!(
        "read pid rest < /proc/self/stat; {}; echo $$ $pid",
        connected(DENIED, 2301)
    );
    command.args(["--pid", "--fork", "--mount", "bash", "-c", &script]);
    cgroup.put(&mut command);
    let output = command.output().unwrap();
    drop(cgroup);
    let said = String::from_utf8(output.stdout).unwrap();
    let (inside, outside) = said.trim().split_once(' ').unwrap();
    assert_eq!(inside, "1");

    let event = to_port(&world, 2301);
    is_by(
        &event,
        outside.parse().unwrap(),
        &path_of("bash"),
        "connect",
    );
    let sender = &event["sender"];
    assert_eq!(sender["cgroup"], format!("/{name}"));
    assert_eq!(sender["container"]["runtime"], "docker");
    assert_eq!(sender["container"]["id"], id[..12]);
    let said = world.daemon(&["events"]).stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.contains(&format!(", root, docker {})", &id[..12])),
        "{said}"
    );
}

/// Longer than what is kept.
#[test]
fn a_long_path_is_told_by_its_end_and_one_with_hostile_bytes_is_escaped() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    let long = format!(
        "{PRIVATE}/{}/{}/{}",
        "a".repeat(200),
        "b".repeat(100),
        "c".repeat(60)
    );
    let hostile = format!("{PRIVATE}/\u{1b}[2K\n");
    for (port, directory) in [(2401, &long), (2402, &hostile)] {
        let program = format!("{directory}/p");
        world.install(&path_of("bash"), &program);
        run(&world, &program, &["-c", &connected(DENIED, port)]);
    }
    let told = |port| {
        to_port(&world, port)["sender"]["executable"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let cut = told(2401);
    assert!(
        cut.ends_with(&format!("/{}/p", "c".repeat(60))) && cut.len() >= 128,
        "{cut}"
    );
    assert!(
        !cut.starts_with('/') && long.contains(cut.strip_suffix("/p").unwrap()),
        "{cut}"
    );
    assert_eq!(told(2402), format!("{PRIVATE}/\\u{{1b}}[2K\\n/p"));
}

/// Paths are kept for so many processes; the rest of what is told is kept with the socket.
#[test]
fn a_process_that_thousands_came_after_is_told_without_a_path_or_with_its_own() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    let others = "for (1..6000) { my $p = fork; if (!$p) { socket(O, PF_INET, SOCK_DGRAM, 0); \
        connect(O, sockaddr_in(443, inet_aton('192.0.2.1'))); exit } waitpid $p, 0 }";
    let say = |port| format!("send(S, 'x', 0, sockaddr_in({port}, inet_aton('{DENIED}')));");
    let pid = perl(
        &world,
        &format!("{} {others} {}", unconnected(2601), say(2602)),
    );
    let executable = path_of("perl");
    is_by(&to_port(&world, 2601), pid, &executable, "send");
    let sender = &to_port(&world, 2602)["sender"];
    assert_eq!(
        (&sender["pid"], &sender["program"]),
        (&pid.into(), &"perl".into())
    );
    assert_eq!(sender["cgroup"], own_cgroup().as_str());
    assert!(
        sender["executable"].is_null() || sender["executable"] == executable.as_str(),
        "{sender}"
    );
    let last = bash(&world, &connected(DENIED, 2603));
    is_by(&to_port(&world, 2603), last, &path_of("bash"), "connect");
}

#[test]
fn a_question_names_who_asked() {
    let mut zone = Zone::new();
    zone.address("evil.example.net", 60, [192, 0, 2, 66].into())
        .unwrap();
    let world = World::new(Some(zone));
    let _daemon = world.enforce(POLICY);
    let pid = run(&world, "getent", &["ahosts", "evil.example.net"]);
    let mut found = Vec::new();
    assert!(eventually(|| {
        found = events(
            &world,
            &["--destination", "example.net", "--reason", "dns_name"],
        );
        !found.is_empty()
    }));
    for event in found {
        is_by(&event, pid, &path_of("getent"), "connect");
    }
}

/// Nor has it that of the question before, on the same processor.
#[test]
fn what_is_no_question_has_no_name() {
    let world = World::new(Some(Zone::new()));
    let _daemon = world.enforce(POLICY);
    for (reason, sends) in [
        ("dns_name", "getent ahosts evil.example.net"),
        ("dns_malformed", "echo x > /dev/udp/10.99.0.1/53"),
    ] {
        bash(&world, &format!("exec taskset -c 0 bash -c '{sends}'"));
        let mut found = Vec::new();
        assert!(eventually(|| {
            found = events(&world, &["--reason", reason]);
            !found.is_empty()
        }));
        let named = reason == "dns_name";
        assert!(
            found
                .iter()
                .all(|event| event["question"].is_string() == named),
            "{found:?}"
        );
    }
}

#[test]
fn what_sees_who_uses_sockets_is_kept_in_its_place_and_goes_with_detach() {
    let world = World::new(None);
    let mut daemon = world.enforce(POLICY);
    let repairs = || world.metric("netfilter_repairs_total{interface=\"\",cause=\"detached\"}");
    let pin = "/sys/fs/bpf/netfilter/links/connect4";
    let detach = || rival::detach(Path::new(pin));
    world.protected().run(detach).unwrap().unwrap();
    assert!(eventually(|| repairs() == 1));
    assert!(eventually(|| {
        let pid = bash(&world, &connected(DENIED, 2501));
        let events = events(&world, &["--process", &pid.to_string()]);
        events
            .iter()
            .any(|event| event["sender"]["seen_at"] == "connect")
    }));
    // Without a daemon it goes on, and the next one tells what was.
    daemon.kill();
    let pid = bash(&world, &connected(DENIED, 2502));
    let _daemon = world.start();
    is_by(&to_port(&world, 2502), pid, &path_of("bash"), "connect");
    let status = String::from_utf8(world.daemon(&["status"]).stdout).unwrap();
    assert!(
        !status.contains("events tell") && !status.contains("events do not"),
        "{status}"
    );
    assert!(world.daemon(&["detach"]).status.success());
    let there = world.protected().run(|| Path::new(pin).exists()).unwrap();
    assert!(!there);
}

#[test]
fn where_the_kernels_memory_may_not_be_read_all_but_paths_is_told() {
    let state_dir = StateDir::new();
    let image = bpffs::image(POLICY);
    let whole = Datapath::load(state_dir.path(), &image)
        .unwrap()
        .sizes_of_witnesses();
    let mut blind = Datapath::load_pathless(state_dir.path(), &image).unwrap();
    let without = blind.sizes_of_witnesses().unwrap();
    for (whole, without) in whole.unwrap().into_iter().zip(without) {
        println!("{whole:?} {without:?}");
        // What reads it is not in the program.
        let (whole, without) = (whole.verified, without.verified);
        assert!(
            without < whole && whole < Some(50_000),
            "{whole:?} {without:?}"
        );
    }
    let untold = blind.untold();
    let said = "do not name the paths of executables and cgroups, nor containers: this kernel does not let";
    assert!(untold.iter().any(|line| line.contains(said)), "{untold:?}");
}

/// What the permitted path costs: `cargo test --test tests -- --ignored cost_of_knowing --nocapture`
#[test]
#[ignore = "measures"]
fn the_cost_of_knowing_who_uses_a_socket() {
    const ROUNDS: usize = 21;
    // Processor time, for others use the machine, too.
    let script = "sub used { my ($u, $s) = times; $u + $s } my $a = sockaddr_in(443, inet_aton('192.0.2.1')); \
        my $n = 50000; my $t = used; for (1..$n) { socket(S, PF_INET, SOCK_DGRAM, 0); connect(S, $a); close S } \
        my $c = used() - $t; socket(S, PF_INET, SOCK_DGRAM, 0); $t = used; send(S, 'x', 0, $a) for 1..$n; \
        my $s = used() - $t; printf \"%d %d\\n\", 1e9 * $c / $n, 1e9 * $s / $n;";
    let measure = |world: &World| {
        let mut command = world.protected().command("perl");
        let said = command.args(["-MSocket", "-e", script]).output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        let mut numbers = said
            .split_whitespace()
            .map(|word| word.parse::<u64>().unwrap());
        [numbers.next().unwrap(), numbers.next().unwrap()]
    };
    let (with, without) = (World::new(None), World::new(None));
    let _daemon = with.enforce(POLICY);
    without.enforce(POLICY).kill();
    without
        .protected()
        .run(|| {
            // The guard stays. Without a daemon nobody puts them back.
            for name in ["connect4", "connect6", "sendmsg4", "sendmsg6", "socket"] {
                let pin = format!("/sys/fs/bpf/netfilter/links/{name}");
                rival::detach(Path::new(&pin)).unwrap();
            }
        })
        .unwrap();
    let mut rounds = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        for (place, world) in [&without, &with].into_iter().enumerate() {
            let [connect, send] = measure(world);
            rounds[place].push(connect);
            rounds[2 + place].push(send);
        }
        thread::sleep(Duration::from_millis(10));
    }
    let median = |mut round: Vec<u64>| {
        round.sort_unstable();
        round[round.len() / 2]
    };
    let [bare_connect, connect, bare_send, send] = rounds.map(median);
    println!(
        "socket, connect, close: {bare_connect} ns without, {connect} ns with; \
         sendto: {bare_send} ns without, {send} ns with"
    );
}
