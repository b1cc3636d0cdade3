//! Attempts to reach something, from inside a namespace.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    panic,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde::Serialize;

mod attempt;

use attempt::{Attempt, attempt};

use super::{
    namespace::{self, Namespace},
    tap::{Seen, Tap},
};

/// Attempts at one time.
const CROWD: usize = 32;

/// By then a packet is at the other end of the cable.
const ON_THE_WIRE: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What it belongs to in the report: a rule, mostly.
    pub group: String,
    /// What it shows there.
    pub what: &'static str,
    pub moment: Moment,
    pub knock: Knock,
    pub target: Target,
    /// Whether the policy lets it pass.
    pub allowed: bool,
}

/// When it is tried: an address that a name lends is another matter once the
/// name has been asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    BeforeNames,
    WithNames,
    AfterNames,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Address(IpAddr),
    /// Looked up as any program does, then reached at the first address of the family.
    Name {
        name: String,
        family: Family,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Family {
    #[serde(rename = "ipv4")]
    V4,
    #[serde(rename = "ipv6")]
    V6,
}

/// What is sent, and answered by the lab's internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Knock {
    /// A connection and an echo on it.
    Tcp(u16),
    /// An echo.
    Udp(u16),
    /// An echo, as of `ping`.
    Icmp,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The answer came.
    Reached(Duration),
    /// It got out, and the answer did not come.
    Unanswered(String),
    /// It did not get out.
    Stopped(String),
}

/// Makes all attempts, those of one moment at the same time, from inside a
/// namespace at whose other end the tap is. The outcomes are in the order of the probes.
pub fn attempt_all(from: &Namespace, probes: &[Probe], tap: &Tap) -> Result<Vec<Outcome>, Error> {
    let mut outcomes: Vec<(usize, Outcome)> = Vec::with_capacity(probes.len());
    for moment in [Moment::BeforeNames, Moment::WithNames, Moment::AfterNames] {
        let now = probes
            .iter()
            .enumerate()
            .filter(|(_, probe)| probe.moment == moment);
        let now: Vec<_> = now.collect();
        tap.look().map_err(Error::Tap)?;
        let attempts = from.run(|| attempt_together(&now))?;
        thread::sleep(ON_THE_WIRE);
        let seen = tap.look().map_err(Error::Tap)?;
        outcomes.extend(attempts.into_iter().map(|(index, attempt)| {
            let outcome = outcome(&probes[index], attempt, &seen);
            (index, outcome)
        }));
    }
    outcomes.sort_by_key(|(index, _)| *index);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

/// Why there are no outcomes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
    #[error("cannot watch the cable: {0}")]
    Tap(io::Error),
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

impl Target {
    pub fn family(&self) -> Family {
        match self {
            Self::Address(address) => Family::of(*address),
            Self::Name { family, .. } => *family,
        }
    }
}

impl Knock {
    /// The protocol number and the port, where there is one.
    pub fn numbers(self, family: Family) -> (u8, Option<u16>) {
        match (self, family) {
            (Self::Tcp(port), _) => (6, Some(port)),
            (Self::Udp(port), _) => (17, Some(port)),
            (Self::Icmp, Family::V4) => (1, None),
            (Self::Icmp, Family::V6) => (58, None),
        }
    }

    pub fn protocol(self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
            Self::Icmp => "icmp",
        }
    }

    pub fn port(self) -> Option<u16> {
        match self {
            Self::Tcp(port) | Self::Udp(port) => Some(port),
            Self::Icmp => None,
        }
    }
}

impl fmt::Display for Probe {
    /// `tcp 192.0.2.1:443`, or with a name, which does not tell the family, `tcp4 pypi.org:443`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.knock.protocol())?;
        match (&self.target, self.knock.port()) {
            (Target::Address(address), Some(port)) => {
                write!(f, " {}", SocketAddr::new(*address, port))
            }
            (Target::Address(address), None) => write!(f, " {address}"),
            (Target::Name { name, family }, port) => {
                let family = match family {
                    Family::V4 => 4,
                    Family::V6 => 6,
                };
                write!(f, "{family} {name}")?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

fn attempt_together(probes: &[(usize, &Probe)]) -> Vec<(usize, Attempt)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((index, probe)) = probes.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((*index, attempt(probe)));
        }
        done
    };
    thread::scope(|scope| {
        let crowd: Vec<_> = (0..CROWD.min(probes.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| {
            worker
                .join()
                .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        };
        crowd.into_iter().flat_map(join).collect()
    })
}

fn outcome(probe: &Probe, attempt: Attempt, seen: &Seen) -> Outcome {
    let why = match attempt.result {
        Ok(took) => return Outcome::Reached(took),
        Err(why) => why,
    };
    let (protocol, port) = probe.knock.numbers(probe.target.family());
    let got_out = match (&probe.target, attempt.address) {
        (_, Some(address)) => seen.packet(address, protocol, port),
        (Target::Name { name, .. }, None) => seen.question(name),
        (Target::Address(_), None) => false,
    };
    if got_out {
        Outcome::Unanswered(why)
    } else {
        Outcome::Stopped(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_reads_as_one_would_type_it() {
        let probe = |knock, target| probe(knock, &target);
        let address = |text: &str| Target::Address(text.parse().unwrap());
        let name = Target::Name {
            name: "pypi.org".into(),
            family: Family::V6,
        };
        for (probe, text) in [
            (
                probe(Knock::Tcp(443), address("192.0.2.1")),
                "tcp 192.0.2.1:443",
            ),
            (
                probe(Knock::Udp(53), address("2001:db8::1")),
                "udp [2001:db8::1]:53",
            ),
            (
                probe(Knock::Icmp, address("2001:db8::1")),
                "icmp 2001:db8::1",
            ),
            (probe(Knock::Tcp(80), name), "tcp6 pypi.org:80"),
        ] {
            assert_eq!(probe.to_string(), text);
        }
    }

    fn probe(knock: Knock, target: &Target) -> Probe {
        Probe {
            group: String::new(),
            what: "",
            moment: Moment::WithNames,
            knock,
            target: target.clone(),
            allowed: true,
        }
    }
}
