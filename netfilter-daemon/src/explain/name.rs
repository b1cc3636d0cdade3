//! A name: whether the question for it goes out, and what the answer opens.

use netfilter_ebpf::verdict::Reason;

use super::{
    Account, Explanation, Question, Relevant,
    address::{covers, overall},
    conclude,
};
use crate::{
    compile::Image,
    policy::{Action, Destination, Pattern, Policy, Rule},
};

/// Similarity from which a name is worth mentioning; 1 is equality.
const SIMILAR: f64 = 0.7;

pub(super) fn explain(
    policy: &Policy,
    image: &Image,
    question: &Question,
    name: &Pattern,
) -> Explanation {
    let admitted = image.judge_name(name.wire());
    let judge = |protocol, port| match admitted {
        None => Err(Reason::DnsName),
        Some(pattern) if image.name_allows(pattern, protocol, port) => Ok(()),
        Some(_) => Err(Reason::NoRule),
    };
    let judged: Vec<(u8, u16, Result<(), Reason>)> = question
        .probes(policy)
        .into_iter()
        .map(|(protocol, port)| (protocol, port, judge(protocol, port)))
        .collect();
    let relevant = names(policy)
        .filter(|(_, pattern)| pattern.matches(name.wire()))
        .map(|(rule, _)| {
            let covered = || {
                judged
                    .iter()
                    .filter(|(protocol, port, _)| covers(rule, *protocol, *port))
            };
            Relevant {
                rule,
                account: Account::of(rule, None),
                covers: covered().next().is_some(),
                passes: covered().any(|(_, _, verdict)| verdict.is_ok()),
            }
        });
    let verdict = overall(judged.iter().map(|(_, _, verdict)| *verdict));
    let mut explanation = conclude(question, verdict, relevant.collect());
    explanation.notes = notes(policy, admitted, verdict);
    if admitted.is_none() && explanation.decisive.is_empty() && explanation.others.is_empty() {
        nearest(policy, name, &mut explanation);
    }
    explanation
}

fn names(policy: &Policy) -> impl Iterator<Item = (&Rule, &Pattern)> {
    policy
        .rules
        .iter()
        .filter_map(|rule| match &rule.destination {
            Destination::Name(pattern) => Some((rule, pattern)),
            _ => None,
        })
}

fn notes(policy: &Policy, admitted: Option<&Pattern>, verdict: Result<(), Reason>) -> Vec<String> {
    let mut notes = Vec::new();
    match admitted {
        Some(pattern) if pattern.is_wildcard() => notes.push(format!(
            "the DNS question is let out by `{pattern}`: `*.` stands for one or more labels, never for the name behind it"
        )),
        Some(pattern) => notes.push(format!("the DNS question is let out by `{pattern}`")),
        None => return notes,
    }
    if policy.resolvers.is_empty() {
        notes.push("the policy knows no resolver, so that no question can go out".to_owned());
    }
    let denies_addresses = policy.rules.iter().any(|rule| {
        rule.action == Action::Deny && !matches!(rule.destination, Destination::Name(_))
    });
    if verdict.is_ok() {
        let except = if denies_addresses {
            ", except where a rule with `action: deny` covers it"
        } else {
            ""
        };
        notes.push(format!(
            "an address in the answer is let out until the answer expires{except}"
        ));
    }
    notes
}

/// The rule that was perhaps meant.
fn nearest(policy: &Policy, name: &Pattern, explanation: &mut Explanation) {
    let allowing = || names(policy).filter(|(rule, _)| rule.action != Action::Deny);
    let apex =
        |(_, pattern): &(&Rule, &Pattern)| pattern.is_wildcard() && pattern.wire() == name.wire();
    if let Some((rule, pattern)) = allowing().find(apex) {
        explanation.others.push(Account::of(rule, None));
        explanation.notes.push(format!(
            "`{pattern}` is for every name below {name}, and never for {name} itself; allow that with a rule of its own"
        ));
        return;
    }
    let asked = name.to_string();
    let likeness =
        |pattern: &Pattern| strsim::normalized_damerau_levenshtein(&asked, &pattern.to_string());
    let most_similar = allowing()
        .map(|(rule, pattern)| (likeness(pattern), rule))
        .filter(|(likeness, _)| *likeness >= SIMILAR)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    if let Some((_, rule)) = most_similar {
        explanation.others.push(Account::of(rule, None));
    }
}
