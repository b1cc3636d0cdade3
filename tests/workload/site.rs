//! A host that forwards for a workload behind a cable, and an internet behind its uplink.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use netfilter_daemon::lab::{
    daemon::Daemon,
    dns::Zone,
    mounts,
    namespace::{Namespace, veth},
    topology::RESOLVERS,
};

use crate::world::{World, echo_tcp, resolve};

pub const ALLOWED: &str = "192.0.2.1";
pub const ALLOWED_IPV6: &str = "2001:db8:2::1";
pub const DENIED: &str = "198.51.100.1";
pub const DENIED_IPV6: &str = "2001:db8:666::1";
pub const NAME: &str = "allowed.example";
pub const NAME_IPV6: &str = "six.example";
/// Lent to [`NAME`] and to nobody else.
pub const NAMED: &str = "203.0.113.7";
pub const DENIED_NAME: &str = "evil.example";

/// What every workload here may reach. `uplinks`: the other entries of `interfaces`.
pub fn policy(uplinks: &str) -> String {
    format!(
        "interfaces: [{uplinks}{{ name: 'w*', side: workload }}]
outbound_rules:
  - {{ name: v4, type: ip, destination: {{ cidr: 192.0.2.0/30, protocol: '*', port_ranges: '443' }} }}
  - {{ name: v6, type: ip, destination: {{ cidr: 2001:db8:2::/64, protocol: TCP, port_ranges: '443' }} }}
  - {{ name: name, type: fqdn, destination: {{ fqdn: {NAME}, protocol: TCP, port_ranges: '443' }} }}
  - {{ name: many, type: fqdn, destination: {{ fqdn: '*.many.example', protocol: TCP, port_ranges: '443' }} }}
  - {{ name: six, type: fqdn, destination: {{ fqdn: {NAME_IPV6}, protocol: TCP, port_ranges: '443' }} }}
"
    )
}

pub fn zone() -> Zone {
    let mut zone = Zone::new();
    zone.address(NAME, 1, NAMED.parse().unwrap()).unwrap();
    zone.address(NAME_IPV6, 1, "2001:db8:7::7".parse().unwrap())
        .unwrap();
    zone.address(DENIED_NAME, 60, DENIED.parse().unwrap())
        .unwrap();
    for number in 1..200u8 {
        let name = format!("n{number}.many.example");
        let address: IpAddr = [203, 0, 114, number].into();
        zone.address(&name, 1, address).unwrap();
    }
    zone
}

pub struct Site {
    pub world: World,
    pub workload: Namespace,
}

impl Site {
    /// Its workload is routed, or behind the host's address.
    pub fn new(masquerade: bool) -> Self {
        let world = World::new(Some(zone()));
        let workload = computer(&RESOLVERS[..1]);
        let site = Self { world, workload };
        let (host, internet) = (site.world.protected(), &site.world.topology.internet);
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            host.sysctl(key, "1").unwrap();
        }
        site.plug("w0", &site.workload, 88);
        if masquerade {
            let rules = "add table inet nat; \
                         add chain inet nat after { type nat hook postrouting priority 100; }; \
                         add rule inet nat after oifname eth0 masquerade";
            assert!(site.world.succeeds("nft", &[rules]));
        } else {
            for (net, via) in [("10.88.0.0/16", "10.99.0.2"), ("fd88::/32", "fd99::2")] {
                let route = format!("route add {net} via {via} dev eth0 table local");
                internet.ip(&route).unwrap();
            }
        }
        site
    }

    /// Puts a cable between the host and a workload, which has it as its default route.
    pub fn plug(&self, name: &str, workload: &Namespace, number: u8) {
        let host = self.world.protected();
        veth(host, name, workload, "eth0").unwrap();
        for (end, interface, last) in [(host, name, 1), (workload, "eth0", 2)] {
            end.ip(&format!(
                "address add 10.88.{number}.{last}/24 dev {interface}"
            ))
            .unwrap();
            end.ip(&format!(
                "address add fd88:0:{number}::{last}/64 dev {interface} nodad"
            ))
            .unwrap();
        }
        for gateway in [format!("10.88.{number}.1"), format!("fd88:0:{number}::1")] {
            workload
                .ip(&format!("route add default via {gateway}"))
                .unwrap();
        }
    }

    pub fn enforce(&self, policy: &str) -> Daemon {
        self.world.write_policy(policy);
        self.world.start_on(&[])
    }

    /// Whether the workload's connection carries bytes there and back.
    pub fn connects(&self, address: &str, port: u16) -> bool {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        self.workload.run(|| echo_tcp(address)).unwrap()
    }

    /// As programs do, by the name and at once.
    pub fn connects_by_name(&self, name: &str, port: u16) -> bool {
        self.workload
            .run(|| resolve(name, port).is_some_and(echo_tcp))
            .unwrap()
    }

    /// How a connection of the workload fails, and after what time.
    pub fn refusal(&self, address: &str, port: u16) -> (io::ErrorKind, Duration) {
        refusal(&self.workload, address, port)
    }

    /// Sends a datagram to port 443, of which the answer begins as it does. What is told
    /// instead.
    pub fn sends(&self, address: &str, data: &[u8]) -> Option<io::ErrorKind> {
        let address = SocketAddr::new(address.parse().unwrap(), 443);
        let exchange = || {
            let local: IpAddr = match address {
                SocketAddr::V4(_) => [0; 4].into(),
                SocketAddr::V6(_) => [0; 16].into(),
            };
            let socket = UdpSocket::bind((local, 0))?;
            socket.connect(address)?;
            socket.set_read_timeout(Some(Duration::from_secs(3)))?;
            socket.send(data)?;
            let mut back = [0; 16];
            let length = socket.recv(&mut back)?;
            assert!(data.starts_with(&back[..length.min(data.len())]));
            io::Result::Ok(())
        };
        self.workload
            .run(exchange)
            .unwrap()
            .err()
            .map(|error| error.kind())
    }

    /// What a program says that runs in the workload.
    pub fn says(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.workload.command(program).args(arguments).output();
        let output = output.unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }

    pub fn status(&self) -> String {
        String::from_utf8(self.world.daemon(&["status"]).stdout).unwrap()
    }
}

pub fn refusal(workload: &Namespace, address: &str, port: u16) -> (io::ErrorKind, Duration) {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let start = Instant::now();
    let attempt = || TcpStream::connect_timeout(&address, Duration::from_secs(3));
    let error = workload.run(attempt).unwrap().unwrap_err();
    (error.kind(), start.elapsed())
}

/// A container: a namespace that asks these resolvers.
pub fn computer(resolvers: &[IpAddr]) -> Namespace {
    let namespace = Namespace::new().unwrap();
    let namespace = namespace.with_private_mounts(mounts::prepare).unwrap();
    for which in ["all", "default"] {
        let key = format!("net/ipv4/conf/{which}/rp_filter");
        namespace.sysctl(&key, "0").unwrap();
    }
    namespace.run(|| mounts::ask(resolvers)).unwrap().unwrap();
    namespace
}
