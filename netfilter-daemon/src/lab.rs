//! The lab: networks of its own, in which it shows what a policy lets out.
//!
//! A protected namespace, an internet in which every address answers and a DNS
//! server knows every name, and this very program between them. Each probe is
//! made twice, without the filter and through it, as only a probe that works
//! without shows anything. And the same once more, with a workload behind the
//! protected namespace, which forwards for it and judges it where it comes in.
//!
//! Nothing of it has a name on the machine: however the lab ends, by Ctrl-C or
//! by kill -9, its namespaces, mounts, pins and daemon end with it.

use std::{
    fs,
    io::{self, Read},
    iter,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use nix::unistd::geteuid;

use crate::{policy, tags::store};

pub mod battery;
mod channels;
pub mod daemon;
pub mod dns;
pub mod drops;
pub mod mounts;
pub mod namespace;
mod pick;
mod plan;
pub mod probe;
pub mod raw;
mod reading;
pub mod remote;
pub mod report;
pub mod selection;
pub mod sink;
mod site;
pub mod tap;
pub mod topology;

use battery::{Channel, Showing, Trial, ledger::Round};
use probe::attempt_all;
use report::{Probed, Report, Row, WORKLOAD, probes};
use selection::Selection;
use sink::Sinks;
use site::Site;
use tap::Tap;

const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);

/// What is told while the lab runs.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// Something else begins.
    Stage(&'a str),
    /// A channel is tried, when so many are done.
    Channel {
        name: &'a str,
        pass: &'a str,
        done: usize,
        all: usize,
    },
}

/// The passes of the battery, by the numbers of their rounds.
const PASSES: [&str; 2] = ["without the filter", "through the filter"];

/// Shows what a policy lets out, by default one that has a rule of every kind, and
/// what channels carry out: from a machine itself, and from a workload behind one. `tell` is
/// told what begins.
pub fn run(
    policy: Option<&Path>,
    selection: &Selection,
    tell: &(dyn Fn(Step<'_>) + Sync),
) -> Result<Report, Error> {
    let stage = |what: &str| tell(Step::Stage(what));
    let chosen = selection.numbered();
    if !geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    if !topology::has_ipv6() {
        return Err(Error::NoIpv6);
    }
    stage("building a machine, a workload behind another, and an internet, in namespaces");
    let host = Site::of_host(policy)?;
    let behind = match chosen.is_empty() {
        true => None,
        false => Some(workload(policy)?),
    };
    let mut sites = vec![&host];
    sites.extend(behind.iter().flatten());
    let tap = Tap::open(&host.topology.internet).map_err(probe::Error::Tap)?;
    let probe = || -> Result<_, Error> {
        if !selection.policy {
            return Ok(Vec::new());
        }
        let (tcp, udp) = host.plan.ports();
        let internet = &host.topology.internet;
        let _sinks = Sinks::start(internet, &tcp, &udp).map_err(Error::Serve)?;
        let inside = &host.topology.protected;
        Ok(attempt_all(inside, &host.plan.probes, &tap)?)
    };
    let seed = seed().map_err(Error::Serve)?;
    let pass = |filtered: bool| {
        let steps = Steps::new(tell, u8::from(filtered), sites.len() * chosen.len());
        side_by_side(&sites, |site, number| {
            let number = 2 * number + u8::from(filtered);
            let round = Round { seed, number };
            site.passage(&chosen, round, filtered, &|channel| steps.tell(channel))
        })
    };

    stage(PASSES[0]);
    let before = probe()?;
    let without = pass(false)?;
    stage("starting the daemon");
    // Not side by side: a daemon ends with the thread that started it.
    let mut daemons = Vec::new();
    for site in &sites {
        let daemon = site.enforce()?;
        stage(&daemon.said);
        daemons.push(daemon);
    }
    stage(PASSES[1]);
    let after = probe()?;
    let drops = host.drops();
    let through = pass(true)?;
    drop(daemons);

    let rows = host.plan.probes.iter().zip(before.into_iter().zip(after));
    let rows = rows.map(|(probe, (before, after))| probes::Row::new(probe, before, after));
    let passes = without.into_iter().zip(through);
    let mut paths: Vec<_> = iter::zip(&sites, passes)
        .map(|(site, (without, through))| (site.path, trials(without, through)))
        .collect();
    if let Some(Err(why)) = &behind {
        let nothing = || Trial::unavailable(why.clone());
        paths.push((WORKLOAD, chosen.iter().map(|_| nothing()).collect()));
    }
    Ok(Report {
        policy: selection.policy.then(|| Probed {
            probes: rows.collect(),
            no_drops: drops.as_ref().err().map(ToString::to_string),
            drops: drops.unwrap_or_default(),
        }),
        channels: rows_of(selection, paths),
    })
}

/// The network of a workload, or why this kernel has no such thing.
fn workload(policy: Option<&Path>) -> Result<Result<Site, String>, Error> {
    match Site::of_workload(policy) {
        Err(Error::Namespace(error @ namespace::Error::Ip { .. })) => Ok(Err(error.to_string())),
        site => site.map(Ok),
    }
}

/// Does the same at each site at one time: they have nothing in common.
fn side_by_side<T: Send>(
    sites: &[&Site],
    work: impl Fn(&Site, u8) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let work = &work;
    thread::scope(|scope| {
        let threads = (0..).zip(sites);
        let threads: Vec<_> = threads
            .map(|(number, site)| scope.spawn(move || work(site, number)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        };
        // All have ended before one of them is an error.
        let results: Vec<_> = threads.into_iter().map(join).collect();
        results.into_iter().collect()
    })
}

/// Counts the channels of one pass, on all paths.
struct Steps<'a> {
    tell: &'a (dyn Fn(Step<'_>) + Sync),
    pass: u8,
    done: AtomicUsize,
    all: usize,
}

