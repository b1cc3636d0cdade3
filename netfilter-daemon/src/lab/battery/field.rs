//! What a channel has to go by: where it is, and which addresses the policy
//! allows and denies from there.

use std::{io, net::IpAddr};

use nix::{ifaddrs::getifaddrs, net::if_::if_nametoindex};

use crate::{
    lab::{
        namespace::Namespace,
        pick,
        plan::Plan,
        probe::{Family, Knock, Target},
    },
    policy::{Action, Destination, Policy},
};

use super::{frame::Packet, wire::Wire};

/// The zone whose names nobody approved. Its every name leads to the sink.
pub const ZONE: &str = "exfiltration.example";

/// The ports at which the sink accepts connections, at every address.
pub const TCP_PORTS: [u16; 8] = [22, 53, 80, 443, 853, 4444, 8443, 9999];

/// How many addresses of each family wait to be allowed by a trick.
pub const OTHERS: usize = 3;

/// Below a wildcard that the policy allows, these names lead to the address that it
/// denies, and to the first of the others.
pub const LEADS: [&str; 2] = ["forbidden", "elsewhere"];

pub struct Field {
    /// The interface that leads to the sink, and its number.
    pub interface: String,
    pub index: u32,
    pub hardware: [u8; 6],
    /// Whom frames are addressed to.
    pub gateway: [u8; 6],
    pub ipv4: Option<Side>,
    pub ipv6: Option<Side>,
    /// Names that the policy allows: their addresses are in none of its ranges.
    pub names: Vec<Name>,
    /// Sends frames from the sink's end of the cable, where that is here.
    pub outside: Option<Wire>,
    /// Whether this is a workload, and the filter on the host that forwards for it.
    pub is_workload: bool,
}

/// Why a channel means nothing to a workload.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HostOnly(pub &'static str);

/// The addresses of one family.
#[derive(Debug, Clone)]
pub struct Side {
    pub local: IpAddr,
    /// No rule speaks of it; the sink has it.
    pub denied: IpAddr,
    /// As `denied`. A channel that has one of them allowed uses no other's.
    pub others: [IpAddr; OTHERS],
    /// A rule denies it; the sink has it.
    pub forbidden: Option<IpAddr>,
    /// What a rule on addresses allows at an address of the sink.
    pub approved: Option<(IpAddr, Knock)>,
    pub resolver: Option<IpAddr>,
}

/// A name that the policy allows to ask for.
#[derive(Debug, Clone)]
pub struct Name {
    pub name: String,
    pub wildcard: bool,
    pub knock: Knock,
}

impl Field {
    /// Looks at an interface of a namespace. The gateway and whom the policy speaks of
    /// are not known by that.
    pub fn of(inside: &Namespace, interface: &str) -> io::Result<Self> {
        let look = || {
            Ok(Self {
                interface: interface.to_owned(),
                index: if_nametoindex(interface)?,
                hardware: hardware(interface)?,
                gateway: [0; 6],
                ipv4: None,
                ipv6: None,
                names: Vec::new(),
                outside: None,
                is_workload: false,
            })
        };
        inside.run(look).map_err(io::Error::other)?
    }

    /// That of a family, or why there is none.
    pub fn side(&self, family: Family) -> io::Result<&Side> {
        match family {
            Family::V4 => self.ipv4.as_ref().ok_or_else(|| missing("no IPv4 here")),
            Family::V6 => self.ipv6.as_ref().ok_or_else(|| missing("no IPv6 here")),
        }
    }

    /// The first wildcard that the policy allows.
    pub fn wildcard(&self) -> io::Result<&Name> {
        let mut wildcards = self.names.iter().filter(|name| name.wildcard);
        wildcards
            .next()
            .ok_or_else(|| missing("the policy allows no wildcard name"))
    }

    /// The longest name that the policy allows by itself.
    pub fn exact(&self) -> io::Result<&Name> {
        let exact = self.names.iter().filter(|name| !name.wildcard);
        exact
            .max_by_key(|name| name.name.len())
            .ok_or_else(|| missing("the policy allows no name"))
    }

    /// The sink's end of the cable.
    pub fn outside(&self) -> io::Result<&Wire> {
        self.outside
            .as_ref()
            .ok_or_else(|| missing("the sink is not here and sends nothing"))
    }

    /// Of what only the machine itself can do to its own filter: not tried by a workload.
    pub fn host_only(&self, why: &'static str) -> io::Result<()> {
        match self.is_workload {
            true => Err(io::Error::other(HostOnly(why))),
            false => Ok(()),
        }
    }

    pub fn wire(&self) -> io::Result<Wire> {
        Wire::open(self.index)
    }

    /// An Ethernet frame to the gateway.
    pub fn frame(&self, packet: &Packet) -> Vec<u8> {
        self.ethernet(packet.ethertype(), &packet.bytes())
    }

    /// An Ethernet frame to the gateway, of any type.
    pub fn ethernet(&self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [
            &self.gateway[..],
            &self.hardware,
            &ethertype.to_be_bytes(),
            payload,
        ]
        .concat()
    }
}

impl Side {
    /// What a policy says of the addresses of a family, as far as the lab's internet
    /// can stand for them.
    pub(in crate::lab) fn of(policy: &Policy, plan: &Plan, local: IpAddr) -> Option<Self> {
        let family = Family::of(local);
        let approved = plan.probes.iter().find_map(|probe| match probe.target {
            Target::Address(address) if probe.allowed && Family::of(address) == family => {
                matches!(probe.knock, Knock::Tcp(_)).then_some((address, probe.knock))
            }
            _ => None,
        });
        let denying = policy
            .rules
            .iter()
            .filter(|rule| rule.action == Action::Deny);
        let forbidden = denying.filter_map(|rule| match &rule.destination {
            Destination::Prefixes(prefixes) => pick::ends(prefixes, family).last().copied(),
            _ => None,
        });
        let mut resolvers = policy.resolvers.iter().copied();
        Some(Self {
            local,
            denied: plan.strangers?[family as usize],
            others: plan.others?.map(|pair| pair[family as usize]),
            forbidden: forbidden.map(|(_, address)| address).next(),
            approved,
            resolver: resolvers.find(|it| Family::of(*it) == family),
        })
    }

    pub fn approved(&self) -> io::Result<(IpAddr, Knock)> {
        self.approved
            .ok_or_else(|| missing("the policy approves no address of the sink"))
    }

    pub fn forbidden(&self) -> io::Result<IpAddr> {
        self.forbidden
            .ok_or_else(|| missing("the policy denies no address of the sink by a rule"))
    }

    pub fn resolver(&self) -> io::Result<IpAddr> {
        self.resolver
            .ok_or_else(|| missing("no resolver of the policy leads to the sink"))
    }
}

/// The address of an interface in the calling thread's namespace.
pub fn hardware(interface: &str) -> io::Result<[u8; 6]> {
    let mut all = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    all.find_map(|entry| entry.address?.as_link_addr()?.addr())
        .ok_or_else(|| missing("the interface has no hardware address"))
}

/// Why a channel cannot be tried here.
pub fn missing(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}
