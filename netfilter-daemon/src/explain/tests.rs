use super::*;
use crate::{compile, policy::System};

/// One policy for all: a tag with a nested prefix, names, a hole, an audit.
const POLICY: &str = r#"
presets: [azure-ml]
resolvers: [168.63.129.16]
outbound_rules:
  - name: wide
    type: ip
    destination: { cidr: 10.0.0.0/8, protocol: TCP, port_ranges: "443, 8000-8100" }
  - name: narrow
    type: ip
    destination: { cidr: [10.20.0.0/16, 10.20.30.0/24], protocol: UDP, port_ranges: "123" }
  - name: hole
    type: ip
    action: deny
    destination: { cidr: 10.20.30.0/24, protocol: "*", port_ranges: "*" }
  - name: watched
    type: ip
    action: audit
    destination: { cidr: 192.0.2.0/24, protocol: TCP, port_ranges: "25" }
  - name: ping
    type: ip
    destination: { cidr: [198.51.100.0/24, "2001:db8::/32"], protocol: ICMP, port_ranges: "*" }
  - name: pypi
    type: fqdn
    destination: pypi.org
  - name: files
    type: fqdn
    destination: "*.pythonhosted.org"
"#;

pub(crate) fn policy_of(text: &str) -> Policy {
    let parsed = crate::policy::parse(text, "policy.yaml", &System::default(), &|_| unreachable!());
    parsed.unwrap()
}

fn ask(destination: &str, protocol: Option<&str>) -> Explanation {
    let policy = policy_of(POLICY);
    let image = compile::compile(&policy).unwrap();
    explain(
        &policy,
        &image,
        &Question::parse(destination, protocol).unwrap(),
    )
}

fn rules(accounts: &[Account]) -> Vec<&str> {
    accounts
        .iter()
        .map(|account| account.rule.as_str())
        .collect()
}

#[test]
fn an_allowed_address_is_attributed_to_the_rule_that_allows_the_port() {
    let explanation = ask("10.20.1.1:8050", None);
    assert!(explanation.allowed);
    assert_eq!(explanation.reason, None);
    assert_eq!(rules(&explanation.decisive), ["wide"]);
    assert_eq!(rules(&explanation.others), ["narrow"]);
    assert_eq!(
        explanation.decisive[0].prefix,
        Some("10.0.0.0/8".parse().unwrap())
    );
}

#[test]
fn the_next_port_is_denied_and_the_rules_for_the_address_are_named() {
    let explanation = ask("10.20.1.1:8101", None);
    assert_eq!(explanation.reason, Some("no_rule"));
    assert!(explanation.decisive.is_empty());
    assert_eq!(rules(&explanation.others), ["wide", "narrow"]);
}

#[test]
fn a_deny_rule_decides_and_what_it_overrules_is_beside_it() {
    let explanation = ask("10.20.30.1:443", None);
    assert_eq!(explanation.reason, Some("denied_by_rule"));
    assert_eq!(rules(&explanation.decisive), ["hole"]);
    assert_eq!(rules(&explanation.others), ["wide", "narrow"]);
    assert!(ask("10.20.31.1:443", None).allowed);
}

#[test]
fn the_most_specific_published_prefix_of_each_rule_is_told() {
    let explanation = ask("10.20.30.1:123", Some("udp"));
    let narrow = explanation
        .others
        .iter()
        .find(|account| account.rule == "narrow")
        .unwrap();
    assert_eq!(narrow.prefix, Some("10.20.30.0/24".parse().unwrap()));
}

#[test]
fn without_a_port_an_address_is_allowed_if_anything_to_it_is() {
    let explanation = ask("10.20.1.1", None);
    assert!(explanation.allowed);
    assert_eq!(rules(&explanation.decisive), ["wide", "narrow"]);
    let explanation = ask("10.20.30.1", None);
    assert!(!explanation.allowed);
    assert_eq!(explanation.reason, Some("denied_by_rule"));
    let explanation = ask("203.0.113.1", None);
    assert_eq!(explanation.reason, Some("no_rule"));
    assert!(explanation.others.is_empty());
}

#[test]
fn without_a_port_a_protocol_narrows_the_question() {
    assert_eq!(rules(&ask("10.20.1.1", Some("udp")).decisive), ["narrow"]);
    assert_eq!(rules(&ask("10.20.1.1", Some("tcp")).decisive), ["wide"]);
    assert!(!ask("10.20.1.1", Some("icmp")).allowed);
}

