//! A machine with something to show.

use super::*;
use crate::daemon::{
    event::tests::{attempted, reported},
    status::{InForce, ListHealth, Looked, Repaired, ServiceTags},
};

pub(crate) const NOW: u64 = 1_790_000_000;

fn drops(reason: &str, audited: bool, packets: u64) -> Drops {
    Drops {
        reason: reason.to_owned(),
        audited,
        packets,
        bytes: packets * 74,
    }
}

fn counted(counts: &[(&str, u64)]) -> Vec<Counted> {
    let counts = counts.iter().map(|(what, count)| Counted {
        what: (*what).to_owned(),
        count: *count,
    });
    counts.collect()
}

fn tallied(what: &str, whose: &str, reports: u64, other: &str) -> Tallied {
    Tallied {
        subject: Subject {
            what: what.to_owned(),
            whose: whose.to_owned(),
        },
        reports,
        untold: reports * 40 % 1300,
        last: NOW - 7 * reports % 3000,
        reason: if whose.is_empty() && reports.is_multiple_of(2) {
            "dns_name".to_owned()
        } else {
            "no_rule".to_owned()
        },
        audited: false,
        other: other.to_owned(),
    }
}

fn rule(rule: &str, action: &str, what: &str, hits: u64) -> Rule {
    Rule {
        rule: rule.to_owned(),
        action: action.to_owned(),
        what: what.to_owned(),
        hits,
    }
}

fn list(source: &str, date: Option<&str>, failed: bool) -> ListHealth {
    ListHealth {
        list: ServiceTags {
            source: source.to_owned(),
            cloud: "Public".to_owned(),
            change_number: 405,
            date: date.map(str::to_owned),
            age_seconds: Some(9_676_800),
        },
        last_success: failed.then_some(NOW - 90_000),
        last_failure: failed.then_some(NOW - 600),
        last_failure_reason: failed.then(|| "cannot fetch it: connection refused".to_owned()),
        failures: u64::from(failed),
    }
}

fn table(map: &str, entries: u64, max_entries: u64, evictions: Option<u64>) -> Table {
    Table {
        map: map.to_owned(),
        entries,
        max_entries,
        evictions,
    }
}

pub(crate) fn running() -> Running {
    let looked = |interface: &str, filtered, why: &str| Looked {
        interface: interface.to_owned(),
        filtered,
        why: why.to_owned(),
    };
    Running {
        pid: 4711,
        version: "0.1.0".to_owned(),
        since: NOW - 11_520,
        enforcing: true,
        complaint: None,
        interfaces: vec![
            looked("lo", false, "leads nowhere: loopback"),
            looked("eth0", true, "a default route leaves by it"),
            looked("docker0", false, "leads to containers of this machine only"),
        ],
        repairs: vec![Repaired {
            interface: "eth0".to_owned(),
            cause: "displaced".to_owned(),
            count: 3,
        }],
        policy: InForce {
            path: "/etc/netfilter-daemon/policy.yaml".to_owned(),
            rules: 8,
            prefixes: 405,
            names: 5,
            loaded_at: NOW - 61,
            failed_reloads: 0,
        },
        service_tags: list("built-in", Some("2026-06-01"), false).list,
        service_tag_lists: vec![
            list("built-in", Some("2026-06-01"), false),
            list("https://ip-ranges.amazonaws.com/ip-ranges.json", None, true),
        ],
        drops_last_minute: vec![drops("no_rule", false, 12)],
        denied_lately: Vec::new(),
    }
}

/// What somebody would choose who wants to be believed, or obeyed.
pub(crate) const HOSTILE: [&str; 5] = [
    "<script>document.title='canary'</script>",
    "\"><img src=x onerror=document.title='canary'>",
    "javascript:document.title='canary'",
    "cod\u{202e}gpj.exe\u{1b}[2J\r\n",
    "</style></title><base href=//evil.example>&#x202e;",
];

