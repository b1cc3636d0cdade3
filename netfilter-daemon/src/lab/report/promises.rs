//! What a report must not get wrong, whatever it looks like.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;

const fn channel(name: &'static str, aim: Aim) -> Channel {
    Channel {
        aim,
        ..Channel::stop(name, "a way out", "a tool", |_, _| Ok(()))
    }
}

static ONE: Channel = channel("one", Aim::Stop);
static OTHER: Channel = channel("other", Aim::Stop);
static BEYOND: Channel = channel(
    "beyond",
    Aim::OutOfScope {
        why: "packets are alike",
        remedy: "another tool",
    },
);

fn blocked() -> Outcome {
    Outcome::Blocked
}

fn leaked(bytes: usize) -> Outcome {
    Outcome::Leaked { bytes }
}

fn unavailable() -> Outcome {
    let why = "no such device".into();
    Outcome::Unavailable { why }
}

fn row(channel: &'static Channel, trials: Vec<(Outcome, &str, u64)>) -> Row {
    let trial = |(outcome, reason, packets): (Outcome, &str, u64)| Trial {
        outcome,
        reasons: BTreeMap::from([(reason.to_owned(), packets)]),
    };
    let paths = [HOST, "workload"];
    Row {
        group: "plain",
        channel,
        results: paths
            .into_iter()
            .zip(trials.into_iter().map(trial))
            .collect(),
    }
}

fn report(channels: Vec<Row>) -> Report {
    Report {
        policy: None,
        channels,
    }
}

#[test]
fn each_result_is_told_as_what_it_is_wherever_it_is_told() {
    for (channel, outcome, finding, expected, word, element) in [
        (&ONE, blocked(), "blocked", true, "blocked", None),
        (
            &ONE,
            leaked(7),
            "leaked",
            false,
            "LEAKED 7 bytes",
            Some("failure"),
        ),
        (
            &ONE,
            unavailable(),
            "unavailable",
            true,
            "unavailable",
            Some("skipped"),
        ),
        (&BEYOND, blocked(), "blocked", true, "blocked", None),
        (
            &BEYOND,
            leaked(7),
            "out_of_scope",
            true,
            "out of scope",
            Some("skipped"),
        ),
        (
            &BEYOND,
            unavailable(),
            "unavailable",
            true,
            "unavailable",
            Some("skipped"),
        ),
    ] {
        let report = report(vec![row(channel, vec![(outcome, "no_rule", 1)])]);
        assert_eq!(report.as_expected(), expected, "{finding}");
        let json = serde_json::to_value(&report).unwrap();
        let told = &json["channels"][0];
        assert_eq!(
            (&told["result"], &told["paths"][0]["result"]),
            (&finding.into(), &finding.into())
        );
        assert_eq!(json["as_expected"], expected);
        for result in ["blocked", "leaked", "out_of_scope", "unavailable"] {
            let count = usize::from(result == finding);
            assert_eq!(json["summary"][result], count, "{finding}: {result}");
        }
        let (text, markdown, junit) = (
            report.to_text(false),
            report.to_markdown(),
            report.to_junit(),
        );
        let line = text
            .lines()
            .find(|line| line.contains(channel.name))
            .unwrap();
        assert!(line.contains(word), "{text}");
        let cell = format!("`{}`", channel.name);
        let line = markdown.lines().find(|line| line.contains(&cell)).unwrap();
        assert!(line.contains(word), "{markdown}");
        for other in ["failure", "skipped", "error"] {
            let has = junit.contains(&format!("<{other} message="));
            assert_eq!(has, element == Some(other), "{finding}: {junit}");
        }
        let failures = usize::from(finding == "leaked");
        assert_eq!(
            junit.matches(&format!("failures=\"{failures}\"")).count(),
            2,
            "{junit}"
        );
    }
}

#[test]
fn one_leak_on_any_path_of_any_row_is_the_answer_no() {
    for leaks in 0..4 {
        let outcome = |at| match at == leaks {
            true => leaked(1),
            false => blocked(),
        };
        let of = |at| vec![(outcome(at), "no_rule", 1), (outcome(at + 1), "no_rule", 1)];
        let report = report(vec![row(&ONE, of(0)), row(&OTHER, of(2))]);
        assert!(!report.as_expected(), "{leaks}");
        assert_eq!((report.tally().leaked, report.tally().blocked), (1, 1));
        assert_eq!(report.to_junit().matches("<failure ").count(), 1);
    }
}

#[test]
fn bytes_and_reasons_are_those_of_their_row_and_path() {
    let rows = vec![
        row(
            &ONE,
            vec![(leaked(11), "no_rule", 12), (leaked(21), "fragment", 22)],
        ),
        row(
            &OTHER,
            vec![(leaked(31), "surplus", 32), (blocked(), "ethertype", 42)],
        ),
    ];
    let report = report(rows);
    let json = serde_json::to_value(&report).unwrap();
    let path = |row: usize, path: usize| -> &Value { &json["channels"][row]["paths"][path] };
    let junit = report.to_junit();
    let cases: Vec<_> = junit.split("<testcase ").skip(1).collect();
    for (at, (row, of, bytes, reason, packets)) in [
        (0, 0, 11, "no_rule", 12),
        (0, 1, 21, "fragment", 22),
        (1, 0, 31, "surplus", 32),
        (1, 1, 0, "ethertype", 42),
    ]
    .into_iter()
    .enumerate()
    {
        let told = path(row, of);
        assert_eq!(told["bytes"], bytes);
        assert_eq!(told["path"], [HOST, "workload"][of]);
        assert_eq!(told["reasons"], serde_json::json!({ reason: packets }));
        assert!(
            cases[at].contains(&format!("dropped: {reason} {packets}<")),
            "{junit}"
        );
        let failed = cases[at].contains(&format!("message=\"{bytes} bytes leaked"));
        assert_eq!(failed, bytes > 0, "{junit}");
    }
}
