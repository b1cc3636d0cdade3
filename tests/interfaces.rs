//! Every way out is filtered: what comes, goes, is renamed, or is taken from us.

use std::{
    io::{self, Write as _},
    net::UdpSocket,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::namespace::veth;

use crate::world::{World, eventually};

mod devices;
pub mod rival;

use rival::Rival;

/// By `eth0` 192.0.2.1 and by a second cable 192.0.2.2 may be reached.
const POLICY: &str = "outbound_rules: [{ name: a, type: ip, destination: { cidr: 192.0.2.0/30, protocol: TCP, port_ranges: '443' } }]";

/// A second cable to the internet, by which 198.51.100.0/24 and 192.0.2.2 are reached.
pub(crate) fn plug(world: &World, name: &str) {
    let internet = &world.topology.internet;
    veth(world.protected(), name, internet, "eth1").unwrap();
    internet.ip("address add 10.98.0.1/24 dev eth1").unwrap();
    internet
        .ip("route add 10.98.0.0/24 dev eth1 table local")
        .unwrap();
    let protected = world.protected();
    protected
        .ip(&format!("address add 10.98.0.2/24 dev {name}"))
        .unwrap();
    for destination in ["198.51.100.0/24", "192.0.2.2"] {
        protected
            .ip(&format!("route add {destination} via 10.98.0.1"))
            .unwrap();
    }
}

pub(crate) fn unplug(world: &World, name: &str) {
    world
        .protected()
        .ip(&format!("link delete {name}"))
        .unwrap();
}

pub(crate) fn enforcing(world: &World, name: &str) -> Option<u64> {
    let line = format!("netfilter_enforcing{{interface=\"{name}\"}}");
    world.metrics().contains(&line).then(|| world.metric(&line))
}

fn dropped(world: &World, name: &str) -> u64 {
    let metrics = world.metrics();
    let ours = |line: &&str| {
        line.starts_with("netfilter_dropped_packets_total")
            && line.contains(&format!("interface=\"{name}\""))
    };
    metrics
        .lines()
        .filter(ours)
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn pin(world: &World, role: &str, name: &str) -> PathBuf {
    let find = || -> io::Result<PathBuf> {
        let ifindex = nix::net::if_::if_nametoindex(name)?;
        let pin = format!("{role}-{ifindex}");
        let state = PathBuf::from("/sys/fs/bpf/netfilter");
        let mut directories = vec![state];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    directories.push(entry.path());
                } else if entry.file_name().to_str() == Some(&pin) {
                    return Ok(entry.path());
                }
            }
        }
        Err(io::ErrorKind::NotFound.into())
    };
    world.protected().run(find).unwrap().unwrap()
}

fn repairs(world: &World, name: &str, cause: &str) -> u64 {
    world.metric(&format!(
        "netfilter_repairs_total{{interface=\"{name}\",cause=\"{cause}\"}}"
    ))
}

