//! What the golden files do not show: every form and every mistake is in `policy::golden`.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::policy::service_tag::BUILT_IN_NAME;
use crate::policy::{Action, Mode, OnDeny, Pattern, Traffic};

fn read(text: &str) -> Result<Policy, Error> {
    let system = System {
        users: vec![("root".to_owned(), 0), ("alice".to_owned(), 1001)],
        connected: vec!["10.0.0.0/24".parse().unwrap()],
        resolvers: vec!["168.63.129.16".parse().unwrap()],
    };
    parse(text, "policy.yaml", &system, &|path| {
        Catalogue::parse("{}", path)
    })
}

fn problems(text: &str) -> Vec<String> {
    let told = read(text).unwrap_err().to_string();
    told.lines().map(str::to_owned).collect()
}

#[test]
fn the_preset_is_the_table_of_the_design() {
    let policy = read("presets: [azure-ml]").unwrap();
    let table: Vec<(String, String)> = policy
        .rules
        .iter()
        .map(|rule| (rule.name.clone(), rule.traffic[0].to_string()))
        .collect();
    let row = |name: &str, traffic: &str| (format!("azure-ml/{name}"), traffic.to_owned());
    assert_eq!(
        table,
        [
            row("AzureActiveDirectory", "TCP 80, 443"),
            row("AzureResourceManager", "TCP 443"),
            row("AzureMachineLearning", "UDP 5831"),
            row("BatchNodeManagement", "TCP 443"),
            row("mcr.microsoft.com", "TCP 443"),
            row("*.data.mcr.microsoft.com", "TCP 443"),
            row("ml.azure.com", "TCP 443"),
            row("automlresources-prod.azureedge.net", "TCP 443"),
        ]
    );
    assert!(policy.rules.iter().all(|rule| rule.action == Action::Allow));
}

#[test]
fn without_the_preset_none_of_its_rules_is_there() {
    assert_eq!(read("presets: []").unwrap().rules, []);
}

/// What the operator calls the virtual network may lie behind routers.
#[test]
fn on_the_link_are_the_machines_subnets_and_the_dhcp_server_of_azure() {
    let own: IpNet = "10.0.0.0/24".parse().unwrap();
    let policy = read("virtual_network: [10.0.0.0/8]").unwrap();
    assert_eq!(policy.on_link, [own]);
    let policy = read("presets: [azure-ml]").unwrap();
    assert_eq!(policy.on_link, ["168.63.129.16/32".parse().unwrap(), own]);
}

