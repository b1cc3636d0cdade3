//! Looks for newer lists at the policy's interval.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time,
};

use super::{Outcome, Update, kept::Kept, store::Store, update};
use crate::{
    moment::{self, Moment},
    policy::{
        Policy,
        service_tag::{Edition, lists::Lists},
    },
};

/// After a start or a failure; it doubles with every further failure.
const FIRST_RETRY: Duration = Duration::from_secs(60);
const LAST_RETRY: Duration = Duration::from_secs(6 * 60 * 60);
/// What is overdue when the daemon starts waits up to this long, for a fleet may
/// have started with it.
const OVERDUE: Duration = Duration::from_secs(10);
/// Up to this part of a pause is left out at random.
const JITTER: f64 = 0.1;
/// Looks at the clock this often, for the machine may have been suspended.
const LONGEST_NAP: Duration = Duration::from_secs(60);

/// What of the policy in force this task needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    lists: Lists,
    editions: Vec<Edition>,
}

/// How the refreshing of each list goes.
#[derive(Debug, Default)]
pub struct Health {
    records: Mutex<BTreeMap<String, Record>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub last_success: Option<Moment>,
    pub last_failure: Option<(Moment, String)>,
    pub failures: u64,
    in_a_row: u32,
}

impl InForce {
    pub fn of(policy: &Policy) -> Self {
        Self {
            lists: policy.lists.clone(),
            editions: policy.editions.clone(),
        }
    }

    /// Whether the store has, of some list, another edition than is in force.
    fn is_behind(&self, kept: &Kept<'_>) -> bool {
        self.lists.changing().any(|source| {
            let stored = kept.load(source).ok().flatten();
            let mut editions = self.editions.iter();
            let in_force = editions.find(|edition| edition.source == source.as_str());
            let in_force = in_force.and_then(|edition| edition.fetched.as_ref());
            matches!((stored, in_force), (Some(stored), Some(in_force))
                if stored.sha256 != in_force.sha256)
        })
    }
}

impl Health {
    pub fn of(&self, source: &str) -> Record {
        self.records().get(source).cloned().unwrap_or_default()
    }

    /// Notes what became of lists, and says so in the log.
    pub fn tell(&self, updates: &[Update]) {
        for Update { source, outcome } in updates {
            match outcome {
                Outcome::New => tracing::info!("a new list of service tags came from {source}"),
                Outcome::Fresh => {
                    tracing::debug!("the service tags of {source} are still the newest");
                }
                Outcome::Failed(why) | Outcome::Unkept(why) => {
                    tracing::error!("the service tags of {source} stay as they were: {why}");
                }
            }
        }
        self.note(updates, Moment::now());
    }

