//! What became of asking for a name: its aliases as answered, and whether the
//! addresses would be let out.

use std::net::IpAddr;

use netfilter_ebpf::verdict::Reason;
use serde::Serialize;

use super::{
    Account, Explanation, Question, Target,
    address::{self, overall},
};
use crate::{
    compile::Image,
    policy::{Mode, Pattern, Policy, name},
    resolvers::{Alias, Answer, Answers, NO_SUCH_NAME},
};

/// The name's aliases and addresses, now and here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolution {
    /// All that are asked.
    pub resolvers: Vec<IpAddr>,
    pub chain: Vec<Link>,
    pub addresses: Vec<Resolved>,
    /// Why there are no addresses, or none of one family.
    pub error: Option<String>,
}

/// An alias. Names have the escapes of RFC 4343.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    pub name: String,
    /// `CNAME`
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub data: String,
    /// Seconds.
    pub ttl: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolved {
    pub address: IpAddr,
    /// Seconds.
    pub ttl: u32,
    pub allowed: bool,
    /// As in the metrics; `null` when allowed.
    pub reason: Option<&'static str>,
    /// What lets it out: rules for the name, which lent it, then rules for the
    /// address, which need no answer. Or the rules that deny it.
    pub by: Vec<Account>,
}

/// Completes the explanation of a name with the answers to its A and AAAA questions.
pub(super) fn add(
    explanation: &mut Explanation,
    policy: &Policy,
    image: &Image,
    question: &Question,
    asked: &Pattern,
    answers: Answers,
) {
    let admitted = image.judge_name(asked.wire()).is_some();
    let mut error = failure(&answers);
    if let Some(error) = &mut error
        && !admitted
        && policy.mode == Mode::Enforce
    {
        error.push_str(
            " (with the filter in force, questions for names that no rule allows are refused)",
        );
    }
    let answers: Vec<Answer> = answers.into_iter().flatten().collect();
    let aliases = distinct(answers.iter().flat_map(|answer| &answer.aliases));
    if admitted {
        explanation.notes.extend(uncovered(image, &aliases));
    }
    let name = (asked, explanation.decisive.as_slice());
    let addresses = answers.iter().flat_map(|answer| &answer.addresses);
    let addresses = addresses
        .map(|address| judge(policy, image, question, name, *address))
        .collect();
    explanation.resolution = Some(Resolution {
        resolvers: policy.resolvers.clone(),
        addresses,
        chain: aliases.into_iter().map(Link::of).collect(),
        error,
    });
}

impl Link {
    fn of(alias: &Alias) -> Self {
        Self {
            name: name::dotted(&alias.name),
            kind: "CNAME",
            data: name::dotted(&alias.target),
            ttl: alias.ttl,
        }
    }
}

/// Both answers carry the aliases; their TTLs may differ by what passed between.
fn distinct<'a>(aliases: impl Iterator<Item = &'a Alias>) -> Vec<&'a Alias> {
    let mut distinct: Vec<&Alias> = Vec::new();
    for alias in aliases {
        let same = |known: &&Alias| known.name == alias.name && known.target == alias.target;
        if !distinct.iter().any(same) {
            distinct.push(alias);
        }
    }
    distinct
}

fn failure(answers: &Answers) -> Option<String> {
    let nothing = |answer: &Answer| answer.addresses.is_empty();
    let failed = answers.each_ref().map(|answer| match answer {
        Err(error) => Some(error.as_str()),
        Ok(answer) => answer.nonexistent.then_some(NO_SUCH_NAME),
    });
    match (failed, answers) {
        ([Some(ipv4), Some(ipv6)], _) if ipv4 == ipv6 => Some(ipv4.to_owned()),
        ([Some(ipv4), Some(ipv6)], _) => Some(format!("A: {ipv4}; AAAA: {ipv6}")),
        ([Some(error), None], _) => Some(format!("A: {error}")),
        ([None, Some(error)], _) => Some(format!("AAAA: {error}")),
        (_, [Ok(ipv4), Ok(ipv6)]) if nothing(ipv4) && nothing(ipv6) => {
            Some("it has no address".to_owned())
        }
        _ => None,
    }
}

/// People look for the aliases in their policy.
fn uncovered(image: &Image, aliases: &[&Alias]) -> Option<String> {
    let names: Vec<String> = aliases
        .iter()
        .filter(|alias| image.judge_name(&alias.target).is_none())
        .map(|alias| name::dotted(&alias.target))
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "no rule allows {}, and none needs to: what counts is the name that was asked for, \
             not its aliases",
            names.join(" or ")
        )
    })
}

/// `rules`: those that let out what the name lends.
fn judge(
    policy: &Policy,
    image: &Image,
    question: &Question,
    (name, rules): (&Pattern, &[Account]),
    (address, ttl): (IpAddr, u32),
) -> Resolved {
    let question = Question {
        target: Target::Address(address),
        ..question.clone()
    };
    // The kernel does not learn an IPv4-mapped address.
    let lends = image
        .judge_name(name.wire())
        .filter(|_| address.to_canonical() == address);
    let mut lent = false;
    let judged = question.probes(policy).into_iter().map(|(protocol, port)| {
        let Some(pattern) = lends else {
            return image.judge_address(address, protocol, port);
        };
        let verdict = image.judge_learned(address, protocol, port, name.wire());
        lent |= verdict.is_ok() && image.name_allows(pattern, protocol, port);
        verdict
    });
    // Collected, for `overall` looks no further than the first that is let out.
    let verdict = overall(judged.collect::<Vec<_>>().into_iter());
    let unasked = address::explain(policy, image, &question, address);
    let mut by = if lent { rules.to_vec() } else { Vec::new() };
    if unasked.allowed == verdict.is_ok() {
        by.extend(unasked.decisive);
    }
    Resolved {
        address,
        ttl,
        allowed: verdict.is_ok(),
        reason: verdict.err().map(Reason::label),
        by,
    }
}

#[cfg(test)]
mod tests;
