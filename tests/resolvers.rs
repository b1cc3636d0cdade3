//! Real DNS servers: unbound and dnsmasq, and names that live a second.

use std::{fs, process::Child, thread, time::Duration};

use crate::world::{World, echo_tcp, eventually, resolve};

/// The records' own second, hardly lengthened: the default of 90 would hide much.
const POLICY: &str = "presets: [azure-ml]\ndns: { minimum_ttl: 1, grace: 1 }";
/// Every server has this name, by which the tests see that it answers.
const READY: &str = "ready.data.mcr.microsoft.com";
const NAMES: usize = 10_000;

/// A server in the internet, killed when dropped.
struct Server {
    child: Child,
    _files: tempfile::TempDir,
}

impl Server {
    fn start(
        world: &World,
        program: &str,
        configuration: &[(&str, String)],
        arguments: &[&str],
    ) -> Self {
        let files = tempfile::tempdir().unwrap();
        for (name, content) in configuration {
            fs::write(
                files.path().join(name),
                content.replace("DIR", files.path().to_str().unwrap()),
            )
            .unwrap();
        }
        let arguments = arguments
            .iter()
            .map(|argument| argument.replace("DIR", files.path().to_str().unwrap()));
        let child = world
            .topology
            .internet
            .command(program)
            .args(arguments)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask test` installs it"));
        let server = Self {
            child,
            _files: files,
        };
        assert!(
            eventually(|| world.succeeds("dig", &["+tries=1", "+time=1", "@10.99.0.1", READY])),
            "{program} does not answer"
        );
        server
    }

    fn dnsmasq(world: &World, records: &str) -> Self {
        let configuration = format!(
            "no-resolv\nno-hosts\nlisten-address=10.99.0.1\nbind-interfaces\nhost-record={READY},192.0.2.1\n{records}"
        );
        let files = [("dnsmasq.conf", configuration)];
        let arguments = [
            "--keep-in-foreground",
            "--conf-file=DIR/dnsmasq.conf",
            "--user=root",
            "--pid-file=",
        ];
        Self::start(world, "dnsmasq", &files, &arguments)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Ten thousand names, each with an address of its own and a TTL of one second.
fn zone() -> String {
    let mut zone = String::from(
        "$ORIGIN data.mcr.microsoft.com.\n$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A 10.99.0.1\nready A 192.0.2.1\n",
    );
    for name in 0..NAMES {
        zone += &format!(
            "n{name} A 198.{}.{}.{}\n",
            18 + name / 65_536,
            name / 256 % 256,
            name % 256
        );
    }
    zone
}

fn every_first_packet_passes(world: &World, names: usize) -> (usize, u64) {
    let _daemon = world.enforce(POLICY);
    let drops = "netfilter_dropped_packets_total{reason=\"no_rule\"";
    let before = world.metric(drops);
    let connected = world
        .protected()
        .run(|| {
            let worker = |first: usize| {
                (first..names)
                    .step_by(4)
                    .filter(|name| {
                        let found = resolve(&format!("n{name}.data.mcr.microsoft.com"), 443);
                        found.is_some_and(echo_tcp)
                    })
                    .count()
            };
            thread::scope(|scope| {
                let workers: Vec<_> = (0..4)
                    .map(|first| scope.spawn(move || worker(first)))
                    .collect();
                workers
                    .into_iter()
                    .map(|worker| worker.join().unwrap())
                    .sum::<usize>()
            })
        })
        .unwrap();
    (connected, world.metric(drops) - before)
}

#[test]
fn no_first_packet_is_dropped_after_ten_thousand_fresh_names_from_unbound() {
    let world = World::new(None);
    let configuration = "server:\n  interface: 10.99.0.1\n  access-control: 0.0.0.0/0 allow\n  do-daemonize: no\n  use-syslog: no\n  logfile: \"\"\n  verbosity: 0\n  username: \"\"\n  chroot: \"\"\n  directory: \"DIR\"\n  pidfile: \"\"\n  cache-max-ttl: 1\n  module-config: \"iterator\"\nauth-zone:\n  name: data.mcr.microsoft.com\n  zonefile: \"DIR/zone\"\n  for-downstream: yes\n  for-upstream: yes\nremote-control:\n  control-enable: no\n";
    let files = [("unbound.conf", configuration.to_owned()), ("zone", zone())];
    let _server = Server::start(&world, "unbound", &files, &["-d", "-c", "DIR/unbound.conf"]);
    let (connected, dropped) = every_first_packet_passes(&world, NAMES);
    assert_eq!((connected, dropped), (NAMES, 0));
}

#[test]
fn no_first_packet_is_dropped_with_dnsmasq() {
    let world = World::new(None);
    let mut configuration = String::from("local-ttl=1\n");
    for name in 0..500 {
        configuration += &format!(
            "host-record=n{name}.data.mcr.microsoft.com,198.18.{}.{},2001:db8::{name:x}\n",
            name / 256,
            name % 256
        );
    }
    let _server = Server::dnsmasq(&world, &configuration);
    let (connected, dropped) = every_first_packet_passes(&world, 500);
    assert_eq!((connected, dropped), (500, 0));
}

/// The daemon asks for exact names by itself, so they are usable though no
/// application has asked.
#[test]
fn exact_names_are_learned_without_an_application() {
    let world = World::new(None);
    let configuration = "host-record=mcr.microsoft.com,192.0.2.10\n";
    let _server = Server::dnsmasq(&world, configuration);
    let _daemon = world.enforce(POLICY);
    thread::sleep(Duration::from_millis(100));
    assert!(eventually(|| world.connects("192.0.2.10", 443)));
    assert!(!world.connects("192.0.2.11", 443));
}
