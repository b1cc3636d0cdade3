//! How often a place is taken back, and what the log is told of it.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use crate::datapath::Cause;

/// Between two repairs of one interface: a tool that insists must not make a storm.
const PAUSE: Duration = Duration::from_millis(900);
/// Between two lines of the log about one interface and cause.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Repairs {
    counts: BTreeMap<(String, Cause), u64>,
    last: HashMap<u32, Instant>,
    told: HashMap<(String, Cause), Instant>,
}

impl Repairs {
    /// Whether the interface may be repaired now.
    pub(super) fn is_due(&self, ifindex: u32, now: Instant) -> bool {
        self.last
            .get(&ifindex)
            .is_none_or(|last| now.duration_since(*last) >= PAUSE)
    }

    /// Counts a repair, and logs it unless it was logged lately. Without an interface: of
    /// what keeps sockets from passing by.
    pub(super) fn note(&mut self, index: u32, interface: &str, cause: Cause, now: Instant) {
        self.last
            .retain(|_, last| now.duration_since(*last) < PAUSE);
        self.last.insert(index, now);
        let key = (interface.to_owned(), cause);
        let count = self.counts.entry(key.clone()).or_default();
        *count += 1;
        let silent = self.told.get(&key);
        if silent.is_none_or(|told| now.duration_since(*told) >= SILENCE) {
            tracing::warn!(
                "another tool interfered on {}: {}; put right ({count} times until now)",
                place(interface),
                cause.sentence()
            );
            self.told.insert(key, now);
        }
    }

    pub(super) fn counts(&self) -> BTreeMap<(String, Cause), u64> {
        self.counts.clone()
    }
}

/// Where another tool interfered.
pub fn place(interface: &str) -> &str {
    match interface {
        "" => "the root of cgroup v2",
        interface => interface,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_insists_is_answered_once_a_second_and_counted_each_time() {
        let start = Instant::now();
        let mut repairs = Repairs::default();
        let mut done = 0;
        for tenth in 0..100 {
            let now = start + Duration::from_millis(100 * tenth);
            if repairs.is_due(2, now) {
                repairs.note(2, "eth0", Cause::Detached, now);
                done += 1;
            }
        }
        assert!((10..=12).contains(&done), "{done}");
        let key = ("eth0".to_owned(), Cause::Detached);
        assert_eq!(repairs.counts()[&key], done);
        assert!(repairs.is_due(3, start), "others do not wait for it");
    }
}
