use super::*;
use crate::{
    bypass::Passing,
    daemon::{
        event::{Event, Socket},
        status::{InForce, Looked, ServiceTags, Sockets, Status as Report, Table},
    },
    datapath::{Pathless, Unguarded},
    golden,
};

const NOW: u64 = 1_790_000_000;

fn place(interface: &str) -> Place {
    Place {
        interface: interface.to_owned(),
        hook: "tcx".to_owned(),
    }
}

fn address(pattern: &str, address: &str, expires_in: u32) -> Address {
    Address {
        address: address.parse().unwrap(),
        pattern: pattern.to_owned(),
        name: None,
        resolved_at: None,
        expires_in,
    }
}

fn named(mut address: Address, name: &str) -> Address {
    address.name = Some(name.to_owned());
    address.resolved_at = Some(NOW - 30);
    address
}

fn denied(destination: &str, name: Option<&str>) -> DeniedLately {
    let event = Event {
        time: NOW - 12,
        audited: false,
        interface: "eth0".to_owned(),
        protocol: Some("TCP".to_owned()),
        source: Some([10, 0, 0, 5].into()),
        source_port: Some(40_000),
        destination: Some(destination.parse().unwrap()),
        destination_port: Some(8443),
        name: name.map(str::to_owned),
        resolved_at: name.map(|_| NOW - 30),
        question: None,
        socket: None,
        reason: "no_rule".to_owned(),
        bytes: 74,
        rule: None,
        sender: None,
        untold: 0,
    };
    DeniedLately { event, count: 3 }
}

fn looked(interface: &str, filtered: bool, why: &str) -> Looked {
    Looked {
        interface: interface.to_owned(),
        filtered,
        why: why.to_owned(),
    }
}

fn without_daemon() -> Report {
    let table = |map: &str, entries, max_entries| Table {
        map: map.to_owned(),
        entries,
        max_entries,
        evictions: (map == "HALF_OPEN").then_some(1_234),
    };
    Report {
        attached: vec![place("eth0"), place("eth1")],
        generation: 4,
        gives_way_in: None,
        daemon: None,
        learned: vec![
            address("*.data.mcr.microsoft.com", "204.79.197.219", 250),
            address("mcr.microsoft.com", "2603:1061:f:100::1a", 3600),
        ],
        tables: vec![
            table("HALF_OPEN", 9, 262_144),
            table("LEARNED", 65_536, 65_536),
            table("EMPTY", 0, 0),
        ],
        sockets: Sockets::default(),
    }
}

fn passing(allowed: bool) -> Passing {
    Passing {
        process: 812,
        program: "xsk".to_owned(),
        user: "root".to_owned(),
        way: "af_xdp".to_owned(),
        allowed,
        closed: false,
    }
}

fn with_daemon() -> Report {
    let drops = |reason: &str, packets| Drops {
        reason: reason.to_owned(),
        audited: false,
        packets,
        bytes: packets * 60,
    };
    let mut question = denied("10.0.0.53", None);
    question.event.question = Some("evil.example".to_owned());
    question.count = 1;
    let mut socket = denied("10.0.0.53", None);
    socket.event.destination = None;
    socket.event.socket = Some(Socket {
        way: "packet_qdisc_bypass".to_owned(),
        process: Some(812),
        program: Some("nmap".to_owned()),
        user: "root".to_owned(),
    });
    socket.event.reason = "raw_socket".to_owned();
    let daemon = Running {
        pid: 4711,
        version: "0.1.0".to_owned(),
        since: NOW - 11_520,
        enforcing: true,
        complaint: None,
        interfaces: vec![
            looked("lo", false, "leads nowhere: loopback"),
            looked("eth0", true, "a default route leaves by it"),
        ],
        repairs: vec![Repaired {
            interface: "eth0".to_owned(),
            cause: "displaced".to_owned(),
            count: 3,
        }],
        policy: InForce {
            path: "/etc/netfilter/policy.yaml".to_owned(),
            rules: 8,
            prefixes: 405,
            names: 5,
            loaded_at: NOW - 61,
            failed_reloads: 0,
        },
        service_tags: ServiceTags {
            source: "built-in".to_owned(),
            cloud: "Public".to_owned(),
            change_number: 405,
            date: Some("2026-06-01".to_owned()),
            age_seconds: Some(9_676_800),
        },
        service_tag_lists: Vec::new(),
        drops_last_minute: vec![drops("no_rule", 120_000), drops("dns_unsolicited", 2)],
        denied_lately: vec![
            denied("204.79.197.219", Some("eastus.data.mcr.microsoft.com")),
            question,
            denied("2603:1061:f:100::1a", None),
            socket,
        ],
    };
    let mut report = Report {
        daemon: Some(daemon),
        ..without_daemon()
    };
    let eastus = named(report.learned[0].clone(), "eastus.data.mcr.microsoft.com");
    report.learned[0] = eastus;
    report
}

