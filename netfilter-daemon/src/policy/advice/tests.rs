use super::*;
use crate::policy::{self, Policy, System, service_tag};

fn policy(rules: &str) -> Policy {
    let text = format!("resolvers: [10.0.0.2]\nservice_tags: list.json\noutbound_rules:\n{rules}");
    let tags = |_: &str| {
        let names = TAGS.iter().map(|(tag, _)| *tag).chain([
            "Storage.WestEurope",
            "AzureFrontDoor.FirstParty",
            "MicrosoftContainerRegistry",
            "AzureActiveDirectory",
            "StorageSyncService",
        ]);
        let values: Vec<_> = names
            .map(|name| {
                format!(
                    r#"{{"name":"{name}","properties":{{"addressPrefixes":["192.0.2.0/24"]}}}}"#
                )
            })
            .collect();
        let json = format!(
            r#"{{"changeNumber":1,"cloud":"Public","values":[{}]}}"#,
            values.join(",")
        );
        service_tag::Catalogue::parse(&json, "list.json")
    };
    policy::parse(&text, "policy.yaml", &System::default(), &tags).unwrap()
}

fn name(name: &str) -> String {
    format!("  - {{ name: \"{name}\", type: fqdn, destination: \"{name}\" }}\n")
}

fn tag(tag: &str) -> String {
    format!(
        "  - {{ name: {tag}, type: service_tag, destination: {{ service_tag: {tag}, protocol: TCP, \
         port_ranges: \"443\" }} }}\n"
    )
}

fn network(cidr: &str, ports: &str) -> String {
    format!(
        "  - {{ name: net, type: ip, destination: {{ cidr: \"{cidr}\", protocol: TCP, port_ranges: \
         \"{ports}\" }} }}\n"
    )
}

fn warnings(rules: &str) -> Vec<String> {
    let warnings = policy(rules).remarks.warnings;
    warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn each_family_of_tags_that_anybody_can_rent_is_warned_of() {
    for (family, _) in TAGS {
        let told = warnings(&tag(family));
        assert!(
            told.len() == 1 || family == "AzureContainerRegistry",
            "{told:?}"
        );
        assert!(
            told[0].contains(&format!("the service tag {family} is every")),
            "{told:?}"
        );
    }
    assert_eq!(warnings(&tag("Storage.WestEurope")).len(), 1);
    assert_eq!(warnings(&tag("AzureActiveDirectory")), [""; 0]);
    assert_eq!(warnings(&tag("AzureFrontDoor.FirstParty")), [""; 0]);
    assert_eq!(
        warnings(&tag("StorageSyncService")),
        [""; 0],
        "only begins alike"
    );
}

#[test]
fn a_warning_has_its_place_the_rule_the_reason_and_the_remedy() {
    assert_eq!(
        warnings(&tag("Storage"))[0],
        "policy.yaml:4:5: rule `Storage`: the service tag Storage is every storage account of Azure, \
         whoever's: an attacker needs no more than one of his own; write your accounts' own names, \
         such as mine.blob.core.windows.net, or a private endpoint, or add a service endpoint policy \
         to the subnet"
    );
}

#[test]
fn a_wildcard_over_what_is_rented_is_warned_of() {
    for rented in [
        "*.blob.core.windows.net",
        "*.core.windows.net",
        "*.windows.net",
        "*.azureedge.net",
        "*.trafficmanager.net",
        "*.azurefd.net",
        "*.cloudfront.net",
        "*.amazonaws.com",
        "*.s3.eu-west-1.amazonaws.com",
        "*.akamaized.net",
        "*.github.io",
        "*.com",
        "*.co.uk",
    ] {
        assert_eq!(warnings(&name(rented)).len(), 1, "{rented}");
    }
    for own in [
        "mine.blob.core.windows.net",
        "*.mine.blob.core.windows.net",
        "*.data.mcr.microsoft.com",
        "*.microsoft.com",
        "*.corp.internal",
        "automlresources-prod.azureedge.net",
    ] {
        assert_eq!(warnings(&name(own)), [""; 0], "{own}");
    }
}

#[test]
fn a_host_that_takes_data_from_anybody_is_warned_of() {
    assert!(warnings(&name("storage.googleapis.com"))[0].contains("only the path says whose"));
}

#[test]
fn a_network_that_holds_an_attacker_for_sure_is_warned_of() {
    for wide in ["0.0.0.0/0", "::/0", "128.0.0.0/1", "2000::/3"] {
        assert_eq!(warnings(&network(wide, "443")).len(), 1, "{wide}");
    }
    assert!(warnings(&network("128.0.0.0/1", "443"))[0].contains("one in 2 of all addresses"));
    for own in ["10.0.0.0/8", "fc00::/7", "224.0.0.0/4", "192.0.2.0/24"] {
        assert_eq!(warnings(&network(own, "443")), [""; 0], "{own}");
    }
}

#[test]
fn a_dns_server_that_is_not_read_is_warned_of() {
    let told = warnings(&network("198.51.100.53/32", "53"));
    assert!(
        told[0].contains("write `resolvers: [198.51.100.53]`"),
        "{told:?}"
    );
    assert_eq!(warnings(&network("10.20.0.0/16", "*")), [""; 0]);
}

#[test]
fn what_needs_another_rule_is_told_which() {
    let told = warnings(&tag("MicrosoftContainerRegistry"));
    assert!(
        told[0].ends_with("allow also AzureFrontDoor.FirstParty"),
        "{told:?}"
    );
    let both = tag("MicrosoftContainerRegistry") + &tag("AzureFrontDoor.FirstParty");
    assert_eq!(warnings(&both), [""; 0]);
    assert_eq!(warnings(&name("mcr.microsoft.com")).len(), 1);
    let both = name("mcr.microsoft.com") + &name("*.data.mcr.microsoft.com");
    assert_eq!(warnings(&both), [""; 0]);
    assert_eq!(warnings(&name("mine.azurecr.io")).len(), 1);
    let both = name("mine.azurecr.io") + &name("mine.westeurope.data.azurecr.io");
    assert_eq!(warnings(&both), [""; 0], "one data endpoint is enough");
}

#[test]
fn a_rule_that_denies_is_no_risk_and_no_help() {
    let denied = tag("Storage").replace("type:", "action: deny, type:");
    assert_eq!(warnings(&denied), [""; 0]);
    let half = tag("MicrosoftContainerRegistry")
        + &tag("AzureFrontDoor.FirstParty").replace("type:", "action: deny, type:");
    assert_eq!(warnings(&half).len(), 1);
}

#[test]
fn the_preset_is_not_warned_of() {
    let text = "presets: [azure-ml]\nresolvers: [10.0.0.2]\n";
    let tags = |_: &str| unreachable!();
    let policy = policy::parse(text, "policy.yaml", &System::default(), &tags).unwrap();
    assert_eq!(policy.remarks.warnings, []);
}

#[test]
fn every_suffix_is_in_the_form_that_is_looked_for() {
    let written = SUFFIXES.iter().map(|(suffix, _)| *suffix);
    for name in written.chain(HOSTS.iter().map(|(host, _)| *host)) {
        assert_eq!(name.parse::<Pattern>().unwrap().to_string(), name);
    }
}
