//! What the kernel counted in the last hour, minute by minute: exact, as its counters are.

use std::collections::VecDeque;

use netfilter_ebpf::verdict::{Answer, LossStage, Question};

use super::{
    minute::{self, Totals},
    overview::{Counted, InAnHour},
};
use crate::{datapath::Counters, moment::Moment};

/// Minutes that are kept, the one under way among them.
pub(super) const MINUTES: usize = 60;

/// By minute of [`Moment`], and for as long as the daemon runs: what was counted before it
/// came has no time.
#[derive(Debug, Default)]
pub(super) struct Hour {
    /// The oldest first; one for each minute, also where nothing was counted.
    minutes: VecDeque<Bucket>,
    last: Option<(Totals, Told)>,
}

#[derive(Debug, Default)]
struct Bucket {
    minute: u64,
    drops: Totals,
    told: Told,
}

/// What becomes of questions, answers and reports, each in the order of its enum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    questions: Vec<u64>,
    answers: Vec<u64>,
    lost: Vec<u64>,
}

impl Hour {
    pub(super) fn note(&mut self, now: Moment, counters: &Counters) {
        self.turn(now.minutes());
        let (drops, told) = (minute::totals(counters), Told::of(counters));
        if let (Some((before, told_before)), Some(bucket)) = (&self.last, self.minutes.back_mut()) {
            for (key, count) in minute::difference(&drops, before) {
                bucket.drops.entry(key).or_default().add(count);
            }
            bucket.told.add(&told.since(told_before));
        }
        self.last = Some((drops, told));
    }

    /// As it stands now, which may be a while after the last look.
    pub(super) fn drops(&self, now: Moment) -> InAnHour {
        let mut sum = Totals::new();
        let mut told = Told::default();
        let oldest = (now.minutes() + 1).saturating_sub(MINUTES as u64);
        let known = || self.minutes.iter().filter(|known| known.minute >= oldest);
        for bucket in known() {
            for (key, count) in &bucket.drops {
                sum.entry(*key).or_default().add(*count);
            }
            told.add(&bucket.told);
        }
        let minutes = (oldest..=now.minutes()).map(|minute| {
            let mut buckets = known();
            let bucket = buckets.find(|known| known.minute == minute);
            bucket.map_or_else(Vec::new, |bucket| minute::told(&bucket.drops))
        });
        InAnHour {
            minutes: minutes.collect(),
            by_reason: minute::told(&sum),
            questions: counted(Question::ALL, &told.questions, |each| each.label()),
            answers: counted(Answer::ALL, &told.answers, |each| each.label()),
            lost_reports: counted(LossStage::ALL, &told.lost, |each| each.label()),
        }
    }

    fn turn(&mut self, minute: u64) {
        let newest = self.minutes.back().map(|bucket| bucket.minute);
        if newest.is_none_or(|newest| newest < minute) {
            self.minutes.push_back(Bucket {
                minute,
                ..Bucket::default()
            });
        }
        while self.minutes.len() > MINUTES {
            self.minutes.pop_front();
        }
    }
}

impl Told {
    fn of(counters: &Counters) -> Self {
        fn counts<T>(counts: &[(T, u64)]) -> Vec<u64> {
            counts.iter().map(|(_, count)| *count).collect()
        }
        Self {
            questions: counts(&counters.questions),
            answers: counts(&counters.answers),
            lost: counts(&counters.lost_events),
        }
    }

    fn since(&self, before: &Self) -> Self {
        fn since(now: &[u64], before: &[u64]) -> Vec<u64> {
            let pairs = now.iter().zip(before);
            pairs
                .map(|(now, before)| now.saturating_sub(*before))
                .collect()
        }
        Self {
            questions: since(&self.questions, &before.questions),
            answers: since(&self.answers, &before.answers),
            lost: since(&self.lost, &before.lost),
        }
    }

    fn add(&mut self, other: &Self) {
        fn add(sum: &mut Vec<u64>, other: &[u64]) {
            sum.resize(sum.len().max(other.len()), 0);
            sum.iter_mut()
                .zip(other)
                .for_each(|(sum, other)| *sum += other);
        }
        add(&mut self.questions, &other.questions);
        add(&mut self.answers, &other.answers);
        add(&mut self.lost, &other.lost);
    }
}