#[test]
fn an_interface_that_comes_is_filtered_under_whatever_name_and_goes_without_a_trace() {
    let world = World::new(None);
    world.write_policy(POLICY);
    let _daemon = world.start_on(&[]);
    assert_eq!(enforcing(&world, "eth0"), Some(1));
    plug(&world, "eth1");
    assert!(eventually(|| enforcing(&world, "eth1") == Some(1)));
    assert!(world.connects("192.0.2.2", 443), "what is allowed");
    assert!(!world.connects("198.51.100.1", 443));
    let before = dropped(&world, "eth1");
    assert!(before > 0);

    unplug(&world, "eth1");
    assert!(eventually(|| enforcing(&world, "eth1").is_none()));
    plug(&world, "eth1");
    assert!(eventually(|| enforcing(&world, "eth1") == Some(1)));
    assert!(!world.connects("198.51.100.1", 443));
    assert!(dropped(&world, "eth1") > before, "it counts on");

    let protected = world.protected();
    protected.ip("link set eth1 down").unwrap();
    protected.ip("link set eth1 name lan0").unwrap();
    protected.ip("link set lan0 up").unwrap();
    protected
        .ip("route add 198.51.100.0/24 via 10.98.0.1")
        .unwrap();
    assert!(!world.connects("198.51.100.1", 443));
    assert!(eventually(|| enforcing(&world, "lan0") == Some(1)));
    assert_eq!(enforcing(&world, "eth1"), None);
    assert!(dropped(&world, "lan0") > before);
    assert_eq!(dropped(&world, "eth1"), 0);
    assert!(world.get("/healthz").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_named_interface_is_filtered_again_when_it_is_back_and_others_are_not() {
    let world = World::new(None);
    plug(&world, "eth1");
    world.write_policy(POLICY);
    let _daemon = world.start_on(&["eth0", "eth1"]);
    assert!(!world.connects("198.51.100.1", 443));
    unplug(&world, "eth1");
    plug(&world, "eth2");
    thread::sleep(Duration::from_millis(1200));
    assert!(world.connects("198.51.100.1", 443), "nobody named eth2");
    unplug(&world, "eth2");
    plug(&world, "eth1");
    assert!(eventually(|| enforcing(&world, "eth1") == Some(1)));
    assert!(!world.connects("198.51.100.1", 443));
    let absent = world.daemon(&["run", "--policy", "/dev/null", "--interface", "eth7"]);
    assert!(!absent.status.success());
}

#[test]
fn a_reload_filters_what_it_adds_and_keeps_what_it_leaves_out() {
    let world = World::new(None);
    plug(&world, "eth1");
    world.write_policy(&format!("interfaces: [eth0]\n{POLICY}"));
    let _daemon = world.start_on(&[]);
    assert!(world.connects("198.51.100.1", 443));
    world.write_policy(&format!("interfaces: [eth1]\n{POLICY}"));
    assert!(world.daemon(&["reload"]).status.success());
    assert!(eventually(|| enforcing(&world, "eth1") == Some(1)));
    assert!(!world.connects("198.51.100.1", 443));
    assert!(!world.connects("203.0.113.1", 443), "eth0 remains filtered");
    let status = world.daemon(&["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(
        text.contains("not named by the policy, and filtered before"),
        "{text}"
    );
}

#[test]
fn what_another_tool_takes_is_taken_back_and_counted() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    let denied = || !world.connects("198.51.100.1", 443);
    assert!(denied());
    let role = |role| pin(&world, role, "eth0");

    // As `bpftool link detach`.
    let egress = role("egress");
    world
        .protected()
        .run(|| rival::detach(&egress))
        .unwrap()
        .unwrap();
    assert!(eventually(|| repairs(&world, "eth0", "detached") == 1));
    assert!(denied());

    // The pin alone does not lift the filter while the daemon runs.
    world
        .protected()
        .run(|| std::fs::remove_file(&egress))
        .unwrap()
        .unwrap();
    assert!(denied());
    assert!(eventually(|| repairs(&world, "eth0", "unpinned") == 1));
    assert_eq!(role("egress"), egress);

    // A program before ours that lets everything pass.
    let _rival = Rival::before_egress(world.protected(), "eth0");
    assert!(eventually(|| repairs(&world, "eth0", "displaced") == 1));
    assert!(denied());
    assert!(eventually(|| world
        .get("/healthz")
        .starts_with("HTTP/1.1 200")));
    assert!(
        world.connects("192.0.2.1", 443),
        "and what is allowed passes"
    );
    // Once: two that stand in peace are left in peace.
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(repairs(&world, "eth0", "displaced"), 1);
    assert_eq!(repairs(&world, "eth0", "detached"), 1);
    let status = String::from_utf8(world.daemon(&["status"]).stdout).unwrap();
    assert!(
        status.contains("eth0: another tool interfered (displaced), put right once"),
        "{status}"
    );
}

/// While our place is taken back from a tool that only stands before us and passes on,
/// no denied packet gets out.
#[test]
fn taking_a_place_back_leaves_no_gap() {
    let world = World::new(None);
    let _daemon = world.enforce("on_deny: drop\noutbound_rules: []");
    let sink = world
        .topology
        .internet
        .run(|| UdpSocket::bind("0.0.0.0:9999").unwrap())
        .unwrap();
    sink.set_nonblocking(true).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| flood(&world, "198.51.100.1:9999", &done));
        for count in 1..=4 {
            // Passes on to the next: TCX_NEXT, so ours would judge all the same.
            let rival = Rival::passing_on(world.protected(), "eth0");
            let repaired = eventually(|| repairs(&world, "eth0", "displaced") == count);
            drop(rival);
            if !repaired {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut escaped = 0;
    while sink.recv(&mut [0; 64]).is_ok() {
        escaped += 1;
    }
    assert_eq!(escaped, 0);
    assert_eq!(repairs(&world, "eth0", "displaced"), 4);
}

fn flood(world: &World, to: &str, done: &AtomicBool) {
    world
        .protected()
        .run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            while !done.load(Ordering::Relaxed) {
                // Dropped, or no way there.
                _ = socket.send_to(b"out", to);
            }
        })
        .unwrap();
}

/// How long an interface that comes up at once carries unjudged packets. Measured with
/// a sender that floods; the bound is generous.
#[test]
fn the_window_of_a_new_interface_is_short() {
    let rounds = std::env::var("NETFILTER_WINDOW_ROUNDS");
    let rounds: usize = rounds.map_or(20, |rounds| rounds.parse().unwrap());
    let world = World::new(None);
    // What carries the new interface's frames is allowed to leave; they are not.
    world.write_policy("on_deny: drop\noutbound_rules: [{ name: a, type: ip, destination: { cidr: 10.99.0.1/32, protocol: UDP, port_ranges: '4789' } }]");
    let _daemon = world.start_on(&[]);
    let internet = &world.topology.internet;
    let sink = internet.run(|| UdpSocket::bind("10.99.0.1:4789").unwrap());
    let sink = sink.unwrap();
    let silence = Duration::from_millis(200);
    sink.set_read_timeout(Some(silence)).unwrap();
    let done = AtomicBool::new(false);
    let mut windows = Vec::new();
    let mut packets = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| flood(&world, "10.98.0.1:9999", &done));
        for _ in 0..rounds {
            let (window, count) = come_up(&world, &sink);
            windows.push(window);
            packets.push(count);
        }
        done.store(true, Ordering::Relaxed);
    });
    windows.sort_unstable();
    packets.sort_unstable();
    let at = |part: usize| windows[(windows.len() * part / 100).min(windows.len() - 1)];
    println!(
        "{rounds} rounds: window median {:?}, 99 % {:?}, longest {:?}; packets median {}, most {}",
        at(50),
        at(99),
        at(100),
        packets[rounds / 2],
        packets[rounds - 1]
    );
    assert!(at(100) < Duration::from_secs(1), "{windows:?}");
}

