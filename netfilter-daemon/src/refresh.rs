//! Keeps the addresses of the policy's exact names learned.
//!
//! Asks for each name, by the ordinary path, before its last answer expires;
//! the kernel learns from these answers as from any other.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RecordType},
};
use tokio::{sync::watch, task::JoinSet, time};

use crate::{
    policy::{Action, Destination, Policy},
    rate::Rate,
};

mod schedule;

use schedule::{Failure, Schedule};

/// Names that are asked for at the same time.
const AT_ONCE: usize = 32;
/// For one question to one resolver.
const PATIENCE: Duration = Duration::from_secs(2);
/// When one of a name's two questions fails, both are asked again this soon.
const HALF_ANSWERED: Duration = Duration::from_secs(30);

/// What to keep learned, and whom to ask.
#[derive(Debug, Clone)]
pub struct Names {
    resolvers: Vec<NameServerConfig>,
    names: Vec<String>,
}

impl Names {
    /// The exact names that the policy allows. Wildcards cannot be asked for.
    pub fn of(policy: &Policy) -> Self {
        let mut names: Vec<String> = policy
            .rules
            .iter()
            .filter(|rule| rule.action == Action::Allow)
            .filter_map(|rule| match &rule.destination {
                Destination::Name(pattern) if !pattern.is_wildcard() => Some(pattern.to_string()),
                _ => None,
            })
            .collect();
        names.sort();
        names.dedup();
        Self {
            resolvers: policy.resolvers.iter().map(|ip| over_udp(*ip)).collect(),
            names,
        }
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Runs until the sender of `wanted` is gone. Every change begins anew with all names.
pub async fn keep(mut wanted: watch::Receiver<Names>) {
    loop {
        let names = wanted.borrow_and_update().clone();
        tokio::select! {
            () = keep_these(names) => return,
            changed = wanted.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Never returns.
async fn keep_these(names: Names) {
    let resolver = match resolver(names.resolvers) {
        Ok(resolver) => resolver,
        Err(error) => {
            tracing::error!("no name will be refreshed: {error}");
            return std::future::pending().await;
        }
    };
    let mut schedule = Schedule::new(names.names, Instant::now());
    let mut asking = JoinSet::new();
    let mut asked = HashMap::new();
    // A resolver that is down must not write a line for each of ten thousand names.
    let mut lines = Rate::new(20, Duration::from_secs(10), Instant::now());
    loop {
        while asking.len() < AT_ONCE
            && let Some(name) = schedule.take_due(Instant::now())
        {
            let question = ask(resolver.clone(), schedule.name(name).to_owned());
            asked.insert(asking.spawn(question).id(), name);
        }
        let next = schedule.next().filter(|_| asking.len() < AT_ONCE);
        let (task, answer) = tokio::select! {
            Some(joined) = asking.join_next_with_id() => match joined {
                Ok((task, answer)) => (task, answer),
                Err(panic) => (panic.id(), Err(panic.to_string())),
            },
            () = until(next) => continue,
        };
        let Some(name) = asked.remove(&task) else {
            continue;
        };
        note(&mut schedule, name, answer, &mut lines);
    }
}

/// Puts the name back, and logs if it began or ceased to fail.
fn note(schedule: &mut Schedule, name: usize, answer: Result<Duration, String>, lines: &mut Rate) {
    let now = Instant::now();
    let changed = match &answer {
        Ok(ttl) => schedule.answered(name, *ttl, now, random()),
        Err(_) => schedule.failed(name, now, random()) == Failure::First,
    };
    let Some(untold) = changed.then(|| lines.admit(now)).flatten() else {
        return;
    };
    let name = schedule.name(name);
    match answer {
        Ok(_) => tracing::info!("`{name}` resolves again"),
        Err(error) => {
            tracing::warn!(
                "`{name}` does not resolve: {error}; asking again at least once a minute"
            );
        }
    }
    if untold > 0 {
        tracing::warn!("{untold} other names began or ceased to resolve");
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Asks for both families. The smallest TTL in the answers.
async fn ask(resolver: TokioResolver, name: String) -> Result<Duration, String> {
    let name = Name::from_ascii(format!("{name}.")).map_err(|error| error.to_string())?;
    let (ipv4, ipv6) = tokio::join!(
        resolver.lookup(name.clone(), RecordType::A),
        resolver.lookup(name, RecordType::AAAA),
    );
    smallest(ttl(ipv4), ttl(ipv6))
}

fn smallest(ipv4: Ttl, ipv6: Ttl) -> Result<Duration, String> {
    match (ipv4, ipv6) {
        (Ok(Some(one)), Ok(Some(other))) => Ok(one.min(other)),
        (Ok(Some(ttl)), Ok(None)) | (Ok(None), Ok(Some(ttl))) => Ok(ttl),
        (Ok(Some(ttl)), Err(_)) | (Err(_), Ok(Some(ttl))) => Ok(ttl.min(HALF_ANSWERED)),
        (Ok(None), Ok(None)) => Err("it has no address".to_owned()),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// `None` for an answer without addresses.
type Ttl = Result<Option<Duration>, String>;

fn ttl(answer: Result<Lookup, NetError>) -> Ttl {
    match answer {
        Ok(lookup) => {
            let seconds = lookup.answers().iter().map(|record| record.ttl).min();
            Ok(seconds.map(|seconds| Duration::from_secs(seconds.into())))
        }
        Err(error) if error.is_nx_domain() => Err("there is no such name".to_owned()),
        Err(error) if error.is_no_records_found() => Ok(None),
        Err(NetError::NoConnections) => Err("no resolver can be reached".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn over_udp(ip: IpAddr) -> NameServerConfig {
    NameServerConfig::udp(ip)
}

/// Each question must go out, for only an answer on the wire is learned: no
/// cache, no hosts file. Trying again is the schedule's part.
fn resolver(servers: Vec<NameServerConfig>) -> Result<TokioResolver, NetError> {
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = PATIENCE;
    options.attempts = 0;
    options.num_concurrent_reqs = 1;
    options.max_active_requests = 2 * AT_ONCE;
    builder.build()
}

/// Evenly from 0 to 1: spreads what was asked together.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(Instant::now());
    f64::from((bits >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
