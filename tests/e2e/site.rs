//! Who sends, who filters and an internet, with one filter of each site.

use std::{error::Error, fs, net::Ipv4Addr};

use netfilter_daemon::lab::{
    mounts,
    namespace::{Namespace, veth},
    topology::{INTERFACE, RESOLVERS, Topology, WORKLOAD},
};

use crate::{
    load::Ends,
    prefixes::{Prefixes, policy},
};

/// Whose packets are filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What the machine itself sends, where it leaves.
    Host,
    /// What a container behind it sends, where it comes in: the machine is a router.
    Workload,
}

impl Side {
    pub const ALL: [Self; 2] = [Self::Host, Self::Workload];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Workload => "workload",
        }
    }

    /// The interface at which a program hangs.
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Host => INTERFACE,
            Self::Workload => WORKLOAD,
        }
    }
}

pub struct Site {
    pub side: Side,
    pub topology: Topology,
    pub inside: Vec<Ipv4Addr>,
    pub outside: Vec<Ipv4Addr>,
}

/// The list of prefixes, where its mounts hide it from everybody else.
const LIST: &str = "/run/netfilter-daemon/bench.json";

impl Site {
    pub fn new(side: Side, prefixes: &Prefixes) -> Result<Self, Box<dyn Error>> {
        let mut topology = Topology::build()?;
        if side == Side::Workload {
            topology.workload = Some(behind(&topology)?);
        }
        let host = &topology.protected;
        let write = || {
            mounts::ask(&RESOLVERS[..1])?;
            fs::write(LIST, prefixes.list())?;
            fs::write(mounts::POLICY, policy(LIST))
        };
        host.run(write)??;
        // Or each connection would be slower than the one before, for a minute.
        let sender = topology.inside();
        sender.sysctl("net/ipv4/tcp_max_tw_buckets", "256")?;
        let site = Self {
            side,
            inside: prefixes.inside(),
            outside: prefixes.outside(),
            topology,
        };
        site.introduce()?;
        Ok(site)
    }

    pub fn ends(&self) -> Ends<'_> {
        Ends {
            near: self.topology.inside(),
            far: &self.topology.internet,
            destinations: &self.inside,
        }
    }

    /// To where nothing leads.
    pub fn denied(&self) -> Ends<'_> {
        Ends {
            destinations: &self.outside,
            ..self.ends()
        }
    }

    /// Makes the sender know its gateway for good: a program that drops everything also drops
    /// what asks for it.
    fn introduce(&self) -> Result<(), Box<dyn Error>> {
        let (gateway, place) = match self.side {
            Side::Host => ("10.99.0.1", &self.topology.internet),
            Side::Workload => (ROUTER, &self.topology.protected),
        };
        let interface = match self.side {
            Side::Host => INTERFACE,
            Side::Workload => WORKLOAD,
        };
        let shown = place
            .command("ip")
            .args(["-br", "link", "show", interface])
            .output()?;
        let shown = String::from_utf8(shown.stdout)?;
        let hardware = shown.split_whitespace().nth(2).ok_or("no such interface")?;
        let neighbour = format!("neigh replace {gateway} lladdr {hardware} dev {INTERFACE}");
        Ok(self.topology.inside().ip(&neighbour)?)
    }
}

const ROUTER: &str = "10.88.0.1";
const CONTAINER: &str = "10.88.0.2";

/// A container, for which the protected machine is a router.
fn behind(topology: &Topology) -> Result<Namespace, Box<dyn Error>> {
    let workload = Namespace::new()?;
    for which in ["all", "default"] {
        workload.sysctl(&format!("net/ipv4/conf/{which}/rp_filter"), "0")?;
    }
    let host = &topology.protected;
    veth(host, WORKLOAD, &workload, INTERFACE)?;
    host.ip(&format!("address add {ROUTER}/24 dev {WORKLOAD}"))?;
    workload.ip(&format!("address add {CONTAINER}/24 dev {INTERFACE}"))?;
    workload.ip(&format!("route add default via {ROUTER}"))?;
    host.sysctl("net/ipv4/ip_forward", "1")?;
    let back = format!("route add 10.88.0.0/24 via 10.99.0.2 dev {INTERFACE} table local");
    topology.internet.ip(&back)?;
    Ok(workload)
}
