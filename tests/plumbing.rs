//! What a machine lives on passes the filter as real software says it.

use std::{
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::namespace::Namespace;

use crate::{frame, resolvers::servers::command, world::World};

mod clients;
mod content;

/// No rule: what passes here is plumbing.
const NOTHING: &str = "on_deny: drop\noutbound_rules: []";

/// A DHCP server and router at the far end, with leases of its own.
pub struct Router {
    process: Child,
    pub directory: PathBuf,
}

impl Router {
    fn start(world: &World) -> Self {
        Self::with(world, &[])
    }

    /// With further options of dnsmasq.
    pub fn with(world: &World, more: &[&str]) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("netfilter-plumbing-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let mut dnsmasq = command(&world.topology.internet, "dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0"]);
        dnsmasq.args([
            "--user=root",
            "--pid-file=",
            "--interface=eth0",
            "--no-ping",
        ]);
        dnsmasq.args(["--dhcp-range=10.99.0.100,10.99.0.150,255.255.255.0,2m"]);
        dnsmasq.args([
            "--dhcp-range=fd99::100,fd99::1ff,slaac,64,2m",
            "--enable-ra",
        ]);
        dnsmasq.args(["--dhcp-authoritative", "--dhcp-rapid-commit"]);
        let leases = directory.join("leases");
        dnsmasq.arg(format!("--dhcp-leasefile={}", leases.display()));
        dnsmasq.args(more);
        dnsmasq.stdout(Stdio::null()).stderr(Stdio::null());
        let process = dnsmasq.spawn().unwrap();
        let router = Self { process, directory };
        // It has opened its sockets when it has read its leases.
        assert!(within(|| leases.is_file()), "dnsmasq does not start");
        router
    }

    /// Of each lease a line, which begins with the second at which it ends.
    pub fn leases(&self) -> PathBuf {
        self.directory.join("leases")
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// What arrives at the far end, as tcpdump reads it.
pub struct Ear {
    process: Child,
    said: PathBuf,
}

impl Ear {
    pub fn open(world: &World, router: &Router, filter: &str) -> Self {
        let said = router.directory.join("heard");
        let mut tcpdump = world.topology.internet.command("tcpdump");
        tcpdump.args(["-i", "eth0", "-l", "-nn", "-v", "-Q", "in", filter]);
        tcpdump.stdout(std::fs::File::create(&said).unwrap());
        let errors = router.directory.join("listening");
        tcpdump.stderr(std::fs::File::create(&errors).unwrap());
        let process = tcpdump.spawn().unwrap();
        let listens =
            || std::fs::read_to_string(&errors).is_ok_and(|text| text.contains("listening"));
        assert!(within(listens), "tcpdump does not start");
        Self { process, said }
    }

    pub fn hears(&self, what: &str) -> bool {
        within(|| std::fs::read_to_string(&self.said).is_ok_and(|text| text.contains(what)))
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

pub fn within(done: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(15);
    while Instant::now() < end {
        if done() {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

pub fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr]
        .map(String::from_utf8_lossy)
        .concat()
}

/// What the interface has, as `ip` prints it.
pub fn addresses(namespace: &Namespace) -> String {
    let output = namespace
        .command("ip")
        .args(["address", "show", "dev", "eth0"])
        .output();
    said(&output.unwrap())
}

/// A program that sees file systems of its own at these places.
pub fn secluded(namespace: &Namespace, places: &[&str], program: &Command) -> Command {
    let mounts: String = places
        .iter()
        .map(|place| format!("mkdir -p {place} && mount -t tmpfs none {place} && "))
        .collect();
    let mut shell = namespace.command("unshare");
    shell.args([
        "--mount",
        "sh",
        "-c",
        &format!("{mounts}exec \"$0\" \"$@\""),
    ]);
    shell.arg(program.get_program()).args(program.get_args());
    shell
}

#[test]
fn a_machine_finds_its_router_and_says_what_it_listens_to() {
    let world = World::new(None);
    let router = Router::start(&world);
    let _daemon = world.enforce(NOTHING);
    let inside = world.protected();
    let ear = Ear::open(&world, &router, "icmp6 or igmp or ip6 proto 0");
    inside.sysctl("net/ipv6/conf/eth0/accept_dad", "1").unwrap();
    // The kernel asks for routers and names its groups anew.
    inside.ip("link set eth0 down").unwrap();
    inside.ip("link set eth0 up").unwrap();
    assert!(ear.hears("router solicitation"));
    assert!(
        ear.hears("neighbor solicitation, length 32, who has fd99::"),
        "for duplicates, with a nonce"
    );
    assert!(ear.hears("multicast listener report v2"));
    let usable = || {
        let text = addresses(inside);
        text.lines().any(|line| {
            line.contains("fd99::") && line.contains("dynamic") && !line.contains("tentative")
        })
    };
    assert!(within(usable), "{}", addresses(inside));
    // A neighbour, over the address that it has now.
    let socket = inside.run(|| UdpSocket::bind("[::]:0")).unwrap().unwrap();
    _ = socket.send_to(b"hello", "[fd99::1]:9");
    assert!(ear.hears("who has fd99::1"));
    inside.ip("address replace 10.99.0.2/24 dev eth0").unwrap();

    let [group, group_v6] = [
        Ipv4Addr::new(239, 1, 2, 3).to_string(),
        "ff05::beef".to_owned(),
    ];
    for (version, heard) in [("3", "igmp v3 report"), ("2", "igmp v2 report 239.1.2.3")] {
        inside
            .sysctl("net/ipv4/conf/eth0/force_igmp_version", version)
            .unwrap();
        let socket = inside
            .run(|| UdpSocket::bind("0.0.0.0:0"))
            .unwrap()
            .unwrap();
        let local = Ipv4Addr::new(10, 99, 0, 2);
        socket
            .join_multicast_v4(&group.parse().unwrap(), &local)
            .unwrap();
        assert!(ear.hears(heard), "{heard}");
    }
    let index = inside
        .run(|| nix::net::if_::if_nametoindex("eth0"))
        .unwrap()
        .unwrap();
    for (version, heard) in [("2", "[gaddr ff05::beef"), ("1", " addr: ff05::beef")] {
        inside
            .sysctl("net/ipv6/conf/eth0/force_mld_version", version)
            .unwrap();
        let socket = inside.run(|| UdpSocket::bind("[::]:0")).unwrap().unwrap();
        let group: Ipv6Addr = group_v6.parse().unwrap();
        socket.join_multicast_v6(&group, index).unwrap();
        assert!(ear.hears(heard), "{heard}");
    }
}
