//! What the daemon shows: to scrapers, to `status`, to whoever asks for its health.

use std::{
    collections::HashSet,
    fs, mem,
    net::IpAddr,
    path::PathBuf,
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{
    denials::Denials,
    keeper::Shared,
    loaded::Loaded,
    minute::Minute,
    status::{self, InForce, ListHealth, Looked, Repaired, Running, ServiceTags, Status},
    ways_out::{self, Report, Told},
};
use crate::{
    datapath::{self, State},
    explain::Deciding,
    log,
    metrics::{PerFamily, Snapshot},
    moment::{self, Moment},
    policy::{Mode, service_tag::Edition},
    serve::Source,
    tags::keep::Health,
};

/// The loop turns every second; a reload of the largest policy takes a few.
const ALIVE: Duration = Duration::from_secs(15);

/// Shared by the daemon's loop, which writes, and by the listeners, which read.
pub(super) struct View {
    state: State,
    denials: Arc<Denials>,
    health: Arc<Health>,
    policy_path: PathBuf,
    since: Moment,
    kernel: String,
    present: Mutex<Present>,
}

/// What changes while the daemon runs.
struct Present {
    keeper: Arc<Shared>,
    policy: PolicyInForce,
    failed_reloads: u64,
    minute: Minute,
    turned: Instant,
    told: Told,
}

pub(super) struct PolicyInForce {
    rules: usize,
    names: usize,
    prefixes: PerFamily,
    enforcing: bool,
    generation: u32,
    loaded_at: Moment,
    catalogue: Edition,
    editions: Vec<Edition>,
    deciding: Deciding,
}

impl View {
    pub(super) fn new(
        state: State,
        denials: Arc<Denials>,
        health: Arc<Health>,
        keeper: Arc<Shared>,
        policy_path: PathBuf,
        loaded: &Loaded,
        generation: u32,
    ) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        denials.judged_by(Deciding::of(&loaded.policy));
        Self {
            state,
            denials,
            health,
            policy_path,
            since: Moment::now(),
            kernel: kernel.trim().to_owned(),
            present: Mutex::new(Present {
                keeper,
                policy: PolicyInForce::of(loaded, generation),
                failed_reloads: 0,
                minute: Minute::default(),
                turned: Instant::now(),
                told: Told::default(),
            }),
        }
    }

    /// Returns what was in force before.
    pub(super) fn replaced(&self, loaded: &Loaded, generation: u32) -> PolicyInForce {
        let policy = PolicyInForce::of(loaded, generation);
        self.denials.judged_by(policy.deciding.clone());
        mem::replace(&mut self.present().policy, policy)
    }

    pub(super) fn put_back(&self, policy: PolicyInForce, generation: u32) {
        self.denials.judged_by(policy.deciding.clone());
        self.present().policy = PolicyInForce {
            generation,
            ..policy
        };
    }

    pub(super) fn kept_by(&self, keeper: Arc<Shared>) {
        self.present().keeper = keeper;
    }

    /// The names of the interfaces where packets are filtered.
    pub(super) fn filtered(&self) -> Vec<String> {
        let ways_out = self.report().0.ways_out.into_iter();
        ways_out
            .filter(|way| way.filtered)
            .map(|way| way.interface)
            .collect()
    }

    pub(super) fn reload_failed(&self) {
        self.present().failed_reloads += 1;
    }

    /// Once a second: notes the counters and names, and that the loop is alive. Logs what
    /// is not as it should be, once.
    pub(super) fn turn(&self) -> anyhow::Result<()> {
        self.present().turned = Instant::now();
        self.denials.catch_up();
        let ways_out = self.report().0.ways_out;
        let counters = self.state.counters()?;
        let mut present = self.present();
        present.minute.note(Instant::now(), &counters);
        present.told.log_changes(&ways_out);
        Ok(())
    }

    pub(super) fn status(&self) -> Result<Status, datapath::Error> {
        let mut status = status::of_kernel(&self.state)?;
        let complaint = self.health().err();
        let report = self.report().0;
        let present = self.present();
        let policy = &present.policy;
        let now = moment::unix_seconds(SystemTime::now());
        status.generation = policy.generation;
        if report.unguarded.is_some() {
            status.sockets.unguarded = status::unguarded(report.unguarded.as_ref());
        }
        status.daemon = Some(Running {
            pid: process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: self.since.unix(),
            enforcing: policy.enforcing,
            complaint,
            interfaces: report.ways_out.into_iter().map(Looked::from).collect(),
            repairs: report
                .repairs
                .into_iter()
                .map(|((interface, cause), count)| Repaired {
                    interface,
                    cause: cause.label().to_owned(),
                    count,
                })
                .collect(),
            policy: InForce {
                path: self.policy_path.display().to_string(),
                rules: policy.rules,
                prefixes: usize::try_from(policy.prefixes.ipv4 + policy.prefixes.ipv6)
                    .unwrap_or(usize::MAX),
                names: policy.names,
                loaded_at: policy.loaded_at.unix(),
                failed_reloads: present.failed_reloads,
            },
            service_tags: ServiceTags::of(&policy.catalogue, now),
            service_tag_lists: self.lists(&policy.editions, now),
            drops_last_minute: present.minute.drops(),
            denied_lately: Vec::new(),
        });
        drop(present);
        self.denials.tell(&mut status);
        Ok(status)
    }

    fn lists(&self, editions: &[Edition], now: u64) -> Vec<ListHealth> {
        let lists = editions
            .iter()
            .map(|edition| ListHealth::of(edition, self.health.of(&edition.source), now));
        lists.collect()
    }

    fn report(&self) -> (Report, Duration, Option<String>) {
        let keeper = Arc::clone(&self.present().keeper);
        keeper.report()
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for View {
    fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let counters = self.state.counters()?;
        let maps = self.state.occupancy()?;
        let [flows_ipv4, flows_ipv6] = self.state.flows()?;
        let report = self.report().0;
        // Several names can lend one address.
        let learned: HashSet<IpAddr> = self
            .state
            .learned()?
            .into_iter()
            .map(|learned| learned.address)
            .collect();
        let ipv4 = learned.iter().filter(|address| address.is_ipv4()).count();
        let present = self.present();
        let policy = &present.policy;
        let ways_out = report.ways_out.into_iter().filter(|way| way.is_watched());
        let enforcing = ways_out.map(|way| (way.interface, way.filtered && policy.enforcing));
        let now = moment::unix_seconds(SystemTime::now());
        Ok(Snapshot {
            counters,
            learned: PerFamily {
                ipv4: count(ipv4),
                ipv6: count(learned.len() - ipv4),
            },
            flows: PerFamily {
                ipv4: flows_ipv4,
                ipv6: flows_ipv6,
            },
            prefixes: policy.prefixes,
            maps,
            enforcing: enforcing.collect(),
            service_tags: self.lists(&policy.editions, now),
            repairs: report
                .repairs
                .into_iter()
                .map(|((interface, cause), count)| (interface, cause.label(), count))
                .collect(),
            generation: policy.generation,
            loaded_at: policy.loaded_at.unix(),
            reload_failures: present.failed_reloads,
            lost_lines: log::lost(),
            version: env!("CARGO_PKG_VERSION"),
            kernel: self.kernel.clone(),
        })
    }

    fn health(&self) -> Result<(), String> {
        let turned = self.present().turned.elapsed();
        if turned > ALIVE {
            return Err(format!(
                "the daemon has not looked after the filter for {}",
                moment::span(turned)
            ));
        }
        let (report, looked, error) = self.report();
        if looked > ALIVE {
            return Err(format!(
                "nobody has looked after the interfaces for {}",
                moment::span(looked)
            ));
        }
        if let Some(error) = error {
            return Err(format!("cannot tell whether packets are filtered: {error}"));
        }
        ways_out::complaint(&report.ways_out).map_or(Ok(()), Err)
    }
}

impl PolicyInForce {
    fn of(loaded: &Loaded, generation: u32) -> Self {
        let summary = loaded.image.summary();
        Self {
            rules: summary.rules,
            names: summary.names,
            prefixes: PerFamily {
                ipv4: count(summary.ipv4_prefixes),
                ipv6: count(summary.ipv6_prefixes),
            },
            enforcing: loaded.policy.mode == Mode::Enforce,
            generation,
            loaded_at: Moment::now(),
            catalogue: loaded.policy.catalogue.clone(),
            editions: loaded.policy.editions.clone(),
            deciding: Deciding::of(&loaded.policy),
        }
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
