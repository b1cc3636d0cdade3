//! Drops in the last minute, by reason and by second.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use netfilter_ebpf::verdict::Reason;

use super::status::Drops;
use crate::datapath::Counters;

const MINUTE: Duration = Duration::from_secs(60);

/// The kernel's totals, second by second, for one minute.
#[derive(Debug, Default)]
pub(super) struct Minute {
    seconds: VecDeque<(Instant, Totals)>,
}

/// By reason, and by whether audit let the packet pass.
pub(super) type Totals = BTreeMap<(Reason, bool), Count>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }

    /// Zero for counters that began anew.
    fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

/// Over all interfaces, families and protocols.
pub(super) fn totals(counters: &Counters) -> Totals {
    let mut totals = Totals::new();
    for dropped in &counters.dropped {
        let count = totals.entry((dropped.reason, dropped.audited)).or_default();
        count.packets += dropped.packets;
        count.bytes += dropped.bytes;
    }
    totals
}

/// Nothing that did not happen.
pub(super) fn difference(now: &Totals, before: &Totals) -> Totals {
    let since = now.iter().map(|(key, count)| {
        let before = before.get(key).copied().unwrap_or_default();
        (*key, count.since(before))
    });
    since.filter(|(_, count)| count.packets > 0).collect()
}

/// Most packets first.
pub(super) fn told(totals: &Totals) -> Vec<Drops> {
    let mut drops: Vec<Drops> = totals
        .iter()
        .map(|((reason, audited), count)| Drops {
            reason: reason.label().to_owned(),
            audited: *audited,
            packets: count.packets,
            bytes: count.bytes,
        })
        .collect();
    drops.sort_by_key(|drops| std::cmp::Reverse(drops.packets));
    drops
}

impl Minute {
    pub(super) fn note(&mut self, now: Instant, counters: &Counters) {
        self.seconds.push_back((now, totals(counters)));
        while self
            .seconds
            .front()
            .is_some_and(|(then, _)| now.duration_since(*then) > MINUTE)
        {
            self.seconds.pop_front();
        }
    }

    /// Most packets first; nothing that did not happen.
    pub(super) fn drops(&self) -> Vec<Drops> {
        match (self.seconds.front(), self.seconds.back()) {
            (Some((_, first)), Some((_, last))) => told(&difference(last, first)),
            _ => Vec::new(),
        }
    }

    /// Packets from one look at the counters to the next, the oldest first.
    pub(super) fn seconds(&self) -> Vec<u64> {
        let looks = self.seconds.iter().map(|(_, totals)| totals);
        let pairs = looks.clone().zip(looks.skip(1));
        let packets = |totals: Totals| totals.values().map(|count| count.packets).sum();
        pairs
            .map(|(before, now)| packets(difference(now, before)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use netfilter_ebpf::verdict::{Family, ProtocolLabel};

    use super::*;
    use crate::datapath::Dropped;

    const SECOND: Duration = Duration::from_secs(1);

    fn counters(no_rule: u64, dns_name: u64) -> Counters {
        let dropped = |interface: &str, reason, packets| Dropped {
            interface: interface.to_owned(),
            reason,
            family: Family::Ipv4,
            protocol: ProtocolLabel::Tcp,
            audited: false,
            packets,
            bytes: packets * 100,
        };
        Counters {
            dropped: vec![
                dropped("eth0", Reason::NoRule, no_rule),
                dropped("eth1", Reason::NoRule, no_rule),
                dropped("eth0", Reason::DnsName, dns_name),
            ],
            ..Counters::default()
        }
    }

    fn packets(minute: &Minute) -> Vec<(String, u64)> {
        minute
            .drops()
            .into_iter()
            .map(|drops| (drops.reason, drops.packets))
            .collect()
    }

    #[test]
    fn what_was_counted_before_the_daemon_came_is_not_of_the_last_minute() {
        let mut minute = Minute::default();
        assert!(minute.drops().is_empty());
        minute.note(Instant::now(), &counters(1000, 1000));
        assert!(minute.drops().is_empty());
    }

    #[test]
    fn drops_are_summed_over_interfaces_and_the_most_frequent_reason_is_first() {
        let now = Instant::now();
        let mut minute = Minute::default();
        minute.note(now, &counters(10, 10));
        minute.note(now + SECOND, &counters(12, 13));
        assert_eq!(
            packets(&minute),
            [("no_rule".to_owned(), 4), ("dns_name".to_owned(), 3)]
        );
        assert_eq!(minute.drops()[0].bytes, 400);
    }

    #[test]
    fn a_drop_is_forgotten_after_a_minute_and_not_before() {
        let now = Instant::now();
        let mut minute = Minute::default();
        minute.note(now, &counters(0, 0));
        minute.note(now + SECOND, &counters(0, 5));
        for second in 2..=60 {
            minute.note(now + SECOND * second, &counters(0, 5));
        }
        assert_eq!(packets(&minute), [("dns_name".to_owned(), 5)]);
        minute.note(now + SECOND * 61, &counters(0, 5));
        assert!(minute.drops().is_empty());
        assert_eq!(minute.seconds.len(), 61);
    }

    #[test]
    fn each_second_has_its_own_and_audit_counts_too() {
        let now = Instant::now();
        let mut minute = Minute::default();
        assert!(minute.seconds().is_empty());
        for (second, count) in [(0, 10), (1, 10), (2, 13), (3, 20)] {
            let mut counters = counters(count, 0);
            counters.dropped[1].audited = true;
            minute.note(now + SECOND * second, &counters);
        }
        assert_eq!(minute.seconds(), [0, 6, 14]);
    }

    #[test]
    fn counters_that_begin_anew_are_no_drops() {
        let now = Instant::now();
        let mut minute = Minute::default();
        minute.note(now, &counters(100, 100));
        minute.note(now + SECOND, &counters(1, 1));
        assert!(minute.drops().is_empty());
    }
}