/// Makes an interface that is up when it is there, and can carry packets at once. From
/// the first to the last packet of the flood that gets out; none, and it is zero.
fn come_up(world: &World, sink: &UdpSocket) -> (Duration, usize) {
    let mut batch = world.protected().command("ip");
    batch.args(["-batch", "-"]).stdin(Stdio::piped());
    let mut batch = batch.spawn().unwrap();
    let lines = b"link add vx0 up type vxlan id 7 remote 10.99.0.1 dstport 4789 dev eth0\n\
        address add 10.98.0.2/24 dev vx0\n\
        neigh replace 10.98.0.1 lladdr 02:00:00:00:00:01 dev vx0\n";
    batch.stdin.take().unwrap().write_all(lines).unwrap();
    // Where it fails, no packet gets out: that is found at the end.
    batch.wait().unwrap();
    let mut first: Option<Instant> = None;
    let (mut last, mut count) = (Duration::ZERO, 0);
    let mut packet = [0; 256];
    while let Ok(length) = sink.recv(&mut packet) {
        // VXLAN, Ethernet, IPv4: then the ports.
        if length > 46 && packet[44..46] == 9999u16.to_be_bytes() {
            last = first.get_or_insert_with(Instant::now).elapsed();
            count += 1;
        }
    }
    unplug(world, "vx0");
    (last, count)
}
