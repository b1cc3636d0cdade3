use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    golden,
    lab::{
        probe::{Family, Knock, Moment, Outcome as Came, Probe, Target},
        report::words::{bytes, clip, cut},
    },
};

const REACHED: Came = Came::Reached(Duration::from_micros(240));

const fn channel(name: &'static str, how: &'static str, aim: Aim) -> Channel {
    Channel {
        name,
        how,
        seen_in: "iodine, dnscat2",
        aim,
        carry: |_, _| Ok(()),
        read: None,
    }
}

static TCP: Channel = channel(
    "tcp",
    "a TCP connection to an address that no rule allows",
    Aim::Stop,
);
static TXT: Channel = channel(
    "dns-txt",
    "the labels of questions for TXT records, base32 of < 32 bytes | each, sent to the resolver that is configured",
    Aim::Stop,
);
static SCTP: Channel = channel("sctp", "an SCTP association", Aim::Stop);
static ACCOUNT: Channel = channel(
    "approved-account",
    "an upload to a storage account of the attacker in an approved service",
    Aim::OutOfScope {
        why: "an approved service holds other people's accounts, and the packets are alike",
        remedy: "allow the names of your own accounts in place of the service tag, or let them be reached by a private endpoint",
    },
);

#[test]
fn the_table_tells_the_findings_apart() {
    let report = Report {
        policy: Some(probed()),
        channels: channels(),
    };
    golden::check("lab.txt", &report.to_text(false));
}

#[test]
fn a_report_is_as_expected_only_if_nothing_leaked_and_the_counters_could_be_read() {
    let mut report = Report {
        policy: None,
        channels: channels(),
    };
    assert!(!report.as_expected());
    report
        .channels
        .retain(|row| row.finding() != Finding::Leaked);
    assert_eq!(report.channels.len(), 3, "unavailable and out of scope");
    assert!(report.as_expected());
    let mut policy = Probed {
        probes: vec![],
        drops: vec![],
        no_drops: None,
    };
    assert!(policy.as_expected());
    policy.no_drops = Some("refused".into());
    assert!(!policy.as_expected());
    report.policy = Some(policy);
    assert!(!report.as_expected());
    assert!(!probed().as_expected());
}

#[test]
fn what_leaks_on_one_path_leaks() {
    let on = |outcomes: [Outcome; 2]| {
        let [host, workload] = outcomes.map(|outcome| trial(outcome, &[]));
        row("plain", &TCP, vec![(HOST, host), (WORKLOAD, workload)]).finding()
    };
    let unavailable = || Outcome::Unavailable { why: "no".into() };
    let leaked = || Outcome::Leaked { bytes: 1 };
    assert_eq!(on([Outcome::Blocked, leaked()]), Finding::Leaked);
    assert_eq!(on([leaked(), unavailable()]), Finding::Leaked);
    assert_eq!(on([unavailable(), Outcome::Blocked]), Finding::Blocked);
    assert_eq!(on([unavailable(), unavailable()]), Finding::Unavailable);
    let host_only = || Outcome::HostOnly { why: "no".into() };
    assert_eq!(on([Outcome::Blocked, host_only()]), Finding::Blocked);
    assert_eq!(on([leaked(), host_only()]), Finding::Leaked);
    assert_eq!(on([unavailable(), host_only()]), Finding::HostOnly);
}

/// On the second, what leaks on the first is blocked, and the other way round.
fn paths() -> Report {
    let mut channels = channels();
    let host_only = Outcome::HostOnly {
        why: "a workload has none".into(),
    };
    for (row, outcome) in channels.iter_mut().zip([
        Outcome::Leaked { bytes: 1024 },
        Outcome::Blocked,
        host_only,
        Outcome::Leaked { bytes: 65_000 },
    ]) {
        let reasons = [("fragment", 57), ("source_routing", 56), ("no_rule", 7)];
        row.results.push((WORKLOAD, trial(outcome, &reasons)));
    }
    Report {
        policy: None,
        channels,
    }
}

#[test]
fn a_second_path_is_a_second_column() {
    golden::check("lab-paths.txt", &paths().to_text(false));
}