#[test]
fn a_status_reads_as_written() {
    golden::check("status-enforcing.txt", &text(&with_daemon(), NOW));
}

#[test]
fn without_a_daemon_the_filter_is_said_to_stay() {
    golden::check("status-no-daemon.txt", &text(&without_daemon(), NOW));
}

#[test]
fn trouble_is_shown_and_audit_is_not_called_enforcing() {
    let mut status = with_daemon();
    let daemon = status.daemon.as_mut().unwrap();
    daemon.enforcing = false;
    daemon.complaint = Some("packets are not filtered on eth1".to_owned());
    daemon.policy.failed_reloads = 2;
    daemon.drops_last_minute[0].audited = true;
    daemon.denied_lately[0].event.audited = true;
    daemon.service_tags.date = None;
    daemon.service_tags.age_seconds = None;
    let list = |source: &str, last_success, last_failure| ListHealth {
        list: ServiceTags {
            source: source.to_owned(),
            ..daemon.service_tags.clone()
        },
        last_success,
        last_failure,
        last_failure_reason: last_failure.map(|_| "cannot fetch it: why".to_owned()),
        failures: 1,
    };
    let lists = vec![
        list("built-in", None, None),
        list("https://never.example/", None, Some(NOW - 60)),
        list("https://once.example/", Some(NOW - 90_000), Some(NOW - 60)),
        list("https://again.example/", Some(NOW - 60), Some(NOW - 90_000)),
    ];
    daemon.service_tag_lists = lists;
    status.sockets = Sockets {
        unguarded: Some(Unguarded::NoCgroup.sentence()),
        rdma: Some("whoever may open /dev/infiniband/uverbs* sends past the filter".to_owned()),
        passing: [false, true].map(passing).into(),
        unseen: Some("3 processes (7, 8, 9) could not be looked at".to_owned()),
        untold: vec![Pathless::NoTypes.sentence()],
    };
    let daemon = status.daemon.as_mut().unwrap();
    daemon.repairs[0].interface = String::new();
    status.attached.truncate(1);
    status.gives_way_in = Some(41);
    status.learned.clear();
    golden::check("status-trouble.txt", &text(&status, NOW));
}

#[test]
fn no_line_is_wider_than_100_columns() {
    let mut wide = with_daemon();
    let (address, name) = ("2603:1061:f100:1000:1000:1000:1000:100a", "x".repeat(250));
    wide.learned
        .push(named(self::address(&name, address, u32::MAX), &name));
    let lately = &mut wide.daemon.as_mut().unwrap().denied_lately;
    lately.push(denied(address, Some(&name)));
    lately[4].event.audited = true;
    lately[4].count = u64::from(u32::MAX);
    for status in [with_daemon(), without_daemon(), wide] {
        for line in text(&status, NOW).lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}

#[test]
fn a_full_table_of_addresses_is_cut_and_counted_in_the_text() {
    let mut status = without_daemon();
    status.learned = (0..=255)
        .map(|last| address("pypi.org", &format!("192.0.2.{last}"), 60))
        .collect();
    let text = text(&status, NOW);
    assert!(text.contains("\n256 addresses learned from DNS\n"));
    assert_eq!(text.matches("pypi.org").count(), SHOWN);
    assert!(text.contains("  and 236 more; --json shows all\n"));
}

#[test]
fn what_the_daemon_sends_is_what_the_command_reads() {
    let sent = Answer::Status {
        status: Box::new(with_daemon()),
    };
    let line = serde_json::to_string(&sent).unwrap();
    assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), sent);
    golden::check(
        "status-enforcing.json",
        &(serde_json::to_string_pretty(&with_daemon()).unwrap() + "\n"),
    );
}
