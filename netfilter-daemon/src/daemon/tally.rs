//! Who and what was reported as denied in the last hour: bounded, for whoever sends chooses
//! names, and the names of files and threads.

use std::collections::HashMap;

use super::overview::{Subject, Tallied, Tallies};
use crate::moment::Moment;

const MINUTES: usize = super::hour::MINUTES;
/// Subjects that are counted apart. With the longest texts there are, 2 MB.
const SUBJECTS: usize = 512;
/// Those of them that are told.
const TOLD: usize = 100;

/// What never comes again makes room for what does: the subject with the fewest reports, and of
/// those the one silent for longest, joins the others. So a count is never too high, and all
/// together are what was reported.
#[derive(Debug)]
pub(super) struct Tally {
    subjects: HashMap<Subject, Count>,
    others: Rings,
    bound: usize,
}

#[derive(Debug)]
struct Count {
    rings: Rings,
    last: Last,
}

/// What the last report of a subject said.
#[derive(Debug, Clone, Default)]
pub(super) struct Last {
    /// In seconds since 1970.
    pub(super) time: u64,
    pub(super) reason: String,
    pub(super) audited: bool,
    pub(super) other: String,
    /// Before it.
    pub(super) untold: u64,
}

#[derive(Debug, Clone, Default)]
struct Rings {
    reports: Ring,
    untold: Ring,
}

/// A count for each of the last minutes.
#[derive(Debug, Clone)]
struct Ring {
    minutes: [u32; MINUTES],
    newest: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new(SUBJECTS)
    }
}

impl Tally {
    fn new(bound: usize) -> Self {
        Self {
            subjects: HashMap::new(),
            others: Rings::default(),
            bound,
        }
    }

    pub(super) fn note(&mut self, subject: Subject, last: Last, now: Moment) {
        // What waited in the kernel while no daemon ran has its own time.
        let minute = Moment::at_unix(last.time).minutes().min(now.minutes());
        if !self.subjects.contains_key(&subject) && self.subjects.len() >= self.bound {
            self.make_room(now.minutes());
        }
        let count = self.subjects.entry(subject).or_insert_with(|| Count {
            rings: Rings::default(),
            last: Last::default(),
        });
        count.rings.reports.add(minute, 1);
        let untold = u32::try_from(last.untold).unwrap_or(u32::MAX);
        count.rings.untold.add(minute, untold);
        count.last = last;
    }

    /// Most reports first.
    pub(super) fn told(&self, now: Moment) -> Tallies {
        let minute = now.minutes();
        let mut rows: Vec<Tallied> = self
            .subjects
            .iter()
            .map(|(subject, Count { rings, last })| Tallied {
                subject: subject.clone(),
                reports: rings.reports.sum(minute),
                untold: rings.untold.sum(minute),
                last: last.time,
                reason: last.reason.clone(),
                audited: last.audited,
                other: last.other.clone(),
            })
            .filter(|row| row.reports > 0)
            .collect();
        rows.sort_by(|one, next| {
            let key = |row: &Tallied| (row.reports, row.untold, row.last);
            let order = key(next).cmp(&key(one));
            order.then_with(|| one.subject.cmp(&next.subject))
        });
        let rest = rows.split_off(rows.len().min(TOLD));
        let others = rest.iter().map(|row| row.reports).sum::<u64>();
        Tallies {
            rows,
            others: others + self.others.reports.sum(minute),
        }
    }

    fn make_room(&mut self, minute: u64) {
        self.subjects
            .retain(|_, count| count.rings.reports.sum(minute) > 0);
        if self.subjects.len() < self.bound {
            return;
        }
        let least = self
            .subjects
            .iter()
            .min_by_key(|(_, count)| (count.rings.reports.sum(minute), count.last.time))
            .map(|(subject, _)| subject.clone());
        if let Some(count) = least.and_then(|least| self.subjects.remove(&least)) {
            self.others.reports.join(&count.rings.reports, minute);
            self.others.untold.join(&count.rings.untold, minute);
        }
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            minutes: [0; MINUTES],
            newest: 0,
        }
    }
}

impl Ring {
    const LENGTH: u64 = MINUTES as u64;

    fn add(&mut self, minute: u64, count: u32) {
        if minute > self.newest {
            let passed = (minute - self.newest).min(Self::LENGTH);
            for gone in 0..passed {
                self.minutes[Self::place(minute - gone)] = 0;
            }
            self.newest = minute;
        } else if minute + Self::LENGTH <= self.newest {
            return; // more than an hour ago
        }
        let place = &mut self.minutes[Self::place(minute)];
        *place = place.saturating_add(count);
    }

    fn sum(&self, now: u64) -> u64 {
        let oldest = (now + 1).saturating_sub(Self::LENGTH);
        let known = (self.newest + 1).saturating_sub(Self::LENGTH);
        (oldest.max(known)..=self.newest)
            .map(|minute| u64::from(self.minutes[Self::place(minute)]))
            .sum()
    }

