//! An address: what the address tables say.

use std::net::IpAddr;

use ipnet::IpNet;
use netfilter_ebpf::verdict::Reason;

use super::{Account, Explanation, Question, Relevant, conclude, question::DNS};
use crate::{
    compile::Image,
    policy::{Action, Destination, Policy, Rule},
};

const UDP: u8 = 17;

pub(super) fn explain(
    policy: &Policy,
    image: &Image,
    question: &Question,
    address: IpAddr,
) -> Explanation {
    let judged: Vec<(u8, u16, Result<(), Reason>)> = question
        .probes(policy)
        .into_iter()
        .map(|(protocol, port)| (protocol, port, image.judge_address(address, protocol, port)))
        .collect();
    let relevant = policy.rules.iter().filter_map(|rule| {
        let prefix = most_specific(rule, address)?;
        let covered = || {
            judged
                .iter()
                .filter(|(protocol, port, _)| covers(rule, *protocol, *port))
        };
        Some(Relevant {
            rule,
            account: Account::of(rule, Some(prefix)),
            covers: covered().next().is_some(),
            passes: covered().any(|(_, _, verdict)| verdict.is_ok()),
        })
    });
    let verdict = overall(judged.iter().map(|(_, _, verdict)| *verdict));
    let mut explanation = conclude(question, verdict, relevant.collect());
    explanation.notes = notes(policy, question, address, verdict);
    explanation
}

/// Anything let out makes the answer yes; otherwise a deny rule is the better reason.
pub(super) fn overall(verdicts: impl Iterator<Item = Result<(), Reason>>) -> Result<(), Reason> {
    let mut overall = Err(Reason::NoRule);
    for verdict in verdicts {
        match verdict {
            Ok(()) => return Ok(()),
            Err(reason) if overall == Err(Reason::NoRule) => overall = Err(reason),
            Err(_) => {}
        }
    }
    overall
}

pub(super) fn covers(rule: &Rule, protocol: u8, port: u16) -> bool {
    rule.traffic
        .iter()
        .any(|traffic| traffic.covers(protocol, Some(port)))
}

pub(super) fn most_specific(rule: &Rule, address: IpAddr) -> Option<IpNet> {
    let prefixes = match &rule.destination {
        Destination::Tag { prefixes, .. } | Destination::Prefixes(prefixes) => prefixes,
        Destination::Name(_) => return None,
    };
    let enclosing = prefixes.iter().filter(|prefix| prefix.contains(&address));
    enclosing.max_by_key(|prefix| prefix.prefix_len()).copied()
}

fn notes(
    policy: &Policy,
    question: &Question,
    address: IpAddr,
    verdict: Result<(), Reason>,
) -> Vec<String> {
    let mut notes = Vec::new();
    let dns = question.port.is_none_or(|port| port == DNS)
        && question
            .probes(policy)
            .iter()
            .any(|(protocol, _)| *protocol == UDP);
    if policy.resolvers.contains(&address) && dns {
        notes.push(format!(
            "{address} is a configured resolver: DNS questions to it are judged by the name they ask for"
        ));
    }
    let names = policy.rules.iter().filter(|rule| {
        matches!(rule.destination, Destination::Name(_)) && rule.action != Action::Deny
    });
    if verdict == Err(Reason::NoRule) && names.clone().next().is_some() {
        notes.push(format!(
            "{} rules allow names, and an address in the DNS answer for such a name is let out until \
             the answer expires; ask `explain` for the name",
            names.count()
        ));
    }
    notes
}
