//! A bound on log lines that come from outside.

use std::time::{Duration, Instant};

/// So many at once, and one more after each interval.
#[derive(Debug)]
pub struct Rate {
    burst: u32,
    interval: Duration,
    left: u32,
    since: Instant,
    suppressed: u64,
}

impl Rate {
    pub fn new(burst: u32, interval: Duration, now: Instant) -> Self {
        Self {
            burst,
            interval,
            left: burst,
            since: now,
            suppressed: 0,
        }
    }

    /// How many were not admitted since the last that was; `None` if this one is not either.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        self.refill(now);
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.suppressed))
            }
            None => {
                self.suppressed += 1;
                None
            }
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        let earned = passed.as_nanos() / self.interval.as_nanos().max(1);
        let missing = self.burst - self.left;
        match u32::try_from(earned) {
            Ok(earned) if earned < missing => {
                self.left += earned;
                self.since += self.interval * earned;
            }
            _ => {
                self.left = self.burst;
                self.since = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_what_follows_it_does_not() {
        let now = Instant::now();
        let mut rate = Rate::new(2, SECOND, now);
        assert_eq!(rate.admit(now), Some(0));
        assert_eq!(rate.admit(now), Some(0));
        assert_eq!(rate.admit(now), None);
        assert_eq!(rate.admit(now + SECOND / 2), None);
    }

    #[test]
    fn after_an_interval_one_passes_and_says_how_many_did_not() {
        let now = Instant::now();
        let mut rate = Rate::new(1, SECOND, now);
        assert_eq!(rate.admit(now), Some(0));
        for _ in 0..5 {
            assert_eq!(rate.admit(now), None);
        }
        assert_eq!(rate.admit(now + SECOND), Some(5));
        assert_eq!(rate.admit(now + SECOND), None);
        assert_eq!(rate.admit(now + 2 * SECOND), Some(1));
    }

    #[test]
    fn silence_refills_no_more_than_a_burst() {
        let now = Instant::now();
        let mut rate = Rate::new(2, SECOND, now);
        let later = now + 1000 * SECOND;
        assert_eq!(
            [rate.admit(later), rate.admit(later), rate.admit(later)],
            [Some(0), Some(0), None]
        );
    }

    #[test]
    fn a_steady_stream_passes_at_the_rate_and_no_faster() {
        let start = Instant::now();
        let mut rate = Rate::new(10, SECOND / 10, start);
        let admitted = (0..100_000_u32)
            .filter(|millisecond| rate.admit(start + SECOND / 1000 * *millisecond).is_some())
            .count();
        assert!((1000..=1010).contains(&admitted), "{admitted}");
    }
}
