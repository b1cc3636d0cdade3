use super::*;
use crate::policy::{self, System, service_tag::Catalogue};

fn policy(yaml: &str) -> Policy {
    let system = System {
        resolvers: vec!["10.99.0.1".parse().unwrap()],
        ..System::default()
    };
    policy::parse(yaml, "test.yaml", &system, &|_| Catalogue::built_in()).unwrap()
}

fn plan(rules: &str) -> Vec<(&'static str, String, bool)> {
    let plan = Plan::of(&policy(&format!("outbound_rules: [{rules}]")));
    let show = |probe: Probe| (probe.what, probe.to_string(), probe.allowed);
    plan.probes.into_iter().map(show).collect()
}

fn of_rule(rules: &str) -> Vec<(&'static str, String, bool)> {
    let plan = plan(rules);
    let beyond = plan
        .iter()
        .position(|(what, ..)| *what == "instance metadata");
    plan[..beyond.unwrap()].to_vec()
}

fn expect(expected: &[(&'static str, &str, bool)]) -> Vec<(&'static str, String, bool)> {
    let owned =
        |(what, text, allowed): &(&'static str, &str, bool)| (*what, (*text).to_owned(), *allowed);
    expected.iter().map(owned).collect()
}

#[test]
fn of_an_address_rule_both_ends_pass_and_what_is_beside_them_does_not() {
    let rule = "{name: a, type: ip, destination: {cidr: 203.0.113.0/24, protocol: TCP, port_ranges: '80, 443'}}";
    assert_eq!(
        of_rule(rule),
        expect(&[
            ("first address", "tcp 203.0.113.0:80", true),
            ("last address", "tcp 203.0.113.255:443", true),
            ("just outside", "tcp 203.0.114.0:80", false),
            ("other port or protocol", "tcp 203.0.113.0:22", false),
        ])
    );
}

#[test]
fn of_a_wildcard_the_names_below_pass_once_they_are_asked_for() {
    let rule = "{name: a, type: fqdn, destination: {fqdn: '*.example.com', protocol: TCP, port_ranges: '443'}}";
    assert_eq!(
        of_rule(rule),
        expect(&[
            ("its address, unasked", "tcp 198.18.0.1:443", false),
            ("a name below", "tcp4 eastus.example.com:443", true),
            ("a name below", "tcp6 eastus.example.com:443", true),
            ("other port or protocol", "tcp [2001:2::2]:22", false),
            ("two labels below", "tcp4 lab.eastus.example.com:443", true),
            ("what the * is below", "tcp6 example.com:443", false),
            ("a name that ends alike", "tcp4 unexample.com:443", false),
        ])
    );
}

#[test]
fn of_an_exact_name_only_itself_passes() {
    let rule = "{name: a, type: fqdn, destination: example.com}";
    assert_eq!(
        of_rule(rule),
        expect(&[
            ("the name", "tcp4 example.com:80", true),
            ("the name", "tcp6 example.com:443", true),
            ("other port or protocol", "tcp [2001:2::2]:22", false),
            ("a name below", "tcp4 lab.example.com:80", false),
            ("a name that ends alike", "tcp6 unexample.com:80", false),
        ])
    );
}

#[test]
fn what_another_rule_allows_is_expected_to_pass() {
    let rules = "{name: a, type: fqdn, destination: example.com}, {name: b, type: fqdn, destination: '*.example.com'}";
    assert!(plan(rules).contains(&("a name below", "tcp4 lab.example.com:80".into(), true)));
}

#[test]
fn what_a_rule_denies_is_expected_not_to_pass() {
    let rules = "{name: a, type: ip, destination: {cidr: 203.0.113.0/24, protocol: '*', port_ranges: '*'}},
        {name: b, type: ip, action: deny, destination: {cidr: 203.0.113.255/32, protocol: TCP, port_ranges: '443'}}";
    let plan = of_rule(rules);
    assert!(plan.contains(&("last address", "udp 203.0.113.255:443".into(), true)));
    assert!(plan.contains(&("first address", "tcp 203.0.113.255:443".into(), false)));
}

#[test]
fn a_name_that_no_rule_allows_is_not_answered_even_where_its_address_is_allowed() {
    let rule =
        "{name: a, type: ip, destination: {cidr: 198.18.0.0/15, protocol: '*', port_ranges: '*'}}";
    let everywhere =
        "{name: b, type: ip, destination: {cidr: 0.0.0.0/0, protocol: TCP, port_ranges: '443'}}";
    for rules in [rule, everywhere] {
        let text = "tcp4 secrets.exfiltration.example:443";
        assert!(plan(rules).contains(&("a name", text.into(), false)));
    }
}

#[test]
fn a_name_that_is_denied_is_not_answered() {
    let rules = "{name: a, type: fqdn, destination: '*.example.com'},
        {name: b, type: fqdn, action: deny, destination: eastus.example.com}";
    let plan = plan(rules);
    assert!(plan.contains(&("a name below", "tcp4 eastus.example.com:80".into(), false)));
    assert!(plan.contains(&(
        "two labels below",
        "tcp4 lab.eastus.example.com:80".into(),
        true
    )));
}

#[test]
fn a_resolver_is_not_probed_at_its_port() {
    let rule =
        "{name: a, type: ip, destination: {cidr: 8.8.8.8/32, protocol: UDP, port_ranges: '53'}}";
    assert!(
        !plan(rule)
            .iter()
            .filter(|(_, text, _)| text == "udp 8.8.8.8:53")
            .any(|(.., allowed)| !allowed)
    );
    let asked = Plan::of(&policy(&format!(
        "{{resolvers: [8.8.8.8], outbound_rules: [{rule}]}}"
    )));
    assert!(
        asked
            .probes
            .iter()
            .all(|probe| probe.to_string() != "udp 8.8.8.8:53")
    );
}

#[test]
fn in_report_mode_everything_is_expected_to_pass() {
    let reporting = Plan::of(&policy(
        "{isolation_mode: allow_internet_outbound, presets: [azure-ml]}",
    ));
    assert!(reporting.probes.iter().all(|probe| probe.allowed));
    let enforcing = Plan::of(&policy("presets: [azure-ml]"));
    assert!(enforcing.probes.iter().any(|probe| !probe.allowed));
}

#[test]
fn names_that_dns_does_not_allow_are_not_made_up() {
    let label = "a".repeat(63);
    let rule = format!(
        "{{name: a, type: fqdn, destination: '{label}.{label}.{label}.{}'}}",
        "b".repeat(60)
    );
    let made_up = of_rule(&rule);
    assert!(made_up.iter().any(|(what, ..)| *what == "the name"));
    assert!(
        !made_up
            .iter()
            .any(|(what, ..)| matches!(*what, "a name below" | "a name that ends alike"))
    );
}

#[test]
fn the_demonstration_is_a_right_policy_and_probes_every_rule() {
    let policy = policy(crate::lab::site::DEMONSTRATION);
    let plan = Plan::of(&policy);
    for rule in &policy.rules {
        let group = heading(rule);
        assert!(
            plan.probes.iter().any(|probe| probe.group == group),
            "{group}"
        );
    }
    assert_eq!(policy.remarks.notes, []);
}
