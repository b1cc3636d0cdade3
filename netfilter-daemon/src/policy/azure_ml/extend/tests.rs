use super::*;

fn add(text: &str) -> Option<String> {
    let extension = Extension {
        rules: vec!["# who\n- name: new\n  type: fqdn\n  destination: pypi.org\n".to_owned()],
        remarks: vec!["# left\n".to_owned()],
        query_types: None,
    };
    extended(text, &extension)
}

const NEW: &str = "  # who\n  - name: new\n    type: fqdn\n    destination: pypi.org\n  # left\n";

#[test]
fn rules_come_behind_those_that_are_there_and_all_else_stays() {
    let before = "# mine\nisolation_mode: allow_internet_outbound  # watch\noutbound_rules:\n  - name: one   # x\n    type: fqdn\n\n    # y\n    destination: a.example\n";
    let behind = "\n# z\non_deny: drop\n";
    assert_eq!(
        add(&format!("{before}{behind}")).unwrap(),
        format!(
            "{}{NEW}{behind}",
            before.replace("allow_internet_outbound", ENFORCE)
        )
    );
}

#[test]
fn lists_without_indentation_and_files_without_rules_are_added_to() {
    let flush =
        "outbound_rules:\n- { name: one, type: fqdn, destination: a.example }\non_deny: drop\n";
    let added = add(flush).unwrap();
    assert!(
        added.contains("\n# who\n- name: new\n  type: fqdn\n"),
        "{added}"
    );
    assert!(added.ends_with("# left\non_deny: drop\n"), "{added}");
    for none in ["on_deny: drop\n", "on_deny: drop"] {
        assert_eq!(
            add(none).unwrap(),
            format!("on_deny: drop\noutbound_rules:\n{NEW}")
        );
    }
    for empty in [
        "outbound_rules: []",
        "outbound_rules:",
        "outbound_rules: [] ",
    ] {
        let added = add(&format!("{empty}\non_deny: drop\n")).unwrap();
        assert!(
            added.ends_with(&format!("\n{NEW}on_deny: drop\n")),
            "{added}"
        );
    }
}

#[test]
fn what_cannot_be_added_to_is_written_anew_with_the_same_meaning() {
    for text in [
        "{\"isolationMode\": \"AllowInternetOutbound\", \"outboundRules\": {\"a b\": {\"type\": \"FQDN\", \"destination\": \"*.a.example\"}}}",
        "[{name: 'true', type: fqdn, destination: {fqdn: a.example, protocol: TCP, portRanges: 443}, category: UserDefined}]",
        "value:\n  - { name: one, properties: { type: FQDN, destination: a.example, status: null } }\n",
        "managed_network:\n  outbound_rules: [{ name: one, type: fqdn, destination: a.example }]\nname: ws\n",
        "outbound_rules: &r\n  - &one { name: one, type: fqdn, destination: a.example }\n",
    ] {
        let read = |text: &str| {
            let system = crate::policy::System::default();
            let none = |_: &str| crate::policy::service_tag::Catalogue::built_in();
            crate::policy::parse(text, "x", &system, &none)
                .unwrap_or_else(|error| panic!("{error}\n{text}"))
        };
        let written = rewritten(text, None).unwrap();
        assert_eq!(read(&written).rules, read(text).rules, "{written}");
        assert_eq!(read(&written).mode, read(text).mode, "{written}");
        let added = add(&written).unwrap();
        assert_eq!(read(&added).rules.len(), 2, "{added}");
    }
}

#[test]
fn a_scalar_reads_back_as_what_it_was() {
    for text in [
        "",
        "a",
        "true",
        "No",
        "1",
        "1.20",
        "~",
        "null",
        "*.a",
        "a: b",
        "# x",
        "- x",
        "'\"\\",
        "x\ny",
        "\u{85}\u{2028}\u{feff}",
        "ü",
        "[a]",
        "{a}",
        "10.0.0.0/8",
        "fd00::/8",
        "@x",
        " x ",
        "a,b",
        "TCP",
        "\u{0}",
    ] {
        for document in [
            format!("k: {}\n", scalar(text)),
            format!("{{ k: {}, l: [{0}] }}\n", scalar(text)),
        ] {
            let node = yaml::read(&document, &mut Problems::new("x")).unwrap();
            let Value::Mapping(pairs) = node.value else {
                panic!("{document}");
            };
            let Value::Scalar { text: read, .. } = &pairs[0].1.value else {
                panic!("{document}");
            };
            assert_eq!(read, text, "{document}");
        }
    }
}

#[test]
fn types_of_questions_take_the_place_of_those_that_were_listed() {
    let types = ["A".to_owned(), "TXT".to_owned()];
    let before = "dns: { grace: 5, query_types: [A] }\non_deny: drop\n";
    let expected = "on_deny: drop\ndns:\n  grace: 5\n  query_types: [A, TXT]\n";
    assert_eq!(rewritten(before, Some(&types)).unwrap(), expected);
    let new = Extension {
        query_types: Some(types.to_vec()),
        ..Extension::default()
    };
    assert_eq!(extended(before, &new), None);
    let added = extended("on_deny: drop # y\n", &new).unwrap();
    assert_eq!(added, "on_deny: drop # y\ndns:\n  query_types: [A, TXT]\n");
}
