use super::*;
use crate::{compile, golden, policy};

const NOW: u64 = 1_790_000_000;

fn report(yaml: &str) -> Report {
    let system = policy::System {
        connected: vec!["10.0.0.0/24".parse().unwrap()],
        resolvers: vec![[10, 0, 0, 2].into()],
        ..policy::System::default()
    };
    let policy = policy::parse(yaml, "policy.yaml", &system, &|_| unreachable!()).unwrap();
    let image = compile::compile(&policy).unwrap();
    Report::of(
        "policy.yaml",
        &Loaded {
            policy,
            image,
            stamp: None,
            connected: None,
        },
        NOW,
    )
}

const POLICY: &str = r#"
presets: [azure-ml]
interfaces: [eth0, eth1]
resolvers: [168.63.129.16]
inbound:
  - { protocol: TCP, port_ranges: "22" }
  - { protocol: ICMP, port_ranges: "*" }
outbound_rules:
  - name: pypi
    type: fqdn
    destination: pypi.org
  - name: corp
    type: ip
    destination: { cidr: [10.20.0.0/16, 10.30.0.0/16, "fd00:20::/32"], protocol: "*", port_ranges: "*" }
  - name: no-metadata
    type: ip
    action: deny
    destination: { cidr: 169.254.169.254/32, protocol: "*", port_ranges: "*" }
"#;

#[test]
fn a_check_reads_as_written() {
    golden::check("check-azure-ml.txt", &report(POLICY).text());
}

#[test]
fn a_check_in_json_reads_as_written() {
    let json = serde_json::to_string_pretty(&report(POLICY)).unwrap() + "\n";
    golden::check("check-azure-ml.json", &json);
}

#[test]
fn a_policy_that_allows_nothing_is_right_too_and_says_what_it_does() {
    let yaml = "isolation_mode: allow_internet_outbound\ninbound: []\n";
    golden::check("check-empty.txt", &report(yaml).text());
}

#[test]
fn notes_are_told_with_their_places() {
    let text = report("resolvers: [127.0.0.1]\npresets: [azure-ml]\n").text();
    assert!(text.contains("\nnotes:\npolicy.yaml:1:12: "), "{text}");
}

#[test]
fn bytes_are_told_in_the_unit_that_fits() {
    assert_eq!(bytes(0), "0 B");
    assert_eq!(bytes(1023), "1023 B");
    assert_eq!(bytes(1536), "1.5 KiB");
    assert_eq!(bytes(5 << 20), "5.0 MiB");
    assert_eq!(bytes(usize::MAX), "17179869183.9 GiB");
}
