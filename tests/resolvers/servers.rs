//! Four servers that know the same names, and the programs that are run beside them.

use std::{
    env::consts::ARCH,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use netfilter_daemon::lab::namespace::Namespace;

use crate::world::{BINARY, World, eventually};

/// Every server has this name, by which the tests see that it answers.
const READY: &str = "ready.data.mcr.microsoft.com";

/// Where the server listens that kresd forwards to, as it has no zones of its own.
const UPSTREAM: &str = "10.99.0.53";

/// A name, the aliases that lead from it to its addresses, and these.
#[derive(Default)]
pub struct Host {
    pub name: String,
    pub aliases: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// Has an HTTPS record with the addresses, one of each family, as hints.
    pub hinted: bool,
}

/// What a server serves.
pub struct Data {
    pub hosts: Vec<Host>,
    pub ttl: u32,
    /// What is longer is not sent in a datagram.
    pub datagram: u16,
}

/// A way to start a server at 10.99.0.1.
pub type Start = fn(&World, &Data) -> Server;

const SAID: &str = "stderr";

/// A server, killed when dropped.
pub struct Server {
    child: Child,
    files: tempfile::TempDir,
    upstream: Option<Box<Server>>,
}

impl Server {
    /// Starts a program. `DIR` in its files and arguments is where the files are.
    pub fn spawn(
        namespace: &Namespace,
        program: &str,
        files: &[(&str, String)],
        arguments: &[&str],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        for (name, content) in files {
            fs::write(directory.path().join(name), content.replace("DIR", path)).unwrap();
        }
        let said = fs::File::create(directory.path().join(SAID)).unwrap();
        let child = command(namespace, program)
            .args(
                arguments
                    .iter()
                    .map(|argument| argument.replace("DIR", path)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask test` installs it"));
        Self {
            child,
            files: directory,
            upstream: None,
        }
    }

    /// What it has written to its standard error.
    pub fn said(&self) -> String {
        fs::read_to_string(self.files.path().join(SAID)).unwrap_or_default()
    }

    /// Waits until the protected machine gets an answer.
    pub fn answering(self, world: &World, address: &str) -> Self {
        let server = format!("@{address}");
        assert!(
            eventually(|| world.succeeds("dig", &["+tries=1", "+time=1", &server, READY])),
            "no answer from {address}"
        );
        self
    }

    pub fn unbound(world: &World, data: &Data) -> Self {
        let configuration = format!(
            "max-udp-size: {}\ncache-max-ttl: {}\nmodule-config: iterator\nauth-zone:\nname: .\nzonefile: DIR/zone\nfor-downstream: no\nfor-upstream: yes\n",
            data.datagram, data.ttl
        );
        let files = [
            ("unbound.conf", unbound("10.99.0.1", &configuration)),
            ("zone", data.zone()),
        ];
        let arguments = ["-d", "-c", "DIR/unbound.conf"];
        Self::spawn(&world.topology.internet, "unbound", &files, &arguments)
            .answering(world, "10.99.0.1")
    }

    pub fn named(world: &World, data: &Data) -> Self {
        Self::named_at(world, data, "10.99.0.1")
    }

    fn named_at(world: &World, data: &Data, address: &str) -> Self {
        let configuration = format!(
            "options {{ directory \"DIR\"; listen-on {{ {address}; }}; listen-on-v6 {{ none; }}; pid-file none; session-keyfile none; dnssec-validation no; allow-query {{ any; }}; rrset-order {{ order random; }}; max-udp-size {}; }};
            controls {{}};
            logging {{ category default {{ null; }}; }};
            zone \".\" {{ type primary; file \"zone\"; check-names ignore; }};",
            data.datagram
        );
        let files = [("named.conf", configuration), ("zone", data.zone())];
        let arguments = ["-f", "-n", "1", "-c", "DIR/named.conf"];
        Self::spawn(&world.topology.internet, "named", &files, &arguments).answering(world, address)
    }

    pub fn dnsmasq(world: &World, data: &Data) -> Self {
        let files = [(
            "dnsmasq.conf",
            dnsmasq(
                "10.99.0.1",
                &format!("edns-packet-max={}\n{}", data.datagram, data.lines()),
            ),
        )];
        Self::spawn(&world.topology.internet, "dnsmasq", &files, &DNSMASQ)
            .answering(world, "10.99.0.1")
    }

    pub fn kresd(world: &World, data: &Data) -> Self {
        // named listens on no address that its machine has by AnyIP alone.
        let address = format!("address add {UPSTREAM}/32 dev eth0");
        world.topology.internet.ip(&address).unwrap();
        let upstream = Self::named_at(world, data, UPSTREAM);
        let configuration = format!(
            "net.listen('10.99.0.1', 53, {{ kind = 'dns' }})
            net.bufsize({0}, {0})
            cache.size = 8 * MB
            trust_anchors.remove('.')
            modules = {{ 'policy' }}
            policy.add(policy.all(policy.STUB('{UPSTREAM}')))",
            data.datagram
        );
        let files = [("kresd.conf", configuration)];
        let arguments = ["--noninteractive", "--quiet", "-c", "DIR/kresd.conf", "DIR"];
        let mut server = Self::spawn(&world.topology.internet, "kresd", &files, &arguments);
        server.upstream = Some(Box::new(upstream));
        server.answering(world, "10.99.0.1")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        drop(self.upstream.take());
    }
}

impl Host {
    /// Where its addresses are. Servers know names in lower case.
    fn at(&self) -> String {
        self.aliases.last().unwrap_or(&self.name).to_lowercase()
    }

    /// Owner and target of each alias.
    fn steps(&self) -> impl Iterator<Item = (&String, &String)> {
        [&self.name]
            .into_iter()
            .chain(&self.aliases)
            .zip(&self.aliases)
    }

    fn hints(&self) -> Option<(Ipv4Addr, Ipv6Addr)> {
        match self.addresses[..] {
            [IpAddr::V4(v4), IpAddr::V6(v6)] if self.hinted => Some((v4, v6)),
            _ => None,
        }
    }
}

impl Data {
    /// As a zone file of the root.
    fn zone(&self) -> String {
        let mut zone = format!(
            "$ORIGIN .\n$TTL {}\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A {UPSTREAM}\n{READY} A 192.0.2.1\n",
            self.ttl
        );
        for host in &self.hosts {
            for (owner, target) in host.steps() {
                writeln!(zone, "{owner} CNAME {target}").unwrap();
            }
            for address in &host.addresses {
                let kind = if address.is_ipv4() { "A" } else { "AAAA" };
                writeln!(zone, "{} {kind} {address}", host.at()).unwrap();
            }
            if let Some((v4, v6)) = host.hints() {
                let name = &host.name;
                writeln!(zone, "{name} HTTPS 1 . ipv4hint={v4} ipv6hint={v6}").unwrap();
            }
        }
        zone
    }

    /// As dnsmasq's configuration.
    fn lines(&self) -> String {
        let mut lines = format!("local-ttl={}\nhost-record={READY},192.0.2.1\n", self.ttl);
        for host in &self.hosts {
            for (owner, target) in host.steps() {
                writeln!(lines, "cname={owner},{target}").unwrap();
            }
            for address in &host.addresses {
                writeln!(lines, "host-record={},{address}", host.at()).unwrap();
            }
            if let Some((v4, v6)) = host.hints() {
                // Priority 1, the name itself, and the parameters 4 and 6.
                writeln!(
                    lines,
                    "dns-rr={},65,00010000040004{:08x}00060010{:032x}",
                    host.name,
                    v4.to_bits(),
                    v6.to_bits()
                )
                .unwrap();
            }
        }
        lines
    }
}

pub const DNSMASQ: [&str; 4] = [
    "--keep-in-foreground",
    "--conf-file=DIR/dnsmasq.conf",
    "--user=root",
    "--pid-file=",
];

pub fn dnsmasq(address: &str, more: &str) -> String {
    format!("no-resolv\nno-hosts\nlisten-address={address}\nbind-interfaces\n{more}")
}

pub fn unbound(address: &str, more: &str) -> String {
    format!(
        "remote-control:\ncontrol-enable: no\nserver:\ninterface: {address}\naccess-control: 0.0.0.0/0 allow\ndo-daemonize: no\nuse-syslog: no\nlogfile: \"\"\nverbosity: 0\nusername: \"\"\nchroot: \"\"\ndirectory: DIR\npidfile: \"\"\ndo-not-query-localhost: no\n{more}"
    )
}

/// A program that `cargo xtask test` has installed, or unpacked beside what is built.
pub fn command(namespace: &Namespace, program: &str) -> Command {
    let servers = servers();
    let unpacked = ["usr/sbin", "usr/bin", "sbin", "lib/systemd"]
        .map(|directory| servers.join(directory).join(program))
        .into_iter()
        .find(|path| path.is_file());
    let Some(path) = unpacked else {
        return namespace.command(program);
    };
    let libraries = servers.join(format!("usr/lib/{ARCH}-linux-gnu"));
    let mut command = namespace.command(path);
    command.env(
        "LD_LIBRARY_PATH",
        format!("{0}:{0}/systemd", libraries.display()),
    );
    command
}

/// Where packages are unpacked.
pub fn servers() -> PathBuf {
    Path::new(BINARY)
        .ancestors()
        .nth(2)
        .unwrap()
        .join("servers")
}
