//! The lab: a network of its own, in which it shows what a policy lets out.
//!
//! A protected namespace, an internet in which every address answers and a DNS
//! server knows every name, and this very program between them. Each probe is
//! made twice, without the filter and through it, as only a probe that works
//! without shows anything.
//!
//! Nothing of it has a name on the machine: however the lab ends, by Ctrl-C or
//! by kill -9, its namespaces, mounts, pins and daemon end with it.

use std::{
    fs,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    path::{self, Path, PathBuf},
};

use hickory_server::proto::ProtoError;
use nix::unistd::geteuid;

use crate::{
    policy::{self, Action, Destination, Policy, Rule, service_tag::lists::Source, source},
    tags::{
        kept::Kept,
        store::{self, Store},
    },
};

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
pub mod tap;
pub mod topology;

use battery::{
    Channel, Passage, Showing, Trial,
    collector::Collector,
    field::{Field, LEADS, Name, Side, ZONE, hardware},
    ledger::Round,
    wire::Wire,
};
use daemon::Daemon;
use dns::{Resolver, Zone};
use namespace::Namespace;
use plan::{Host, Plan};
use probe::{Family, attempt_all};
use report::{Probed, Report, Row, probes};
use selection::Selection;
use sink::Sinks;
use tap::Tap;
use topology::{INTERFACE, RESOLVERS, Topology};

const DEMONSTRATION: &str = include_str!("lab/demonstration.yaml");

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
/// what channels carry out. `tell` is told what begins.
pub fn run(
    policy: Option<&Path>,
    selection: &Selection,
    tell: &dyn Fn(Step<'_>),
) -> Result<Report, Error> {
    let stage = |what: &str| tell(Step::Stage(what));
    let chosen = &selection.channels[..];
    if !geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    if !topology::has_ipv6() {
        return Err(Error::NoIpv6);
    }
    stage("building two network namespaces");
    let topology = Topology::build()?;
    introduce(&topology)?;
    let file = policy_file(&topology.protected, policy)?;
    let policy = load(&topology.protected, &file)?;
    let plan = Plan::of(&policy);
    let field = field(&topology, &policy, &plan).map_err(Error::Serve)?;
    let resolver = resolve(&topology.internet, &policy, &plan, &field)?;
    let tap = Tap::open(&topology.internet).map_err(probe::Error::Tap)?;
    let probe = || -> Result<_, Error> {
        if !selection.policy {
            return Ok(Vec::new());
        }
        let (tcp, udp) = plan.ports();
        let _sinks = Sinks::start(&topology.internet, &tcp, &udp).map_err(Error::Serve)?;
        Ok(attempt_all(&topology.protected, &plan.probes, &tap)?)
    };
    let seed = seed().map_err(Error::Serve)?;
    let pass = |number: u8, drops: &dyn Fn() -> io::Result<_>| -> Result<_, Error> {
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        let sink = Collector::start(&topology.internet, &plan.ports().0).map_err(Error::Serve)?;
        let passage = Passage {
            inside: &topology.protected,
            field: &field,
            sink: &sink,
            drops,
            told: &|channel, done, all| tell(step(channel, number, done, all)),
        };
        Ok(passage.run(chosen, Round { seed, number })?)
    };

    stage(PASSES[0]);
    let before = probe()?;
    let without = pass(0, &|| Ok(Vec::new()))?;
    stage("starting the daemon");
    let mut command = topology.protected.command("/proc/self/exe");
    command.arg0("netfilter-daemon");
    command.arg("run").arg("--policy").arg(&file);
    command.args(["--state-dir", mounts::STATE_DIR, "--interface", INTERFACE]);
    command.args(["--listen", &LISTENER.to_string()]);
    command.args(["--tags-dir", mounts::TAGS]);
    let daemon = Daemon::start(command)?;
    stage(&daemon.said);
    stage(PASSES[1]);
    let after = probe()?;
    let drops = drops::read(&topology.protected, LISTENER);
    let through = pass(1, &|| drops::read(&topology.protected, LISTENER))?;
    drop(daemon);
    drop(resolver);

    let rows = plan.probes.iter().zip(before.into_iter().zip(after));
    let rows = rows.map(|(probe, (before, after))| probes::Row::new(probe, before, after));
    Ok(Report {
        policy: selection.policy.then(|| Probed {
            probes: rows.collect(),
            no_drops: drops.as_ref().err().map(ToString::to_string),
            drops: drops.unwrap_or_default(),
        }),
        channels: rows_of(chosen, without, through),
    })
}

fn step(channel: &Channel, round: u8, done: usize, all: usize) -> Step<'_> {
    Step::Channel {
        name: channel.name,
        pass: PASSES[usize::from(round % 2)],
        done,
        all,
    }
}

