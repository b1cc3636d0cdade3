//! Which rule an event is about.

use netfilter_ebpf::verdict::Reason;

use super::address::{covers, most_specific};
use crate::{
    datapath::Event,
    policy::{Action, Destination, Pattern, Policy, Rule},
};

/// The rules of a policy that deny, or have audited: nothing else is an event by a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deciding(Vec<Rule>);

impl Deciding {
    pub fn of(policy: &Policy) -> Self {
        let rules = policy.rules.iter();
        let rules = rules.filter(|rule| rule.action != Action::Allow);
        Self(rules.cloned().collect())
    }

    /// The first, in the policy's order, that makes it an event. `resolved`: the name that the
    /// destination was last resolved from.
    pub fn of_event(&self, event: &Event, resolved: Option<&str>) -> Option<&str> {
        let (action, name) = match event.reason {
            Reason::DnsName => (Action::Deny, event.question.as_deref()),
            Reason::DeniedByRule => (Action::Deny, None),
            Reason::NoRule if event.audited => (Action::Audit, resolved),
            _ => return None,
        };
        // One that is no name matches none.
        let name = name.and_then(|name| name.parse::<Pattern>().ok());
        let is_question = event.question.is_some();
        let about = |rule: &&Rule| match (&rule.destination, event.destination) {
            (Destination::Name(pattern), _) => {
                name.as_ref()
                    .is_some_and(|name| pattern.matches(name.wire()))
                    && (is_question || covers(rule, event.protocol, event.destination_port))
            }
            (_, Some(address)) if !is_question => {
                most_specific(rule, address).is_some()
                    && covers(rule, event.protocol, event.destination_port)
            }
            _ => false,
        };
        let mut rules = self.0.iter().filter(|rule| rule.action == action);
        Some(rules.find(about)?.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{daemon::event::tests::reported, explain::tests::policy_of};

    const POLICY: &str = "
outbound_rules:
  - { name: metadata, type: ip, action: deny, destination: { cidr: 169.254.169.254/32, protocol: TCP, port_ranges: '80' } }
  - { name: link, type: ip, action: deny, destination: { cidr: 169.254.0.0/16, protocol: '*', port_ranges: '*' } }
  - { name: evil, type: fqdn, action: deny, destination: '*.evil.example' }
  - { name: watched, type: ip, action: audit, destination: { cidr: 192.0.2.0/24, protocol: TCP, port_ranges: '443' } }
  - { name: seen, type: fqdn, action: audit, destination: '*.seen.example' }
  - { name: fine, type: ip, destination: { cidr: 198.51.100.0/24, protocol: TCP, port_ranges: '443' } }
";

    fn event(reason: Reason, to: [u8; 4], port: u16) -> Event {
        Event {
            reason,
            destination: Some(to.into()),
            destination_port: port,
            ..reported()
        }
    }

    #[test]
    fn the_rule_that_denies_or_has_audited_is_named_and_no_other() {
        let rules = Deciding::of(&policy_of(POLICY));
        let rule = |event: &Event| rules.of_event(event, None).map(str::to_owned);
        let denied = |port| rule(&event(Reason::DeniedByRule, [169, 254, 169, 254], port));
        assert_eq!(denied(80).as_deref(), Some("metadata"));
        assert_eq!(denied(81).as_deref(), Some("link"));
        let mut watched = event(Reason::NoRule, [192, 0, 2, 1], 443);
        assert_eq!(rule(&watched), None, "before it was audited");
        watched.audited = true;
        assert_eq!(rule(&watched).as_deref(), Some("watched"));
        watched.destination_port = 444;
        assert_eq!(rule(&watched), None);
        let allowed = event(Reason::NoRule, [198, 51, 100, 1], 443);
        assert_eq!(rule(&allowed), None);
        let malformed = event(Reason::Malformed, [169, 254, 169, 254], 80);
        assert_eq!(rule(&malformed), None);
    }

    #[test]
    fn a_question_is_denied_by_the_rule_for_its_name() {
        let rules = Deciding::of(&policy_of(POLICY));
        let asked = |name: &str| Event {
            question: Some(name.to_owned()),
            ..event(Reason::DnsName, [169, 254, 169, 254], 53)
        };
        assert_eq!(rules.of_event(&asked("A.eVil.example"), None), Some("evil"));
        for other in [
            "evil.example",
            "pypi.org",
            "a\\046evil.example",
            "not a name",
        ] {
            assert_eq!(rules.of_event(&asked(other), None), None, "{other}");
        }
    }

    #[test]
    fn what_a_name_lent_is_audited_by_the_rule_for_the_name() {
        let rules = Deciding::of(&policy_of(POLICY));
        let mut used = event(Reason::NoRule, [203, 0, 113, 1], 443);
        let name = Some("CDN.seen.example");
        assert_eq!(rules.of_event(&used, name), None, "before it was audited");
        used.audited = true;
        assert_eq!(rules.of_event(&used, name), Some("seen"));
        assert_eq!(rules.of_event(&used, Some("seen.example")), None);
        assert_eq!(rules.of_event(&used, None), None);
        used.destination_port = 22;
        assert_eq!(rules.of_event(&used, name), None, "that it says nothing of");
        let denied = event(Reason::DeniedByRule, [203, 0, 113, 1], 443);
        assert_eq!(rules.of_event(&denied, Some("a.evil.example")), None);
    }
}
