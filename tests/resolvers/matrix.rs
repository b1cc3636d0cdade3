//! Every client asks every server for names of every kind, and connects at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    clients::{self, Client, IN_PARALLEL, OVER_TCP, PROGRAMS},
    servers::{Data, Host, Server, Start},
};
use crate::world::World;

/// What a name has.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Single,
    Dual,
    /// Three aliases.
    Chain,
    /// Addresses that come in another order each time.
    Rotating,
    /// Asked for in letters of both cases.
    Mixed,
    Hinted,
    /// Too many addresses for a datagram.
    Hundred,
}

pub const SHORT: &[Kind] = &[
    Kind::Single,
    Kind::Dual,
    Kind::Chain,
    Kind::Rotating,
    Kind::Mixed,
    Kind::Hinted,
];

impl Kind {
    fn host(self, client: &str, number: u32) -> Host {
        let (label, v4, v6) = match self {
            Self::Single => ("single", 1, false),
            Self::Dual => ("dual", 1, true),
            Self::Chain => ("chain", 1, true),
            Self::Rotating => ("rotating", 8, false),
            Self::Mixed => ("MiXeD", 1, true),
            Self::Hinted => ("hinted", 1, true),
            Self::Hundred => ("hundred", 100, false),
        };
        let block = number * 128;
        let v4 = (0..v4).map(|last| Ipv4Addr::from_bits(0xc612_0001 + block + last).into());
        let mut addresses: Vec<IpAddr> = v4.collect();
        if v6 {
            addresses.push(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, number as u16).into());
        }
        let alias = |link| format!("_{link}.{client}.edge.example.net");
        Host {
            name: format!("{label}.{client}.data.mcr.microsoft.com"),
            aliases: match self {
                Self::Chain => (1..=3).map(alias).collect(),
                _ => Vec::new(),
            },
            addresses,
            hinted: self == Self::Hinted,
        }
    }
}

/// A name of each kind for each client, each with addresses of its own.
pub fn hosts(clients: &[String], kinds: &[Kind]) -> Vec<Host> {
    let pairs = clients
        .iter()
        .flat_map(|client| kinds.iter().map(move |kind| (client, kind)));
    pairs
        .zip(0..)
        .map(|((client, kind), number)| kind.host(client, number))
        .collect()
}

/// The lines of what was dropped; empty if nothing was. An answer that finds its
/// client gone makes the machine send an ICMP error, which is nobody's first packet.
pub fn drops(world: &World) -> String {
    let metrics = world.metrics();
    let dropped = |line: &&str| {
        line.starts_with("netfilter_dropped_packets_total{")
            && !line.contains("protocol=\"icmp\"")
            && !line.ends_with(" 0")
    };
    metrics
        .lines()
        .filter(dropped)
        .collect::<Vec<_>>()
        .join("\n")
}

/// What an answer has to fit into, and how long it holds.
struct Limits {
    mtu: u16,
    datagram: u16,
    ttl: u32,
}

const ORDINARY: Limits = Limits {
    mtu: 1500,
    datagram: 1232,
    ttl: 1,
};
/// A hundred connections can take longer than a second.
const JUMBO: Limits = Limits {
    mtu: 9000,
    datagram: 4096,
    ttl: 60,
};

const FRAGMENTS: Limits = Limits { mtu: 1500, ..JUMBO };

/// Names that could not be used without the filter, those with it, and what it dropped.
fn unreached(
    start: Start,
    clients: &[(&str, Client)],
    kinds: &[Kind],
    limits: &Limits,
) -> [Vec<String>; 3] {
    let world = World::new(None);
    for end in [world.protected(), &world.topology.internet] {
        end.ip(&format!("link set eth0 mtu {}", limits.mtu))
            .unwrap();
    }
    let labels = |run: &'static str| {
        clients
            .iter()
            .map(move |(client, _)| format!("{client}.{run}"))
    };
    let labels: Vec<_> = labels("open").chain(labels("enforced")).collect();
    let data = Data {
        hosts: hosts(&labels, kinds),
        ttl: limits.ttl,
        datagram: limits.datagram,
    };
    let _server = start(&world, &data);
    let fail = |hosts: &[Host]| -> Vec<_> {
        let each = hosts.chunks(kinds.len()).zip(clients);
        let fails = each.flat_map(|(hosts, (_, client))| {
            hosts.iter().filter(|host| !client(&world, &host.name))
        });
        fails.map(|host| host.name.clone()).collect()
    };
    let (open, enforced) = data.hosts.split_at(data.hosts.len() / 2);
    let open = fail(open);
    let _daemon = world.enforce(super::POLICY);
    let enforced = fail(enforced);
    let drops = drops(&world).lines().map(str::to_owned).collect();
    [open, enforced, drops]
}

const NOTHING: [Vec<String>; 3] = [const { Vec::new() }; 3];

/// One module per server, so that a failure names it.
macro_rules! with {
    ($($server:ident)*) => { $(
        mod $server {
            use super::*;

            #[test]
            fn no_first_packet_is_dropped() {
                let all = [PROGRAMS, IN_PARALLEL].concat();
                assert_eq!(unreached(Server::$server, &all, SHORT, &ORDINARY), NOTHING);
            }

            /// Some ask so; the others when the server says that a datagram is too short.
            #[test]
            fn no_first_packet_is_dropped_over_tcp() {
                let all = [PROGRAMS, OVER_TCP].concat();
                let asked = unreached(Server::$server, OVER_TCP, &[Kind::Dual], &ORDINARY);
                let truncated = unreached(Server::$server, &all, &[Kind::Hundred], &ORDINARY);
                assert_eq!([asked, truncated], [NOTHING; 2]);
            }

            /// Server and client would have it in fragments. Without the filter they do.
            #[test]
            fn no_answer_comes_in_fragments() {
                let asks: Vec<_> = PROGRAMS.iter().filter(|(name, _)| *name == "dig-4096").copied().collect();
                assert_eq!(unreached(Server::$server, &asks, &[Kind::Hundred], &FRAGMENTS), NOTHING);
            }

            #[test]
            fn a_datagram_with_a_hundred_addresses_is_learned() {
                let large: &[(&str, Client)] = &[("dig-ignore", |world, name| {
                    let addresses = clients::answers(world, name, &["+bufsize=4096", "+ignore"]);
                    addresses.len() == 100
                        && addresses.iter().all(|address| world.connects(address, 443))
                })];
                assert_eq!(unreached(Server::$server, large, &[Kind::Hundred], &JUMBO), NOTHING);
            }
        }
    )* };
}

with!(unbound named dnsmasq kresd);

/// A browser may connect to them before the addresses have come.
#[test]
fn the_hints_of_an_https_record_are_learned() {
    let hints: &[(&str, Client)] = &[("dig-https", |world, name| {
        let addresses = clients::answers(world, name, &["-t", "HTTPS"]);
        addresses.len() == 2 && addresses.iter().all(|address| world.connects(address, 443))
    })];
    assert_eq!(
        unreached(Server::named, hints, &[Kind::Hinted], &ORDINARY),
        NOTHING
    );
}
