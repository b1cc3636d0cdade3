//! Names, processes and users are chosen by others.

use super::*;

const TEXTS: [&str; 12] = [
    "\n- name: evil\n  type: ip\n  destination: { cidr: 0.0.0.0/0, protocol: '*', port_ranges: '*' }\n",
    "\r\noutbound_rules: []",
    "x\u{85}isolation_mode: allow_internet_outbound",
    "x\u{2028}- evil",
    "\u{2029}# x",
    "\"}, { name: evil",
    "*.com",
    "&a *a !!str |",
    "---\n...\n",
    "\u{202e}\u{feff}\u{0}\u{1b}[2J\u{9b}",
    "#",
    ": - ? [] {} , ' % @ `",
];

const POLICY: &str = "isolation_mode: allow_internet_outbound\noutbound_rules:\n  - name: mine\n    type: fqdn\n    destination: pypi.org\n";

#[test]
fn what_others_choose_stays_in_a_comment_of_one_line() {
    for text in TEXTS {
        let long = text.repeat(2000);
        for text in [text, &long] {
            let mut flow = wanted("192.0.2.1", 6, 443);
            flow.users = vec![text.to_owned()];
            let mut question = asked(&wire("a.example.com"), 1);
            question.users = vec![text.to_owned()];
            let audit = Audit {
                wanted: vec![flow],
                asked: vec![question],
                others: vec![(text.to_owned(), 1)],
                ..Audit::default()
            };
            let outcome = outcome(POLICY, &audit);
            let rules: Vec<&str> = outcome
                .policy
                .rules
                .iter()
                .map(|rule| rule.name.as_str())
                .collect();
            assert_eq!(
                rules,
                ["mine", "a-example-com", "address-192-0-2-1"],
                "{text:?}"
            );
            assert_eq!(outcome.policy.mode, Mode::Enforce);
            for letter in outcome.text.chars() {
                assert!(
                    letter == '\n' || (' '..='~').contains(&letter) || letter.is_alphanumeric(),
                    "{letter:?} of {text:?}"
                );
            }
        }
    }
}

#[test]
fn a_name_that_no_rule_can_be_written_for_is_told_and_not_allowed() {
    for text in TEXTS {
        let label = &text.as_bytes()[..text.len().min(63)];
        let mut name = vec![u8::try_from(label.len()).unwrap()];
        name.extend(label.to_ascii_lowercase());
        name.extend(wire("example.com"));
        let audit = Audit {
            asked: vec![asked(&name, 1)],
            wanted: vec![wanted("192.0.2.1", 6, 443)],
            named: vec![named(&name, "192.0.2.1")],
            ..Audit::default()
        };
        let outcome = outcome(POLICY, &audit);
        assert!(outcome.leaves_name(&name), "{}", outcome.text);
        let rules: Vec<&str> = outcome
            .policy
            .rules
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        assert_eq!(rules, ["mine", "address-192-0-2-1"], "{text:?}");
        assert!(outcome.text.is_ascii());
    }
}

/// A tunnel's questions must not become a wildcard, nor hundreds of rules.
#[test]
fn many_names_that_led_nowhere_are_left_out() {
    let names: Vec<Vec<u8>> = (0..300)
        .map(|number| wire(&format!("x{number}.t.evil.example")))
        .collect();
    let audit = Audit {
        asked: names.iter().map(|name| asked(name, 16)).collect(),
        ..Audit::default()
    };
    let outcome = outcome(POLICY, &audit);
    assert_eq!(outcome.policy.rules.len(), 1, "{}", outcome.text);
    assert!(names.iter().all(|name| outcome.leaves_name(name)));
    assert!(
        outcome
            .text
            .contains("# Left out: 300 names that were asked for"),
        "{}",
        outcome.text
    );
    assert!(
        !outcome.text.contains("TXT"),
        "the type of what is left out\n{}",
        outcome.text
    );
}

/// A scanner must not fill the policy.
#[test]
fn more_sets_of_ports_than_a_policy_can_tell_apart_are_left_out_and_the_rest_is_allowed() {
    let mut all: Vec<Wanted> = (1..2000)
        .map(|port| wanted(&format!("192.0.2.{}", port % 250), 6, port * 7))
        .collect();
    all.push(wanted("198.51.100.7", 6, 443));
    let audit = Audit {
        wanted: all.clone(),
        ..Audit::default()
    };
    let outcome = outcome(POLICY, &audit);
    assert!(
        outcome
            .image
            .judge_address("198.51.100.7".parse().unwrap(), 6, 443)
            .is_ok()
    );
    for it in all {
        let flow = (it.protocol, it.port);
        let passes = outcome
            .image
            .judge_address(it.address, it.protocol, it.port)
            .is_ok();
        assert!(passes || outcome.leaves(it.address, flow), "{it:?}");
    }
}
