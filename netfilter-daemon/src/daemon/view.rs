//! What the daemon shows: to scrapers, to `status`, to whoever asks for its health.

use std::{
    collections::HashSet,
    fs, mem,
    net::IpAddr,
    path::{self, PathBuf},
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;

use super::{
    audit::Audit,
    denials::Denials,
    hour::Hour,
    keeper::Shared,
    loaded::Loaded,
    minute::Minute,
    overview::{Learned, Overview, Pattern, Tallies},
    rules::{self, Described},
    status::{self, InForce, ListHealth, Looked, Repaired, Running, ServiceTags, Status},
    ways_out::{self, Report, Told},
};
use crate::{
    datapath::{self, Datapath, RuleHits, Runs, State, Totals},
    explain::Deciding,
    log,
    metrics::{PerFamily, Snapshot},
    moment::{self, Moment},
    policy::{Action, Destination, Mode, Policy, service_tag::Edition},
    serve::Source,
    tags::keep::Health,
};

/// The loop turns every second; a reload of the largest policy takes a few.
const ALIVE: Duration = Duration::from_secs(15);
/// Names whose addresses an overview counts apart.
const PATTERNS: usize = 100;

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
    hour: Hour,
    turned: Instant,
    told: Told,
    runs: Runs,
    totals: Totals,
}