    fn join(&mut self, other: &Self, now: u64) {
        let oldest = (now + 1).saturating_sub(Self::LENGTH);
        let known = (other.newest + 1).saturating_sub(Self::LENGTH);
        for minute in oldest.max(known)..=other.newest {
            self.add(minute, other.minutes[Self::place(minute)]);
        }
    }

    fn place(minute: u64) -> usize {
        usize::try_from(minute % Self::LENGTH).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::moment::unix_seconds;

    fn subject(what: &str) -> Subject {
        Subject {
            what: what.to_owned(),
            whose: String::new(),
        }
    }

    fn last(untold: u64) -> Last {
        Last {
            time: unix_seconds(SystemTime::now()),
            untold,
            ..Last::default()
        }
    }

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    fn rows(tally: &Tally, now: Moment) -> Vec<(String, u64, u64)> {
        let rows = tally.told(now).rows.into_iter();
        rows.map(|row| (row.subject.what, row.reports, row.untold))
            .collect()
    }

    fn row(what: &str, reports: u64, untold: u64) -> (String, u64, u64) {
        (what.to_owned(), reports, untold)
    }

    #[test]
    fn the_subject_of_most_reports_is_first_and_what_was_not_told_is_summed() {
        let now = Moment::now();
        let mut tally = Tally::default();
        tally.note(subject("a"), last(0), now);
        tally.note(subject("b"), last(0), now);
        tally.note(subject("b"), last(40), now);
        assert_eq!(rows(&tally, now), [row("b", 2, 40), row("a", 1, 0)]);
        assert_eq!(tally.told(now).others, 0);
    }

    #[test]
    fn a_report_is_forgotten_after_an_hour_and_not_before() {
        let now = Moment::now();
        let mut tally = Tally::default();
        tally.note(subject("a"), last(3), now);
        assert_eq!(rows(&tally, now.after(minutes(59))), [row("a", 1, 3)]);
        assert_eq!(rows(&tally, now.after(minutes(60))), []);
        assert_eq!(rows(&tally, now.after(minutes(600))), []);
    }

    #[test]
    fn what_waited_in_the_kernel_is_counted_when_it_was() {
        let now = Moment::now().after(minutes(200));
        let mut tally = Tally::default();
        let long_ago = Last {
            time: last(0).time.saturating_sub(2 * 3600),
            ..last(0)
        };
        tally.note(subject("new"), last(0), now);
        tally.note(subject("old"), long_ago, now);
        assert_eq!(rows(&tally, Moment::now()), [row("new", 1, 0)]);
    }

    #[test]
    fn ever_new_subjects_push_out_neither_what_comes_again_nor_any_report() {
        let now = Moment::now();
        let mut tally = Tally::new(8);
        for number in 0..1000 {
            tally.note(subject(&format!("{number}.example")), last(0), now);
            if number % 3 == 0 {
                tally.note(subject("mine"), last(0), now);
            }
            assert!(tally.subjects.len() <= 8);
        }
        let told = tally.told(now);
        assert_eq!(
            (told.rows[0].subject.what.as_str(), told.rows[0].reports),
            ("mine", 334)
        );
        let shown: u64 = told.rows.iter().map(|row| row.reports).sum();
        assert_eq!(shown + told.others, 1334);
    }

    #[test]
    fn of_many_those_with_most_are_told_and_the_rest_are_others() {
        let now = Moment::now();
        let mut tally = Tally::default();
        for number in 0..TOLD + 50 {
            tally.note(subject(&format!("{number:03}")), last(0), now);
        }
        tally.note(subject("149"), last(0), now);
        let told = tally.told(now);
        assert_eq!((told.rows.len(), told.others), (TOLD, 50));
        assert_eq!(told.rows[0].subject.what, "149");
    }

    /// Against a count that remembers everything.
    #[test]
    fn a_ring_counts_as_a_list_of_all_does() {
        let mut ring = Ring::default();
        let mut all: Vec<(u64, u64)> = Vec::new();
        let mut minute = 1_000;
        for step in 0..5_000u64 {
            minute +=
                [0, 0, 1, 0, 7, 0, 0, 61][usize::try_from(step * 7 % 8).unwrap()] * (step % 3);
            let back = step * 13 % 70;
            ring.add(minute - back, 2);
            all.push((minute - back, 2));
            let now = minute + step % 5;
            let newest = all.iter().map(|(minute, _)| *minute).max().unwrap();
            let expected: u64 = all
                .iter()
                .filter(|(at, _)| at + 60 > now && at + 60 > newest)
                .map(|(_, count)| count)
                .sum();
            assert_eq!(ring.sum(now), expected, "step {step}");
        }
    }
}
