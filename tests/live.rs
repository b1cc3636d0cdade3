//! Starting on a live machine: what is open and permitted goes on, the rest is said beforehand.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use netfilter_daemon::lab::mounts;

use crate::{
    resolvers::servers::{Data, Host, Server},
    world::World,
};

const POLICY: &str = "
outbound_rules:
  - { name: range, type: ip, destination: { cidr: 192.0.2.0/24, protocol: TCP, port_ranges: '443' } }
  - { name: exact, type: fqdn, destination: { fqdn: exact.example, protocol: TCP, port_ranges: '443' } }
  - { name: wildcard, type: fqdn, destination: { fqdn: '*.wild.example', protocol: TCP, port_ranges: '443' } }
";

/// A connection and whether it still carries bytes.
struct Open(TcpStream);

impl Open {
    fn to(world: &World, address: &str) -> Self {
        let stream = world.protected().run(|| TcpStream::connect(address));
        let mut open = Self(stream.unwrap().unwrap());
        assert!(open.lives(), "{address}");
        open
    }

    fn lives(&mut self) -> bool {
        let wait = Some(Duration::from_secs(3));
        self.0.set_read_timeout(wait).unwrap();
        let mut back = [0; 5];
        self.0.write_all(b"hello").is_ok() && self.0.read_exact(&mut back).is_ok()
    }
}

/// What came in from the internet: the operator, at our end.
fn come_in(world: &World, port: u16) -> (TcpStream, TcpStream) {
    let local = format!("10.99.0.2:{port}");
    let listener = world.protected().run(|| TcpListener::bind(&local));
    let listener = listener.unwrap().unwrap();
    let remote = world.topology.internet.run(|| TcpStream::connect(&local));
    (listener.accept().unwrap().0, remote.unwrap().unwrap())
}

fn says((ours, theirs): &mut (TcpStream, TcpStream)) -> bool {
    let wait = Some(Duration::from_secs(2));
    theirs.set_read_timeout(wait).unwrap();
    ours.write_all(b"hello").is_ok() && theirs.read_exact(&mut [0; 5]).is_ok()
}

fn names() -> Data {
    let host = |name: &str, last| Host {
        name: name.to_owned(),
        addresses: vec![[198, 18, 0, last].into()],
        ..Host::default()
    };
    Data {
        hosts: vec![host("exact.example", 1), host("a.wild.example", 2)],
        ttl: 60,
        datagram: 1232,
    }
}

#[test]
fn what_is_permitted_goes_on_and_the_rest_is_named_before_it_is_cut() {
    let world = World::new(None);
    let _server = Server::dnsmasq(&world, &names());
    let mut operator = come_in(&world, 22);
    let mut intruder = come_in(&world, 2222);
    let mut range = Open::to(&world, "192.0.2.1:443");
    let mut exact = Open::to(&world, "198.18.0.1:443");
    let mut unknown = Open::to(&world, "198.18.0.2:443");
    let mut denied = Open::to(&world, "203.0.113.9:8443");

    world.write_policy(POLICY);
    let plan = world.daemon(&[
        "run",
        "--dry-run",
        "--interface",
        "eth0",
        "--policy",
        mounts::POLICY,
    ]);
    let told = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.status.success(), "{told}");
    let cut: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("  TCP"))
        .collect();
    assert!(
        told.contains("3 of 6 open connections would be cut"),
        "{told}"
    );
    assert_eq!(cut.len(), 3, "{told}");
    for remote in [
        "to 198.18.0.2:443",
        "to 203.0.113.9:8443",
        "10.99.0.2:2222 to",
    ] {
        assert!(cut.iter().any(|line| line.contains(remote)), "{told}");
    }
    let me = format!("process {}", std::process::id());
    assert!(cut.iter().all(|line| line.contains(&me)), "{told}");
    assert!(told.ends_with("nothing was changed\n"));
    assert!(denied.lives(), "nothing was changed");

    let _daemon = world.start();
    assert!(says(&mut operator) && range.lives() && exact.lives());
    assert!(!denied.lives() && !unknown.lives() && !says(&mut intruder));
}

#[test]
fn with_nothing_to_cut_nobody_is_asked() {
    let world = World::new(None);
    // No server runs: to ask would take seconds.
    let mut range = Open::to(&world, "192.0.2.1:443");
    let began = std::time::Instant::now();
    world.write_policy(POLICY);
    let plan = world.daemon(&["run", "--dry-run", "--policy", mounts::POLICY]);
    let told = String::from_utf8(plan.stdout).unwrap();
    assert!(
        told.contains("1 connections are open, and none would be cut"),
        "{told}"
    );
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(range.lives());
}
