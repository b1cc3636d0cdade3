//! What is told of the rules, and of how often each decided.

use super::overview::{Rule, Rules};
use crate::{
    datapath::RuleHits,
    policy::{self, Action, Destination, Policy},
};

/// Rules that an overview names of those that were hit, and of those that were not. A policy may
/// have a hundred thousand.
const TOLD: usize = 100;

/// A rule in words, without its name.
#[derive(Debug, Clone)]
pub(super) struct Described {
    action: &'static str,
    what: Box<str>,
}

/// In the policy's order.
pub(super) fn described(policy: &Policy) -> Vec<Described> {
    let rules = policy.rules.iter().map(|rule| Described {
        action: match rule.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Audit => "audit",
        },
        what: what(rule).into(),
    });
    rules.collect()
}

/// `names` and `described` are of the policy's rules, and `hits` of those of them that are
/// counted, all in the policy's order.
pub(super) fn told(hits: Vec<RuleHits>, names: &[String], described: &[Described]) -> Rules {
    let mut hits = hits.into_iter().peekable();
    let counted = names.iter().zip(described).filter_map(|(name, known)| {
        let counted = hits.next_if(|counted| counted.rule == *name)?;
        Some(Rule {
            rule: counted.rule,
            action: known.action.to_owned(),
            what: known.what.to_string(),
            hits: counted.hits,
        })
    });
    let rules: Vec<Rule> = counted.collect();
    let uncounted = names.len().saturating_sub(rules.len());
    let rules = rules.into_iter();
    let (mut hit, mut never): (Vec<Rule>, Vec<Rule>) = rules.partition(|rule| rule.hits > 0);
    hit.sort_by_key(|rule| std::cmp::Reverse(rule.hits));
    let count = |rules: &[Rule]| u64::try_from(rules.len()).unwrap_or(u64::MAX);
    let (hit_in_all, never_in_all) = (count(&hit), count(&never));
    hit.truncate(TOLD);
    never.truncate(TOLD);
    Rules {
        hit,
        never,
        hit_in_all,
        never_in_all,
        uncounted: u64::try_from(uncounted).unwrap_or(u64::MAX),
    }
}

/// `Storage.WestUS2: TCP 443`
fn what(rule: &policy::Rule) -> String {
    let destination = match &rule.destination {
        Destination::Tag { tag, .. } => tag.clone(),
        Destination::Name(pattern) => pattern.to_string(),
        Destination::Prefixes(prefixes) => match prefixes.as_slice() {
            [] => String::new(),
            [one] => one.to_string(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        },
    };
    let traffic: Vec<String> = rule.traffic.iter().map(ToString::to_string).collect();
    format!("{destination}: {}", traffic.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::tests::policy_of;

    const POLICY: &str = "
outbound_rules:
  - { name: never, type: fqdn, destination: '*.example.com' }
  - { name: seldom, type: ip, action: deny, destination: { cidr: 169.254.169.254/32, protocol: '*', port_ranges: '*' } }
  - { name: often, type: ip, action: audit, destination: { cidr: 192.0.2.0/24, protocol: TCP, port_ranges: '443, 8000-8100' } }
";

    fn hits(counts: &[(&str, u64)]) -> Vec<RuleHits> {
        let counts = counts.iter().map(|(rule, hits)| RuleHits {
            rule: (*rule).to_owned(),
            hits: *hits,
        });
        counts.collect()
    }

    #[test]
    fn rules_are_told_with_what_they_are_about_and_the_most_hit_is_first() {
        let policy = policy_of(POLICY);
        let names: Vec<String> = policy.rules.iter().map(|rule| rule.name.clone()).collect();
        let described = described(&policy);
        let counted = hits(&[("never", 0), ("seldom", 2), ("often", 90)]);
        let rules = told(counted, &names, &described);
        let told: Vec<_> = rules
            .hit
            .iter()
            .chain(&rules.never)
            .map(|rule| (rule.rule.as_str(), rule.action.as_str(), rule.what.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("often", "audit", "192.0.2.0/24: TCP 443, 8000-8100"),
                ("seldom", "deny", "169.254.169.254/32: everything"),
                ("never", "allow", "*.example.com: TCP 80, 443"),
            ]
        );
        assert_eq!((rules.hit_in_all, rules.never_in_all), (2, 1));

        // The kernel has no room to count one of them.
        let rules = super::told(hits(&[("never", 0), ("often", 90)]), &names, &described);
        assert_eq!(rules.hit[0].what, "192.0.2.0/24: TCP 443, 8000-8100");
        assert_eq!((rules.never_in_all, rules.uncounted), (1, 1));
    }

    #[test]
    fn of_very_many_rules_some_are_told_and_all_are_counted() {
        let names: Vec<String> = (0..1000).map(|number| format!("r{number}")).collect();
        let counts: Vec<(&str, u64)> = names
            .iter()
            .enumerate()
            .map(|(place, name)| (name.as_str(), if place < 400 { 0 } else { place as u64 }))
            .collect();
        let one = Described {
            action: "allow",
            what: "x".into(),
        };
        let rules = told(hits(&counts), &names, &vec![one; names.len()]);
        assert_eq!((rules.hit.len(), rules.never.len()), (TOLD, TOLD));
        assert_eq!((rules.hit_in_all, rules.never_in_all), (600, 400));
        assert_eq!(rules.hit[0].rule, "r999");
        assert_eq!(rules.never[0].rule, "r0");
    }
}
