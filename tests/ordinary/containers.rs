//! Containers behind a bridge, as Docker makes them: masqueraded, with a published port.

use std::{fs, io::ErrorKind, path::Path, time::Duration};

use netfilter_daemon::lab::{
    daemon::Daemon,
    namespace::{Namespace, veth},
    topology::RESOLVERS,
};

use super::packages::{MIRROR, Mirror, OTHER, PORT};
use crate::{
    plumbing::said,
    resolvers::servers::{Server, command, servers},
    workload::site::{computer, refusal},
    world::eventually,
};

/// The port that is published stands at another in the container.
const PUBLISHED: u16 = 8080;
const INSIDE: u16 = 8081;

const LARGE: usize = 3 << 20;

/// Far below any time-out of a client.
const AT_ONCE: Duration = Duration::from_millis(800);

/// What Docker has in its chains, for one container with one port.
const RULES: &[&str] = &[
    "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    "-t nat -A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 8081 -j MASQUERADE",
    "-t nat -A PREROUTING -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:8081",
    "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8081 -j ACCEPT",
    "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    "-A FORWARD -i docker0 -o docker0 -j ACCEPT",
    "-P FORWARD DROP",
];

/// A host with two containers, of which the first serves its files.
struct Host {
    mirror: Mirror,
    containers: [Namespace; 2],
    _web: Server,
}

fn large() -> Vec<u8> {
    (0..LARGE as u32).map(|at| (at >> 9 ^ at) as u8).collect()
}

impl Host {
    fn new() -> Self {
        let fill = |root: &Path| fs::write(root.join("large"), large()).unwrap();
        let mirror = Mirror::new(fill);
        let host = mirror.world.protected();
        host.sysctl("net/ipv4/ip_forward", "1").unwrap();
        for command in [
            "link add docker0 type bridge",
            "address add 172.17.0.1/16 dev docker0",
            "link set docker0 up",
        ] {
            host.ip(command).unwrap();
        }
        let containers = [2, 3].map(|last| {
            let container = computer(&RESOLVERS[..1]);
            let cable = format!("veth{last}");
            veth(host, &cable, &container, "eth0").unwrap();
            host.ip(&format!("link set {cable} master docker0"))
                .unwrap();
            let address = format!("address add 172.17.0.{last}/16 dev eth0");
            container.ip(&address).unwrap();
            container.ip("route add default via 172.17.0.1").unwrap();
            container
        });
        for rule in RULES {
            let mut iptables = command(host, "iptables-nft");
            let unpacked = servers().join("usr/lib/x86_64-linux-gnu/xtables");
            if unpacked.is_dir() {
                iptables.env("XTABLES_LIBDIR", unpacked);
            }
            let output = iptables.args(rule.split(' ')).output().unwrap();
            assert!(output.status.success(), "{rule}: {}", said(&output));
        }
        let root = mirror.files.path().to_str().unwrap();
        let port = INSIDE.to_string();
        let arguments = ["-m", "http.server", "--directory", root, &port];
        let web = Server::spawn(&containers[0], "python3", &[], &arguments);
        let made = Self {
            mirror,
            containers,
            _web: web,
        };
        assert!(eventually(|| made.visited()), "unfiltered all goes");
        made
    }

    fn enforce(&self, interfaces: &str) -> Daemon {
        self.mirror.world.write_policy(&format!(
            "interfaces: [{interfaces}]
inbound: [{{ protocol: TCP, port_ranges: '{PUBLISHED}, {INSIDE}' }}]
outbound_rules: [{{ name: mirror, type: fqdn, destination: {{ fqdn: {MIRROR}, protocol: TCP, port_ranges: '{PORT}' }} }}]"
        ));
        self.mirror.world.start_on(&[])
    }

    /// Whether somebody outside gets the large file by the published port, whole.
    fn visited(&self) -> bool {
        let outside = &self.mirror.world.topology.internet;
        gets(outside, &format!("10.99.0.2:{PUBLISHED}"))
    }

    fn works(&self) {
        for container in &self.containers {
            assert!(gets(container, &format!("{MIRROR}:{PORT}")), "by its name");
        }
        assert!(self.visited(), "by the published port");
    }

    fn denies(&self) {
        for container in &self.containers {
            let (kind, took) = refusal(container, "198.18.0.2", PORT);
            assert_eq!(kind, ErrorKind::ConnectionRefused);
            assert!(took < AT_ONCE, "{took:?}");
            let mut curl = container.command("curl");
            curl.args(["-sS", "-m5", &format!("http://{OTHER}:{PORT}/")]);
            let told = said(&curl.output().unwrap());
            assert!(told.contains("Could not resolve host"), "{told}");
        }
        // A connection each, and as many questions as the C library thinks right. What
        // stops at a cable never comes to the uplink.
        let mut drops = self.mirror.world.drops();
        assert!(drops.remove("dns_name").is_some());
        assert_eq!(drops, [("no_rule".to_owned(), 2)].into());
    }
}

/// By curl, and from one end to the other.
fn gets(from: &Namespace, host: &str) -> bool {
    let mut curl = from.command("curl");
    curl.args(["-sS", "-m20", &format!("http://{host}/large")]);
    let output = curl.output().unwrap();
    output.stdout == large()
}

#[test]
fn what_containers_do_is_judged_at_the_uplink_and_ports_are_published() {
    let host = Host::new();
    let daemon = host.enforce("auto");
    assert!(
        daemon.said.starts_with("enforcing on eth0 ("),
        "{}",
        daemon.said
    );
    host.works();
    host.mirror.world.dropped_only(&[]);
    host.denies();
}

#[test]
fn what_containers_do_is_judged_at_their_cables_and_ports_are_published() {
    let host = Host::new();
    let daemon = host.enforce("{ name: 'veth*', side: workload }");
    assert!(daemon.said.contains("veth2, veth3"), "{}", daemon.said);
    host.works();
    host.mirror.world.dropped_only(&[]);
    host.denies();
}

#[test]
fn what_containers_do_is_judged_at_both_ends_and_ports_are_published() {
    let host = Host::new();
    let _daemon = host.enforce("auto, { name: 'veth*', side: workload }");
    host.works();
    host.mirror.world.dropped_only(&[]);
    host.denies();
}
