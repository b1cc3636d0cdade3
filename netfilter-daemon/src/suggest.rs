//! From what audit let pass to the rules that would have allowed it.
//!
//! Pure: what was seen, the policy in force and its service tags go in, rules come out, and
//! what is better left to a person. [`written`] makes a policy file of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    compile::{self, Image},
    daemon::audit::Audit,
    policy::{Action, Destination, Pattern, Policy, Rule, Traffic, advice, service_tag::Catalogue},
};

mod demand;
mod names;
mod places;
mod special;
#[cfg(test)]
mod tests;
mod traffic;
mod used;
pub mod written;

pub use used::Used;

/// Protocol number and port, which is 0 where the protocol has none.
pub type Flow = (u8, u16);

/// What to add to a policy, and what to leave to whoever reads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Suggestion {
    pub additions: Vec<Addition>,
    /// Types of DNS questions that the policy does not list.
    pub query_types: Vec<u16>,
    pub left: Vec<Left>,
    /// From when to when anything was seen, in seconds since 1970.
    pub seen: Option<(u64, u64)>,
}

/// A rule to add.
#[derive(Debug, Clone, PartialEq)]
pub struct Addition {
    pub name: String,
    pub destination: Destination,
    pub traffic: Traffic,
    pub used: Used,
    /// What its reader should know.
    pub remarks: Vec<String>,
}

/// What is not allowed by the suggestion, and why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Left {
    pub why: String,
    pub used: Used,
    /// Rules that would allow it.
    pub rules: Vec<Addition>,
    /// What would have to be let in.
    pub inbound: Option<Traffic>,
    /// What it is about.
    pub flows: Vec<(IpAddr, Flow)>,
    /// Names as text, or what stands for one that cannot be written.
    pub names: Vec<String>,
}

/// What to add to `policy`, whose tables are `image`, so that what was seen passes.
/// `catalogue` has the service tags that the policy can name.
pub fn suggest(audit: &Audit, policy: &Policy, image: &Image, catalogue: &Catalogue) -> Suggestion {
    let demand::Demand {
        names,
        addresses,
        mut query_types,
        mut left,
    } = demand::of(audit, policy, image);
    let mut wanted = names::rules(names, policy, &mut query_types, &mut left);
    wanted.extend(places::rules(addresses, policy, catalogue));
    let mut suggestion = Suggestion {
        additions: Vec::new(),
        query_types: query_types.into_iter().collect(),
        left,
        seen: seen(audit),
    };
    let mut taken: BTreeSet<String> = policy.rules.iter().map(|rule| rule.name.clone()).collect();
    for addition in &mut wanted {
        name(addition, &mut taken);
    }
    suggestion.additions = fit(wanted, policy, &mut suggestion.left);
    for left in &mut suggestion.left {
        left.rules.iter_mut().for_each(|rule| {
            if rule.name.is_empty() {
                name(rule, &mut taken);
            }
        });
    }
    remark(&mut suggestion.additions, policy);
    suggestion
}

impl Suggestion {
    pub fn is_empty(&self) -> bool {
        self.additions.is_empty() && self.query_types.is_empty() && self.left.is_empty()
    }

    /// Whether it changes the policy.
    pub fn adds(&self) -> bool {
        !self.additions.is_empty() || !self.query_types.is_empty()
    }
}

impl Addition {
    fn new(destination: Destination, traffic: Traffic, used: Used) -> Self {
        Self {
            name: String::new(),
            destination,
            traffic,
            used,
            remarks: Vec::new(),
        }
    }

    /// The name, the tag, or the networks.
    pub fn destinations(&self) -> Vec<String> {
        match &self.destination {
            Destination::Name(pattern) => vec![pattern.to_string()],
            Destination::Tag { tag, .. } => vec![tag.clone()],
            Destination::Prefixes(prefixes) => prefixes.iter().map(ToString::to_string).collect(),
        }
    }

    pub fn rule(&self) -> Rule {
        Rule {
            name: self.name.clone(),
            action: Action::Allow,
            destination: self.destination.clone(),
            traffic: vec![self.traffic.clone()],
        }
    }
}

fn seen(audit: &Audit) -> Option<(u64, u64)> {
    let wanted = audit.wanted.iter().map(|it| (it.first, it.last));
    let asked = audit.asked.iter().map(|it| (it.first, it.last));
    let all: Vec<(u64, u64)> = wanted.chain(asked).collect();
    let first = all.iter().map(|(first, _)| *first).min()?;
    let last = all.iter().map(|(_, last)| *last).max()?;
    Some((first, last))
}