fn counted<T>(all: &[T], counts: &[u64], label: impl Fn(&T) -> &'static str) -> Vec<Counted> {
    let labelled = all.iter().enumerate().map(|(place, each)| Counted {
        what: label(each).to_owned(),
        count: counts.get(place).copied().unwrap_or(0),
    });
    labelled.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netfilter_ebpf::verdict::{Family, ProtocolLabel, Reason};

    use super::*;
    use crate::datapath::Dropped;

    fn counters(no_rule: u64, audited: u64, denied_questions: u64, untold: u64) -> Counters {
        let dropped = |audited, packets| Dropped {
            interface: "eth0".to_owned(),
            reason: Reason::NoRule,
            family: Family::Ipv4,
            protocol: ProtocolLabel::Tcp,
            audited,
            packets,
            bytes: packets * 100,
        };
        Counters {
            dropped: vec![dropped(false, no_rule), dropped(true, audited)],
            questions: vec![
                (Question::Permitted, 5),
                (Question::Denied, denied_questions),
            ],
            lost_events: vec![(LossStage::RateLimit, untold)],
            ..Counters::default()
        }
    }

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    fn packets(hour: &Hour, now: Moment) -> Vec<(bool, u64)> {
        let drops = hour.drops(now).by_reason.into_iter();
        drops.map(|drops| (drops.audited, drops.packets)).collect()
    }

    #[test]
    fn what_was_counted_before_the_daemon_came_is_not_of_the_last_hour() {
        let now = Moment::now();
        let mut hour = Hour::default();
        assert_eq!(packets(&hour, now), []);
        hour.note(now, &counters(1000, 1000, 7, 7));
        assert_eq!(packets(&hour, now), []);
        hour.note(now.after(minutes(1)), &counters(1003, 1000, 8, 11));
        let drops = hour.drops(now.after(minutes(1)));
        assert_eq!(drops.by_reason.len(), 1);
        assert_eq!(
            (drops.by_reason[0].packets, drops.by_reason[0].bytes),
            (3, 300)
        );
        let count = |of: &[Counted], what| of.iter().find(|each| each.what == what).unwrap().count;
        assert_eq!(count(&drops.questions, "denied"), 1);
        assert_eq!(count(&drops.questions, "permitted"), 0);
        assert_eq!(count(&drops.lost_reports, "rate_limit"), 4);
    }

    #[test]
    fn each_minute_has_its_own_and_one_without_a_look_is_empty() {
        let now = Moment::now();
        let mut hour = Hour::default();
        hour.note(now, &counters(0, 0, 0, 0));
        hour.note(now, &counters(2, 0, 0, 0));
        hour.note(now.after(minutes(3)), &counters(2, 5, 0, 0));
        let drops = hour.drops(now.after(minutes(4)));
        assert_eq!(drops.minutes.len(), MINUTES);
        let told: Vec<u64> = drops.minutes[MINUTES - 6..]
            .iter()
            .map(|drops| drops.iter().map(|drops| drops.packets).sum())
            .collect();
        assert_eq!(told, [0, 2, 0, 0, 5, 0]);
    }

    #[test]
    fn a_drop_is_forgotten_after_an_hour_and_not_before() {
        let now = Moment::now();
        let mut hour = Hour::default();
        hour.note(now, &counters(0, 0, 0, 0));
        hour.note(now, &counters(4, 1, 0, 0));
        for minute in 1..=59 {
            hour.note(now.after(minutes(minute)), &counters(4, 1, 0, 0));
        }
        assert_eq!(
            packets(&hour, now.after(minutes(59))),
            [(false, 4), (true, 1)]
        );
        assert_eq!(packets(&hour, now.after(minutes(60))), []);
        hour.note(now.after(minutes(60)), &counters(4, 1, 0, 0));
        assert_eq!(hour.minutes.len(), MINUTES);
    }

    #[test]
    fn counters_that_begin_anew_are_no_drops() {
        let now = Moment::now();
        let mut hour = Hour::default();
        hour.note(now, &counters(100, 100, 9, 9));
        hour.note(now, &counters(1, 1, 0, 0));
        assert_eq!(packets(&hour, now), []);
        assert!(hour.drops(now).questions.iter().all(|each| each.count == 0));
    }
}
