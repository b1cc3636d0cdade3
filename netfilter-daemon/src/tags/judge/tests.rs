use proptest::prelude::*;

use super::*;

/// A list of Azure's, with as many prefixes for each tag as are asked for.
fn list(change_number: u64, tags: &[(&str, usize)]) -> Catalogue {
    let values = tags.iter().map(|(name, prefixes)| {
        let prefixes =
            (0..*prefixes).map(|number| format!("10.{}.{}.0/24", number / 256, number % 256));
        let prefixes: Vec<String> = prefixes.collect();
        serde_json::json!({ "name": name, "properties": { "addressPrefixes": prefixes } })
    });
    let values: Vec<_> = values.collect();
    let list = serde_json::json!({
        "changeNumber": change_number, "cloud": "Public", "values": values,
    });
    Catalogue::parse(&list.to_string(), "list").unwrap()
}

fn published(file: &str) -> String {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/corpus/");
    std::fs::read_to_string(format!("{corpus}{file}")).unwrap()
}

fn parsed(json: &str) -> Catalogue {
    Catalogue::parse(json, "list").unwrap()
}

fn why(former: &Catalogue, new: &Catalogue) -> String {
    match judge(Some(former), new, &["A".to_owned()], false) {
        Ok(()) => "good".to_owned(),
        Err(refusals) => refusals.to_string(),
    }
}

#[test]
fn half_is_enough_and_less_is_not() {
    let former = list(1, &[("A", 10), ("B", 10), ("C", 10), ("D", 10)]);
    let good = |tags| why(&former, &list(1, tags));
    assert_eq!(good(&[("A", 5), ("B", 5), ("C", 5), ("D", 5)]), "good");
    assert_eq!(good(&[("A", 10), ("B", 10)]), "good");
    assert!(good(&[("A", 5), ("B", 14)]).contains("19 prefixes, less than half of the former 40"));
    assert!(good(&[("A", 40)]).contains("it has 1, less than half"));
    assert!(good(&[("A", 4), ("B", 40)]).contains("tag A, which the policy uses, has 4"));
    assert!(good(&[("B", 40), ("C", 1)]).contains("no longer in it"));
    assert!(good(&[("A", 40), ("X", 1), ("Y", 1)]).contains("it has 1, less than half"));
}

#[test]
fn a_tag_that_the_policy_does_not_use_or_another_list_has_may_vanish() {
    let former = list(1, &[("A", 10), ("B", 10)]);
    assert_eq!(why(&former, &list(1, &[("a", 10)])), "good");
    let used = ["Elsewhere".to_owned()];
    let new = list(1, &[("B", 10)]);
    assert_eq!(judge(Some(&former), &new, &used, false), Ok(()));
    assert_eq!(judge(None, &new, &used, false), Ok(()));
}

#[test]
fn each_cloud_s_list_is_older_by_its_own_notion() {
    for (file, now, before) in [
        (
            "service-tags-public.json",
            "\"changeNumber\": 375",
            "\"changeNumber\": 374",
        ),
        ("aws-ip-ranges.json", "1787411825", "1787411824"),
        ("google-cloud.json", "1753409788780", "1753409788779"),
        ("google-cloud.json", "2025-07-24T", "2025-07-23T"),
        ("aws-ip-ranges.json", "2026-08-22-", "2026-08-21-"),
    ] {
        let json = published(file);
        assert!(json.contains(now), "{file}");
        let (new, old) = (parsed(&json), parsed(&json.replacen(now, before, 1)));
        assert_eq!(why(&old, &new), "good", "{file}");
        assert_eq!(why(&new, &new), "good", "{file}");
        assert!(why(&new, &old).contains("it is older"), "{file}");
    }
    let github = parsed(&published("github-meta.json"));
    assert_eq!(why(&github, &github), "good");
}

#[test]
fn no_cloud_s_list_replaces_another_s_whatever_is_forced() {
    let files = [
        "service-tags-public.json",
        "aws-ip-ranges.json",
        "google-cloud.json",
        "github-meta.json",
    ];
    let lists = files.map(|file| parsed(&published(file)));
    for (row, former) in lists.iter().enumerate() {
        for (column, new) in lists.iter().enumerate() {
            let judged = judge(Some(former), new, &[], true);
            assert_eq!(
                judged.is_ok(),
                row == column,
                "{} {}",
                files[row],
                files[column]
            );
        }
    }
    let json = published("service-tags-public.json");
    let china = parsed(&json.replacen("\"Public\"", "\"China\"", 1));
    assert!(why(&parsed(&json), &china).contains("a list of China"));
}

#[test]
fn what_no_cloud_owns_is_refused_even_as_the_first_list() {
    let with = |prefix: &str| {
        let json = r#"{"changeNumber": 1, "values": [{"name": "A", "properties": {"addressPrefixes": ["P"]}}]}"#;
        judge(
            None,
            &parsed(&json.replace("\"P\"", &format!("\"{prefix}\""))),
            &[],
            true,
        )
    };
    for wide in [
        "0.0.0.0/0",
        "128.0.0.0/1",
        "10.0.0.0/7",
        "::/0",
        "2000::/3",
        "2600::/15",
    ] {
        assert!(with(wide).is_err(), "{wide}");
    }
    for narrow in ["10.0.0.0/8", "192.0.2.1/32", "2600::/16", "2001:db8::1/128"] {
        assert_eq!(with(narrow), Ok(()), "{narrow}");
    }
}

#[test]
fn what_can_be_meant_can_be_forced_and_is_told_so() {
    let former = list(2, &[("A", 10), ("B", 10), ("C", 10), ("D", 10), ("E", 10)]);
    let new = list(1, &[("B", 1)]);
    let refused = judge(Some(&former), &new, &["A".to_owned()], false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "refused: it is older (change number 1) than the one before it (change number 2); it has \
         1 prefixes, less than half of the former 50; of the former 5 tags, it has 1, less than \
         half; and 1 more. If that is meant, `tags update --force` accepts it"
    );
    assert_eq!(judge(Some(&former), &new, &["A".to_owned()], true), Ok(()));
}

proptest! {
    #[test]
    fn a_list_that_only_grew_is_good(sizes in prop::collection::vec((1usize..9, 0usize..9), 1..6)) {
        let names: Vec<String> = (0..sizes.len()).map(|tag| format!("T{tag}")).collect();
        let tags = |grown: bool| {
            let sizes = sizes.iter().map(|(size, more)| size + if grown { *more } else { 0 });
            names.iter().map(String::as_str).zip(sizes).collect::<Vec<_>>()
        };
        let (former, new) = (list(1, &tags(false)), list(2, &tags(true)));
        prop_assert_eq!(judge(Some(&former), &new, &names, false), Ok(()));
        prop_assert!(judge(Some(&new), &former, &names, false).is_err());
    }
}