/// What the chosen channels showed in the two passes.
fn rows_of(chosen: &[usize], without: Vec<Showing>, through: Vec<Showing>) -> Vec<Row> {
    let channels: Vec<_> = selection::all().collect();
    let trials = chosen.iter().zip(without.into_iter().zip(through));
    let row = |(&index, (without, through)): (&usize, _)| {
        let (group, channel) = channels[index];
        Row {
            group,
            channel,
            results: vec![(report::HOST, Trial::new(without, through))],
        }
    };
    trials.map(row).collect()
}

/// Lets both ends of the cable know each other for good: some channels fill the kernel's
/// table of neighbours, which all namespaces share.
fn introduce(topology: &Topology) -> Result<(), Error> {
    let ends = [(&topology.protected, 2), (&topology.internet, 1)];
    for ((here, _), (there, host)) in ends.into_iter().zip([ends[1], ends[0]]) {
        let [a, b, c, d, e, f] = there.run(|| hardware(INTERFACE))?.map_err(Error::Serve)?;
        for address in [format!("10.99.0.{host}"), format!("fd99::{host}")] {
            here.ip(&format!(
                "neigh replace {address} lladdr {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} \
                 dev {INTERFACE} nud permanent"
            ))?;
        }
    }
    Ok(())
}

/// What channels have to go by in the lab.
fn field(topology: &Topology, policy: &Policy, plan: &Plan) -> io::Result<Field> {
    let far_end = || io::Result::Ok((hardware(INTERFACE)?, Wire::of(INTERFACE)?));
    let (gateway, outside) = topology.internet.run(far_end).map_err(io::Error::other)??;
    let [ipv4, ipv6] =
        Family::ALL.map(|family| Side::of(policy, plan, topology::PROTECTED[family as usize]));
    Ok(Field {
        gateway,
        ipv4,
        ipv6,
        names: names(policy),
        outside: Some(outside),
        ..Field::of(&topology.protected, INTERFACE)?
    })
}