#[test]
fn each_path_is_told_in_every_form() {
    let report = paths();
    let json = serde_json::to_value(&report).unwrap();
    let tcp = &json["channels"][0];
    assert_eq!(tcp["result"], "leaked");
    assert_eq!(tcp["paths"][0]["result"], "blocked");
    assert_eq!(tcp["paths"][1]["path"], "workload");
    assert_eq!(tcp["paths"][1]["bytes"], 1024);
    assert_eq!(json["channels"][2]["paths"][1]["result"], "host_only");
    assert_eq!(
        json["channels"][2]["paths"][1]["why"],
        "a workload has none"
    );
    assert_eq!(json["paths"][1]["leaked"], 1);
    assert_eq!(json["summary"]["leaked"], 2);
    let markdown = report.to_markdown();
    for line in [
        "`tcp (workload)`",
        "**LEAKED 1,024 bytes**",
        "host only: a workload has none",
        "**host:     4 channels",
        "**workload: 4 channels",
    ] {
        assert!(markdown.contains(line), "{line}: {markdown}");
    }
    let xml = report.to_junit();
    for element in [
        "name=\"tcp (host)\"",
        "name=\"tcp (workload)\"",
        "<failure message=\"1,024 bytes leaked by",
        "<skipped message=\"host only: a workload has none\"/>",
    ] {
        assert!(xml.contains(element), "{element}: {xml}");
    }
}

/// Whatever the first shows.
#[test]
fn a_leak_of_the_second_path_alone_is_no_expected_end() {
    let on_second = |outcome| Report {
        policy: None,
        channels: vec![row(
            "plain",
            &TCP,
            vec![
                (HOST, trial(Outcome::Blocked, &[])),
                (WORKLOAD, trial(outcome, &[])),
            ],
        )],
    };
    assert!(on_second(Outcome::Blocked).as_expected());
    assert!(!on_second(Outcome::Leaked { bytes: 1 }).as_expected());
}

#[test]
fn colours_change_no_column() {
    let report = Report {
        policy: Some(probed()),
        channels: channels(),
    };
    let mut plain = String::new();
    let painted = report.to_text(true);
    let mut parts = painted.split('\x1b');
    plain.extend(parts.next());
    for part in parts {
        plain.push_str(part.split_once('m').unwrap().1);
    }
    assert!(painted.contains("\x1b[31m✗\x1b[0m"));
    let lines = |text: &str| {
        text.lines()
            .map(|it| it.trim_end().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&plain), lines(&report.to_text(false)));
}

#[test]
fn no_line_is_longer_than_100_columns() {
    let mut channels = channels();
    for row in &mut channels {
        row.results[0].1.reasons = reasons(&[("extension_header", 65_536), ("source_routing", 9)]);
    }
    let report = Report {
        policy: Some(probed()),
        channels,
    };
    for line in report.to_text(false).lines() {
        assert!(line.chars().count() <= WIDTH, "{line}");
    }
}

#[test]
fn json_says_all_of_a_channel() {
    let report = Report {
        policy: None,
        channels: channels(),
    };
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        json["summary"],
        serde_json::json!({ "channels": 4, "blocked": 1, "leaked": 1, "out_of_scope": 1, "unavailable": 1, "host_only": 0 })
    );
    assert_eq!(
        json["paths"],
        serde_json::json!([{ "path": "host", "channels": 4, "blocked": 1, "leaked": 1, "out_of_scope": 1, "unavailable": 1, "host_only": 0 }])
    );
    assert_eq!(
        (&json["as_expected"], &json["policy"]),
        (&false.into(), &serde_json::Value::Null)
    );
    assert_eq!(
        json["channels"][1],
        serde_json::json!({
            "name": "dns-txt",
            "group": "dns",
            "how": TXT.how,
            "seen_in": "iodine, dnscat2",
            "aim": "stop",
            "result": "leaked",
            "paths": [{
                "path": "host",
                "result": "leaked",
                "bytes": 12345,
                "reasons": { "dns_name": 1234, "malformed": 7 },
            }],
        })
    );
    assert_eq!(
        json["channels"][2]["paths"][0]["why"],
        "protocol not supported"
    );
    let account = &json["channels"][3];
    assert_eq!(
        (&account["aim"], &account["result"]),
        (&"out_of_scope".into(), &"out_of_scope".into())
    );
    assert_eq!(account["paths"][0]["bytes"], 65536);
    assert!(
        account["remedy"]
            .as_str()
            .unwrap()
            .starts_with("allow the names")
    );
    let json = serde_json::to_value(Report {
        policy: Some(probed()),
        channels: vec![],
    })
    .unwrap();
    assert_eq!(json["policy"]["probes"][2]["came_out"], "passed");
    assert_eq!(json["policy"]["drops"][0]["packets"], 12);
}

#[test]
fn markdown_is_two_tables_in_which_nothing_breaks_out_of_its_cell() {
    let report = Report {
        policy: Some(probed()),
        channels: channels(),
    };
    golden::check("lab.md", &report.to_markdown());
}