pub(crate) fn some() -> Overview {
    let minutes = (0..60u64).map(|minute| {
        let mut minutes = Vec::new();
        for (reason, audited, packets) in [
            ("no_rule", false, minute * minute % 97),
            ("dns_name", false, minute * 7 % 23),
            ("raw_socket", false, u64::from(minute == 40)),
        ] {
            if packets > 0 && minute > 5 {
                minutes.push(drops(reason, audited, packets));
            }
        }
        minutes
    });
    let minutes: Vec<Vec<Drops>> = minutes.collect();
    let sum = |reason: &str| {
        let each = minutes.iter().flatten();
        let packets = each.filter(|drops| drops.reason == reason);
        drops(reason, false, packets.map(|drops| drops.packets).sum())
    };
    let mut question = Event::attempt(attempted());
    question.time = NOW - 12;
    let mut event = crate::datapath::Event {
        time: NOW - 75,
        ..reported()
    };
    event.interface = HOSTILE[0].to_owned();
    let refused = Event::new(event, Some(("pypi.org".to_owned(), NOW - 80)), None);
    let mut names = vec![
        tallied("pypi.org", "", 212, "/usr/bin/pip3 (alice)"),
        tallied(
            "evil.example",
            "",
            96,
            "/usr/bin/curl (bob, docker 3f2a91c0b1de)",
        ),
        tallied("203.0.113.9", "", 31, "/usr/bin/ssh (root)"),
    ];
    let mut processes = vec![
        tallied("/usr/bin/pip3", "alice", 212, "pypi.org"),
        tallied(
            "/usr/bin/curl",
            "bob, docker 3f2a91c0b1de",
            96,
            "evil.example",
        ),
        tallied("no socket of this machine", "on eth0", 5, "203.0.113.9"),
    ];
    for hostile in HOSTILE {
        names.push(tallied(hostile, "", 3, hostile));
        processes.push(tallied(hostile, hostile, 3, hostile));
    }
    Overview {
        time: NOW,
        host: "vm-7".to_owned(),
        attached: vec![Place {
            interface: "eth0".to_owned(),
            hook: "tcx".to_owned(),
        }],
        generation: 4,
        daemon: running(),
        sockets: Sockets::default(),
        tables: vec![
            table("LEASES", 812, 65_536, None),
            table("HALF_OPEN", 9, 262_144, Some(1_234)),
            table("QUESTIONS", 60_001, 65_536, Some(0)),
        ],
        seconds: (0..60).map(|second| second * second % 13).collect(),
        hour: InAnHour {
            by_reason: vec![sum("no_rule"), sum("dns_name"), sum("raw_socket")],
            minutes,
            questions: counted(&[("permitted", 1_830), ("denied", 102), ("limited", 0)]),
            answers: counted(&[("learned", 1_800), ("empty", 30)]),
            lost_reports: counted(&[("rate_limit", 2_204), ("ring_full", 0)]),
        },
        reports: 345,
        names: Tallies {
            rows: names,
            others: 17,
        },
        processes: Tallies {
            rows: processes,
            others: 0,
        },
        rules: Rules {
            hit: vec![
                rule(
                    "azure-ml/AzureActiveDirectory",
                    "allow",
                    "AzureActiveDirectory: TCP 80, 443",
                    90_211,
                ),
                rule("no-metadata", "deny", "169.254.169.254/32: any", 4),
            ],
            never: vec![rule(
                "old-mirror",
                "allow",
                "mirror.example.org: TCP 443",
                0,
            )],
            hit_in_all: 2,
            never_in_all: 1,
            uncounted: 0,
        },
        learned: Learned {
            addresses: 3,
            patterns: vec![
                Pattern {
                    pattern: "*.data.mcr.microsoft.com".to_owned(),
                    addresses: 2,
                    expires_in: 250,
                },
                Pattern {
                    pattern: "mcr.microsoft.com".to_owned(),
                    addresses: 1,
                    expires_in: 3600,
                },
            ],
            without: 2,
        },
        recent: vec![question, refused],
    }
}

/// One that has just started, with nothing to show.
pub(crate) fn nothing() -> Overview {
    let mut overview = some();
    overview.daemon.since = NOW - 45;
    overview.daemon.repairs.clear();
    overview.daemon.service_tag_lists.clear();
    overview.seconds = vec![0; 44];
    overview.hour = InAnHour {
        minutes: vec![Vec::new(); 60],
        ..InAnHour::default()
    };
    overview.reports = 0;
    overview.names = Tallies::default();
    overview.processes = Tallies::default();
    overview.rules = Rules::default();
    overview.learned = Learned::default();
    overview.recent.clear();
    overview
}

#[test]
fn what_crosses_the_control_socket_comes_out_as_it_went_in() {
    let overview = some();
    let line = serde_json::to_string(&overview).unwrap();
    assert!(!line.contains('\n'));
    assert_eq!(serde_json::from_str::<Overview>(&line).unwrap(), overview);
}
