//! iodine and dns2tcp: they carry bytes where there is no filter, and none where there is.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::{namespace::Namespace, tap::Tap};
use nix::{
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, makedev, mknod},
};

use super::servers::{self, Server};
use crate::world::{World, echo_tcp, eventually};

const UDP: u8 = 17;
const TUN: &str = "/dev/net/tun";
const PASSWORD: &str = "secret";
/// Where nothing is in its way, a tunnel needs half a second.
const PATIENCE: Duration = Duration::from_secs(8);

/// A tunnel: its number, which tells its names and addresses apart, what its
/// client is started with, and the server that the client asks.
struct Tunnel {
    number: u8,
    program: Program,
    through: Through,
}

enum Program {
    Iodine(&'static [&'static str]),
    /// The type of its questions.
    Dns2tcp(&'static str),
}

#[derive(Clone, Copy, PartialEq)]
enum Through {
    Resolver,
    /// The tunnel's own server, which iodine then sends packets to that are no DNS.
    Nobody,
}

const TUNNELS: &[Tunnel] = &[
    tunnel(1, Program::Iodine(&["-r"]), Through::Resolver),
    tunnel(2, Program::Iodine(&["-r", "-T", "TXT"]), Through::Resolver),
    tunnel(
        3,
        Program::Iodine(&["-r", "-T", "CNAME"]),
        Through::Resolver,
    ),
    tunnel(4, Program::Iodine(&[]), Through::Nobody),
    tunnel(5, Program::Dns2tcp("TXT"), Through::Resolver),
    tunnel(6, Program::Dns2tcp("KEY"), Through::Resolver),
    tunnel(7, Program::Dns2tcp("TXT"), Through::Nobody),
];

const fn tunnel(number: u8, program: Program, through: Through) -> Tunnel {
    Tunnel {
        number,
        program,
        through,
    }
}

impl Tunnel {
    fn zone(&self) -> String {
        format!("t{}.evil.test", self.number)
    }

    fn far_end(&self) -> [u8; 4] {
        [192, 0, 2, 50 + self.number]
    }

    fn far_address(&self) -> String {
        SocketAddr::from((self.far_end(), 53)).ip().to_string()
    }

    fn serve(&self, world: &World) -> Server {
        let internet = &world.topology.internet;
        let (number, zone, address) = (self.number, self.zone(), self.far_address());
        match self.program {
            Program::Iodine(_) => {
                let (device, network) = (format!("far{number}"), format!("10.53.{number}"));
                let arguments = ["-f", "-c", "-P", PASSWORD, "-l", &address, "-d", &device];
                let inside = format!("{network}.1/27");
                let arguments = [&arguments[..], &[&inside, &zone]].concat();
                let server = Server::spawn(&with_tun(internet), "iodined", &[], &arguments);
                // All addresses are this machine's own, but those behind the tunnel.
                let route = format!("route add {network}.0/27 dev {device} table local");
                assert!(
                    eventually(|| internet.ip(&route).is_ok()),
                    "unavailable: iodined makes no device"
                );
                server
            }
            Program::Dns2tcp(_) => {
                let configuration = format!(
                    "listen = {address}\nport = 53\nuser = root\nchroot = DIR\ndomain = {zone}\nkey = {PASSWORD}\nresources = echo:127.0.0.1:443\n"
                );
                let files = [("dns2tcpd.conf", configuration)];
                Server::spawn(
                    internet,
                    "dns2tcpd",
                    &files,
                    &["-F", "-f", "DIR/dns2tcpd.conf"],
                )
            }
        }
    }

    fn dig_in(&self, world: &World) -> Server {
        let (number, zone, far) = (self.number, self.zone(), self.far_address());
        let asked = match self.through {
            Through::Resolver => "10.99.0.1",
            Through::Nobody => &far,
        };
        let (program, arguments) = match self.program {
            Program::Iodine(options) => {
                let device = format!("near{number}");
                let arguments = ["-f", "-P", PASSWORD, "-d", &device];
                let arguments = [&arguments[..], options, &[asked, &zone]].concat();
                return Server::spawn(&with_tun(world.protected()), "iodine", &[], &arguments);
            }
            Program::Dns2tcp(kind) => ("dns2tcpc", ["-T", kind]),
        };
        let port = self.near_port().to_string();
        let common = ["-z", &zone, "-k", PASSWORD, "-r", "echo", "-l", &port];
        let arguments = [&common[..], &arguments, &[asked]].concat();
        Server::spawn(world.protected(), program, &[], &arguments)
    }

    fn near_port(&self) -> u16 {
        2200 + u16::from(self.number)
    }

