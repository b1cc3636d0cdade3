//! Resolvers on the machine itself, which know names from before the filter.

use std::{fs, net::IpAddr};

use netfilter_daemon::lab::mounts;
use nix::mount::{MsFlags, mount};

use super::{
    matrix::{self, Kind},
    servers::{self, Data, Server},
};
use crate::world::World;

const NAMES: usize = 20;

/// The local resolver has every name in its cache, and nothing else has.
fn what_is_in_the_cache_is_learned(address: &str, start: fn(&World) -> Server) {
    let world = World::new(None);
    let clients: Vec<_> = (0..NAMES).map(|client| client.to_string()).collect();
    let hosts = matrix::hosts(&clients, &[Kind::Dual, Kind::Chain]);
    let names: Vec<_> = hosts.iter().map(|host| host.name.clone()).collect();
    let data = Data {
        hosts,
        ttl: 600,
        datagram: 1232,
    };
    let upstream = Server::named(&world, &data);
    let _local = start(&world).answering(&world, address);
    let resolver: IpAddr = address.parse().unwrap();
    world
        .protected()
        .run(|| mounts::ask(&[resolver]))
        .unwrap()
        .unwrap();
    let connected = || {
        let connected = |name: &&String| world.connects_by_name(name, 443);
        names.iter().filter(connected).count()
    };
    assert_eq!(connected(), names.len(), "without the filter");
    drop(upstream);
    assert_eq!(connected(), names.len(), "from the cache");

    let policy = format!("resolvers: [{address}, 10.99.0.1]\n{}", super::POLICY);
    world
        .protected()
        .run(|| fs::write(mounts::POLICY, policy))
        .unwrap()
        .unwrap();
    let _daemon = world.start();
    assert_eq!(connected(), names.len(), "with the filter");
    assert_eq!(matrix::drops(&world), "");
    assert!(!world.connects("192.0.2.66", 443), "what no answer held");
}

#[test]
fn what_a_local_unbound_has_in_its_cache_is_learned() {
    what_is_in_the_cache_is_learned("127.0.0.1", |world| {
        let forward = "forward-zone:\nname: .\nforward-addr: 10.99.0.1\n";
        let files = [("unbound.conf", servers::unbound("127.0.0.1", forward))];
        let arguments = ["-d", "-c", "DIR/unbound.conf"];
        Server::spawn(world.protected(), "unbound", &files, &arguments)
    });
}

#[test]
fn what_a_local_dnsmasq_has_in_its_cache_is_learned() {
    what_is_in_the_cache_is_learned("127.0.0.1", |world| {
        let files = [(
            "dnsmasq.conf",
            servers::dnsmasq("127.0.0.1", "server=10.99.0.1\n"),
        )];
        Server::spawn(world.protected(), "dnsmasq", &files, &servers::DNSMASQ)
    });
}

#[test]
fn what_systemd_resolved_has_in_its_cache_is_learned() {
    what_is_in_the_cache_is_learned("127.0.0.53", resolved);
}

/// Names that it does not know yet are learned where its questions leave the machine.
#[test]
fn no_first_packet_is_dropped_behind_systemd_resolved() {
    let world = World::new(None);
    let hosts = matrix::hosts(&["resolved"; 1].map(str::to_owned), matrix::SHORT);
    let names: Vec<_> = hosts.iter().map(|host| host.name.clone()).collect();
    let data = Data {
        hosts,
        ttl: 1,
        datagram: 1232,
    };
    let _upstream = Server::unbound(&world, &data);
    let _local = resolved(&world).answering(&world, "127.0.0.53");
    world
        .protected()
        .run(|| mounts::ask(&[[127, 0, 0, 53].into()]))
        .unwrap()
        .unwrap();
    let _daemon = world.enforce(super::POLICY);
    for name in names {
        assert!(world.connects_by_name(&name, 443), "{name}");
    }
    assert_eq!(matrix::drops(&world), "");
}

/// In mounts of its own, for it has its files in /run, where it also looks for
/// the machine's D-Bus, and gives up root for a user that the machine may not have.
fn resolved(world: &World) -> Server {
    let prepare = || {
        let tmpfs = MsFlags::empty();
        mount::<_, _, _, str>(Some("lab"), "/run", Some("tmpfs"), tmpfs, None)?;
        fs::create_dir_all("/run/systemd/resolved.conf.d")?;
        fs::write(
            "/run/systemd/resolved.conf.d/lab.conf",
            "[Resolve]\nDNS=10.99.0.1\nFallbackDNS=\nDomains=~.\nDNSSEC=no\nDNSOverTLS=no\nLLMNR=no\nMulticastDNS=no\n",
        )?;
        fs::write("/run/passwd", "systemd-resolve:x:0:0::/:/bin/false\n")?;
        let bind = MsFlags::MS_BIND;
        Ok(mount::<_, _, str, str>(
            Some("/run/passwd"),
            "/etc/passwd",
            None,
            bind,
            None,
        )?)
    };
    let namespace = world.protected().clone().with_private_mounts(prepare);
    Server::spawn(&namespace.unwrap(), "systemd-resolved", &[], &[])
}
