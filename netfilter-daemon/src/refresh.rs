//! Keeps the addresses of the policy's exact names learned.
//!
//! Asks for each name, by the ordinary path, before its last answer expires;
//! the kernel learns from these answers as from any other.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet, time};

use crate::{
    policy::{Action, Destination, Pattern, Policy},
    rate::Rate,
    resolvers::{self, Answer, Family, NO_SUCH_NAME},
    sessions::Lent,
};

mod schedule;

use schedule::{Failure, Schedule};

/// Names that are asked for at the same time.
const AT_ONCE: usize = 32;
/// When one of a name's two questions fails, both are asked again this soon.
const HALF_ANSWERED: Duration = Duration::from_secs(30);

/// What to keep learned, and whom to ask.
#[derive(Debug, Clone)]
pub struct Names {
    resolvers: Vec<SocketAddr>,
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
            resolvers: resolvers::at_their_port(&policy.resolvers),
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

/// The addresses of all of them, as far as they are told within `patience`.
pub async fn addresses(names: &Names, patience: Duration) -> Vec<Lent> {
    let resolvers: Arc<[SocketAddr]> = names.resolvers.clone().into();
    let mut asking = JoinSet::new();
    let families = [Family::Ipv4, Family::Ipv6];
    let mut waiting = names
        .names
        .iter()
        .flat_map(|name| families.map(|family| (name.clone(), family)));
    let mut lent = Vec::new();
    let end = time::Instant::now() + patience;
    loop {
        while asking.len() < AT_ONCE
            && let Some((name, family)) = waiting.next()
        {
            let resolvers = Arc::clone(&resolvers);
            asking.spawn(async move {
                let answer = resolvers::ask(&resolvers, &name, family).await;
                (name, answer)
            });
        }
        let Ok(Some(answered)) = time::timeout_at(end, asking.join_next()).await else {
            return lent;
        };
        if let Ok((name, Ok(answer))) = answered
            && let Ok(name) = name.parse::<Pattern>()
        {
            lent.extend(answer.addresses.into_iter().map(|(address, ttl)| Lent {
                name: name.clone(),
                address,
                ttl,
            }));
        }
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
    let resolvers: Arc<[SocketAddr]> = names.resolvers.into();
    let mut schedule = Schedule::new(names.names, Instant::now());
    let mut asking = JoinSet::new();
    let mut asked = HashMap::new();
    // A resolver that is down must not write a line for each of ten thousand names.
    let mut lines = Rate::new(20, Duration::from_secs(10), Instant::now());
    loop {
        while asking.len() < AT_ONCE
            && let Some(name) = schedule.take_due(Instant::now())
        {
            let question = ask(Arc::clone(&resolvers), schedule.name(name).to_owned());
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

/// Asks for both families. The smallest TTL in the answers. Trying again is the schedule's part.
async fn ask(resolvers: Arc<[SocketAddr]>, name: String) -> Result<Duration, String> {
    let [ipv4, ipv6] = resolvers::ask_in_turn(&resolvers, &name).await;
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

fn ttl(answer: Result<Answer, String>) -> Ttl {
    let answer = answer?;
    if answer.nonexistent {
        return Err(NO_SUCH_NAME.to_owned());
    }
    if answer.addresses.is_empty() {
        return Ok(None);
    }
    let aliases = answer.aliases.iter().map(|alias| alias.ttl);
    let addresses = answer.addresses.iter().map(|(_, ttl)| *ttl);
    let seconds = aliases.chain(addresses).min();
    Ok(seconds.map(|seconds| Duration::from_secs(seconds.into())))
}

/// Evenly from 0 to 1: spreads what was asked together.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(Instant::now());
    f64::from((bits >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