    /// Whether bytes go there and back; tried until it has had the time to say so.
    fn carries(&self, world: &World) -> bool {
        let (entrance, iodine) = match self.program {
            Program::Iodine(_) => (SocketAddr::from(([10, 53, self.number, 1], 443)), true),
            Program::Dns2tcp(_) => (SocketAddr::from(([127, 0, 0, 1], self.near_port())), false),
        };
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            // Without the tunnel, iodine's address would be one like any other.
            if world.protected().run(|| echo_tcp(entrance)).unwrap()
                && (!iodine || self.carried(world) > 0)
            {
                return true;
            }
            thread::sleep(Duration::from_millis(100));
        }
        false
    }

    /// How many bytes came out of iodine's far end.
    fn carried(&self, world: &World) -> u64 {
        let device = format!("far{}:", self.number);
        let devices = || fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let devices = world.topology.internet.run(devices).unwrap();
        devices
            .lines()
            .filter_map(|line| line.trim().strip_prefix(&device))
            .filter_map(|counters| counters.split_whitespace().next()?.parse::<u64>().ok())
            .sum()
    }
}

/// Where the machine's /dev has no node for what its kernel may have.
fn with_tun(namespace: &Namespace) -> Namespace {
    let prepare = || {
        if Path::new(TUN).exists() {
            return Ok(());
        }
        let plain = MsFlags::empty();
        mount::<_, _, _, str>(Some("lab"), "/dev", Some("tmpfs"), plain, None)?;
        fs::create_dir("/dev/net")?;
        Ok(mknod(TUN, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(10, 200))?)
    };
    namespace.clone().with_private_mounts(prepare).unwrap()
}

/// What became of each tunnel: whether it carried bytes, and whether its far end was asked anything.
fn dig(enforced: bool, resolver: fn(&World) -> Server) -> Vec<(bool, bool)> {
    let world = World::new(None);
    let _far_ends: Vec<_> = TUNNELS.iter().map(|tunnel| tunnel.serve(&world)).collect();
    let _resolver = resolver(&world).answering(&world, "10.99.0.1");
    let _daemon = enforced.then(|| world.enforce(super::POLICY));
    let tap = Tap::open(&world.topology.internet).unwrap();
    let near_ends: Vec<_> = TUNNELS.iter().map(|tunnel| tunnel.dig_in(&world)).collect();
    let carried: Vec<_> = thread::scope(|scope| {
        let attempts: Vec<_> = TUNNELS
            .iter()
            .map(|tunnel| scope.spawn(|| tunnel.carries(&world)))
            .collect();
        let carried = attempts.into_iter().map(|attempt| attempt.join().unwrap());
        carried.collect()
    });
    let seen = tap.look().unwrap();
    let asked = |tunnel: &Tunnel| {
        seen.packet(tunnel.far_end().into(), UDP, Some(53)) || tunnel.carried(&world) > 0
    };
    for (near_end, carried) in near_ends.iter().zip(&carried) {
        if !enforced && !carried {
            eprintln!("carries nothing: {}", near_end.said());
        }
    }
    carried.into_iter().zip(TUNNELS.iter().map(asked)).collect()
}

fn no_tunnel_carries_a_byte(resolver: fn(&World) -> Server) {
    let open = dig(false, resolver);
    assert_eq!(
        open,
        [(true, true); TUNNELS.len()],
        "unavailable: a tunnel that does not work without the filter shows nothing"
    );
    assert_eq!(dig(true, resolver), [(false, false); TUNNELS.len()]);
}

#[test]
fn no_tunnel_carries_a_byte_through_unbound() {
    no_tunnel_carries_a_byte(|world| {
        let mut zones = String::from(
            "module-config: iterator\nlocal-data: \"ready.data.mcr.microsoft.com A 192.0.2.1\"\nlocal-zone: test. nodefault\n",
        );
        for tunnel in TUNNELS {
            let (zone, address) = (tunnel.zone(), tunnel.far_address());
            zones += &format!("forward-zone:\nname: {zone}\nforward-addr: {address}\n");
        }
        let files = [("unbound.conf", servers::unbound("10.99.0.1", &zones))];
        let arguments = ["-d", "-c", "DIR/unbound.conf"];
        Server::spawn(&world.topology.internet, "unbound", &files, &arguments)
    });
}

#[test]
fn no_tunnel_carries_a_byte_through_dnsmasq() {
    no_tunnel_carries_a_byte(|world| {
        let mut zones = String::from("host-record=ready.data.mcr.microsoft.com,192.0.2.1\n");
        for tunnel in TUNNELS {
            let (zone, address) = (tunnel.zone(), tunnel.far_address());
            zones += &format!("server=/{zone}/{address}\n");
        }
        let files = [("dnsmasq.conf", servers::dnsmasq("10.99.0.1", &zones))];
        Server::spawn(
            &world.topology.internet,
            "dnsmasq",
            &files,
            &servers::DNSMASQ,
        )
    });
}
