//! Would this destination be let out, and by which rule?
//!
//! The verdict is that of the kernel's own code ([`Image`]); the rules that
//! account for it are found by walking the policy.

use ipnet::IpNet;
use netfilter_ebpf::verdict::Reason;
use serde::Serialize;

use crate::{
    compile::Image,
    policy::{Action, Destination, Pattern, Policy, Rule},
    resolvers::Answers,
};

mod address;
mod deciding;
mod name;
mod question;
mod resolution;

pub use deciding::Deciding;
pub use question::{Error, Question, Target};
pub use resolution::{Link, Resolution, Resolved};

/// The verdict on one destination, and what accounts for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub destination: String,
    /// `TCP`, `ICMP`, `protocol 47`; `null` when every protocol was asked about.
    pub protocol: Option<String>,
    /// `null` when every port was asked about.
    pub port: Option<u16>,
    pub allowed: bool,
    /// As in the metrics; `null` when allowed.
    pub reason: Option<&'static str>,
    /// The same as a sentence.
    pub sentence: Option<&'static str>,
    /// The rules that make the verdict what it is.
    pub decisive: Vec<Account>,
    /// Rules about this destination that did not decide: other ports, or
    /// overruled by a deny rule. Where there are none, the rule for the most
    /// similar name.
    pub others: Vec<Account>,
    /// `null` unless the name was asked for.
    pub resolution: Option<Resolution>,
    pub notes: Vec<String>,
}

/// What one rule has to do with the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    pub rule: String,
    /// `allow`, `deny` or `audit`.
    pub action: &'static str,
    /// Protocols and ports of the rule, as the policy has them.
    pub traffic: Vec<String>,
    pub service_tag: Option<String>,
    /// The most specific of the rule's prefixes, as published, that holds the address.
    pub prefix: Option<IpNet>,
    /// The rule's name or wildcard.
    pub name: Option<String>,
}

/// Answers for a policy and what it compiles to.
pub fn explain(policy: &Policy, image: &Image, question: &Question) -> Explanation {
    match &question.target {
        Target::Address(address) => address::explain(policy, image, question, *address),
        Target::Name(name) => name::explain(policy, image, question, name),
    }
}

/// Answers for a name and for what its A and AAAA questions brought.
pub fn explain_answers(
    policy: &Policy,
    image: &Image,
    question: &Question,
    name: &Pattern,
    answers: Answers,
) -> Explanation {
    let mut explanation = name::explain(policy, image, question, name);
    resolution::add(&mut explanation, policy, image, question, name, answers);
    explanation
}

impl Account {
    fn of(rule: &Rule, prefix: Option<IpNet>) -> Self {
        let (service_tag, name) = match &rule.destination {
            Destination::Tag { tag, .. } => (Some(tag.clone()), None),
            Destination::Prefixes(_) => (None, None),
            Destination::Name(pattern) => (None, Some(pattern.to_string())),
        };
        Self {
            rule: rule.name.clone(),
            action: match rule.action {
                Action::Allow => "allow",
                Action::Deny => "deny",
                Action::Audit => "audit",
            },
            traffic: rule.traffic.iter().map(ToString::to_string).collect(),
            service_tag,
            prefix,
            name,
        }
    }
}

/// A rule about the destination, and what the question's traffic is to it.
struct Relevant<'a> {
    rule: &'a Rule,
    account: Account,
    /// Some of the traffic that was asked about is the rule's.
    covers: bool,
    /// Of that, some is let out.
    passes: bool,
}

/// Puts the verdict and the relevant rules together.
fn conclude(
    question: &Question,
    verdict: Result<(), Reason>,
    relevant: Vec<Relevant<'_>>,
) -> Explanation {
    let decisive = |relevant: &Relevant<'_>| match (verdict, relevant.rule.action) {
        (Ok(()), Action::Deny) | (Err(_), Action::Allow | Action::Audit) => false,
        (Ok(()), Action::Allow | Action::Audit) => relevant.passes,
        (Err(_), Action::Deny) => relevant.covers,
    };
    let (decisive, others): (Vec<_>, Vec<_>) = relevant.into_iter().partition(decisive);
    let accounts =
        |relevant: Vec<Relevant<'_>>| relevant.into_iter().map(|each| each.account).collect();
    Explanation {
        destination: question.target.to_string(),
        protocol: question.protocol.map(|protocol| protocol.to_string()),
        port: question.port,
        allowed: verdict.is_ok(),
        reason: verdict.err().map(Reason::label),
        sentence: verdict.err().map(Reason::sentence),
        decisive: accounts(decisive),
        others: accounts(others),
        resolution: None,
        notes: Vec::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
