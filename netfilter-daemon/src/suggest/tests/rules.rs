//! Rules as a person would write them.

use super::*;

const POLICY: &str = "# ours\nisolation_mode: allow_internet_outbound   # for now\npresets: [azure-ml]\noutbound_rules:\n  - name: mine\n    type: fqdn\n    destination: mine.example.com   # why\n\n# the end\non_deny: drop\n";

fn suggested(audit: &Audit) -> Outcome {
    outcome(POLICY, audit)
}

#[test]
fn what_is_suggested_reads_as_the_policy_with_more_rules() {
    let names = [
        "files.example.org",
        "a.data.example.org",
        "b.data.example.org",
        "c.data.example.org",
    ];
    let mut audit = Audit {
        auditing: true,
        lost: 3,
        others: vec![("surplus".to_owned(), 2)],
        ..Audit::default()
    };
    for (index, name) in names.iter().enumerate() {
        let address = format!("192.0.2.{index}");
        audit.asked.push(asked(&wire(name), 1));
        audit.named.push(named(&wire(name), &address));
        audit.wanted.push(wanted(&address, 6, 443));
    }
    audit.wanted.push(wanted("192.0.2.0", 6, 80));
    audit.wanted.push(wanted("20.190.128.5", 6, 8443));
    audit.wanted.push(wanted("198.51.100.4", 17, 123));
    audit.wanted.push(wanted("198.51.100.5", 17, 123));
    audit.wanted.push(wanted("169.254.169.254", 6, 80));
    audit.wanted.push(Wanted {
        answers: true,
        ..wanted("203.0.113.9", 6, 8080)
    });
    let text = suggested(&audit).text;
    crate::golden::check("suggest.yaml", &text);
}

#[test]
fn a_wildcard_stands_for_several_that_are_used_alike_and_only_where_nobody_else_has_names() {
    let of = |zone: &str, count: usize| {
        let mut audit = Audit::default();
        for index in 0..count {
            let name = wire(&format!("n{index}.{zone}"));
            let address = format!("192.0.2.{index}");
            audit.asked.push(asked(&name, 1));
            audit.named.push(named(&name, &address));
            audit.wanted.push(wanted(&address, 6, 443));
        }
        let outcome = suggested(&audit);
        outcome.text.contains(&format!("\"*.{zone}\""))
    };
    assert!(of("data.example.org", 3));
    assert!(!of("data.example.org", 2));
    for shared in [
        "co.uk",
        "blob.core.windows.net",
        "github.io",
        "local",
        "cloudfront.net",
    ] {
        assert!(!of(shared, 5), "{shared}");
    }
}

/// Odd ones, but anybody can ask for them.
#[test]
fn names_without_a_letter_have_rules_with_names() {
    let mut audit = Audit::default();
    for name in ["-", "--"] {
        audit.asked.push(asked(&wire(name), 1));
    }
    let additions = suggested(&audit).suggestion.additions;
    let names: Vec<&str> = additions.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["rule", "rule-2"]);
}

#[test]
fn names_that_are_used_otherwise_have_rules_of_their_own() {
    let mut audit = Audit::default();
    for (index, port) in [443, 443, 443, 8443].into_iter().enumerate() {
        let name = wire(&format!("n{index}.data.example.org"));
        let address = format!("192.0.2.{index}");
        audit.named.push(named(&name, &address));
        audit.wanted.push(wanted(&address, 6, port));
    }
    let outcome = suggested(&audit);
    let names: Vec<&str> = outcome
        .suggestion
        .additions
        .iter()
        .map(|rule| rule.name.as_str())
        .collect();
    assert_eq!(names, ["below-data-example-org", "n3-data-example-org"]);
    assert!(
        !outcome
            .image
            .name_allows(&"*.data.example.org".parse().unwrap(), 6, 8443)
    );
}

#[test]
fn names_that_share_an_address_get_what_was_used_there_but_not_one_that_came_later() {
    let mut late = named(&wire("late.example.org"), "192.0.2.1");
    late.first = DAY + 61;
    let audit = Audit {
        named: vec![
            named(&wire("one.example.org"), "192.0.2.1"),
            named(&wire("two.example.org"), "192.0.2.1"),
            late,
        ],
        wanted: vec![wanted("192.0.2.1", 6, 8443)],
        ..Audit::default()
    };
    let outcome = suggested(&audit);
    for (name, allowed) in [("one", true), ("two", true), ("late", false)] {
        let name: Pattern = format!("{name}.example.org").parse().unwrap();
        assert_eq!(outcome.image.name_allows(&name, 6, 8443), allowed, "{name}");
    }
}