pub(super) struct PolicyInForce {
    /// The names of its rules, in their order.
    rules: Vec<String>,
    names: usize,
    prefixes: PerFamily,
    /// Names and wildcards that can lend addresses.
    patterns: usize,
    described: Arc<[Described]>,
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
    ) -> Result<Self, datapath::Error> {
        // What comes after is told, be it before the first turn.
        let (mut minute, mut hour) = (Minute::default(), Hour::default());
        let totals = state.totals()?;
        let counters = totals.read()?;
        minute.note(Instant::now(), &counters);
        hour.note(Moment::now(), &counters);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        denials.judged_by(Deciding::of(&loaded.policy), loaded.policy.mode);
        Ok(Self {
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
                minute,
                hour,
                turned: Instant::now(),
                told: Told::default(),
                runs: Runs::default(),
                totals,
            }),
        })
    }

    /// Returns what was in force before.
    pub(super) fn replaced(&self, loaded: &Loaded, generation: u32) -> PolicyInForce {
        let policy = PolicyInForce::of(loaded, generation);
        self.denials
            .judged_by(policy.deciding.clone(), policy.mode());
        mem::replace(&mut self.present().policy, policy)
    }

    pub(super) fn put_back(&self, policy: PolicyInForce, generation: u32) {
        self.denials
            .judged_by(policy.deciding.clone(), policy.mode());
        self.present().policy = PolicyInForce {
            generation,
            ..policy
        };
    }

    /// These programs judge from here on.
    pub(super) fn judged_by(&self, datapath: &Datapath) {
        let mut present = self.present();
        if let Err(error) = present.runs.follow(datapath) {
            tracing::warn!("how often the programs run is not counted: {error}");
        }
        // Pins that somebody removed were made anew.
        match self.state.totals() {
            Ok(totals) => present.totals = totals,
            Err(error) => tracing::warn!("the counters of the former programs are shown: {error}"),
        }
    }

    /// New flows that each rule of the policy in force let out or, if it denies, kept in, in
    /// the policy's order.
    pub(super) fn rule_hits(&self) -> Result<Vec<RuleHits>, datapath::Error> {
        let rules = self.present().policy.rules.clone();
        self.state.rule_hits(&rules)
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
        let mut present = self.present();
        let counters = present.totals.read()?;
        present.minute.note(Instant::now(), &counters);
        present.hour.note(Moment::now(), &counters);
        present.told.log_changes(&ways_out);
        Ok(())
    }

    pub(super) fn audit(&self) -> Result<Audit, datapath::Error> {
        let auditing = !self.present().policy.enforcing;
        self.denials.catch_up();
        let seen = self.state.audit()?;
        let counters = self.state.counters()?;
        let policy = path::absolute(&self.policy_path).unwrap_or(self.policy_path.clone());
        Ok(self
            .denials
            .users(|users| Audit::new(auditing, &policy, seen, &counters, users)))
    }

    pub(super) fn forget_audit(&self) -> Result<(), datapath::Error> {
        self.state.forget_audit()
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
                rules: policy.rules.len(),
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

    /// What the page and `top` show.
    pub(super) fn overview(&self) -> anyhow::Result<Overview> {
        let Status {
            attached,
            generation,
            daemon,
            learned,
            tables,
            sockets,
            gives_way_in: _,
        } = self.status()?;
        let (names, described) = {
            let policy = &self.present().policy;
            (policy.rules.clone(), Arc::clone(&policy.described))
        };
        let rules = rules::told(self.state.rule_hits(&names)?, &names, &described);
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let now = Moment::now();
        let present = self.present();
        let mut overview = Overview {
            time: now.unix(),
            host: host.trim().escape_debug().to_string(),
            attached,
            generation,
            daemon: daemon.context("no daemon tells of itself")?,
            sockets,
            tables,
            seconds: present.minute.seconds(),
            hour: present.hour.drops(now),
            reports: 0,
            names: Tallies::default(),
            processes: Tallies::default(),
            rules,
            learned: summary(&learned, present.policy.patterns),
            recent: Vec::new(),
        };
        drop(present);
        self.denials.show(&mut overview, now);
        Ok(overview)
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

/// `patterns`: names and wildcards of the policy that can lend addresses.
fn summary(addresses: &[status::Address], patterns: usize) -> Learned {
    let mut learned = Learned {
        addresses: count(addresses.len()),
        ..Learned::default()
    };
    // Those of a pattern stand together.
    for of_one in addresses.chunk_by(|one, next| one.pattern == next.pattern) {
        learned.patterns.push(Pattern {
            pattern: of_one[0].pattern.clone(),
            addresses: count(of_one.len()),
            expires_in: of_one.iter().map(|each| each.expires_in).max().unwrap_or(0),
        });
    }
    learned.without = count(patterns.saturating_sub(learned.patterns.len()));
    learned
        .patterns
        .sort_by_key(|pattern| std::cmp::Reverse(pattern.addresses));
    learned.patterns.truncate(PATTERNS);
    learned
}

impl Source for View {
    fn overview(&self) -> anyhow::Result<Overview> {
        self.overview()
    }

    fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let counters = self.state.counters()?;
        let maps = self.state.occupancy()?;
        let [flows_ipv4, flows_ipv6] = self.state.flows()?;
        let rule_hits = self.rule_hits()?;
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
            rule_hits,
            runs: present.runs.all()?,
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
    const fn mode(&self) -> Mode {
        match self.enforcing {
            true => Mode::Enforce,
            false => Mode::Report,
        }
    }

    fn of(loaded: &Loaded, generation: u32) -> Self {
        let summary = loaded.image.summary();
        Self {
            rules: loaded
                .policy
                .rules
                .iter()
                .map(|rule| rule.name.clone())
                .collect(),
            names: summary.names,
            prefixes: PerFamily {
                ipv4: count(summary.ipv4_prefixes),
                ipv6: count(summary.ipv6_prefixes),
            },
            patterns: patterns(&loaded.policy),
            described: rules::described(&loaded.policy).into(),
            enforcing: loaded.policy.mode == Mode::Enforce,
            generation,
            loaded_at: Moment::now(),
            catalogue: loaded.policy.catalogue.clone(),
            editions: loaded.policy.editions.clone(),
            deciding: Deciding::of(&loaded.policy),
        }
    }
}

fn patterns(policy: &Policy) -> usize {
    let rules = policy.rules.iter();
    let lending = rules.filter(|rule| rule.action != Action::Deny);
    let patterns = lending.filter_map(|rule| match &rule.destination {
        Destination::Name(pattern) => Some(pattern),
        _ => None,
    });
    patterns.collect::<HashSet<_>>().len()
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
