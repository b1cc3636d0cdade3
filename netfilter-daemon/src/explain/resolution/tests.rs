use super::*;
use crate::{
    compile,
    explain::explain_answers,
    policy::{self, System},
};

const POLICY: &str = r#"
resolvers: [10.0.0.53, "fd00::53"]
outbound_rules:
  - name: web
    type: fqdn
    destination: { fqdn: www.example, protocol: TCP, port_ranges: "443, 8443" }
  - name: edge
    type: fqdn
    destination: "*.covered.example"
  - name: corp
    type: ip
    destination: { cidr: 10.0.0.0/8, protocol: TCP, port_ranges: "22, 443" }
  - name: no-metadata
    type: ip
    action: deny
    destination: { cidr: [169.254.169.254/32, 10.9.9.9/32], protocol: "*", port_ranges: "443" }
"#;

fn resolved(question: &str, answers: Answers) -> Explanation {
    in_mode("", question, answers)
}

fn in_mode(mode: &str, question: &str, answers: Answers) -> Explanation {
    let policy = policy::parse(
        &format!("{mode}\n{POLICY}"),
        "policy.yaml",
        &System::default(),
        &|_| unreachable!(),
    )
    .unwrap();
    let image = compile::compile(&policy).unwrap();
    let question = Question::parse(question, None).unwrap();
    let name = question.name().unwrap();
    explain_answers(&policy, &image, &question, name, answers)
}

fn addresses(addresses: &[&str]) -> Result<Answer, String> {
    Ok(Answer {
        addresses: addresses
            .iter()
            .map(|address| (address.parse().unwrap(), 60))
            .collect(),
        ..Answer::default()
    })
}

fn aliases(chain: &[(&[u8], &[u8])], ttl: u32) -> Answer {
    let alias = |(name, target): &(&[u8], &[u8])| Alias {
        name: name.to_vec(),
        target: target.to_vec(),
        ttl,
    };
    Answer {
        aliases: chain.iter().map(alias).collect(),
        ..Answer::default()
    }
}

/// The verdict on an address, and the rules that it is ascribed to.
fn fates(explanation: &Explanation) -> Vec<(bool, Option<&'static str>, Vec<&str>)> {
    let resolution = explanation.resolution.as_ref().unwrap();
    fn rules(resolved: &Resolved) -> Vec<&str> {
        let accounts = resolved.by.iter();
        accounts.map(|account| account.rule.as_str()).collect()
    }
    resolution
        .addresses
        .iter()
        .map(|resolved| (resolved.allowed, resolved.reason, rules(resolved)))
        .collect()
}

fn error(explanation: &Explanation) -> Option<&str> {
    explanation.resolution.as_ref().unwrap().error.as_deref()
}

#[test]
fn an_address_in_the_answer_is_let_out_for_what_the_asked_name_grants() {
    let answers = || [addresses(&["192.0.2.1"]), addresses(&["2001:db8::1"])];
    let lent = (true, None, vec!["web"]);
    for question in ["www.example:443", "www.example:8443", "www.example"] {
        let explanation = resolved(question, answers());
        assert_eq!(fates(&explanation), [lent.clone(), lent.clone()]);
        assert_eq!(error(&explanation), None);
    }
    let refused = (false, Some("no_rule"), vec![]);
    let explanation = resolved("www.example:80", answers());
    assert_eq!(fates(&explanation), [refused.clone(), refused]);
}

#[test]
fn a_deny_rule_wins_over_what_is_learned_and_only_on_its_port() {
    let answers = || [addresses(&["169.254.169.254", "10.9.9.9"]), addresses(&[])];
    let denied = (false, Some("denied_by_rule"), vec!["no-metadata"]);
    let explanation = resolved("www.example:443", answers());
    assert!(explanation.allowed, "the verdict is the name's");
    assert_eq!(fates(&explanation), [denied.clone(), denied]);
    let lent = (true, None, vec!["web"]);
    let explanation = resolved("www.example:8443", answers());
    assert_eq!(fates(&explanation), [lent.clone(), lent]);
}

#[test]
fn an_address_that_a_rule_allows_anyway_is_ascribed_to_that_rule_too() {
    let answers = || [addresses(&["10.1.2.3"]), addresses(&[])];
    for (question, rules) in [
        ("www.example:443", vec!["web", "corp"]),
        ("www.example:22", vec!["corp"]),
        ("www.example:8443", vec!["web"]),
    ] {
        assert_eq!(
            fates(&resolved(question, answers())),
            [(true, None, rules)],
            "{question}"
        );
    }
}

#[test]
fn what_a_name_lends_and_a_rule_denies_is_not_ascribed_to_the_name() {
    let policy = "
resolvers: [10.0.0.53]
outbound_rules:
  - { name: web, type: fqdn, destination: { fqdn: www.example, protocol: TCP, port_ranges: '443' } }
  - { name: ssh, type: ip, destination: { cidr: 10.0.0.0/8, protocol: TCP, port_ranges: '22' } }
  - { name: no, type: ip, action: deny, destination: { cidr: 10.0.0.0/8, protocol: TCP, port_ranges: '443' } }
";
    let policy = policy::parse(
        policy,
        "policy.yaml",
        &System::default(),
        &|_| unreachable!(),
    )
    .unwrap();
    let image = compile::compile(&policy).unwrap();
    let question = Question::parse("www.example", None).unwrap();
    let name = question.name().unwrap();
    let answers = [addresses(&["10.1.2.3"]), addresses(&[])];
    let explanation = explain_answers(&policy, &image, &question, name, answers);
    assert_eq!(fates(&explanation), [(true, None, vec!["ssh"])]);
}