#[test]
fn what_is_left_out_has_its_documented_default() {
    let policy = read("isolation_mode: allow_only_approved_outbound").unwrap();
    assert_eq!(policy.mode, Mode::Enforce);
    assert_eq!(policy.on_deny, OnDeny::Reject);
    assert_eq!(policy.inbound, [Traffic::tcp([22])]);
    assert_eq!(policy.interfaces, None);
    assert_eq!(
        policy.resolvers,
        ["168.63.129.16".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(policy.virtual_network, ["10.0.0.0/24".parse().unwrap()]);
    assert_eq!(policy.on_link, policy.virtual_network);
    assert_eq!(
        policy.dns,
        Dns {
            on_deny: NameRefusal::Nxdomain,
            minimum_ttl: 60,
            grace: 30,
            query_types: QueryTypes::Only(vec![1, 28, 5, 12, 33, 64, 65, 2, 6, 43, 48]),
            private_reverse: false,
            wildcard_length: 254,
            wildcard_rate: None,
        }
    );
    assert_eq!(policy.catalogue.source, BUILT_IN_NAME);
}

#[test]
fn rules_keep_the_order_of_the_file_behind_those_of_presets() {
    let policy = read(
        "outbound_rules:\n  - {name: b, destination: b.example}\n  - {name: a, destination: a.example}\npresets: [azure-ml]",
    )
    .unwrap();
    let names: Vec<&str> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(
        (names[0], &names[8..]),
        ("azure-ml/AzureActiveDirectory", &["b", "a"][..])
    );
}

#[test]
fn underscores_are_legal_in_the_name_of_a_rule_s_destination() {
    let policy =
        read("outbound_rules: [{name: x, destination: _acme-challenge.a_b.example}]").unwrap();
    let expected: Pattern = "_acme-challenge.a_b.example".parse().unwrap();
    assert_eq!(policy.rules[0].destination, Destination::Name(expected));
}

#[test]
fn all_the_rules_that_a_policy_may_have_are_read_and_one_more_is_not() {
    let rules = |count: usize| {
        let rule = |index| format!("  - {{name: r{index}, destination: r{index}.example}}\n");
        let rules: String = (0..count).map(rule).collect();
        format!("outbound_rules:\n{rules}")
    };
    assert_eq!(read(&rules(RULES_MAX)).unwrap().rules.len(), RULES_MAX);
    // The excess one is not looked at.
    let told = problems(&format!("{}  - {{}}\n", rules(RULES_MAX)));
    assert_eq!(
        told,
        [
            "policy.yaml:131074:5: more than 131072 rules; join those of one purpose, for `cidr` takes a list"
        ]
    );
}

#[test]
fn tags_are_not_missed_where_the_list_itself_cannot_be_read() {
    let told = problems(
        "service_tags: bad.json\noutbound_rules:\n  - name: x\n    type: service_tag\n    destination: {service_tag: Zzz, protocol: TCP, port_ranges: 1}",
    );
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("policy.yaml:1:15: bad.json"));
}

#[test]
fn a_wrong_default_of_the_file_is_reported_once_and_never_taken() {
    assert!(read("on_deny: nothing").is_err());
    assert!(read("dns: { minimum_ttl: -1 }").is_err());
    assert!(read("dns: { minimum_ttl: 86400 }").is_ok());
}

#[test]
fn a_workspace_s_keys_are_ignored_only_beside_a_managed_network() {
    assert!(
        read("name: w\nmanaged_network: {isolation_mode: allow_only_approved_outbound}").is_ok()
    );
    assert!(read("name: w\nisolation_mode: allow_only_approved_outbound").is_err());
    assert!(read("nam: w\nmanaged_network: {}").is_err());
}

/// A value of any shape, made of what policies are made of.
fn value() -> impl Strategy<Value = String> {
    let words = "~ x 1 443 10.0.0.0/8 10.0.0.1/8 a.example TCP ICMP allow deny audit fqdn ip \
                 service_tag private_endpoint Storage [] {} [azure-ml] auto drop nxdomain";
    let keys = "name type action destination fqdns properties service_tag address_prefixes fqdn \
                cidr protocol port_ranges portRanges service_resource_id category value dns \
                outbound_rules presets inbound managed_network isolation_mode resolvers grace";
    let of = |list: &'static str| prop::sample::select(list.split(' ').collect::<Vec<_>>());
    let word = of(words).prop_map(str::to_owned);
    word.prop_recursive(4, 32, 6, move |inner| {
        let list = prop::collection::vec(inner.clone(), 0..3)
            .prop_map(|items| format!("[{}]", items.join(", ")));
        let mapping = prop::collection::btree_map(of(keys), inner, 0..6).prop_map(|entries| {
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{key}: {value}"))
                .collect();
            format!("{{{}}}", entries.join(", "))
        });
        prop_oneof![1 => list, 3 => mapping]
    })
}

proptest! {
    // Each case reads the built-in catalogue: 30 ms without optimisation.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_rule_is_dropped_in_silence(
        destination in value(),
        kind in prop::sample::select(vec!["fqdn", "ip", "service_tag", "private_endpoint", "~"]),
        rest in prop::sample::select(vec!["action: deny", "fqdns: [a.b]", "fqdns: []", "status: x"]),
    ) {
        let text = format!("outbound_rules: [{{name: a, type: {kind}, destination: {destination}, {rest}}}]");
        match read(&text) {
            Ok(policy) => prop_assert!(policy.rules.len() + policy.remarks.notes.len() > 0, "{text}"),
            Err(error) => prop_assert!(!error.to_string().is_empty(), "{text}"),
        }
    }

    #[test]
    fn no_policy_makes_the_reader_panic(text in value()) {
        if let Err(error) = read(&text) {
            prop_assert!(error.to_string().starts_with("policy.yaml:"), "{text}");
        }
    }
}