#[test]
fn junit_fails_what_leaked_and_skips_what_shows_nothing() {
    let report = Report {
        policy: Some(probed()),
        channels: channels(),
    };
    golden::check("lab-junit.xml", &report.to_junit());
}

#[test]
fn what_a_policy_calls_its_rules_cannot_spoil_the_xml() {
    let mut policy = probed();
    policy.probes.truncate(1);
    policy.probes[0].group = "a<b>&\"'\u{1b}[31m\n".into();
    let report = Report {
        policy: Some(policy),
        channels: vec![],
    };
    let xml = report.to_junit();
    assert!(
        xml.contains("name=\"a&lt;b&gt;&amp;&quot;'\u{fffd}[31m&#10;: the name,"),
        "{xml}"
    );
}

#[test]
fn long_lines_lose_their_middle_or_their_end() {
    assert_eq!(cut("tcp [2001:db8::1]:443", 21), "tcp [2001:db8::1]:443");
    assert_eq!(cut("tcp [2001:db8::1]:443", 16), "tcp [2001:…]:443");
    assert_eq!(clip("no_rule 64", 10), "no_rule 64");
    assert_eq!(clip("no_rule 64", 9), "no_rule…");
    assert_eq!(clip("labels, of any zone", 8), "labels…");
    assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
    assert_eq!(wrap("one twothreefour", 7), ["one", "twothreefour"]);
}

#[test]
fn numbers_are_grouped_by_thousands() {
    let told = [1, 12, 999, 1000, 65_536, 1_234_567].map(bytes);
    assert_eq!(
        told,
        [
            "1 byte",
            "12 bytes",
            "999 bytes",
            "1,000 bytes",
            "65,536 bytes",
            "1,234,567 bytes"
        ]
    );
}

fn channels() -> Vec<Row> {
    let one = |outcome, reasons| vec![(HOST, trial(outcome, reasons))];
    let leaked = |bytes| Outcome::Leaked { bytes };
    let missing = Outcome::Unavailable {
        why: "protocol not supported".into(),
    };
    vec![
        row("plain", &TCP, one(Outcome::Blocked, &[("no_rule", 64)])),
        row(
            "dns",
            &TXT,
            one(leaked(12_345), &[("malformed", 7), ("dns_name", 1234)]),
        ),
        row("tunnels", &SCTP, one(missing, &[])),
        row("around", &ACCOUNT, one(leaked(65_536), &[])),
    ]
}

fn row(group: &'static str, channel: &'static Channel, results: Vec<(Path, Trial)>) -> Row {
    Row {
        group,
        channel,
        results,
    }
}

fn trial(outcome: Outcome, counted: &[(&str, u64)]) -> Trial {
    Trial {
        outcome,
        reasons: reasons(counted),
    }
}

fn reasons(counted: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let reason = |(reason, packets): &(&str, u64)| ((*reason).to_owned(), *packets);
    counted.iter().map(reason).collect()
}

fn probed() -> Probed {
    let by_address = |what, after| probe("packages", what, "192.0.2.1", false, REACHED, after);
    let by_name =
        |what, allowed, before, after| probe("packages", what, "pypi.org", allowed, before, after);
    let beyond = "What no rule allows";
    let unanswered = Came::Unanswered("refused".into());
    Probed {
        probes: vec![
            by_name("the name", true, REACHED, REACHED),
            by_name("a name below", false, REACHED, stopped("NXDOMAIN")),
            by_address("its address, unasked", REACHED),
            by_address("other port or protocol", unanswered),
            by_name("the name", true, REACHED, stopped("no answer")),
            by_name("the name", true, stopped("no answer"), stopped("refused")),
            probe(
                beyond,
                "a bare address",
                "192.0.2.1",
                false,
                REACHED,
                stopped("refused"),
            ),
        ],
        drops: vec![Dropped {
            reason: "no_rule".into(),
            family: "ipv4".into(),
            protocol: "tcp".into(),
            interface: "eth0".into(),
            packets: 12,
        }],
        no_drops: None,
    }
}

fn probe(
    group: &str,
    what: &'static str,
    destination: &str,
    allowed: bool,
    before: Came,
    after: Came,
) -> probes::Row {
    let name = || Target::Name {
        name: destination.to_owned(),
        family: Family::V6,
    };
    let probe = Probe {
        group: group.into(),
        what,
        moment: Moment::WithNames,
        knock: Knock::Tcp(443),
        target: destination.parse().map_or_else(|_| name(), Target::Address),
        allowed,
    };
    probes::Row::new(&probe, before, after)
}

fn stopped(why: &str) -> Came {
    Came::Stopped(why.into())
}
