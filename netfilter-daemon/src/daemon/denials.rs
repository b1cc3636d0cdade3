//! What was denied, with the names of the destinations: kept for those who ask,
//! and logged at a bounded rate.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch as channel;

use super::{
    event::{Event, Events},
    fields,
    history::{History, Place},
    memory::Memory,
    overview::Overview,
    status::Status,
    subject,
    tally::Tally,
    users::Users,
};
use crate::{
    datapath::{self, Notebook, Resolution, Resolutions},
    explain::Deciding,
    log,
    moment::Moment,
    policy::Mode,
    rate::Rate,
};

const BURST: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(200);

/// Readers that can follow at once.
const FOLLOWERS: usize = 8;

/// Shared by the task that reads the kernel's reports and by those who ask.
#[derive(Debug)]
pub struct Denials {
    known: Mutex<Known>,
    news: channel::Sender<()>,
    /// The kernel does not wake us for each of them: whoever asks for a name takes them first.
    resolutions: OnceLock<Resolutions>,
}

#[derive(Debug, Default)]
struct Known {
    memory: Memory,
    history: History,
    rules: Deciding,
    /// Of the last hour.
    names: Tally,
    processes: Tally,
    /// Everything passes, and what would not is remembered.
    auditing: bool,
    users: Users,
    notebook: Option<Notebook>,
}

/// Gets every event, or is told how many it was too slow for.
#[derive(Debug)]
pub struct Follower {
    denials: Arc<Denials>,
    news: channel::Receiver<()>,
    place: Place,
}

impl Default for Denials {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            news: channel::Sender::new(()),
            resolutions: OnceLock::new(),
        }
    }
}

impl Denials {
    /// All that are kept.
    pub fn all(&self) -> Events {
        self.known().history.all()
    }

    /// The policy that judges from here on.
    pub(super) fn judged_by(&self, rules: Deciding, mode: Mode) {
        let mut known = self.known();
        known.rules = rules;
        known.auditing = mode == Mode::Report;
    }

    /// Who used what audit let pass, as far as events told.
    pub(super) fn users<T>(&self, read: impl FnOnce(&Users) -> T) -> T {
        read(&self.known().users)
    }

    /// From the first that is kept. `None` where too many follow already.
    pub fn follow(self: &Arc<Self>) -> Option<Follower> {
        (self.followers() < FOLLOWERS).then(|| Follower {
            denials: Arc::clone(self),
            news: self.news.subscribe(),
            place: Place::default(),
        })
    }

    pub(crate) fn followers(&self) -> usize {
        self.news.receiver_count()
    }

    /// Learns the names that the kernel has reported. What one thread has taken from the ring, it
    /// has learned before another asks for a name.
    pub(super) fn catch_up(&self) {
        let Some(resolutions) = self.resolutions.get() else {
            return;
        };
        let mut known = self.known();
        for resolution in resolutions.waiting() {
            known.learn(&resolution);
        }
    }

    /// Adds the names to what the kernel knows.
    pub(super) fn tell(&self, status: &mut Status) {
        self.catch_up();
        let known = self.known();
        for learned in &mut status.learned {
            (learned.name, learned.resolved_at) = known.memory.name(learned.address).unzip();
        }
        if let Some(daemon) = &mut status.daemon {
            daemon.denied_lately = known.history.lately();
        }
    }

    pub(super) fn show(&self, overview: &mut Overview, now: Moment) {
        let known = self.known();
        overview.names = known.names.told(now);
        overview.processes = known.processes.told(now);
        let rows = overview.processes.rows.iter().map(|row| row.reports);
        overview.reports = overview.processes.others + rows.sum::<u64>();
        overview.recent = known.history.recent();
    }

    pub(crate) fn note(&self, event: datapath::Event) -> Event {
        // An answer is reported before its packet goes on, and a packet to what it named
        // comes later: so the name is in its ring by now.
        self.catch_up();
        let mut known = self.known();
        let name = event
            .destination
            .and_then(|address| known.memory.name(address));
        let resolved = name.as_ref().map(|(name, _)| name.as_str());
        let rule = known.rules.of_event(&event, resolved).map(str::to_owned);
        let protocol = event.protocol;
        let event = Event::new(event, name, rule);
        if event.audited {
            known.users.note(&event, protocol);
        }
        known.note(event.clone());
        drop(known);
        self.news.send_replace(());
        event
    }

