//! The daemon and lists that change.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use netfilter_daemon::lab::{daemon::Daemon, dns::Zone, mounts};

use super::{
    in_time,
    lists::azure,
    make_overdue, said,
    server::{CA, Server, answer},
};
use crate::world::{BINARY, World, eventually};

const SOURCE: &str = "https://lists.example:8444/list.json";

/// A machine whose policy names a list that only the lab's internet has.
struct Machine {
    world: World,
    server: Server,
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let mut zone = Zone::new();
        zone.address("lists.example", 60, [198, 51, 100, 7].into())
            .unwrap();
        let world = World::new(Some(zone));
        let server = Server::start(Some(&world.topology.internet), "0.0.0.0:8444");
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        fs::write(&ca, CA).unwrap();
        let machine = Self {
            world,
            server,
            directory,
        };
        machine.world.write_policy(&format!(
            "service_tags: {{ from: ['{SOURCE}'], every: 1d, ca: {} }}\n\
             outbound_rules:\n  \
             - {{ name: a, type: service_tag, destination: {{ service_tag: A, protocol: TCP, port_ranges: '443' }} }}\n  \
             - {{ name: lists, type: fqdn, destination: {{ fqdn: lists.example, protocol: TCP, port_ranges: '8444' }} }}\n",
            ca.display()
        ));
        machine
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn start(&self) -> Result<Daemon, String> {
        let mut command = self.world.protected().command(BINARY);
        command.args(["run", "--interface", "eth0", "--policy", mounts::POLICY]);
        command.arg("--tags-dir").arg(self.store());
        Daemon::start(command).map_err(|error| error.to_string())
    }

    fn tags(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = self.world.protected().command(BINARY);
        let command = command.arg("tags").args(arguments);
        said(
            command
                .arg("--tags-dir")
                .arg(self.store())
                .output()
                .unwrap(),
        )
    }

    fn failures(&self) -> u64 {
        let metric =
            format!("netfilter_service_tags_refresh_failures_total{{source=\"{SOURCE}\"}}");
        self.world.metric(&metric)
    }
}

fn one() -> String {
    azure(10, &[("A", 8), ("B", 8)])
}

fn two() -> String {
    azure(11, &[("A", 9), ("B", 8)])
}

#[test]
fn the_first_list_is_fetched_before_anything_is_filtered_and_none_means_no_start() {
    let machine = Machine::new();
    machine
        .server
        .does(|_, stream| answer(stream, "404 Not Found", "", ""));
    let Err(why) = machine.start() else {
        panic!("it started without a list")
    };
    assert!(
        why.contains("404") && why.contains("nothing was changed"),
        "{why}"
    );
    assert!(
        machine.world.connects("192.0.2.9", 443),
        "nothing is filtered"
    );
    machine.server.sends("", &one());
    let _daemon = machine.start().unwrap();
    assert!(machine.world.connects("192.0.2.8", 443));
    assert!(!machine.world.connects("192.0.2.9", 443));
}

#[test]
fn a_newer_list_is_taken_at_the_interval_and_cuts_nothing_that_stays_allowed() {
    let machine = Machine::new();
    let world = &machine.world;
    machine.server.sends("", &one());
    drop(machine.start().unwrap());
    make_overdue(&machine.store());
    let asked = machine.server.requests().len();
    let released = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&released);
    machine.server.does(move |_, stream| {
        while !gate.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
        answer(stream, "200 OK", "", &two());
    });

    let _daemon = machine.start().unwrap();
    let mut open = world
        .protected()
        .run(|| TcpStream::connect(("192.0.2.1", 443)).unwrap())
        .unwrap();
    open.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut echoes = || {
        open.write_all(b"hello").unwrap();
        let mut back = [0; 5];
        open.read_exact(&mut back).is_ok() && &back == b"hello"
    };
    assert!(
        echoes() && !world.connects("192.0.2.9", 443),
        "the stored one is in force"
    );

    released.store(true, Ordering::Relaxed);
    let mut always = true;
    assert!(in_time(|| {
        always &= echoes();
        world.connects("192.0.2.9", 443)
    }));
    assert!(
        always && echoes(),
        "what is allowed by both is not interrupted"
    );
    assert_eq!(machine.server.requests().len(), asked + 1);
    assert_eq!(machine.failures(), 0);
    let (code, text) = machine.tags(&["list"]);
    assert!(
        code == Some(0) && text.contains("change number 11"),
        "{text}"
    );
    let (code, text) = machine.tags(&["show", "a"]);
    assert!(
        code == Some(0) && text.ends_with("192.0.2.9/32\n"),
        "{text}"
    );
    assert_eq!(machine.tags(&["show", "Z"]).0, Some(1));
}

#[test]
fn a_list_that_shrank_is_refused_and_shows_and_a_later_update_is_used_at_once() {
    let machine = Machine::new();
    let world = &machine.world;
    machine.server.sends("", &one());
    drop(machine.start().unwrap());
    make_overdue(&machine.store());
    machine.server.sends("", &azure(11, &[("A", 1), ("B", 1)]));
    let _daemon = machine.start().unwrap();
    assert!(in_time(|| machine.failures() == 1), "{}", world.metrics());
    assert!(
        world.connects("192.0.2.8", 443),
        "the last good one is in force"
    );
    let (_, status) = said(world.daemon(&["status"]));
    let (_, json) = said(world.daemon(&["status", "--json"]));
    assert!(
        status.contains("PROBLEM") && status.contains("less than half"),
        "{status}"
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["daemon"]["service_tag_lists"][0]["failures"], 1);

    machine.server.sends("", &two());
    let (code, text) = machine.tags(&["update"]);
    assert!(
        code == Some(0) && text.contains("reloaded: 2 rules"),
        "{text}"
    );
    assert!(world.connects("192.0.2.9", 443));
    machine.server.sends("", "[]");
    let (code, _) = machine.tags(&["update"]);
    assert!(code == Some(3) && world.connects("192.0.2.9", 443));
}

#[test]
fn without_a_network_the_stored_list_is_used() {
    let machine = Machine::new();
    machine.server.sends("", &one());
    let daemon = machine.start().unwrap();
    drop(daemon);
    let world = &machine.world;
    assert_eq!(world.daemon(&["detach"]).status.code(), Some(0));
    assert!(eventually(|| world.connects("192.0.2.9", 443)), "lifted");
    let asked = machine.server.requests().len();
    make_overdue(&machine.store());
    world.protected().ip("link set eth0 down").unwrap();
    let _daemon = machine.start().unwrap();
    assert_eq!(machine.server.requests().len(), asked, "nobody was asked");
    world.protected().ip("link set eth0 up").unwrap();
    world
        .protected()
        .ip("route add default via 10.99.0.1")
        .unwrap();
    assert!(world.connects("192.0.2.8", 443) && !world.connects("192.0.2.9", 443));
}
