//! A protected machine and an internet, in namespaces, with the daemon as a child.

use std::{
    collections::BTreeMap,
    env,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket},
    path::Path,
    process::Output,
    thread,
    time::Duration,
};

use netfilter_daemon::lab::{
    daemon::Daemon,
    dns::{Resolver, Zone},
    mounts,
    namespace::Namespace,
    sink::Sinks,
    topology::{RESOLVERS, Topology},
};

pub const BINARY: &str = env!("CARGO_BIN_EXE_netfilter-daemon");

/// Two namespaces, echoes on many ports of every address of the internet.
pub struct World {
    pub topology: Topology,
    _sinks: Sinks,
    _resolver: Option<Resolver>,
}

impl World {
    /// With a resolver that serves `zone`; none: the test starts a server of its own.
    pub fn new(zone: Option<Zone>) -> Self {
        let topology = Topology::build().unwrap_or_else(|error| panic!("tests need root: {error}"));
        let sinks = Sinks::start(&topology.internet, &[22, 80, 443, 8443], &[443, 5831]).unwrap();
        let resolver =
            zone.map(|zone| Resolver::start(&topology.internet, &RESOLVERS, zone).unwrap());
        topology
            .protected
            .run(|| mounts::ask(&RESOLVERS[..1]))
            .unwrap()
            .unwrap();
        Self {
            topology,
            _sinks: sinks,
            _resolver: resolver,
        }
    }

    pub fn protected(&self) -> &Namespace {
        &self.topology.protected
    }

    /// Writes the policy file and starts the daemon on it.
    pub fn enforce(&self, policy: &str) -> Daemon {
        self.write_policy(policy);
        self.start()
    }

    pub fn start(&self) -> Daemon {
        self.start_on(&["eth0"])
    }

    /// On these interfaces; none: on those of the policy, or on all that lead out.
    pub fn start_on(&self, interfaces: &[&str]) -> Daemon {
        self.start_build(BINARY.as_ref(), interfaces)
    }

    /// Of this or another build.
    pub fn start_build(&self, binary: &Path, interfaces: &[&str]) -> Daemon {
        let mut command = self.protected().command(binary);
        command.args(["run", "--policy", mounts::POLICY]);
        for interface in interfaces {
            command.args(["--interface", interface]);
        }
        Daemon::start(command).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn write_policy(&self, policy: &str) {
        let text = format!("resolvers: [10.99.0.1, 'fd99::1']\n{policy}");
        self.protected()
            .run(|| std::fs::write(mounts::POLICY, text))
            .unwrap()
            .unwrap();
    }

    /// Runs a subcommand inside.
    pub fn daemon(&self, arguments: &[&str]) -> Output {
        self.protected()
            .command(BINARY)
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Runs a program inside: whether it succeeded.
    pub fn succeeds(&self, program: &str, arguments: &[&str]) -> bool {
        self.protected()
            .command(program)
            .args(arguments)
            .output()
            .unwrap()
            .status
            .success()
    }

    /// Puts a copy of a program there, by another process: whatever is forked while it is written
    /// by this one keeps it open, and it cannot be executed.
    pub fn install(&self, program: &str, to: &str) {
        assert!(self.succeeds("install", &["-D", "-m", "755", program, to]));
    }

    /// Whether a connection carries bytes there and back.
    pub fn connects(&self, address: &str, port: u16) -> bool {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        self.protected().run(|| echo_tcp(address)).unwrap()
    }

    pub fn udp_echoes(&self, address: &str, port: u16) -> bool {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        self.protected().run(|| echo_udp(address).is_ok()).unwrap()
    }

    /// Looks a name up as programs do, and connects at once to what it gave.
    pub fn connects_by_name(&self, name: &str, port: u16) -> bool {
        self.protected()
            .run(|| resolve(name, port).is_some_and(echo_tcp))
            .unwrap()
    }

    pub fn metric(&self, line_begins: &str) -> u64 {
        let text = self.metrics();
        text.lines()
            .filter(|line| line.starts_with(line_begins))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
            .sum()
    }

    /// What the kernel dropped, by reason: nothing where there was none.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let mut drops = BTreeMap::new();
        for line in self.metrics().lines() {
            let Some(labels) = line.strip_prefix("netfilter_dropped_packets_total{reason=\"")
            else {
                continue;
            };
            let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            if count > 0 {
                let reason = labels.split('"').next().unwrap();
                *drops.entry(reason.to_owned()).or_default() += count;
            }
        }
        drops
    }

    /// That nothing was dropped, or only what is named here.
    pub fn dropped_only(&self, expected: &[(&str, u64)]) {
        let expected = expected
            .iter()
            .map(|(reason, count)| ((*reason).to_owned(), *count));
        assert_eq!(self.drops(), expected.collect(), "{}", self.recently());
    }

    /// What `events` says.
    fn recently(&self) -> String {
        String::from_utf8_lossy(&self.daemon(&["events"]).stdout).into_owned()
    }

    pub fn metrics(&self) -> String {
        self.get("/metrics")
    }

    pub fn get(&self, path: &str) -> String {
        let url = format!("http://127.0.0.1:9477{path}");
        let output = self
            .protected()
            .command("curl")
            .args(["-s", "-i", "--max-time", "5", &url])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

pub fn resolve(name: &str, port: u16) -> Option<SocketAddr> {
    (name, port).to_socket_addrs().ok()?.next()
}

/// How many times as long as usual an emulated machine may take; `cargo xtask vmtest`
/// says so.
pub fn patience() -> u32 {
    env::var("NETFILTER_PATIENCE").map_or(1, |text| text.parse().unwrap())
}

/// A number that the kernel tells of a process, such as `VmRSS` in its `status`, in its unit.
pub fn number(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

pub fn echo_tcp(address: SocketAddr) -> bool {
    let wait = Duration::from_secs(2) * patience();
    let attempt = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, wait)?;
        stream.set_read_timeout(Some(wait))?;
        stream.write_all(b"hello")?;
        let mut back = [0; 5];
        stream.read_exact(&mut back)?;
        Ok(&back == b"hello")
    };
    attempt().unwrap_or(false)
}

fn echo_udp(address: SocketAddr) -> std::io::Result<()> {
    let local: IpAddr = if address.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0u16; 8].into()
    };
    let socket = UdpSocket::bind((local, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(700) * patience()))?;
    socket.send(b"hello")?;
    socket.recv(&mut [0; 16]).map(|_| ())
}

/// Polls until it holds; at most five seconds, of usual ones.
pub fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    (0..100 * patience()).any(|_| {
        holds() || {
            thread::sleep(Duration::from_millis(50));
            false
        }
    })
}

/// What `status` calls a problem, but for processes that no root looks into, where this machine
/// is a container.
pub fn problems(status: &str) -> Vec<&str> {
    let lines = status.lines();
    let problems = lines.filter(|line| line.starts_with("PROBLEM"));
    problems
        .filter(|line| !line.contains("may have been missed"))
        .collect()
}
