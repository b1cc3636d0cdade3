//! The rules' prefixes, flattened: each one's rights are the union of all that enclose it.

use ipnet::IpNet;
use netfilter_ebpf::abi::AtomSet;

use super::{Rights, on_link};
use crate::policy::{Destination, Policy, Traffic};

/// A prefix: its bits left-aligned in 128, and how many count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    pub(super) bits: u128,
    pub(super) length: u8,
}

impl Prefix {
    fn new(net: &IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self {
                bits: u128::from(net.network().to_bits()) << 96,
                length: net.prefix_len(),
            },
            IpNet::V6(net) => Self {
                bits: net.network().to_bits(),
                length: net.prefix_len(),
            },
        }
    }

    fn encloses(&self, other: &Self) -> bool {
        self.length <= other.length
            && (self.length == 0 || (self.bits ^ other.bits) >> (128 - self.length) == 0)
    }
}

/// The prefixes of one family with what each rule grants or denies there.
pub(super) fn of(
    policy: &Policy,
    atoms_of: &impl Fn(&[Traffic]) -> AtomSet,
    ipv6: bool,
) -> Vec<(Prefix, Rights)> {
    let mut list = Vec::new();
    for rule in &policy.rules {
        let prefixes = match &rule.destination {
            Destination::Tag { prefixes, .. } | Destination::Prefixes(prefixes) => prefixes,
            Destination::Name(_) => continue,
        };
        let rights = Rights::of(rule.action, atoms_of(&rule.traffic));
        list.extend(
            prefixes
                .iter()
                .filter(|net| is_ipv6(net) == ipv6)
                .map(|net| (Prefix::new(net), rights)),
        );
    }
    let connected = Rights {
        allow: on_link(),
        ..Rights::default()
    };
    let subnets = policy.on_link.iter().filter(|net| is_ipv6(net) == ipv6);
    list.extend(subnets.map(|net| (Prefix::new(net), connected)));
    let resolver = Rights {
        resolver: true,
        ..Rights::default()
    };
    let resolvers = policy
        .resolvers
        .iter()
        .map(|&address| IpNet::from(address))
        .filter(|net| is_ipv6(net) == ipv6);
    list.extend(resolvers.map(|net| (Prefix::new(&net), resolver)));
    list
}

fn is_ipv6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

/// Sorted, one entry for each prefix at which the rights change; `class` numbers them.
pub(super) fn flatten(
    mut list: Vec<(Prefix, Rights)>,
    mut class: impl FnMut(&Rights) -> u32,
) -> Vec<(Prefix, u32)> {
    list.sort_unstable_by_key(|(prefix, _)| *prefix);
    let mut flat = Vec::with_capacity(list.len());
    let mut enclosing: Vec<(Prefix, Rights, u32)> = Vec::new();
    for same in list.chunk_by(|(one, _), (other, _)| one == other) {
        let prefix = same[0].0;
        while enclosing
            .last()
            .is_some_and(|(outer, ..)| !outer.encloses(&prefix))
        {
            enclosing.pop();
        }
        let (outer, outer_class) = enclosing
            .last()
            .map_or((Rights::default(), 0), |(_, rights, class)| {
                (*rights, *class)
            });
        let rights = same
            .iter()
            .fold(outer, |union, (_, rights)| union.union(rights));
        let class = if rights == outer {
            outer_class
        } else {
            class(&rights)
        };
        if class != outer_class {
            flat.push((prefix, class));
        }
        enclosing.push((prefix, rights, class));
    }
    flat
}