#[test]
fn an_approved_name_that_needs_another_port_gets_it_and_no_other_rule_is_made() {
    let audit = Audit {
        named: vec![named(&wire("mine.example.com"), "192.0.2.1")],
        wanted: vec![wanted("192.0.2.1", 6, 8443)],
        ..Audit::default()
    };
    let outcome = suggested(&audit);
    let lines = outcome.rules().join("\n");
    assert!(
        lines.contains("  - name: mine-example-com\n    type: fqdn\n    destination: { fqdn: mine.example.com, protocol: TCP, port_ranges: \"8443\" }\n"),
        "{lines}"
    );
    assert_eq!(outcome.suggestion.additions.len(), 1);
}

#[test]
fn addresses_of_a_tag_are_its_and_those_of_a_tag_that_anybody_rents_are_addresses() {
    let audit = Audit {
        wanted: vec![
            wanted("20.190.128.5", 6, 8443),
            wanted("40.126.0.9", 6, 8443),
        ],
        ..Audit::default()
    };
    let outcome = suggested(&audit);
    assert_eq!(outcome.suggestion.additions.len(), 1, "{}", outcome.text);
    assert!(
        outcome.text.contains(
            "{ service_tag: AzureActiveDirectory, protocol: TCP, port_ranges: \"8443\" }"
        ),
        "{}",
        outcome.text
    );

    let storage = Catalogue::built_in().unwrap();
    let storage = storage
        .tag("Storage")
        .and_then(|tag| tag.prefixes.first().copied());
    if let Some(prefix) = storage {
        let audit = Audit {
            wanted: vec![wanted(&prefix.addr().to_string(), 6, 8443)],
            ..Audit::default()
        };
        assert!(!suggested(&audit).text.contains("service_tag: Storage"));
    }
}

#[test]
fn what_a_rule_denies_stays_denied() {
    let policy = "outbound_rules:\n  - { name: no-net, type: ip, action: deny, destination: { cidr: 192.0.2.0/24, protocol: '*', port_ranges: '*' } }\n  - { name: no-name, type: fqdn, action: deny, destination: '*.evil.example' }\n";
    let audit = Audit {
        asked: vec![asked(&wire("a.evil.example"), 1)],
        named: vec![named(&wire("fine.example.org"), "192.0.2.1")],
        wanted: vec![wanted("192.0.2.1", 6, 443)],
        ..Audit::default()
    };
    let outcome = outcome(policy, &audit);
    assert!(outcome.suggestion.additions.is_empty(), "{}", outcome.text);
    for rule in ["no-net", "no-name"] {
        assert!(
            outcome
                .text
                .contains(&format!("# Left out: denied by the rule `{rule}`")),
            "{}",
            outcome.text
        );
    }
}

#[test]
fn another_resolver_the_metadata_service_and_everybody_on_the_link_are_left_to_a_person() {
    let all = [
        ("8.8.8.8", 17, 53),
        ("9.9.9.9", 6, 853),
        ("169.254.169.254", 6, 80),
        ("224.0.0.251", 17, 5353),
        ("10.0.0.255", 17, 137),
        ("255.255.255.255", 17, 9),
        ("ff02::fb", 17, 5353),
    ];
    let audit = Audit {
        wanted: all
            .iter()
            .map(|(address, protocol, port)| wanted(address, *protocol, *port))
            .collect(),
        ..Audit::default()
    };
    let outcome = suggested(&audit);
    assert!(outcome.suggestion.additions.is_empty(), "{}", outcome.text);
    for (address, protocol, port) in all {
        assert!(
            outcome.leaves(address.parse().unwrap(), (protocol, port)),
            "{address}"
        );
    }
    assert!(
        outcome.text.contains("  # - name: address-8-8-8-8\n"),
        "{}",
        outcome.text
    );
}

#[test]
fn what_is_left_out_is_allowed_by_taking_its_marks_away() {
    let audit = Audit {
        wanted: vec![wanted("169.254.169.254", 6, 80)],
        ..Audit::default()
    };
    let outcome = suggested(&audit);
    let taken: Vec<String> = outcome
        .text
        .lines()
        .map(|line| {
            match line
                .split_once("  # - name: ")
                .or_else(|| line.split_once("  #   "))
            {
                Some(_) => line.replacen("# ", "", 1),
                None => line.to_owned(),
            }
        })
        .collect();
    let policy = parse(&taken.join("\n")).unwrap();
    let image = compile::compile(&policy).unwrap();
    assert!(
        image
            .judge_address("169.254.169.254".parse().unwrap(), 6, 80)
            .is_ok()
    );
}

