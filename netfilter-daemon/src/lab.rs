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
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    path::{self, Path, PathBuf},
};

use hickory_server::proto::ProtoError;
use nix::unistd::geteuid;

use crate::{
    policy::{self, Policy, source},
    tags::store::{self, Store},
};

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
pub mod report;
pub mod sink;
pub mod tap;
pub mod topology;

use daemon::Daemon;
use dns::{Resolver, Zone};
use namespace::Namespace;
use plan::{Host, Plan};
use probe::attempt_all;
use report::{Report, Row};
use sink::Sinks;
use tap::Tap;
use topology::{INTERFACE, RESOLVERS, Topology};

const DEMONSTRATION: &str = include_str!("lab/demonstration.yaml");

const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);

/// Shows what a policy lets out, by default one that has a rule of every kind.
/// `stage` is told what begins.
pub fn run(policy: Option<&Path>, stage: &dyn Fn(&str)) -> Result<Report, Error> {
    if !geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    if !topology::has_ipv6() {
        return Err(Error::NoIpv6);
    }
    stage("building two network namespaces");
    let topology = Topology::build()?;
    let file = policy_file(&topology.protected, policy)?;
    let policy = load(&topology.protected, &file)?;
    let plan = Plan::of(&policy);
    let _internet = populate(&topology.internet, &policy, &plan)?;

    stage("probing without the filter");
    let tap = Tap::open(&topology.internet).map_err(probe::Error::Tap)?;
    let before = attempt_all(&topology.protected, &plan.probes, &tap)?;
    stage("starting the daemon");
    let mut command = topology.protected.command("/proc/self/exe");
    command.arg0("netfilter-daemon");
    command.arg("run").arg("--policy").arg(&file);
    command.args(["--state-dir", mounts::STATE_DIR, "--interface", INTERFACE]);
    command.args(["--listen", &LISTENER.to_string()]);
    let daemon = Daemon::start(command)?;
    stage(&daemon.said);
    stage("probing through the filter");
    let after = attempt_all(&topology.protected, &plan.probes, &tap)?;
    let drops = drops::read(&topology.protected, LISTENER);
    drop(daemon);

    let rows = plan.probes.iter().zip(before.into_iter().zip(after));
    Ok(Report {
        rows: rows
            .map(|(probe, (before, after))| Row::new(probe, before, after))
            .collect(),
        no_drops: drops.as_ref().err().map(ToString::to_string),
        drops: drops.unwrap_or_default(),
    })
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
    #[error("cannot write to the lab's own file system: {0}")]
    Write(io::Error),
    #[error("cannot serve the name {name}: {why}")]
    Name { name: String, why: String },
    #[error("cannot populate the lab's internet: {0}")]
    Serve(io::Error),
    #[error(transparent)]
    Probe(#[from] probe::Error),
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
    let fetched = |url: &str| store.catalogue(url);
    let policy = protected.run(|| source::load(file, &fetched))??;
    protected
        .run(|| mounts::ask(&policy.resolvers))?
        .map_err(Error::Write)?;
    Ok(policy)
}

fn populate(
    internet: &Namespace,
    policy: &Policy,
    plan: &Plan,
) -> Result<(Resolver, Sinks), Error> {
    let mut zone = Zone::new();
    for host in &plan.hosts {
        let served = serve(host, &mut zone);
        served.map_err(|why| Error::Name {
            name: host.name.clone(),
            why: why.to_string(),
        })?;
    }
    let mut resolvers = policy.resolvers.clone();
    // The lab's own are not: they are on the cable.
    resolvers.retain(|address| topology::routable(*address));
    resolvers.extend(RESOLVERS);
    let (tcp, udp) = plan.ports();
    let resolver = Resolver::start(internet, &resolvers, zone).map_err(Error::Serve)?;
    let sinks = Sinks::start(internet, &tcp, &udp).map_err(Error::Serve)?;
    Ok((resolver, sinks))
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
        let internet = populate(&topology.internet, &policy, &plan).unwrap();

        let tap = Tap::open(&topology.internet).unwrap();
        let attempt = || attempt_all(&topology.protected, &plan.probes, &tap).unwrap();
        for (probe, outcome) in plan.probes.iter().zip(attempt()) {
            assert!(
                matches!(outcome, Outcome::Reached(_)),
                "{probe}: {outcome:?}"
            );
        }
        drop(internet);
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
