//! What audit saw becomes a policy by which the same work drops nothing.

use std::{fs, net::IpAddr, process::Output, thread, time::Duration};

use netfilter_daemon::lab::{daemon::Daemon, mounts};
use serde_json::Value;

use crate::{
    resolvers::servers::{self, Data, Host, Server},
    world::{World, eventually},
};

/// More than the kernel tells of one process.
const BURST: u16 = 400;

fn host(name: &str, aliases: &[&str], last: u8) -> Host {
    Host {
        name: name.to_owned(),
        aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        addresses: vec![
            [198, 18, 5, last].into(),
            format!("2001:db8:5::{last}").parse().unwrap(),
        ],
        hinted: false,
    }
}

fn data() -> Data {
    Data {
        hosts: vec![
            host(
                "www.example.org",
                &["edge.cdn.example", "a1.cdn.example"],
                1,
            ),
            host("a.data.example.org", &[], 2),
            host("b.data.example.org", &[], 3),
            host("c.data.example.org", &[], 4),
            host("api.example.org", &[], 5),
            // On the address of another.
            host("shared.example.org", &[], 5),
            host("_odd._tcp.example.org", &[], 6),
            host("mcr.microsoft.com", &[], 7),
        ],
        ttl: 600,
        datagram: 1232,
    }
}

/// Whether each part of it got what it wanted.
fn work(world: &World) -> Vec<(&'static str, bool)> {
    let mut done: Vec<(&'static str, bool)> = [
        ("www.example.org", 443),
        ("a.data.example.org", 443),
        ("b.data.example.org", 443),
        ("c.data.example.org", 443),
        ("api.example.org", 8443),
        ("api.example.org", 443),
        ("shared.example.org", 443),
        ("mcr.microsoft.com", 443),
        ("_odd._tcp.example.org", 80),
    ]
    .into_iter()
    .map(|(name, port)| (name, world.connects_by_name(name, port)))
    .collect();
    let dig = |arguments: &[&str]| {
        let arguments = [&["+tries=1", "+time=2"][..], arguments].concat();
        let output = servers::command(world.protected(), "dig")
            .args(arguments)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    done.push((
        "a name without an address",
        dig(&["none.example.org"]).contains("NXDOMAIN"),
    ));
    done.push(("text", dig(&["TXT", "www.example.org"]).contains("NOERROR")));
    done.push(("an address", world.connects("192.0.2.7", 8443)));
    done.push(("an address of IPv6", world.connects("2001:db8:9::9", 22)));
    done.push(("a service's", world.connects("20.190.128.5", 8443)));
    done.push(("datagrams", world.udp_echoes("192.0.2.8", 5831)));
    let curl = [
        "-s",
        "-o",
        "/dev/null",
        "--max-time",
        "2",
        "telnet://192.0.2.9:8443",
    ];
    world.succeeds("curl", &curl); // it waits for more, which is no failure
    done.push((
        "pings",
        world.succeeds("busybox", &["ping", "-c", "1", "-W", "2", "192.0.2.10"]),
    ));
    let burst = world.protected().run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        (0..BURST).all(|number| {
            let [high, low] = number.to_be_bytes();
            socket
                .send_to(b"x", (IpAddr::from([198, 18, 10 + high, low]), 4000))
                .is_ok()
        })
    });
    done.push(("a burst", burst.unwrap()));
    done
}