#[test]
fn a_service_that_answered_is_told_as_inbound_and_resets_are_not() {
    let answering = |protocol, port| Wanted {
        answers: true,
        ..wanted("203.0.113.9", protocol, port)
    };
    let audit = Audit {
        wanted: vec![
            answering(6, 8080),
            answering(6, 22),
            answering(6, 0),
            answering(1, 3),
        ],
        ..Audit::default()
    };
    let outcome = suggested(&audit);
    assert!(!outcome.suggestion.adds());
    assert!(
        outcome
            .text
            .contains("# under `inbound`: - { protocol: TCP, port_ranges: \"8080\" }"),
        "{}",
        outcome.text
    );
    assert!(
        !outcome.text.contains("\"22\""),
        "let in already\n{}",
        outcome.text
    );
    assert!(
        outcome
            .text
            .contains("# Left out: resets and ICMP messages"),
        "{}",
        outcome.text
    );
}

#[test]
fn the_target_of_an_alias_needs_no_rule_where_a_resolver_on_this_machine_asked_for_it() {
    let (name, target) = (wire("www.example.org"), wire("edge.cdn.test"));
    let mut audit = Audit {
        asked: vec![asked(&name, 1), asked(&target, 1)],
        named: vec![
            Named {
                target: Target::Alias(hash(&target)),
                ..named(&name, "192.0.2.1")
            },
            named(&name, "192.0.2.1"),
            named(&target, "192.0.2.1"),
        ],
        wanted: vec![wanted("192.0.2.1", 6, 443)],
        ..Audit::default()
    };
    let local = "resolvers: [127.0.0.53, 10.99.0.1]\n";
    let rules = |audit: &Audit, policy: &str| {
        let outcome = outcome(policy, audit);
        let rules = outcome.suggestion.additions.iter();
        rules.map(|rule| rule.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(rules(&audit, local), ["www-example-org"]);
    assert_eq!(
        rules(&audit, "resolvers: [10.99.0.1]\n").len(),
        2,
        "nobody but a client asks there"
    );
    audit.asked.push(Asked {
        inside: true,
        ..asked(&target, 1)
    });
    assert_eq!(rules(&audit, local).len(), 2, "a client asked for it");
}

#[test]
fn a_type_that_is_not_listed_is_added_and_told() {
    let audit = Audit {
        asked: vec![
            asked(&wire("example.org"), 16),
            asked(&wire("mine.example.com"), 15),
        ],
        ..Audit::default()
    };
    for policy in [
        POLICY,
        "dns: { query_types: [A], grace: 5 }\npresets: [azure-ml]\noutbound_rules:\n  - { name: mine, type: fqdn, destination: mine.example.com }\n",
    ] {
        let outcome = outcome(policy, &audit);
        assert!(
            outcome.may_ask(&wire("example.org"), 16),
            "{}",
            outcome.text
        );
        assert!(
            outcome.may_ask(&wire("mine.example.com"), 15),
            "{}",
            outcome.text
        );
        assert!(
            outcome.text.contains("takes in MX, TXT") || outcome.text.contains("takes in TXT, MX"),
            "{}",
            outcome.text
        );
    }
}

#[test]
fn neighbours_are_one_network_only_where_all_were_seen() {
    let audit = Audit {
        wanted: (0..5)
            .map(|last| wanted(&format!("192.0.2.{}", last + 4), 6, 443))
            .collect(),
        ..Audit::default()
    };
    let outcome = suggested(&audit);
    assert!(
        outcome.text.contains("cidr: [192.0.2.4/30, 192.0.2.8/32]"),
        "{}",
        outcome.text
    );
    assert!(
        outcome.text.contains("# 5 of them are in 192.0.2.0/24"),
        "{}",
        outcome.text
    );
}

#[test]
fn what_check_would_warn_of_stands_beside_the_rule() {
    let audit = Audit {
        asked: vec![asked(&wire("pypi.org"), 1)],
        named: vec![named(&wire("github.com"), "192.0.2.1")],
        wanted: vec![wanted("192.0.2.1", 6, 443)],
        ..Audit::default()
    };
    let outcome = suggested(&audit);
    for (part, warned) in [
        ("# github.com takes data from anybody", "github.com takes"),
        ("# pypi.org names packages", "pypi.org names packages"),
    ] {
        assert!(outcome.text.contains(part), "{}", outcome.text);
        assert!(
            outcome
                .policy
                .remarks
                .warnings
                .iter()
                .any(|warning| warning.message.contains(warned))
        );
    }
}