#[test]
fn a_denied_name_lends_nothing() {
    let answers = [addresses(&["192.0.2.1", "10.1.2.3"]), addresses(&[])];
    let explanation = resolved("other.example:443", answers);
    assert_eq!(explanation.reason, Some("dns_name"));
    assert_eq!(
        fates(&explanation),
        [(false, Some("no_rule"), vec![]), (true, None, vec!["corp"])]
    );
}

#[test]
fn an_ipv4_mapped_address_is_not_lent() {
    let answers = [addresses(&[]), addresses(&["::ffff:192.0.2.1"])];
    let explanation = resolved("www.example:443", answers);
    assert_eq!(fates(&explanation), [(false, Some("no_rule"), vec![])]);
}

#[test]
fn aliases_are_told_once_and_need_no_rule() {
    let chain: [(&[u8], &[u8]); 2] = [
        (b"\x03www\x07example", b"\x01a\x07covered\x07example"),
        (b"\x01a\x07covered\x07example", b"\x04edge\x03net"),
    ];
    let with = |ttl, address| Answer {
        addresses: addresses(&[address]).unwrap().addresses,
        ..aliases(&chain, ttl)
    };
    let answers = [Ok(with(300, "192.0.2.1")), Ok(with(299, "2001:db8::1"))];
    let explanation = resolved("www.example:443", answers);
    let chain = &explanation.resolution.as_ref().unwrap().chain;
    let links: Vec<_> = chain
        .iter()
        .map(|link| (link.name.as_str(), link.data.as_str(), link.ttl))
        .collect();
    assert_eq!(
        links,
        [
            ("www.example", "a.covered.example", 300),
            ("a.covered.example", "edge.net", 300)
        ]
    );
    let note = "no rule allows edge.net, and none needs to: what counts is the name that was \
                asked for, not its aliases";
    assert!(explanation.notes.iter().any(|said| said == note));
    assert_eq!(fates(&explanation)[0], (true, None, vec!["web"]));
}

#[test]
fn where_all_aliases_have_rules_or_the_name_has_none_they_are_not_remarked_on() {
    let covered: (&[u8], &[u8]) = (b"\x03www\x07example", b"\x01a\x07covered\x07example");
    let uncovered: (&[u8], &[u8]) = (b"\x05other\x07example", b"\x04edge\x03net");
    for (question, alias) in [("www.example", covered), ("other.example", uncovered)] {
        let answers = [Ok(aliases(&[alias], 60)), addresses(&["192.0.2.1"])];
        let explanation = resolved(question, answers);
        let remark = |note: &String| note.contains("none needs to");
        assert!(!explanation.notes.iter().any(remark), "{question}");
    }
}

#[test]
fn a_name_cannot_write_on_the_terminal() {
    let hostile: (&[u8], &[u8]) = (b"\x03www\x07example", b"\x05\x1b[2J.\x04\xe2\x80\xae\n");
    let answers = [Ok(aliases(&[hostile], 60)), addresses(&[])];
    let explanation = resolved("www.example", answers);
    let resolution = explanation.resolution.as_ref().unwrap();
    assert_eq!(resolution.chain[0].data, r"\027[2J\..\226\128\174\010");
    assert!(explanation.notes.iter().all(|note| note.is_ascii()));
}

#[test]
fn addresses_of_one_family_are_no_failure() {
    let explanation = resolved("www.example", [addresses(&[]), addresses(&["2001:db8::1"])]);
    assert_eq!(error(&explanation), None);
}

#[test]
fn a_failure_is_told_and_changes_no_verdict() {
    let failed = || Err("request timed out".to_owned());
    let nonexistent = || Answer {
        nonexistent: true,
        ..Answer::default()
    };
    let some = || addresses(&["192.0.2.1"]);
    for (answers, expected) in [
        ([failed(), failed()], "request timed out"),
        ([some(), failed()], "AAAA: request timed out"),
        ([failed(), addresses(&[])], "A: request timed out"),
        ([some(), Ok(nonexistent())], "AAAA: there is no such name"),
        ([addresses(&[]), addresses(&[])], "it has no address"),
        (
            [Ok(nonexistent()), Ok(nonexistent())],
            "there is no such name",
        ),
    ] {
        let explanation = resolved("www.example:443", answers.clone());
        assert!(explanation.allowed);
        assert_eq!(error(&explanation), Some(expected));
        let explanation = resolved("other.example:443", answers.clone());
        assert!(!explanation.allowed);
        assert_eq!(
            error(&explanation),
            Some(&*format!(
                "{expected} (with the filter in force, questions for names that no rule allows \
                 are refused)"
            ))
        );
        let reporting = "isolation_mode: allow_internet_outbound";
        let explanation = in_mode(reporting, "other.example:443", answers);
        assert_eq!(error(&explanation), Some(expected));
    }
}
