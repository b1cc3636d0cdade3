//! When each name is asked for next. Pure: the time is an argument.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

/// The part of a TTL after which the next question goes out.
const REFRESH_AT: f64 = 0.75;
const SOONEST: Duration = Duration::from_secs(5);
const LATEST: Duration = Duration::from_secs(600);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Up to this part of a pause is left out at random.
const JITTER: f64 = 0.1;

/// Every name is either due at some time or taken to be asked for.
#[derive(Debug)]
pub(super) struct Schedule {
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    names: Vec<Name>,
}

#[derive(Debug)]
struct Name {
    name: String,
    /// In a row.
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    First,
    Again,
}

impl Schedule {
    /// All names are due at once.
    pub(super) fn new(names: Vec<String>, now: Instant) -> Self {
        Self {
            due: (0..names.len()).map(|name| Reverse((now, name))).collect(),
            names: names
                .into_iter()
                .map(|name| Name { name, failures: 0 })
                .collect(),
        }
    }

    pub(super) fn name(&self, name: usize) -> &str {
        &self.names[name].name
    }

    /// When the next name is due; `None` while all are taken.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes the name that has been due longest.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<usize> {
        let due = self.next()? <= now;
        due.then(|| self.due.pop())
            .flatten()
            .map(|Reverse((_, name))| name)
    }

    /// Puts a taken name back. `random` is between 0 and 1. True if the name
    /// had failed before.
    pub(super) fn answered(
        &mut self,
        name: usize,
        ttl: Duration,
        now: Instant,
        random: f64,
    ) -> bool {
        let pause = ttl.mul_f64(REFRESH_AT).clamp(SOONEST, LATEST);
        self.put_back(name, now + sooner(pause, random).max(SOONEST));
        std::mem::take(&mut self.names[name].failures) > 0
    }

    /// Puts a taken name back, for ever longer while it keeps failing.
    pub(super) fn failed(&mut self, name: usize, now: Instant, random: f64) -> Failure {
        let failures = self.names[name].failures;
        let pause = FIRST_RETRY
            .saturating_mul(1 << failures.min(6))
            .min(LAST_RETRY);
        self.put_back(name, now + sooner(pause, random));
        self.names[name].failures = failures.saturating_add(1);
        if failures == 0 {
            Failure::First
        } else {
            Failure::Again
        }
    }

    fn put_back(&mut self, name: usize, due: Instant) {
        self.due.push(Reverse((due, name)));
    }
}

fn sooner(pause: Duration, random: f64) -> Duration {
    pause.mul_f64(1.0 - JITTER * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn of(names: &[&str], now: Instant) -> Schedule {
        Schedule::new(names.iter().map(|name| (*name).to_owned()).collect(), now)
    }

    /// How long after an answer of this TTL the name is due again.
    fn pause(ttl: u64, random: f64) -> Duration {
        let now = Instant::now();
        let mut schedule = of(&["a"], now);
        let name = schedule.take_due(now).unwrap();
        schedule.answered(name, seconds(ttl), now, random);
        schedule.next().unwrap() - now
    }

    #[test]
    fn all_names_are_due_at_the_start_and_each_is_taken_once() {
        let now = Instant::now();
        let mut schedule = of(&["a", "b"], now);
        let mut taken = [
            schedule.take_due(now).unwrap(),
            schedule.take_due(now).unwrap(),
        ];
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
        assert_eq!(schedule.take_due(now), None);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_name_is_due_at_three_quarters_of_its_ttl_and_not_before() {
        let now = Instant::now();
        let mut schedule = of(&["a"], now);
        let name = schedule.take_due(now).unwrap();
        schedule.answered(name, seconds(100), now, 0.0);
        assert_eq!(
            schedule.take_due(now + seconds(75) - Duration::from_millis(1)),
            None
        );
        assert_eq!(schedule.take_due(now + seconds(75)), Some(name));
    }

    #[test]
    fn short_and_long_ttls_are_clamped() {
        assert_eq!(pause(0, 0.0), seconds(5));
        assert_eq!(pause(6, 0.0), seconds(5));
        assert_eq!(pause(801, 0.0), seconds(600));
        assert_eq!(pause(u64::from(u32::MAX), 0.0), seconds(600));
    }

    #[test]
    fn jitter_only_ever_asks_sooner_and_by_a_tenth_at_most() {
        assert_eq!(pause(400, 1.0), seconds(270));
        assert_eq!(pause(400, 7.0), seconds(270));
        assert_eq!(pause(100_000, 1.0), seconds(540));
        assert_eq!(pause(1, 1.0), seconds(5));
    }

    #[test]
    fn failures_back_off_to_a_minute_and_an_answer_ends_that() {
        let mut now = Instant::now();
        let mut schedule = of(&["a"], now);
        let mut pauses = Vec::new();
        for attempt in 0..40 {
            let name = schedule.take_due(now).unwrap();
            let failure = schedule.failed(name, now, 0.0);
            assert_eq!(failure == Failure::First, attempt == 0);
            let next = schedule.next().unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses.last(), Some(&60));

        let name = schedule.take_due(now).unwrap();
        assert!(
            schedule.answered(name, seconds(100), now, 0.0),
            "it had failed before"
        );
        now = schedule.next().unwrap();
        let name = schedule.take_due(now).unwrap();
        assert_eq!(schedule.failed(name, now, 0.0), Failure::First);
        assert_eq!(schedule.next(), Some(now + seconds(1)));
    }

    #[test]
    fn the_name_that_waited_longest_goes_first() {
        let now = Instant::now();
        let mut schedule = of(&["a", "b"], now);
        for ttl in [200, 100] {
            let name = schedule.take_due(now).unwrap();
            schedule.answered(name, seconds(ttl), now, 0.0);
        }
        let later = now + seconds(600);
        assert_eq!(
            [schedule.take_due(later), schedule.take_due(later)],
            [Some(1), Some(0)]
        );
    }

    #[test]
    fn ten_thousand_names_are_scheduled_in_no_time() {
        let start = Instant::now();
        let names = (0..10_000).map(|name| name.to_string()).collect();
        let mut schedule = Schedule::new(names, start);
        let mut now = start;
        for _ in 0..100_000 {
            now = now.max(schedule.next().unwrap());
            let name = schedule.take_due(now).unwrap();
            schedule.answered(name, seconds(60), now, 0.5);
        }
        assert!(start.elapsed() < seconds(5));
    }
}
