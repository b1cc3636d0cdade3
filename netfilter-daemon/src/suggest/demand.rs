//! What was seen, by name where there is one, and what no rule should be made of.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{Addition, Flow, Left, Used, denied_by, name_denied_by, special, traffic};
use crate::{
    compile::Image,
    daemon::audit::{Asked, Audit, Named, Target, Wanted},
    policy::{Destination, Pattern, Policy, QueryTypes, name::dotted},
};
use netfilter_ebpf::{abi::QUERY_TYPES, name::MAX_NAME, verdict::Reason};

/// What a name or an address was wanted for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// Of a name that was only asked for, none.
    pub(super) flows: BTreeSet<Flow>,
    pub(super) used: Used,
    /// Of questions, that the policy does not list.
    pub(super) types: BTreeSet<u16>,
}

#[derive(Debug, Default)]
pub(super) struct Demand {
    pub(super) names: BTreeMap<Pattern, Use>,
    pub(super) addresses: BTreeMap<IpAddr, Use>,
    /// Of names that need no rule.
    pub(super) query_types: BTreeSet<u16>,
    pub(super) left: Vec<Left>,
}

pub(super) fn of(audit: &Audit, policy: &Policy, image: &Image) -> Demand {
    let mut reading = Reading {
        policy,
        image,
        named: named(audit),
        demand: Demand::default(),
        leaving: BTreeMap::new(),
    };
    let mut asked: Vec<&Asked> = audit.asked.iter().collect();
    asked.sort_by(|one, other| (&one.name, one.qtype).cmp(&(&other.name, other.qtype)));
    for asked in asked.iter().filter(|asked| !asked.inside) {
        reading.asked(asked);
    }
    let mut wanted: Vec<&Wanted> = audit.wanted.iter().collect();
    wanted.sort_by_key(|it| (it.address, it.answers, it.protocol, it.port));
    for wanted in wanted {
        match wanted.answers {
            true => reading.answers(wanted),
            false => reading.wanted(wanted),
        }
    }
    if image.local_resolver {
        reading.forget_aliases(audit);
    }
    let mut demand = reading.demand;
    demand.left.extend(reading.leaving.into_values());
    demand
}

/// The names that each address was resolved from, and since when.
fn named(audit: &Audit) -> HashMap<IpAddr, Vec<&Named>> {
    let mut named: HashMap<IpAddr, Vec<&Named>> = HashMap::new();
    for name in &audit.named {
        if let Target::Address(address) = name.target {
            named.entry(address).or_default().push(name);
        }
    }
    named
        .values_mut()
        .for_each(|names| names.sort_by(|one, other| one.name.cmp(&other.name)));
    named
}

struct Reading<'a> {
    policy: &'a Policy,
    image: &'a Image,
    named: HashMap<IpAddr, Vec<&'a Named>>,
    demand: Demand,
    /// What is left, by why.
    leaving: BTreeMap<String, Left>,
}

