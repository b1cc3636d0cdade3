//! Everything that is measured, as Prometheus and OpenMetrics read it.
//!
//! Pure: a [`Snapshot`] goes in, text comes out. Each metric is declared once,
//! below, with the sentence that explains it.

use netfilter_ebpf::verdict::{Answer, LossStage, LostFlow, Question};

use crate::{
    daemon::status::ListHealth,
    datapath::{Counters, Dropped, Occupancy, RuleHits, Run},
};

mod exposition;

pub use exposition::Exposition;
use exposition::{Metric, Text};

/// What one scrape shows.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub counters: Counters,
    /// Of every rule of the policy in force.
    pub rule_hits: Vec<RuleHits>,
    /// By program, where the kernel counts them.
    pub runs: Vec<(&'static str, Run)>,
    pub learned: PerFamily,
    pub flows: PerFamily,
    pub prefixes: PerFamily,
    pub maps: Vec<Occupancy>,
    /// Every interface that should be filtered, and whether it is enforced upon.
    pub enforcing: Vec<(String, bool)>,
    /// The lists of service tags in force.
    pub service_tags: Vec<ListHealth>,
    /// By interface and cause.
    pub repairs: Vec<(String, &'static str, u64)>,
    pub generation: u32,
    /// Seconds since 1970.
    pub loaded_at: u64,
    pub reload_failures: u64,
    pub lost_lines: u64,
    pub version: &'static str,
    pub kernel: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerFamily {
    pub ipv4: u64,
    pub ipv6: u64,
}

const DROPPED_PACKETS: Metric = Metric::counter(
    "netfilter_dropped_packets",
    "Packets that were kept from leaving, by the reason; of `raw_socket`, sockets that were refused.",
);
const DROPPED_BYTES: Metric = Metric::counter(
    "netfilter_dropped_bytes",
    "Bytes of the packets that were kept from leaving, by the reason.",
);
const PASSED_PACKETS: Metric =
    Metric::counter("netfilter_passed_packets", "Packets that were let out.");
const PASSED_BYTES: Metric = Metric::counter(
    "netfilter_passed_bytes",
    "Bytes of the packets that were let out.",
);
const WOULD_DROP_PACKETS: Metric = Metric::counter(
    "netfilter_would_drop_packets",
    "Packets that only audit let out, by the reason for which enforcement would have dropped them.",
);
const RULE_HITS: Metric = Metric::counter(
    "netfilter_rule_hits",
    "New flows that the rule let out or, if it denies, kept in: each SYN with another sequence number and, of other protocols, the first packet after about a minute without one; of rules that say the same, the one with the most specific destination, then the first.",
);
const DNS_QUESTIONS: Metric = Metric::counter(
    "netfilter_dns_questions",
    "DNS questions to the configured resolvers, by what became of them.",
);
const DNS_ANSWERS: Metric = Metric::counter(
    "netfilter_dns_answers",
    "DNS answers from the configured resolvers, by what became of them.",
);
const LEARNED_ADDRESSES: Metric = Metric::gauge(
    "netfilter_learned_addresses",
    "Addresses that DNS answers have named and whose time has not passed.",
);
const FLOWS: Metric = Metric::gauge(
    "netfilter_flows",
    "Flows that are remembered because the tables alone would not allow them.",
);
const PREFIXES: Metric = Metric::gauge(
    "netfilter_prefixes",
    "Prefixes in the address tables of the policy in force.",
);
const MAP_ENTRIES: Metric = Metric::gauge("netfilter_map_entries", "Entries in a kernel table.");
const MAP_MAX_ENTRIES: Metric = Metric::gauge(
    "netfilter_map_max_entries",
    "Entries that a kernel table has room for.",
);
const MAP_EVICTIONS: Metric = Metric::counter(
    "netfilter_map_evictions",
    "Entries that a kernel table forgot to make room for others.",
);
const FLOWS_LOST: Metric = Metric::counter(
    "netfilter_flows_lost",
    "Flows that found no room in their table; one that came in is still remembered as half-open.",
);
const EVENTS_LOST: Metric = Metric::counter(
    "netfilter_events_lost",
    "Reports of denied packets that did not reach user space, by where they were lost; the packets are counted all the same.",
);
const SERVICE_TAGS_AGE: Metric = Metric::gauge(
    "netfilter_service_tags_age_seconds",
    "Time since the service tags in force were published or, where they do not say, fetched.",
);
const SERVICE_TAGS_REFRESH_FAILURES: Metric = Metric::counter(
    "netfilter_service_tags_refresh_failures",
    "Attempts to refresh a list of service tags that failed and left the former one in force.",
);
const POLICY_GENERATION: Metric = Metric::gauge(
    "netfilter_policy_generation",
    "Number of the policy in force; it grows with every reload.",
);
const POLICY_LOAD_TIMESTAMP: Metric = Metric::gauge(
    "netfilter_policy_load_timestamp_seconds",
    "When the policy in force was loaded, in seconds since 1970.",
);
const POLICY_RELOAD_FAILURES: Metric = Metric::counter(
    "netfilter_policy_reload_failures",
    "Reloads that failed and left the former policy in force.",
);
const LOG_LINES_LOST: Metric = Metric::counter(
    "netfilter_log_lines_lost",
    "Lines of the daemon's log that were not written because nobody read stderr.",
);
const ENFORCING: Metric = Metric::gauge(
    "netfilter_enforcing",
    "1 where the policy is enforced; 0 where audit lets everything out, or where the filter is not attached.",
);
const REPAIRS: Metric = Metric::counter(
    "netfilter_repairs",
    "How often another tool took the filter's place on an interface (of what refuses sockets: on none) and it was taken back, by what that tool did.",
);
const PROGRAM_RUN_SECONDS: Metric = Metric::counter(
    "netfilter_program_run_seconds",
    "Time that a program in the kernel has run, on all processors; nothing unless kernel.bpf_stats_enabled is 1.",
);
const PROGRAM_RUNS: Metric = Metric::counter(
    "netfilter_program_runs",
    "How often a program in the kernel has run; nothing unless kernel.bpf_stats_enabled is 1.",
);
const BUILD_INFO: Metric = Metric::gauge(
    "netfilter_build_info",
    "Always 1; the labels name the versions of the daemon and of the kernel.",
);

/// The whole page.
pub fn render(snapshot: &Snapshot, exposition: Exposition) -> String {
    let mut text = Text::new(exposition);
    packets(&mut text, &snapshot.counters);
    names(&mut text, snapshot);
    tables(&mut text, snapshot);
    policy(&mut text, snapshot);
    programs(&mut text, &snapshot.runs);
    text.declare(&BUILD_INFO);
    text.sample(
        &[("version", snapshot.version), ("kernel", &snapshot.kernel)],
        1,
    );
    text.finish()
}

fn packets(text: &mut Text, counters: &Counters) {
    let dropped = || counters.dropped.iter().filter(|dropped| !dropped.audited);
    let would_drop = || counters.dropped.iter().filter(|dropped| dropped.audited);

    text.declare(&DROPPED_PACKETS);
    for drop in dropped() {
        text.sample(&dropped_labels(drop), drop.packets);
    }
    text.declare(&DROPPED_BYTES);
    for drop in dropped() {
        text.sample(&dropped_labels(drop), drop.bytes);
    }
    text.declare(&WOULD_DROP_PACKETS);
    for drop in would_drop() {
        text.sample(&dropped_labels(drop), drop.packets);
    }

    let passed = counters.passed.iter().map(|passed| {
        let labels = [
            ("family", passed.family.label()),
            ("protocol", passed.protocol.label()),
            ("interface", &passed.interface),
        ];
        (labels, passed)
    });
    text.declare(&PASSED_PACKETS);
    for (labels, passed) in passed.clone() {
        text.sample(&labels, passed.packets);
    }
    text.declare(&PASSED_BYTES);
    for (labels, passed) in passed {
        text.sample(&labels, passed.bytes);
    }
}

fn dropped_labels(dropped: &Dropped) -> [(&'static str, &str); 4] {
    [
        ("reason", dropped.reason.label()),
        ("family", dropped.family.label()),
        ("protocol", dropped.protocol.label()),
        ("interface", &dropped.interface),
    ]
}

fn names(text: &mut Text, snapshot: &Snapshot) {
    let counters = &snapshot.counters;
    text.declare(&DNS_QUESTIONS);
    for verdict in Question::ALL {
        text.sample(
            &[("verdict", verdict.label())],
            count(&counters.questions, verdict),
        );
    }
    text.declare(&DNS_ANSWERS);
    for outcome in Answer::ALL {
        text.sample(
            &[("outcome", outcome.label())],
            count(&counters.answers, outcome),
        );
    }
    text.declare(&LEARNED_ADDRESSES);
    per_family(text, snapshot.learned);
    text.declare(&EVENTS_LOST);
    for stage in LossStage::ALL {
        text.sample(
            &[("stage", stage.label())],
            count(&counters.lost_events, stage),
        );
    }
}

/// A value that was never counted is 0, so that a series exists before its first event.
fn count<K: PartialEq>(counts: &[(K, u64)], key: &K) -> u64 {
    counts
        .iter()
        .filter(|(each, _)| each == key)
        .map(|(_, count)| count)
        .sum()
}

fn per_family(text: &mut Text, counts: PerFamily) {
    text.sample(&[("family", "ipv4")], counts.ipv4);
    text.sample(&[("family", "ipv6")], counts.ipv6);
}

fn tables(text: &mut Text, snapshot: &Snapshot) {
    text.declare(&PREFIXES);
    per_family(text, snapshot.prefixes);
    text.declare(&FLOWS);
    per_family(text, snapshot.flows);
    text.declare(&FLOWS_LOST);
    for flow in LostFlow::ALL {
        let lost = count(&snapshot.counters.lost_flows, flow);
        text.sample(&[("flow", flow.label())], lost);
    }
    text.declare(&MAP_ENTRIES);
    for map in &snapshot.maps {
        text.sample(&[("map", map.map)], map.entries);
    }
    text.declare(&MAP_MAX_ENTRIES);
    for map in &snapshot.maps {
        text.sample(&[("map", map.map)], map.max_entries);
    }
    text.declare(&MAP_EVICTIONS);
    for map in &snapshot.maps {
        if let Some(evictions) = map.evictions {
            text.sample(&[("map", map.map)], evictions);
        }
    }
}

fn policy(text: &mut Text, snapshot: &Snapshot) {
    text.declare(&RULE_HITS);
    for RuleHits { rule, hits } in &snapshot.rule_hits {
        text.sample(&[("rule", rule)], *hits);
    }
    text.declare(&ENFORCING);
    for (interface, enforcing) in &snapshot.enforcing {
        text.sample(&[("interface", interface)], u64::from(*enforcing));
    }
    text.declare(&REPAIRS);
    for (interface, cause, count) in &snapshot.repairs {
        text.sample(&[("interface", interface), ("cause", cause)], *count);
    }
    text.declare(&POLICY_GENERATION);
    text.sample(&[], u64::from(snapshot.generation));
    text.declare(&POLICY_LOAD_TIMESTAMP);
    text.sample(&[], snapshot.loaded_at);
    text.declare(&POLICY_RELOAD_FAILURES);
    text.sample(&[], snapshot.reload_failures);
    text.declare(&LOG_LINES_LOST);
    text.sample(&[], snapshot.lost_lines);
    service_tags(text, &snapshot.service_tags);
}

fn programs(text: &mut Text, runs: &[(&'static str, Run)]) {
    text.declare(&PROGRAM_RUN_SECONDS);
    for (program, run) in runs {
        text.sample_nanoseconds(&[("program", program)], run.nanoseconds);
    }
    text.declare(&PROGRAM_RUNS);
    for (program, run) in runs {
        text.sample(&[("program", program)], run.runs);
    }
}

fn service_tags(text: &mut Text, lists: &[ListHealth]) {
    if lists.is_empty() {
        return;
    }
    text.declare(&SERVICE_TAGS_AGE);
    for ListHealth { list, .. } in lists {
        if let Some(age) = list.age_seconds {
            text.sample(&[("source", &list.source)], age);
        }
    }
    text.declare(&SERVICE_TAGS_REFRESH_FAILURES);
    for ListHealth { list, failures, .. } in lists {
        text.sample(&[("source", &list.source)], *failures);
    }
}

#[cfg(test)]
mod tests;
