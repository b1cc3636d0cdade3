use super::*;
use crate::{
    compile, golden, policy,
    resolvers::{Alias, Answer},
};

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

fn compiled() -> (Policy, compile::Image) {
    let system = policy::System::default();
    let policy = policy::parse(POLICY, "policy.yaml", &system, &|_| unreachable!()).unwrap();
    let image = compile::compile(&policy).unwrap();
    (policy, image)
}

fn explained(destination: &str, protocol: Option<&str>) -> Explanation {
    let (policy, image) = compiled();
    let question = Question::parse(destination, protocol).unwrap();
    explain::explain(&policy, &image, &question)
}

fn resolved(destination: &str, answers: Answers) -> Explanation {
    let (policy, image) = compiled();
    let question = Question::parse(destination, None).unwrap();
    let name = question.name().unwrap();
    explain::explain_answers(&policy, &image, &question, name, answers)
}

/// An alias whose target tries to write on the terminal, and addresses with every fate.
fn chain() -> Answers {
    let aliases = vec![
        Alias {
            name: b"\x03mcr\x09microsoft\x03com".to_vec(),
            target: b"\x0fglobal_frontend\x07example\x03net".to_vec(),
            ttl: 300,
        },
        Alias {
            name: b"\x0fglobal_frontend\x07example\x03net".to_vec(),
            target: b"\x08\x1b[2Jedge\x07example\x03net".to_vec(),
            ttl: 0,
        },
    ];
    let ipv4 = ["198.51.100.7", "10.20.31.40", "10.20.30.40"].map(|ip| (ip.parse().unwrap(), 30));
    let ipv6 = ["2001:db8::7"].map(|ip| (ip.parse().unwrap(), 60));
    let answer = |addresses: &[_]| Answer {
        nonexistent: false,
        aliases: aliases.clone(),
        addresses: addresses.to_vec(),
    };
    [Ok(answer(&ipv4)), Ok(answer(&ipv6))]
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

#[test]
fn every_resolution_reads_as_written() {
    let nonexistent = || {
        Ok(Answer {
            nonexistent: true,
            ..Answer::default()
        })
    };
    let failed = || Err("request timed out".to_owned());
    let questions = [
        ("mcr.microsoft.com:443", chain()),
        ("mcr.microsoft.com:80", chain()),
        ("mcr.microsoft.com:443", [failed(), failed()]),
        ("exfiltration.example", [nonexistent(), nonexistent()]),
        ("exfiltration.example:443", chain()),
    ];
    let mut all = String::new();
    for (destination, answers) in questions {
        all.push_str(&format!("$ explain {destination} --resolve\n"));
        all.push_str(&text(&resolved(destination, answers)));
        all.push('\n');
    }
    golden::check("explain-resolved.txt", &all);
}

#[test]
fn a_resolution_in_json_reads_as_written() {
    let explanation = resolved("mcr.microsoft.com:443", chain());
    let json = serde_json::to_string_pretty(&explanation).unwrap() + "\n";
    golden::check("explain-resolved.json", &json);
}
