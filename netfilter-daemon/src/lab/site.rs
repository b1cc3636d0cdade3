//! One path out of a machine: a network for it, and what is there to be reached.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{self, Path, PathBuf},
};

use hickory_server::proto::ProtoError;

use super::{
    Error, LISTENER,
    battery::{
        ATTEMPTS, Channel, Passage, Showing,
        collector::Collector,
        field::{Field, LEADS, Name, Side, ZONE, hardware},
        ledger::Round,
        wire::Wire,
    },
    channels,
    daemon::Daemon,
    dns::{Resolver, Zone},
    drops::{self, Dropped},
    mounts,
    namespace::Namespace,
    pick,
    plan::{Host, Plan},
    probe::Family,
    report::{self, HOST, WORKLOAD},
    topology::{self, INTERFACE, RESOLVERS, Topology},
};
use crate::{
    policy::{self, Action, Destination, Policy, Rule, service_tag::lists::Source, source},
    tags::{
        kept::Kept,
        store::{self, Store},
    },
};

pub(super) const DEMONSTRATION: &str = include_str!("demonstration.yaml");

/// A network of its own, without a filter yet.
pub(super) struct Site {
    pub(super) path: report::Path,
    pub(super) topology: Topology,
    pub(super) plan: Plan,
    file: PathBuf,
    field: Field,
    _resolver: Resolver,
}

impl Site {
    /// For what the machine itself sends.
    pub(super) fn of_host(policy: Option<&Path>) -> Result<Self, Error> {
        Self::new(HOST, Topology::build()?, policy)
    }

    /// For what a workload sends that the machine forwards for.
    pub(super) fn of_workload(policy: Option<&Path>) -> Result<Self, Error> {
        Self::new(WORKLOAD, Topology::with_workload()?, policy)
    }

    fn new(path: report::Path, topology: Topology, policy: Option<&Path>) -> Result<Self, Error> {
        introduce(&topology)?;
        let file = policy_file(&topology.protected, policy)?;
        let policy = load(&topology.protected, &file)?;
        let plan = Plan::of(&policy);
        let field = field(&topology, &policy, &plan).map_err(Error::Serve)?;
        let resolver = resolve(&topology.internet, &policy, &plan, &field)?;
        Ok(Self {
            path,
            topology,
            plan,
            file,
            field,
            _resolver: resolver,
        })
    }

    /// Tries these channels from inside. `filtered`: whether there are drops to be counted.
    pub(super) fn passage(
        &self,
        chosen: &[(u16, &Channel)],
        round: Round,
        filtered: bool,
        told: &dyn Fn(&Channel),
    ) -> Result<Vec<Showing>, Error> {
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        let ports = self.plan.ports().0;
        let sink = Collector::start(&self.topology.internet, &ports, channels::readers());
        let passage = Passage {
            inside: self.topology.inside(),
            field: &self.field,
            sink: &sink.map_err(Error::Serve)?,
            attempts: if filtered { 1 } else { ATTEMPTS },
            drops: &|| match filtered {
                true => self.drops(),
                false => Ok(Vec::new()),
            },
            told,
        };
        Ok(passage.run(chosen, round)?)
    }

    /// What the daemon has counted.
    pub(super) fn drops(&self) -> io::Result<Vec<Dropped>> {
        drops::read(&self.topology.protected, LISTENER)
    }

    /// Starts the daemon. Of a machine that forwards, only what it forwards is filtered, and only
    /// where it comes in: nothing else can stop it.
    pub(super) fn enforce(&self) -> Result<Daemon, Error> {
        let mut command = self.topology.protected.command("/proc/self/exe");
        command.arg0("netfilter-daemon");
        command.arg("run").arg("--policy").arg(&self.file);
        command.args(match self.topology.workload {
            None => ["--interface", INTERFACE],
            Some(_) => ["--workload", topology::WORKLOAD],
        });
        command.args(["--state-dir", mounts::STATE_DIR]);
        command.args(["--listen", &LISTENER.to_string()]);
        command.args(["--tags-dir", mounts::TAGS]);
        Ok(Daemon::start(command)?)
    }
}

/// Lets both ends of the cable know each other for good: some channels fill the kernel's
/// table of neighbours, which all namespaces share.
fn introduce(topology: &Topology) -> Result<(), Error> {
    let ends = [(topology.inside(), 2), (&topology.internet, 1)];
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
        is_workload: topology.workload.is_some(),
        ..Field::of(topology.inside(), INTERFACE)?
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
    use super::*;
    use crate::lab::{
        probe::{Knock, Outcome, attempt_all},
        sink::Sinks,
        tap::Tap,
    };

    #[test]
    #[ignore = "needs root"]
    fn without_a_filter_every_probe_of_the_demonstration_works() {
        let Site {
            topology,
            plan,
            _resolver: resolver,
            ..
        } = Site::of_host(None).unwrap();
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
                Knock::Icmp => assert!(matches!(outcome, Outcome::Reached(_))),
                _ => assert!(
                    matches!(outcome, Outcome::Unanswered(_)),
                    "{probe}: {outcome:?}"
                ),
            }
        }
    }
}