impl Reading<'_> {
    fn asked(&mut self, asked: &Asked) {
        let used = Used::questions(asked);
        let written = dotted(&asked.name);
        let Ok(pattern) = written.parse::<Pattern>() else {
            let why = "a name that no rule can be written for";
            return self.leave_name(why.to_owned(), written, &used);
        };
        match self.image.name(&asked.name) {
            Some(entry) if entry.may_be_asked() => {
                let unlisted = self.unlisted(asked);
                // Limits are of wildcards: a rule of its own has none.
                if entry.pattern.is_wildcard() && is_limited(self.policy, &asked.name) {
                    self.need(pattern, &used, unlisted);
                } else {
                    self.demand.query_types.extend(unlisted);
                }
            }
            _ => {
                if let Some(rule) = name_denied_by(self.policy, &pattern) {
                    return self.leave_name(denied(rule), written, &used);
                }
                let types = self.unlisted(asked);
                self.need(pattern, &used, types);
            }
        }
    }

    /// Its type, if the policy does not list it.
    fn unlisted(&mut self, asked: &Asked) -> Option<u16> {
        let listed = match &self.policy.dns.query_types {
            QueryTypes::Any => true,
            QueryTypes::Only(types) => types.contains(&asked.qtype),
        };
        if !listed && usize::from(asked.qtype) >= QUERY_TYPES {
            let why = "questions of a type that a list cannot hold; `query_types: \"*\"` under `dns` lets them out";
            self.leave_name(why.to_owned(), dotted(&asked.name), &Used::questions(asked));
            return None;
        }
        (!listed).then_some(asked.qtype)
    }

    fn need(&mut self, pattern: Pattern, used: &Used, qtype: Option<u16>) {
        let place = self.demand.names.entry(pattern).or_default();
        place.used.add(used);
        place.types.extend(qtype);
    }

    fn wanted(&mut self, wanted: &Wanted) {
        let Wanted {
            address,
            protocol,
            port,
            ..
        } = *wanted;
        let flow = (protocol, port);
        let used = Used::packets(wanted);
        match self.image.judge_address(address, protocol, port) {
            Ok(()) => return, // allowed by now
            Err(Reason::DeniedByRule) => {
                let rule = denied_by(self.policy, address, flow).unwrap_or_default();
                return self.leave(denied(rule), wanted, &used, None);
            }
            Err(_) => {}
        }
        if let Some(why) = special::why_not(address, flow, self.policy) {
            let traffic = traffic::of(&BTreeSet::from([flow])).into_iter().next();
            let rule = traffic.map(|traffic| {
                let network = Destination::Prefixes(vec![address.into()]);
                Addition::new(network, traffic, used.clone())
            });
            return self.leave(why, wanted, &used, rule);
        }
        let names = self.names_of(wanted);
        if names.is_empty() {
            let place = self.demand.addresses.entry(address).or_default();
            place.flows.insert(flow);
            place.used.add(&used);
        }
        for (pattern, wire) in names {
            if self
                .image
                .judge_learned(address, protocol, port, &wire)
                .is_ok()
            {
                continue; // that name's lease lets it out
            }
            let place = self.demand.names.entry(pattern).or_default();
            place.flows.insert(flow);
            place.used.add(&used);
        }
    }

    /// The names that the address was resolved from before the last packet, as rules write
    /// them and in wire form. If several share it, nobody can tell which was meant.
    fn names_of(&self, wanted: &Wanted) -> Vec<(Pattern, Vec<u8>)> {
        let names = self.named.get(&wanted.address).into_iter().flatten();
        let before = names.filter(|name| name.first <= wanted.last);
        let written = before.filter_map(|name| {
            let pattern = dotted(&name.name).parse::<Pattern>().ok()?;
            let denied = name_denied_by(self.policy, &pattern).is_some();
            (!denied).then(|| (pattern, name.name.clone()))
        });
        written.collect()
    }

    fn answers(&mut self, wanted: &Wanted) {
        let used = Used::packets(wanted);
        match special::service(wanted) {
            special::Answering::Nobody => {
                let why = "resets and ICMP messages to those who began; nothing needs them";
                self.leave(why.to_owned(), wanted, &used, None);
            }
            special::Answering::Service(inbound) => {
                if self.image.lets_in(wanted.protocol, wanted.port) {
                    return;
                }
                let why = format!(
                    "{inbound} was answered to who began, {} for one; whoever may come in can take data out",
                    wanted.address
                );
                self.demand.left.push(Left {
                    why,
                    used,
                    inbound: Some(inbound),
                    ..Left::default()
                });
            }
        }
    }

    /// What an approved name is an alias for may be asked for on its behalf, so that resolvers
    /// on this machine, which do, need no rule for it, unless a client asked for it by itself.
    fn forget_aliases(&mut self, audit: &Audit) {
        let hash_of: HashMap<&[u8], u64> = audit
            .asked
            .iter()
            .map(|asked| (asked.name.as_slice(), asked.hash))
            .collect();
        let clients = audit.asked.iter().filter(|asked| asked.inside);
        let by_clients: BTreeSet<u64> = clients.map(|asked| asked.hash).collect();
        let aliases = audit.named.iter().filter_map(|named| match named.target {
            Target::Alias(target) => Some((named.name.as_slice(), target)),
            Target::Address(_) => None,
        });
        let aliases: BTreeSet<(&[u8], u64)> = aliases.collect();
        let leads_to = |from: &[u8], hash: u64| aliases.contains(&(from, hash));
        let is_target = |name: &[u8]| {
            let hash = hash_of.get(name);
            hash.is_some_and(|&hash| aliases.iter().any(|&(from, to)| to == hash && from != name))
        };
        // Those that others are reached by stay.
        let mut needed: BTreeSet<&[u8]> = BTreeSet::new();
        let patterns: Vec<Pattern> = self.demand.names.keys().cloned().collect();
        for pattern in patterns {
            let wire = pattern.wire();
            let Some(&hash) = hash_of.get(wire).filter(|hash| !by_clients.contains(hash)) else {
                continue;
            };
            let leading = aliases.iter().map(|(from, _)| *from).filter(|&from| {
                let back = hash_of.get(from);
                leads_to(from, hash)
                    && from != wire
                    && back.is_none_or(|&back| !leads_to(wire, back))
                    && self.is_to_be_allowed(from)
            });
            let Some(leading) = leading.min_by_key(|name| is_target(name)) else {
                continue;
            };
            if needed.contains(wire) {
                continue;
            }
            needed.insert(leading);
            let of = self.demand.names.remove(&pattern).unwrap_or_default();
            self.demand.query_types.extend(&of.types);
            for (address, flow) in &of.used.flows {
                self.hand_over(*address, *flow, leading, &of.used);
            }
        }
    }

    /// What an alias led to is used by the name that leads there.
    fn hand_over(&mut self, address: IpAddr, flow: Flow, name: &[u8], used: &Used) {
        let (protocol, port) = flow;
        let allowed = self
            .image
            .judge_learned(address, protocol, port, name)
            .is_ok();
        if let (false, Ok(pattern)) = (allowed, dotted(name).parse()) {
            let place = self.demand.names.entry(pattern).or_default();
            if place.flows.insert(flow) {
                place.used.add(used);
            }
        }
    }

    fn is_to_be_allowed(&self, wire: &[u8]) -> bool {
        let needed = dotted(wire)
            .parse::<Pattern>()
            .is_ok_and(|pattern| self.demand.names.contains_key(&pattern));
        needed || self.image.judge_name(wire).is_some()
    }

    fn leave_name(&mut self, why: String, name: String, used: &Used) {
        let left = self.leaving.entry(why.clone()).or_default();
        left.why = why;
        left.used.add(used);
        if !left.names.contains(&name) {
            left.names.push(name);
        }
    }

    fn leave(&mut self, why: String, wanted: &Wanted, used: &Used, rule: Option<Addition>) {
        let left = self.leaving.entry(why.clone()).or_default();
        left.why = why;
        left.used.add(used);
        left.flows
            .push((wanted.address, (wanted.protocol, wanted.port)));
        left.rules.extend(rule);
    }
}

/// Whether a wildcard could be too narrow for the name (wire form).
pub(super) fn is_limited(policy: &Policy, name: &[u8]) -> bool {
    let dns = &policy.dns;
    dns.wildcard_rate.is_some()
        || name.len() > usize::try_from(dns.wildcard_length).unwrap_or(MAX_NAME)
}

fn denied(rule: &str) -> String {
    format!("denied by the rule `{rule}`, which stays")
}
