use netfilter_ebpf::verdict::{
    Answer, Family, LossStage, LostFlow, ProtocolLabel, Question, Reason,
};

use super::*;
use crate::{
    daemon::status::ServiceTags,
    datapath::{Dropped, Passed},
    golden,
};

fn list(source: &str, age: u64, failures: u64) -> ListHealth {
    ListHealth {
        list: ServiceTags {
            source: source.to_owned(),
            cloud: "Public".to_owned(),
            change_number: 405,
            date: None,
            age_seconds: Some(age),
        },
        last_success: None,
        last_failure: None,
        last_failure_reason: None,
        failures,
    }
}

fn dropped(reason: Reason, audited: bool, packets: u64) -> Dropped {
    Dropped {
        interface: "eth0".to_owned(),
        reason,
        family: Family::Ipv4,
        protocol: ProtocolLabel::Tcp,
        audited,
        packets,
        bytes: packets * 60,
    }
}

fn snapshot() -> Snapshot {
    let ipv6_udp = Passed {
        interface: "eth0".to_owned(),
        family: Family::Ipv6,
        protocol: ProtocolLabel::Udp,
        packets: 11,
        bytes: 1100,
    };
    Snapshot {
        counters: Counters {
            passed: vec![
                Passed {
                    interface: "eth0".to_owned(),
                    packets: u64::MAX,
                    ..ipv6_udp.clone()
                },
                Passed {
                    interface: "wg \"0\"".to_owned(),
                    ..ipv6_udp
                },
            ],
            dropped: vec![
                dropped(Reason::NoRule, false, 3),
                dropped(Reason::DnsName, false, 2),
                dropped(Reason::NoRule, true, 7),
                Dropped {
                    interface: String::new(),
                    family: Family::Other,
                    protocol: ProtocolLabel::Other,
                    bytes: 0,
                    ..dropped(Reason::RawSocket, false, 4)
                },
            ],
            questions: vec![(Question::Permitted, 40), (Question::Denied, 2)],
            answers: vec![(Answer::Learned, 39), (Answer::Unsolicited, 1)],
            lost_events: vec![(LossStage::RateLimit, 5)],
            lost_flows: vec![(LostFlow::Inbound, 2)],
        },
        rule_hits: vec![
            RuleHits {
                rule: "azure-ml/*.data.mcr.microsoft.com".to_owned(),
                hits: 12,
            },
            RuleHits {
                rule: "no \"metadata\"".to_owned(),
                hits: 0,
            },
        ],
        runs: vec![
            (
                "egress",
                Run {
                    runs: 18_000_000,
                    nanoseconds: 2_000_000_300,
                },
            ),
            ("ingress", Run::default()),
        ],
        repairs: vec![
            ("eth0".to_owned(), "detached", 3),
            (String::new(), "unpinned", 1),
        ],
        learned: PerFamily { ipv4: 12, ipv6: 4 },
        flows: PerFamily { ipv4: 7, ipv6: 2 },
        prefixes: PerFamily {
            ipv4: 310,
            ipv6: 95,
        },
        maps: vec![
            Occupancy {
                map: "HALF_OPEN",
                entries: 9,
                max_entries: 262_144,
                evictions: Some(17),
            },
            Occupancy {
                map: "LEARNED_IPV4",
                entries: 12,
                max_entries: 65_536,
                evictions: None,
            },
        ],
        enforcing: vec![("eth0".to_owned(), true), ("eth1".to_owned(), false)],
        service_tags: vec![
            list("built-in", 86_400, 0),
            list("https://lists.example/", 61, 2),
        ],
        generation: 4,
        loaded_at: 1_790_000_000,
        reload_failures: 1,
        lost_lines: 2,
        version: "0.1.0",
        kernel: "6.18.44".to_owned(),
    }
}

#[test]
fn the_page_of_prometheus_reads_as_written() {
    golden::check(
        "metrics-prometheus.txt",
        &render(&snapshot(), Exposition::Prometheus),
    );
}

#[test]
fn the_page_of_openmetrics_reads_as_written() {
    golden::check(
        "metrics-openmetrics.txt",
        &render(&snapshot(), Exposition::OpenMetrics),
    );
}

#[test]
fn a_filter_that_has_counted_nothing_still_shows_its_dns_counters_at_0() {
    let text = render(&Snapshot::default(), Exposition::Prometheus);
    assert!(text.contains("netfilter_dns_questions_total{verdict=\"denied\"} 0\n"));
    assert!(text.contains("netfilter_events_lost_total{stage=\"ring_full\"} 0\n"));
    assert!(!text.contains("netfilter_dropped_packets_total{"));
}

#[test]
fn what_audit_let_out_is_never_counted_as_dropped() {
    let mut snapshot = Snapshot::default();
    snapshot.counters.dropped = vec![dropped(Reason::NoRule, true, 7)];
    let text = render(&snapshot, Exposition::Prometheus);
    assert!(!text.contains("netfilter_dropped_packets_total{"));
    assert!(text.contains("netfilter_would_drop_packets_total{reason=\"no_rule\""));
}

/// Prometheus refuses a page in which a metric's samples are not together or
/// not declared; OpenMetrics wants the declaration under the name without `_total`.
#[test]
fn every_sample_stands_under_its_own_declaration_and_every_metric_has_one() {
    for exposition in [Exposition::Prometheus, Exposition::OpenMetrics] {
        let text = render(&snapshot(), exposition);
        let mut declared = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let family = rest.split(' ').next().unwrap().to_owned();
                assert!(!declared.contains(&family), "{family} is declared twice");
                declared.push(family);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let family = match exposition {
                    Exposition::Prometheus => name,
                    Exposition::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
                };
                assert_eq!(declared.last().map(String::as_str), Some(family), "{line}");
            }
        }
        assert!(
            declared
                .iter()
                .all(|family| family.starts_with("netfilter_"))
        );
    }
}