/// Gives a rule the name that a person would: that of what it allows.
fn name(addition: &mut Addition, taken: &mut BTreeSet<String>) {
    const LONGEST: usize = 100;
    let stem = match &addition.destination {
        Destination::Name(pattern) if pattern.is_wildcard() => {
            format!("below-{}", pattern.apex())
        }
        Destination::Name(pattern) => pattern.to_string(),
        Destination::Tag { tag, .. } => tag.clone(),
        Destination::Prefixes(prefixes) => {
            let first = prefixes.first().map_or_else(String::new, |first| {
                let bare = first.prefix_len() == first.max_prefix_len();
                match bare {
                    true => first.addr().to_string(),
                    false => first.to_string(),
                }
            });
            format!("address-{first}")
        }
    };
    let plain = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => letter,
        _ => '-',
    };
    let stem: String = stem.chars().map(plain).take(LONGEST).collect();
    let stem = match stem.trim_matches('-') {
        "" => "rule",
        stem => stem,
    };
    let mut name = stem.to_owned();
    let mut number = 2;
    while !taken.insert(name.clone()) {
        name = format!("{stem}-{number}");
        number += 1;
    }
    addition.name = name;
}

/// As many rules as one policy can hold, for it tells apart a bounded number of sets of
/// ports: those with the fewest ports first. The others are left.
fn fit(mut wanted: Vec<Addition>, policy: &Policy, left: &mut Vec<Left>) -> Vec<Addition> {
    let fits = |additions: &[Addition]| {
        let mut whole = policy.clone();
        whole.rules.extend(additions.iter().map(Addition::rule));
        compile::compile(&whole).is_ok()
    };
    if fits(&wanted) {
        return wanted;
    }
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&index| traffic::ports(&wanted[index].traffic));
    let sorted: Vec<Addition> = order.iter().map(|&index| wanted[index].clone()).collect();
    let (mut good, mut bad) = (0, sorted.len());
    while good + 1 < bad {
        let middle = usize::midpoint(good, bad);
        match fits(&sorted[..middle]) {
            true => good = middle,
            false => bad = middle,
        }
    }
    let kept: BTreeSet<usize> = order[..good].iter().copied().collect();
    let mut index = 0;
    wanted.retain(|addition| {
        let keeps = kept.contains(&index);
        index += 1;
        if !keeps {
            left.push(Left {
                why: "a policy cannot tell apart so many sets of ports; join them into ranges"
                    .to_owned(),
                used: addition.used.clone(),
                flows: addition.used.flows.clone(),
                names: match &addition.destination {
                    Destination::Name(pattern) => vec![pattern.to_string()],
                    _ => Vec::new(),
                },
                rules: vec![addition.clone()],
                inbound: None,
            });
        }
        keeps
    });
    wanted
}

/// What `check` would warn of.
fn remark(additions: &mut [Addition], policy: &Policy) {
    let mut rules = policy.rules.clone();
    rules.extend(additions.iter().map(Addition::rule));
    let before = policy.rules.len();
    let missing: BTreeMap<usize, String> = advice::missing(&rules).into_iter().collect();
    for (index, addition) in additions.iter_mut().enumerate() {
        addition.remarks.extend(advice::on(&addition.rule()));
        addition
            .remarks
            .extend(missing.get(&(before + index)).cloned());
    }
}

/// The rule with `action: deny` that covers a packet.
fn denied_by(policy: &Policy, address: IpAddr, (protocol, port): Flow) -> Option<&str> {
    let covers = |rule: &&Rule| {
        let prefixes: &[IpNet] = match &rule.destination {
            Destination::Tag { prefixes, .. } | Destination::Prefixes(prefixes) => prefixes,
            Destination::Name(_) => return false,
        };
        rule.action == Action::Deny
            && prefixes.iter().any(|prefix| prefix.contains(&address))
            && rule
                .traffic
                .iter()
                .any(|traffic| traffic.covers(protocol, Some(port)))
    };
    policy
        .rules
        .iter()
        .find(covers)
        .map(|rule| rule.name.as_str())
}

/// The rule with `action: deny` that covers a name.
fn name_denied_by<'p>(policy: &'p Policy, name: &Pattern) -> Option<&'p str> {
    let covers = |rule: &&Rule| match &rule.destination {
        Destination::Name(pattern) => rule.action == Action::Deny && pattern.matches(name.wire()),
        _ => false,
    };
    policy
        .rules
        .iter()
        .find(covers)
        .map(|rule| rule.name.as_str())
}