impl<'a> Steps<'a> {
    fn new(tell: &'a (dyn Fn(Step<'_>) + Sync), pass: u8, all: usize) -> Self {
        Self {
            tell,
            pass,
            done: AtomicUsize::new(0),
            all,
        }
    }

    fn tell(&self, channel: &Channel) {
        (self.tell)(Step::Channel {
            name: channel.name,
            pass: PASSES[usize::from(self.pass % 2)],
            done: self.done.fetch_add(1, Ordering::Relaxed),
            all: self.all,
        });
    }
}

/// What the two passes of a path showed.
fn trials(without: Vec<Showing>, through: Vec<Showing>) -> Vec<Trial> {
    let passes = without.into_iter().zip(through);
    passes
        .map(|(without, through)| Trial::new(without, through))
        .collect()
}

/// What the chosen channels showed on each path.
fn rows_of(selection: &Selection, paths: Vec<(report::Path, Vec<Trial>)>) -> Vec<Row> {
    let row = |(group, channel)| Row {
        group,
        channel,
        results: Vec::new(),
    };
    let mut rows: Vec<_> = selection.chosen().map(row).collect();
    for (path, trials) in paths {
        for (row, trial) in rows.iter_mut().zip(trials) {
            row.results.push((path, trial));
        }
    }
    rows
}

/// Drawn at random.
fn seed() -> io::Result<u64> {
    let mut seed = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(u64::from_ne_bytes(seed))
}

/// Why the lab shows nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the lab makes network namespaces and loads BPF programs; run it as root")]
    NotRoot,
    #[error("the lab needs IPv6, which this kernel has not, or has switched off")]
    NoIpv6,
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
    #[error(transparent)]
    Policy(#[from] policy::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("cannot write to the lab's own file system: {0}")]
    Write(io::Error),
    #[error("cannot serve the name {name}: {why}")]
    Name { name: String, why: String },
    #[error("cannot populate the lab's internet: {0}")]
    Serve(io::Error),
    #[error(transparent)]
    Probe(#[from] probe::Error),
    #[error(transparent)]
    Battery(#[from] battery::Error),
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
}
