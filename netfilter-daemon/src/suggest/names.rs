//! Rules for names: exact ones, and a wildcard where several share a parent and a use.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Addition, Flow, Left, Used,
    demand::{Use, is_limited},
    traffic,
};
use crate::policy::{Action, Destination, Pattern, Policy, Rule, Traffic, advice};

/// Names below one parent from which on a wildcard stands for them.
const SEVERAL: usize = 3;
/// Names below one parent that were asked for and led nowhere: more are not let out, for so
/// data leaves in names.
const FRUITLESS: usize = 8;
const HTTPS: u16 = 443;

/// The types of questions that they need go to `types`.
pub(super) fn rules(
    names: BTreeMap<Pattern, Use>,
    policy: &Policy,
    types: &mut BTreeSet<u16>,
    left: &mut Vec<Left>,
) -> Vec<Addition> {
    let (used, fruitless): (BTreeMap<_, _>, BTreeMap<_, _>) =
        names.into_iter().partition(|(_, of)| !of.flows.is_empty());
    types.extend(used.values().flat_map(|of| &of.types));
    let mut rules = of_used(used, policy);
    rules.extend(of_fruitless(fruitless, types, left));
    rules
}

/// The wildcard that might stand for names, and how they were used.
type Alike = (Option<Pattern>, BTreeSet<Flow>);

fn of_used(names: BTreeMap<Pattern, Use>, policy: &Policy) -> Vec<Addition> {
    let mut groups: BTreeMap<Alike, Vec<(Pattern, Used)>> = BTreeMap::new();
    for (pattern, Use { flows, used, .. }) in names {
        let parent = wildcard_above(&pattern).filter(|_| !is_limited(policy, pattern.wire()));
        groups
            .entry((parent, flows))
            .or_default()
            .push((pattern, used));
    }
    let mut rules = Vec::new();
    for ((parent, flows), members) in groups {
        match parent {
            Some(wildcard) if members.len() >= SEVERAL => {
                let mut all = Used::default();
                members.iter().for_each(|(_, used)| all.add(used));
                let stands_for = listed(members.iter().map(|(pattern, _)| pattern));
                for traffic in traffic::of(&flows) {
                    let mut rule = of_name(&wildcard, traffic, all.clone());
                    rule.remarks.push(format!("for {stands_for}"));
                    rules.push(rule);
                }
            }
            _ => {
                for (pattern, used) in members {
                    let traffic = traffic::of(&flows).into_iter();
                    rules.extend(traffic.map(|traffic| of_name(&pattern, traffic, used.clone())));
                }
            }
        }
    }
    rules.sort_by_key(|rule| match &rule.destination {
        Destination::Name(pattern) => labels(pattern),
        _ => Vec::new(),
    });
    rules
}

/// They must be allowed for the questions to pass; a port is as good as another.
fn of_fruitless(
    names: BTreeMap<Pattern, Use>,
    types: &mut BTreeSet<u16>,
    left: &mut Vec<Left>,
) -> Vec<Addition> {
    let mut families: BTreeMap<Vec<Vec<u8>>, Vec<(Pattern, Use)>> = BTreeMap::new();
    for (pattern, of) in names {
        let family = labels(&pattern).into_iter().take(2).collect();
        families.entry(family).or_default().push((pattern, of));
    }
    let mut rules = Vec::new();
    for members in families.into_values() {
        let of = |(pattern, Use { used, .. }): &(Pattern, Use)| {
            let mut rule = of_name(pattern, Traffic::tcp([HTTPS]), used.clone());
            rule.remarks
                .push("only asked for; nothing was sent there".to_owned());
            rule
        };
        if members.len() <= FRUITLESS {
            types.extend(members.iter().flat_map(|(_, of)| &of.types));
            rules.extend(members.iter().map(of));
            continue;
        }
        let mut all = Used::default();
        members.iter().for_each(|(_, of)| all.add(&of.used));
        left.push(Left {
            why: format!(
                "{} names that were asked for although nothing was sent there; data leaves so, in names: {}",
                members.len(),
                listed(members.iter().map(|(pattern, _)| pattern))
            ),
            used: all,
            names: members.iter().map(|(pattern, _)| pattern.to_string()).collect(),
            ..Left::default()
        });
    }
    rules
}

fn of_name(pattern: &Pattern, traffic: Traffic, used: Used) -> Addition {
    Addition::new(Destination::Name(pattern.clone()), traffic, used)
}

/// The wildcard just above a name, if its owner is one, and what is below is nobody else's.
fn wildcard_above(pattern: &Pattern) -> Option<Pattern> {
    let written = pattern.to_string();
    let (_, parent) = written.split_once('.')?;
    if !parent.contains('.') {
        return None;
    }
    let wildcard: Pattern = format!("*.{parent}").parse().ok()?;
    let rule = Rule {
        name: String::new(),
        action: Action::Allow,
        destination: Destination::Name(wildcard.clone()),
        traffic: vec![Traffic::tcp([HTTPS])],
    };
    advice::on(&rule).is_none().then_some(wildcard)
}

/// The last first.
fn labels(pattern: &Pattern) -> Vec<Vec<u8>> {
    let mut labels = Vec::new();
    let mut rest = pattern.wire();
    while let Some((&length, behind)) = rest.split_first() {
        let (label, behind) = behind.split_at(usize::from(length).min(behind.len()));
        labels.push(label.to_vec());
        rest = behind;
    }
    labels.reverse();
    labels
}

/// The first few.
fn listed<'p>(patterns: impl ExactSizeIterator<Item = &'p Pattern>) -> String {
    const SHOWN: usize = 4;
    let count = patterns.len();
    let mut shown: Vec<String> = patterns.take(SHOWN).map(ToString::to_string).collect();
    if count > SHOWN {
        shown.push(format!("{} more", count - SHOWN));
    }
    shown.join(", ")
}