fn all_done(world: &World) {
    let failed: Vec<&str> = work(world)
        .iter()
        .filter(|(_, done)| !done)
        .map(|(what, _)| *what)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What is suggested; its rules that bear all of the words.
fn suggested(world: &World) -> String {
    let output = world.daemon(&["suggest"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    text(&output)
}

fn put(world: &World, policy: &str) {
    let write = || fs::write(mounts::POLICY, policy);
    world.protected().run(write).unwrap().unwrap();
}

fn enforced(world: &World, policy: &str) -> Daemon {
    put(world, policy);
    let daemon = world.start();
    assert!(world.get("/healthz").contains("200"));
    daemon
}

fn repeated(world: &World, resolver: &str, before: &str) -> String {
    let resolvers = [resolver.parse::<IpAddr>().unwrap()];
    world
        .protected()
        .run(|| mounts::ask(&resolvers))
        .unwrap()
        .unwrap();
    let audit = enforced(
        world,
        &format!("isolation_mode: allow_internet_outbound\n{before}"),
    );
    all_done(world);
    // What the daemon knows of names and users outlives it, as far as it must.
    drop(audit);
    let mut daemon = world.start();
    let policy = suggested(world);
    let checked = world.daemon(&["suggest", "--json"]);
    let json: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(json["policy"], policy);
    assert_eq!(json["lost"], 0);
    daemon.kill();
    world.succeeds("true", &[]);
    let detached = world.daemon(&["detach"]);
    assert_eq!(detached.status.code(), Some(0));

    let _daemon = enforced(world, &policy);
    all_done(world);
    assert_eq!(
        world.drops(),
        std::collections::BTreeMap::new(),
        "{policy}\n{}",
        text(&world.daemon(&["events"]))
    );
    let again = world.daemon(&["suggest"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        said.contains("nothing to suggest: the policy is enforced"),
        "{said}"
    );
    policy
}

fn has(policy: &str, lines: &str) {
    assert!(policy.contains(lines), "{lines}\n---\n{policy}");
}

#[test]
fn the_same_work_drops_nothing_by_the_suggestion() {
    let world = World::new(None);
    let _server = Server::unbound(&world, &data());
    let before = "resolvers: [10.99.0.1]   # ours\npresets: [azure-ml]\noutbound_rules:\n  # kept\n  - name: mine\n    type: fqdn\n    destination: pypi.org\n";
    let policy = repeated(&world, "10.99.0.1", before);
    has(
        &policy,
        "isolation_mode: allow_only_approved_outbound\nresolvers: [10.99.0.1]   # ours\n",
    );
    has(
        &policy,
        "  # kept\n  - name: mine\n    type: fqdn\n    destination: pypi.org\n",
    );
    has(
        &policy,
        "    destination: { fqdn: \"*.data.example.org\", protocol: TCP, port_ranges: \"443\" }\n",
    );
    has(
        &policy,
        "    destination: { fqdn: api.example.org, protocol: TCP, port_ranges: \"443, 8443\" }\n",
    );
    has(
        &policy,
        "    destination: { service_tag: AzureActiveDirectory, protocol: TCP, port_ranges: \"8443\" }\n",
    );
    has(
        &policy,
        "    destination: { cidr: 192.0.2.8/32, protocol: UDP, port_ranges: \"5831\" }\n",
    );
    has(
        &policy,
        "    destination: { cidr: 192.0.2.10/32, protocol: ICMP, port_ranges: \"*\" }\n",
    );
    has(
        &policy,
        "cidr: 192.0.2.9/32, protocol: TCP, port_ranges: \"8443\"",
    );
    for unneeded in ["fqdn: mcr.microsoft.com", "cdn.example", "198.18.5."] {
        assert!(!policy.contains(unneeded), "{unneeded}\n{policy}");
    }
    let curl = policy
        .lines()
        .find(|line| line.contains("curl (root"))
        .unwrap_or(&policy);
    assert!(
        curl.trim_start().starts_with("# ") && curl.contains("1 connection"),
        "{curl}"
    );
}

/// It asks for what is behind an alias by itself, and has answers of its own.
#[test]
fn the_same_work_drops_nothing_behind_a_resolver_on_this_machine() {
    let world = World::new(None);
    let _server = Server::unbound(&world, &data());
    let forward = "cache-max-ttl: 2\nforward-zone:\nname: .\nforward-addr: 10.99.0.1\n";
    let files = [("unbound.conf", servers::unbound("127.0.0.1", forward))];
    let arguments = ["-d", "-c", "DIR/unbound.conf"];
    let _local = Server::spawn(world.protected(), "unbound", &files, &arguments)
        .answering(&world, "127.0.0.1");
    let policy = repeated(&world, "127.0.0.1", "resolvers: [127.0.0.1, 10.99.0.1]\n");
    has(&policy, "fqdn: www.example.org, protocol: TCP");
    assert!(!policy.contains("cdn.example"), "{policy}");
}

#[test]
fn without_a_daemon_or_anything_seen_the_answer_is_no_and_what_was_seen_can_be_forgotten() {
    let world = World::new(None);
    let none = world.daemon(&["suggest"]);
    assert_eq!(none.status.code(), Some(1));
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(said.contains("told by the daemon, and none runs"), "{said}");

    let _daemon = world.enforce("isolation_mode: allow_internet_outbound");
    let nothing = || {
        let output = world.daemon(&["suggest"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), text(&output).as_str()),
            (Some(1), ""),
            "{said}"
        );
        assert!(
            said.contains("nothing to suggest: audit let nothing pass"),
            "{said}"
        );
    };
    nothing();
    assert!(world.connects("192.0.2.7", 8443));
    assert!(eventually(|| suggested(&world).contains("192.0.2.7/32")));
    assert_eq!(
        world.daemon(&["suggest", "--forget"]).status.code(),
        Some(0)
    );
    nothing();
}

/// Of a flood the kernel tells little: who sent the rest is remembered all the same.
#[test]
fn what_was_not_told_of_is_still_of_who_sent_it() {
    const PORTS: [u16; 5] = [4001, 4002, 4003, 4004, 4005];
    let world = World::new(None);
    let _daemon = world.enforce("isolation_mode: allow_internet_outbound");
    // Ever new processes, for each may have some of its packets told.
    let flood = "for ($end = time + 5; time < $end;) { \
         if ($child = fork) { waitpid($child, 0); next } \
         socket(S, PF_INET, SOCK_DGRAM, 0); \
         for (1..150) { send(S, 'x', 0, sockaddr_in(4000, inet_aton('198.18.7.1'))) } exit }";
    let mut perl = world.protected().command("perl");
    let mut flood = perl.args(["-MSocket", "-e", flood]).spawn().unwrap();
    thread::sleep(Duration::from_secs(2));
    for port in PORTS {
        let sends = format!("echo x > /dev/udp/198.18.7.2/{port}");
        assert!(world.succeeds("bash", &["-c", &sends]));
    }
    flood.wait().unwrap();
    let events = text(&world.daemon(&["events", "--json"]));
    let told = |port: &u16| events.contains(&format!("\"destination_port\":{port},"));
    assert!(told(&4000) && !PORTS.iter().all(told));
    let policy = suggested(&world);
    assert_sent(&policy, "198.18.7.1/", "perl", "bash");
    assert_sent(&policy, "198.18.7.2/", "bash", "perl");
}

/// Another's packet lies between those of a socket that has fallen silent, on the same processor.
#[test]
fn what_a_silent_socket_sends_is_still_of_who_sent_it() {
    let world = World::new(None);
    let _daemon = world.enforce("isolation_mode: allow_internet_outbound");
    let sends = "socket(S, PF_INET, SOCK_DGRAM, 0); \
         sub to { send(S, 'x', 0, sockaddr_in($_[0], inet_aton('198.18.7.3'))) } \
         for my $port (4001..4005) { to(4000) for (1..400); \
         system('bash', '-c', \"echo x > /dev/udp/198.18.7.4/$port\"); to($port) }";
    let perl = ["-c", "0", "perl", "-MSocket", "-e", sends];
    assert!(world.succeeds("taskset", &perl));
    let policy = suggested(&world);
    assert_sent(&policy, "198.18.7.3/", "perl", "bash");
    assert_sent(&policy, "198.18.7.4/", "bash", "perl");
}

/// That a suggested policy says of an address who sent to it, and not that another did.
fn assert_sent(policy: &str, address: &str, program: &str, other: &str) {
    let rules: Vec<&str> = policy.split("- name:").collect();
    let at = rules.iter().position(|rule| rule.contains(address));
    // The comment on a rule stands before it.
    let about = rules[at.unwrap() - 1].rsplit("port_ranges").next().unwrap();
    assert!(
        about.contains(program) && !about.contains(other),
        "{address}\n{policy}"
    );
}

/// Enforced, nothing is remembered that was dropped.
#[test]
fn what_is_dropped_is_not_suggested() {
    let world = World::new(None);
    let _daemon = world.enforce("outbound_rules: []");
    assert!(!world.connects("192.0.2.7", 8443));
    assert_eq!(world.daemon(&["suggest"]).status.code(), Some(1));
}

/// More destinations than there is room for: as many as there is are kept, the others counted.
#[test]
fn what_finds_no_room_is_told() {
    let world = World::new(None);
    let _daemon = world.enforce("isolation_mode: allow_internet_outbound");
    let sent = world.protected().run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        (0..17_000_u32)
            .filter(|number| {
                let address = IpAddr::from((0xc612_0000 + number).to_be_bytes());
                socket.send_to(b"x", (address, 4000)).is_ok()
            })
            .count()
    });
    let lost = world.metric("netfilter_events_lost_total{stage=\"audit_full\"}");
    let over = sent.unwrap() as u64 - 16_384;
    assert!((over..over + 200).contains(&lost), "{lost} of {over}");
    has(
        &suggested(&world),
        &format!("INCOMPLETE: {lost} packets or questions"),
    );
}
