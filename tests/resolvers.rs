//! Real DNS servers and clients, and names that live a second.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::Duration,
};

use crate::world::{World, echo_tcp, eventually, resolve};

mod clients;
mod gate;
mod local;
mod matrix;
pub mod servers;
mod stream;
mod tunnels;

use servers::{Data, Host, Server};

/// The records' own second, hardly lengthened: the default of 90 would hide much.
const POLICY: &str = "presets: [azure-ml]\ndns: { minimum_ttl: 1, grace: 1 }";
const NAMES: usize = 10_000;

/// Names, each with addresses of its own and a TTL of one second.
fn fresh(names: usize, addresses: impl Fn(usize) -> Vec<IpAddr>) -> Data {
    let host = |name| Host {
        name: format!("n{name}.data.mcr.microsoft.com"),
        addresses: addresses(name),
        ..Host::default()
    };
    Data {
        hosts: (0..names).map(host).collect(),
        ttl: 1,
        datagram: 1232,
    }
}

fn v4(name: usize) -> IpAddr {
    Ipv4Addr::from_bits(0xc612_0000 + name as u32).into()
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
    // The tables of flows take their memory as they fill.
    assert_eq!(world.metric("netfilter_flows_lost_total"), 0);
    (connected, world.metric(drops) - before)
}

#[test]
fn no_first_packet_is_dropped_after_ten_thousand_fresh_names_from_unbound() {
    let world = World::new(None);
    let _server = Server::unbound(&world, &fresh(NAMES, |name| vec![v4(name)]));
    let (connected, dropped) = every_first_packet_passes(&world, NAMES);
    assert_eq!((connected, dropped), (NAMES, 0));
}

#[test]
fn no_first_packet_is_dropped_with_dnsmasq() {
    let world = World::new(None);
    let v6 = |name| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, name as u16).into();
    let _server = Server::dnsmasq(&world, &fresh(500, |name| vec![v4(name), v6(name)]));
    let (connected, dropped) = every_first_packet_passes(&world, 500);
    assert_eq!((connected, dropped), (500, 0));
}

/// The daemon asks for exact names by itself, so they are usable though no
/// application has asked.
#[test]
fn exact_names_are_learned_without_an_application() {
    let world = World::new(None);
    let host = Host {
        name: "mcr.microsoft.com".to_owned(),
        addresses: vec![[192, 0, 2, 10].into()],
        ..Host::default()
    };
    let data = Data {
        hosts: vec![host],
        ..fresh(0, |_| Vec::new())
    };
    let _server = Server::dnsmasq(&world, &data);
    let _daemon = world.enforce(POLICY);
    thread::sleep(Duration::from_millis(100));
    assert!(eventually(|| world.connects("192.0.2.10", 443)));
    assert!(!world.connects("192.0.2.11", 443));
}
