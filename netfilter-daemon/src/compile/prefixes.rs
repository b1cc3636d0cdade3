//! The rules' prefixes, flattened: each one's rights are the union of all that enclose it.

use ipnet::IpNet;
use netfilter_ebpf::abi::{Decider, Held};

use super::{Rights, deciders::Deciders, on_link};
use crate::policy::{Destination, Policy};

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

/// What a rule, or what is no rule, says of a prefix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    prefix: Prefix,
    /// In the policy's order; what is no rule comes last.
    place: usize,
    rights: Rights,
    decider: Option<Decider>,
}

impl Said {
    const fn by_nobody(prefix: Prefix, rights: Rights) -> Self {
        Self {
            prefix,
            place: usize::MAX,
            rights,
            decider: None,
        }
    }
}

/// The prefixes of one family with what each rule grants or denies there; `deciders` are
/// those of the rules.
pub(super) fn of(policy: &Policy, deciders: &[Decider], ipv6: bool) -> Vec<Said> {
    let mut list = Vec::new();
    for (place, (rule, decider)) in policy.rules.iter().zip(deciders).enumerate() {
        let prefixes = match &rule.destination {
            Destination::Tag { prefixes, .. } | Destination::Prefixes(prefixes) => prefixes,
            Destination::Name(_) => continue,
        };
        let rights = Rights::of(rule.action, decider.atoms);
        let prefixes = prefixes.iter().filter(|net| is_ipv6(net) == ipv6);
        list.extend(prefixes.map(|net| Said {
            prefix: Prefix::new(net),
            place,
            rights,
            decider: Some(*decider),
        }));
    }
    let connected = Rights {
        allow: on_link(),
        ..Rights::default()
    };
    let subnets = policy.on_link.iter().filter(|net| is_ipv6(net) == ipv6);
    list.extend(subnets.map(|net| Said::by_nobody(Prefix::new(net), connected)));
    let resolver = Rights {
        resolver: true,
        ..Rights::default()
    };
    let resolvers = policy
        .resolvers
        .iter()
        .map(|&address| IpNet::from(address))
        .filter(|net| is_ipv6(net) == ipv6);
    list.extend(resolvers.map(|net| Said::by_nobody(Prefix::new(&net), resolver)));
    list
}

fn is_ipv6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

/// Prefixes at which something changes.
#[derive(Debug, Default)]
pub(super) struct Flat {
    /// Sorted.
    pub(super) list: Vec<(Prefix, Held)>,
    /// Those at which the rights change.
    pub(super) count: usize,
}

/// One entry for each prefix at which the rights, or who decides, change; `class` numbers the rights.
pub(super) fn flatten(
    mut list: Vec<Said>,
    deciders: &mut Deciders,
    mut class: impl FnMut(&Rights) -> u32,
) -> Flat {
    list.sort_unstable_by_key(|said| (said.prefix, said.place));
    let mut flat = Flat::default();
    let mut enclosing: Vec<(Prefix, Rights, Held)> = Vec::new();
    for same in list.chunk_by(|one, other| one.prefix == other.prefix) {
        let prefix = same[0].prefix;
        while enclosing
            .last()
            .is_some_and(|(outer, ..)| !outer.encloses(&prefix))
        {
            enclosing.pop();
        }
        let (outer, outside) = enclosing
            .last()
            .map_or_else(Default::default, |(_, rights, held)| (*rights, *held));
        let rights = same
            .iter()
            .fold(outer, |union, said| union.union(&said.rights));
        let rules: Vec<Decider> = same.iter().filter_map(|said| said.decider).collect();
        let held = Held {
            class: if rights == outer {
                outside.class
            } else {
                class(&rights)
            },
            decider: deciders.chain(&rules, outside.decider),
        };
        if held != outside {
            flat.list.push((prefix, held));
            flat.count += usize::from(held.class != outside.class);
        }
        enclosing.push((prefix, rights, held));
    }
    flat
}
