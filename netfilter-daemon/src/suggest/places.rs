//! Rules for addresses without a name: service tags that hold them, else the addresses.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Addition, Flow, Used, demand::Use, traffic};
use crate::policy::{
    Action, Destination, Policy, Rule, Traffic, advice,
    service_tag::{Catalogue, Tag},
};

/// Addresses of one network from which on it is named beside them.
const CROWD: usize = 4;

pub(super) fn rules(
    addresses: BTreeMap<IpAddr, Use>,
    policy: &Policy,
    catalogue: &Catalogue,
) -> Vec<Addition> {
    let mut groups: BTreeMap<BTreeSet<Flow>, BTreeMap<IpAddr, Used>> = BTreeMap::new();
    for (address, Use { flows, used, .. }) in addresses {
        groups.entry(flows).or_default().insert(address, used);
    }
    let tags = tags(catalogue, policy);
    let (mut by_tag, mut by_address) = (Vec::new(), Vec::new());
    for (flows, mut addresses) in groups {
        let traffic = traffic::of(&flows);
        for (tag, used) in covering(&mut addresses, &tags) {
            let destination = Destination::Tag {
                tag: tag.name.clone(),
                prefixes: tag.prefixes.clone(),
            };
            by_tag.extend(each(&traffic, &destination, &used, &[]));
        }
        for (users, members) in by_users(addresses) {
            let networks = aggregated(members.keys().copied());
            let mut all = Used::default();
            members.values().for_each(|used| all.add(used));
            all.users = users;
            let remarks = crowds(members.keys().copied());
            let destination = Destination::Prefixes(networks);
            by_address.extend(each(&traffic, &destination, &all, &remarks));
        }
    }
    by_tag.extend(by_address);
    by_tag
}

fn each<'a>(
    traffic: &'a [Traffic],
    destination: &'a Destination,
    used: &'a Used,
    remarks: &'a [String],
) -> impl Iterator<Item = Addition> + 'a {
    traffic.iter().map(|traffic| Addition {
        remarks: remarks.to_vec(),
        ..Addition::new(destination.clone(), traffic.clone(), used.clone())
    })
}

/// A tag, and how many addresses it holds.
struct Sized {
    tag: Tag,
    size: f64,
}

struct Tags {
    all: Vec<Sized>,
    /// Which of them hold a network as a whole.
    by_network: HashMap<IpNet, Vec<usize>>,
}

impl Tags {
    fn holding(&self, address: IpAddr) -> BTreeSet<usize> {
        let longest = IpNet::from(address).max_prefix_len();
        let networks = (0..=longest).filter_map(|length| IpNet::new(address, length).ok());
        let holding = networks.filter_map(|network| self.by_network.get(&network.trunc()));
        holding.flatten().copied().collect()
    }
}

/// Those that nobody but their owner has places behind.
fn tags(catalogue: &Catalogue, policy: &Policy) -> Tags {
    let harmless = |tag: &&Tag| {
        let rule = Rule {
            name: String::new(),
            action: Action::Allow,
            destination: Destination::Tag {
                tag: tag.name.clone(),
                prefixes: Vec::new(),
            },
            traffic: Vec::new(),
        };
        advice::on(&rule).is_none()
    };
    let sized = |tag: &Tag| Sized {
        size: tag.prefixes.iter().map(size).sum(),
        tag: tag.clone(),
    };
    // What the platform's names stand for is decided before the list is looked at.
    let own = |tag: &&Tag| {
        let resolved = catalogue.resolve(&tag.name, &policy.virtual_network);
        resolved.is_some_and(|resolved| resolved.prefixes == tag.prefixes)
    };
    let all: Vec<Sized> = catalogue
        .tags()
        .filter(harmless)
        .filter(own)
        .map(sized)
        .collect();
    let mut by_network: HashMap<IpNet, Vec<usize>> = HashMap::new();
    for (index, sized) in all.iter().enumerate() {
        for prefix in &sized.tag.prefixes {
            by_network.entry(prefix.trunc()).or_default().push(index);
        }
    }
    Tags { all, by_network }
}

#[expect(clippy::cast_precision_loss, reason = "to be compared")]
fn size(prefix: &IpNet) -> f64 {
    match prefix {
        IpNet::V4(v4) => (1_u64 << (32 - v4.prefix_len())) as f64,
        // A /64 counts as one address of IPv4.
        IpNet::V6(v6) => 2_f64.powi(64 - i32::from(v6.prefix_len())),
    }
}

/// The fewest tags: each holds as many of what is left as any, and no more else than it must.
/// What they hold is taken out.
fn covering<'t>(addresses: &mut BTreeMap<IpAddr, Used>, tags: &'t Tags) -> Vec<(&'t Tag, Used)> {
    let mut within: BTreeMap<usize, BTreeSet<IpAddr>> = BTreeMap::new();
    for &address in addresses.keys() {
        for index in tags.holding(address) {
            within.entry(index).or_default().insert(address);
        }
    }
    let mut holds: Vec<(&Sized, BTreeSet<IpAddr>)> = within
        .into_iter()
        .filter_map(|(index, within)| Some((tags.all.get(index)?, within)))
        .collect();
    let mut chosen = Vec::new();
    loop {
        holds.retain(|(_, within): &(_, BTreeSet<IpAddr>)| !within.is_empty());
        let best = holds.iter().min_by(|(one, of_one), (other, of_other)| {
            let by_count = of_other.len().cmp(&of_one.len());
            by_count
                .then(one.size.total_cmp(&other.size))
                .then(one.tag.name.cmp(&other.tag.name))
        });
        let Some((sized, within)) = best.map(|(sized, within)| (*sized, within.clone())) else {
            return chosen;
        };
        let mut all = Used::default();
        for address in &within {
            if let Some(used) = addresses.remove(address) {
                all.add(&used);
            }
        }
        for (_, others) in &mut holds {
            others.retain(|address| !within.contains(address));
        }
        chosen.push((&sized.tag, all));
    }
}

/// One rule for what the same programs used.
fn by_users(
    addresses: BTreeMap<IpAddr, Used>,
) -> BTreeMap<BTreeSet<String>, BTreeMap<IpAddr, Used>> {
    let mut groups: BTreeMap<BTreeSet<String>, BTreeMap<IpAddr, Used>> = BTreeMap::new();
    for (address, used) in addresses {
        let users = used.users.clone();
        groups.entry(users).or_default().insert(address, used);
    }
    groups
}

/// Exactly these, neighbours as one network.
fn aggregated(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpNet> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match IpNet::from(address) {
            IpNet::V4(network) => v4.push(network),
            IpNet::V6(network) => v6.push(network),
        }
    }
    let v4 = Ipv4Net::aggregate(&v4).into_iter().map(IpNet::V4);
    let v6 = Ipv6Net::aggregate(&v6).into_iter().map(IpNet::V6);
    v4.chain(v6).collect()
}

/// Networks that hold many of them, for a person to decide.
fn crowds(addresses: impl Iterator<Item = IpAddr>) -> Vec<String> {
    let mut networks: BTreeMap<IpNet, usize> = BTreeMap::new();
    for address in addresses {
        let length = match address {
            IpAddr::V4(_) => 24,
            IpAddr::V6(_) => 64,
        };
        if let Ok(network) = IpNet::new(address, length) {
            *networks.entry(network.trunc()).or_default() += 1;
        }
    }
    let crowded = networks.into_iter().filter(|(_, count)| *count >= CROWD);
    crowded
        .map(|(network, count)| format!("{count} of them are in {network}"))
        .collect()
}