    fn note(&self, updates: &[Update], now: Moment) {
        let mut records = self.records();
        for Update { source, outcome } in updates {
            let record = records.entry(source.clone()).or_default();
            match outcome.failure() {
                None => {
                    record.last_success = Some(now);
                    record.in_a_row = 0;
                }
                Some(why) => {
                    record.last_failure = Some((now, why.to_owned()));
                    record.failures += 1;
                    record.in_a_row += 1;
                }
            }
        }
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs for as long as the daemon does. Says on `changed` that the policy should be
/// loaded again, because a newer list is stored.
pub async fn keep(
    policy: PathBuf,
    store: Store,
    mut in_force: watch::Receiver<InForce>,
    health: Arc<Health>,
    changed: mpsc::Sender<()>,
) {
    let mut due = BTreeMap::new();
    loop {
        let now = Moment::now();
        let present = in_force.borrow_and_update().clone();
        schedule(&mut due, &present, &Kept::of(&policy, &store), &health, now);
        let ripe: Vec<String> = due
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(source, _)| source.clone())
            .collect();
        if ripe.is_empty() {
            let next = due.values().min().map(|at| now.until(*at));
            let nap = next.unwrap_or(LONGEST_NAP).min(LONGEST_NAP);
            tokio::select! {
                () = time::sleep(nap) => {}
                closed = in_force.changed() => if closed.is_err() { return },
            }
            continue;
        }
        for source in &ripe {
            due.remove(source);
        }
        let behind = refresh(&policy, &store, ripe, &health, present).await;
        if behind && changed.send(()).await.is_err() {
            return;
        }
    }
}

/// Whether what is in force is behind what is stored now.
async fn refresh(
    policy: &std::path::Path,
    store: &Store,
    ripe: Vec<String>,
    health: &Health,
    present: InForce,
) -> bool {
    let (policy, store) = (policy.to_owned(), store.clone());
    let sources = ripe.clone();
    let done = spawn_blocking(move || {
        let which = |source: &str| sources.iter().any(|due| due == source);
        let updates = update(&policy, &store, which, false).map_err(|error| error.to_string());
        (updates, present.is_behind(&Kept::of(&policy, &store)))
    });
    let (updates, behind) = match done.await {
        Ok(done) => done,
        Err(error) => (Err(error.to_string()), false),
    };
    let failed = |why: String| {
        let failed = |source| Update {
            source,
            outcome: Outcome::Failed(why.clone()),
        };
        ripe.into_iter().map(failed).collect()
    };
    let updates: Vec<Update> = updates.unwrap_or_else(failed);
    health.tell(&updates);
    behind
}

/// Gives each list of the policy that has none its time, which whoever sets the clock
/// does not move.
fn schedule(
    due: &mut BTreeMap<String, Moment>,
    present: &InForce,
    kept: &Kept<'_>,
    health: &Health,
    now: Moment,
) {
    let wanted = |due: &str| {
        present
            .lists
            .changing()
            .any(|source| source.as_str() == due)
    };
    due.retain(|source, _| wanted(source));
    for source in present.lists.changing() {
        let every = present.lists.every;
        let latest = now.after(every);
        if let Some(at) = due.get_mut(source.as_str()) {
            // The interval may be another now.
            *at = (*at).min(latest);
            continue;
        }
        let stored = kept.load(source).ok().flatten();
        let age = stored.map(|stored| now_in_unix().saturating_sub(stored.checked));
        let failures = health.of(source.as_str()).in_a_row;
        let pause = pause(age, every, failures, chance());
        due.insert(source.as_str().to_owned(), now.after(pause));
    }
}

/// For a list that was found to be the newest `age` seconds ago, by a clock that may have
/// been wrong then. `chance` is from 0 to 1.
fn pause(age: Option<u64>, every: Duration, failures: u32, chance: f64) -> Duration {
    const LEAST: Duration = Duration::from_secs(1);
    let less = |pause: Duration| pause.mul_f64(1.0 - JITTER * chance);
    if let Some(doubled) = failures.checked_sub(1) {
        let pause = FIRST_RETRY.saturating_mul(1 << doubled.min(16));
        return less(pause.min(LAST_RETRY).min(every)).max(LEAST);
    }
    let age = age.map_or(Duration::MAX, Duration::from_secs);
    let soonest = OVERDUE.mul_f64(chance).max(LEAST);
    less(every).saturating_sub(age).max(soonest)
}

fn now_in_unix() -> u64 {
    moment::unix_seconds(SystemTime::now())
}

fn chance() -> f64 {
    let bits = RandomState::new().hash_one(Instant::now());
    f64::from((bits >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn seconds(age: Option<u64>, every: Duration, failures: u32, chance: f64) -> u64 {
        pause(age, every, failures, chance).as_secs()
    }

    #[test]
    fn a_list_is_looked_at_again_when_its_interval_has_passed_and_not_much_sooner() {
        assert_eq!(seconds(Some(0), DAY, 0, 0.0), 86_400);
        assert_eq!(seconds(Some(0), DAY, 0, 1.0), 77_760);
        assert_eq!(seconds(Some(3600), DAY, 0, 0.0), 82_800);
    }

    #[test]
    fn what_is_overdue_is_looked_at_soon_and_not_by_all_at_once() {
        assert_eq!(seconds(None, DAY, 0, 0.0), 1);
        assert_eq!(seconds(Some(90_000), DAY, 0, 1.0), 10);
    }

    #[test]
    fn after_failures_it_is_tried_again_at_growing_distances_and_within_the_interval() {
        let after = |failures| seconds(Some(0), DAY, failures, 0.0);
        assert_eq!([1, 2, 3].map(after), [60, 120, 240]);
        assert_eq!([9, 10, 1000].map(after), [15_360, 21_600, 21_600]);
        let short = Duration::from_secs(300);
        assert_eq!(seconds(Some(0), short, 9, 0.0), 300);
    }

    #[test]
    fn a_failure_is_counted_and_a_success_ends_the_row_of_them() {
        let health = Health::default();
        let update = |outcome| {
            let source = "https://lists.example/".to_owned();
            [Update { source, outcome }]
        };
        let failed = || update(Outcome::Failed("why".to_owned()));
        let now = Moment::now();
        let at = |seconds| now.after(Duration::from_secs(seconds));
        health.note(&failed(), at(1));
        health.note(&failed(), at(2));
        let record = health.of("https://lists.example/");
        assert_eq!((record.failures, record.in_a_row), (2, 2));
        assert_eq!(record.last_failure, Some((at(2), "why".to_owned())));
        health.note(&update(Outcome::Fresh), at(3));
        let record = health.of("https://lists.example/");
        assert_eq!((record.failures, record.in_a_row), (2, 0));
        assert_eq!(record.last_success, Some(at(3)));
    }
}
