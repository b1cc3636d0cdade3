use super::*;
use crate::{compile, golden, policy};

const POLICY: &str = r#"
presets: [azure-ml]
resolvers: [168.63.129.16]
outbound_rules:
  - name: corp
    type: ip
    destination: { cidr: 10.20.0.0/16, protocol: TCP, port_ranges: "443, 8000-8100" }
  - name: no-metadata
    type: ip
    action: deny
    destination: { cidr: [169.254.169.254/32, 10.20.30.0/24], protocol: "*", port_ranges: "*" }
"#;

fn explained(destination: &str, protocol: Option<&str>) -> Explanation {
    let policy = policy::parse(
        POLICY,
        "policy.yaml",
        &policy::System::default(),
        &|_| unreachable!(),
    )
    .unwrap();
    let image = compile::compile(&policy).unwrap();
    explain::explain(
        &policy,
        &image,
        &Question::parse(destination, protocol).unwrap(),
    )
}

/// What people ask, with what they read, one after another.
#[test]
fn every_explanation_reads_as_written() {
    let questions = [
        ("20.190.128.5:443", None),
        ("20.190.128.5:22", None),
        ("20.190.128.5", None),
        ("10.20.30.40:443", None),
        ("10.20.31.40", Some("tcp")),
        ("203.0.113.1:443", None),
        ("[2001:db8::1]:443", None),
        ("203.0.113.1", Some("icmp")),
        ("168.63.129.16:53", Some("udp")),
        ("mcr.microsoft.com:443", None),
        ("mcr.microsoft.com:80", None),
        ("eastus.data.mcr.microsoft.com", None),
        ("data.mcr.microsoft.com:443", None),
        ("mcr.mircosoft.com:443", None),
        ("exfiltration.example", None),
    ];
    let mut all = String::new();
    for (destination, protocol) in questions {
        let option = protocol
            .map(|protocol| format!(" --protocol {protocol}"))
            .unwrap_or_default();
        all.push_str(&format!("$ explain {destination}{option}\n"));
        all.push_str(&text(&explained(destination, protocol)));
        all.push('\n');
    }
    golden::check("explain-questions.txt", &all);
}

#[test]
fn an_explanation_in_json_reads_as_written() {
    let explanation = explained("10.20.30.40:443", None);
    let json = serde_json::to_string_pretty(&explanation).unwrap() + "\n";
    golden::check("explain-denied.json", &json);
}