/// The names that a policy allows to ask for.
fn names(policy: &Policy) -> Vec<Name> {
    let allowing = policy
        .rules
        .iter()
        .filter(|rule| rule.action == Action::Allow);
    let name = |rule: &Rule| {
        let Destination::Name(pattern) = &rule.destination else {
            return None;
        };
        let text = pattern.to_string();
        let name = text.strip_prefix("*.").unwrap_or(&text).to_owned();
        Some(Name {
            name,
            wildcard: pattern.is_wildcard(),
            knock: *pick::knocks(&rule.traffic).first()?,
        })
    };
    allowing.filter_map(name).collect()
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

/// Where the policy is, as seen from inside, where the working directory is another.
fn policy_file(protected: &Namespace, policy: Option<&Path>) -> Result<PathBuf, Error> {
    let Some(file) = policy else {
        protected
            .run(|| fs::write(mounts::POLICY, DEMONSTRATION))?
            .map_err(Error::Write)?;
        return Ok(mounts::POLICY.into());
    };
    let path = file.to_owned();
    let unreadable = |source| policy::Error::Unreadable { path, source };
    Ok(path::absolute(file).map_err(unreadable)?)
}

/// Reads the policy inside, as what it does not say is asked of the system; and
/// makes the inside ask the resolvers that it says.
fn load(protected: &Namespace, file: &Path) -> Result<Policy, Error> {
    protected
        .run(|| mounts::ask(&RESOLVERS))?
        .map_err(Error::Write)?;
    let store = Store::new(store::DIRECTORY);
    let kept = Kept::of(file, &store);
    let given = |source: &Source| match source {
        Source::File(written) => source::list::beside(file, written),
        Source::Url(_) | Source::BuiltIn => kept.catalogue(source),
    };
    let policy = protected.run(|| source::load(file, &given))??;
    // Files are judged by nothing before them, as they were read here; the machine's
    // own store does not change.
    for source in policy.lists.changing() {
        if let Source::Url(_) = source
            && let Ok(Some(list)) = kept.load(source)
        {
            protected.run(|| Store::new(mounts::TAGS).save(&list))??;
        }
    }
    protected
        .run(|| mounts::ask(&policy.resolvers))?
        .map_err(Error::Write)?;
    Ok(policy)
}

/// Serves the names of the policy, those under the zone of whoever wants data out, and
/// those by which he has an approved name lead elsewhere.
fn resolve(
    internet: &Namespace,
    policy: &Policy,
    plan: &Plan,
    field: &Field,
) -> Result<Resolver, Error> {
    let mut zone = Zone::new();
    let refused = |name: &str, why: ProtoError| Error::Name {
        name: name.to_owned(),
        why: why.to_string(),
    };
    for host in &plan.hosts {
        serve(host, &mut zone).map_err(|why| refused(&host.name, why))?;
    }
    let strangers = plan.strangers.into_iter().flatten();
    let mut led: Vec<_> = strangers
        .map(|address| (format!("*.{ZONE}"), address))
        .collect();
    if let Ok(wildcard) = field.wildcard() {
        for side in [&field.ipv4, &field.ipv6].into_iter().flatten() {
            let leads = LEADS
                .into_iter()
                .zip([side.forbidden, Some(side.others[0])]);
            led.extend(leads.filter_map(|(label, address)| {
                Some((format!("{label}.{}", wildcard.name), address?))
            }));
        }
    }
    for (name, address) in led {
        let added = zone.address(&name, 0, address);
        added.map_err(|why| refused(&name, why))?;
    }
    let mut resolvers = policy.resolvers.clone();
    // The lab's own are not: they are on the cable.
    resolvers.retain(|address| topology::routable(*address));
    resolvers.extend(RESOLVERS);
    Resolver::start(internet, &resolvers, zone).map_err(Error::Serve)
}

/// Names behind names as `mcr.microsoft.com` has them, an underscore and a TTL of 0 among them.
fn serve(host: &Host, zone: &mut Zone) -> Result<(), ProtoError> {
    let mut name = host.name.clone();
    if host.aliased {
        let mut label = name.replace('.', "-");
        label.truncate(50);
        for (ttl, target) in [
            (60, format!("{label}.a-0016.a-msedge.net")),
            (0, format!("_{label}.part-0016.t-0009.t-msedge.net")),
        ] {
            zone.alias(&name, ttl, &target)?;
            name = target;
        }
    }
    host.addresses
        .into_iter()
        .try_for_each(|address| zone.address(&name, 60, address))
}

#[cfg(test)]
mod tests {
    use super::probe::Outcome;
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn without_a_filter_every_probe_of_the_demonstration_works() {
        let topology = Topology::build().unwrap();
        let file = policy_file(&topology.protected, None).unwrap();
        let policy = load(&topology.protected, &file).unwrap();
        let plan = Plan::of(&policy);
        let field = field(&topology, &policy, &plan).unwrap();
        let resolver = resolve(&topology.internet, &policy, &plan, &field).unwrap();
        let (tcp, udp) = plan.ports();
        let sinks = Sinks::start(&topology.internet, &tcp, &udp).unwrap();

        let tap = Tap::open(&topology.internet).unwrap();
        let attempt = || attempt_all(&topology.protected, &plan.probes, &tap).unwrap();
        for (probe, outcome) in plan.probes.iter().zip(attempt()) {
            assert!(
                matches!(outcome, Outcome::Reached(_)),
                "{probe}: {outcome:?}"
            );
        }
        drop((resolver, sinks));
        for (probe, outcome) in plan.probes.iter().zip(attempt()) {
            match probe.knock {
                // The kernel itself answers.
                probe::Knock::Icmp => assert!(matches!(outcome, Outcome::Reached(_))),
                _ => assert!(
                    matches!(outcome, Outcome::Unanswered(_)),
                    "{probe}: {outcome:?}"
                ),
            }
        }
    }
}