    pub(crate) fn note_attempt(&self, attempt: datapath::Attempt) -> Event {
        let event = Event::attempt(attempt);
        self.known().note(event.clone());
        self.news.send_replace(());
        event
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn learn(&mut self, resolution: &Resolution) {
        self.memory.learn(resolution);
        if self.auditing
            && let Some(notebook) = &mut self.notebook
            && let Err(error) = notebook.note(resolution)
        {
            tracing::debug!("`suggest` will not know a name: {error}");
        }
    }

    fn note(&mut self, event: Event) {
        let now = Moment::now();
        let (what, process) = (subject::destination(&event), subject::process(&event));
        self.names.note(
            what.clone(),
            subject::last(&event, process.to_string()),
            now,
        );
        self.processes
            .note(process, subject::last(&event, what.to_string()), now);
        self.history.note(event);
    }
}

impl Follower {
    /// Waits for at least one event. Nothing is lost where the future is dropped.
    pub async fn next(&mut self) -> Events {
        loop {
            self.news.mark_unchanged();
            if let Some(events) = self.denials.known().history.next(&mut self.place) {
                return events;
            }
            if self.news.changed().await.is_err() {
                return std::future::pending().await; // never: we hold the sender
            }
        }
    }
}

/// Takes in what the kernel reports for as long as the process lives.
pub(super) async fn keep(
    denials: Arc<Denials>,
    events: datapath::Events,
    attempts: datapath::Attempts,
    resolutions: Resolutions,
    notebook: Notebook,
) {
    let resolutions = denials.resolutions.get_or_init(|| resolutions);
    denials.known().notebook = Some(notebook);
    let mut lines = Rate::new(BURST, INTERVAL, Instant::now());
    loop {
        let taken = tokio::select! {
            event = events.next() => event.map(|event| tell(&denials.note(event), &mut lines)),
            attempt = attempts.next() => attempt.map(|attempt| {
                tell(&denials.note_attempt(attempt), &mut lines);
            }),
            resolution = resolutions.next() => resolution.map(|resolution| {
                denials.known().learn(&resolution);
            }),
        };
        if let Err(error) = taken {
            tracing::error!("denials cannot be read: {error}");
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    }
}

fn tell(event: &Event, lines: &mut Rate) {
    let Some(untold) = lines.admit(Instant::now()) else {
        return;
    };
    if untold > 0 {
        tracing::info!("{untold} denials were not logged; the metrics count them all");
    }
    log::tell(&event.to_string(), || fields::of(event));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::event::tests::reported;

    #[test]
    fn a_denial_is_named_by_the_answer_before_it() {
        let denials = Denials::default();
        let before = denials.note(reported());
        assert_eq!((before.name, before.resolved_at), (None, None));
        denials.known().learn(&Resolution {
            time: 1,
            name: b"\x04pypi\x03org".to_vec(),
            addresses: vec![[192, 0, 2, 1].into()],
            seen: 1,
            aliases: Vec::new(),
        });
        let after = denials.note(reported());
        assert_eq!(after.name.as_deref(), Some("pypi.org"));
        assert!(after.resolved_at.unwrap() <= after.time);
        assert_eq!(denials.all().events[1], after);
    }

    #[tokio::test]
    async fn a_follower_that_waits_is_woken_by_the_next_event() {
        let denials = Arc::new(Denials::default());
        denials.note(reported());
        let mut follower = denials.follow().unwrap();
        assert_eq!(follower.next().await.events.len(), 1, "the history");
        let next = tokio::spawn(async move { follower.next().await });
        tokio::task::yield_now().await;
        denials.note(reported());
        assert_eq!(next.await.unwrap().events.len(), 1);
    }

    #[test]
    fn one_follower_too_many_is_refused_until_another_leaves() {
        let denials = Arc::new(Denials::default());
        let mut followers: Vec<_> = (0..FOLLOWERS).map_while(|_| denials.follow()).collect();
        assert_eq!(followers.len(), FOLLOWERS);
        assert!(denials.follow().is_none());
        followers.pop();
        assert!(denials.follow().is_some());
    }
}