#[test]
fn icmp_is_that_of_the_address_s_family() {
    assert!(ask("198.51.100.7", Some("icmp")).allowed);
    assert!(ask("2001:db8::7", Some("icmp")).allowed);
    assert!(ask("2001:db8::7", Some("58")).allowed);
    assert!(!ask("2001:db8::7", Some("59")).allowed);
    assert!(!ask("203.0.113.7", Some("icmp")).allowed);
}

#[test]
fn what_only_audit_lets_pass_is_said_to_be_so() {
    let explanation = ask("192.0.2.1:25", None);
    assert!(explanation.allowed);
    assert_eq!(explanation.decisive[0].action, "audit");
    assert!(!ask("192.0.2.1:26", None).allowed);
}

#[test]
fn a_tag_is_named_with_the_prefix_as_published() {
    let explanation = ask("20.190.128.5:443", None);
    let account = &explanation.decisive[0];
    assert_eq!(account.rule, "azure-ml/AzureActiveDirectory");
    assert_eq!(account.service_tag.as_deref(), Some("AzureActiveDirectory"));
    assert!(
        account
            .prefix
            .unwrap()
            .contains(&"20.190.128.5".parse::<std::net::IpAddr>().unwrap())
    );
    assert!(!ask("20.190.128.5:444", None).allowed);
}

#[test]
fn a_resolver_answers_for_itself() {
    let explanation = ask("168.63.129.16:53", Some("udp"));
    assert!(explanation.allowed);
    assert!(explanation.notes[0].starts_with("168.63.129.16 is a configured resolver"));
    assert!(ask("168.63.129.16", None).allowed);
    assert!(!ask("168.63.129.16:80", None).allowed);
}

#[test]
fn an_address_that_no_rule_holds_may_still_be_learned() {
    let explanation = ask("203.0.113.1:443", None);
    assert!(
        explanation.notes[0].contains("6 rules allow names"),
        "{:?}",
        explanation.notes
    );
}

#[test]
fn an_allowed_name_is_attributed_to_its_pattern() {
    let explanation = ask("PyPI.org:443", None);
    assert!(explanation.allowed);
    assert_eq!(rules(&explanation.decisive), ["pypi"]);
    assert_eq!(explanation.decisive[0].name.as_deref(), Some("pypi.org"));
    assert_eq!(
        explanation.notes[0],
        "the DNS question is let out by `pypi.org`"
    );
    assert!(!ask("pypi.org:22", None).allowed);
}

#[test]
fn a_wildcard_admits_one_label_and_more_and_says_so() {
    for name in ["a.pythonhosted.org:443", "a.b.pythonhosted.org:443"] {
        let explanation = ask(name, None);
        assert_eq!(rules(&explanation.decisive), ["files"]);
        assert!(explanation.notes[0].contains("one or more labels, never for the name behind it"));
    }
}

#[test]
fn the_apex_of_a_wildcard_is_denied_and_the_wildcard_is_named() {
    let explanation = ask("pythonhosted.org:443", None);
    assert_eq!(explanation.reason, Some("dns_name"));
    assert_eq!(rules(&explanation.others), ["files"]);
    assert_eq!(
        explanation.notes,
        [
            "`*.pythonhosted.org` is for every name below pythonhosted.org, and never for \
          pythonhosted.org itself; allow that with a rule of its own"
        ]
    );
}

#[test]
fn a_name_that_was_misspelt_is_denied_with_the_rule_that_was_meant() {
    let explanation = ask("mcr.mircosoft.com:443", None);
    assert_eq!(explanation.reason, Some("dns_name"));
    assert_eq!(rules(&explanation.others), ["azure-ml/mcr.microsoft.com"]);
    assert!(ask("exfiltration.example:443", None).others.is_empty());
}

#[test]
fn a_name_on_a_port_that_its_rule_does_not_allow_names_the_rule() {
    let explanation = ask("mcr.microsoft.com:80", None);
    assert_eq!(explanation.reason, Some("no_rule"));
    assert_eq!(rules(&explanation.others), ["azure-ml/mcr.microsoft.com"]);
}

#[test]
fn without_a_port_a_name_is_allowed_if_its_question_is() {
    let explanation = ask("pypi.org", None);
    assert_eq!(rules(&explanation.decisive), ["pypi"]);
    assert_eq!((explanation.protocol, explanation.port), (None, None));
    assert!(!ask("pypi.org", Some("udp")).allowed);
}
