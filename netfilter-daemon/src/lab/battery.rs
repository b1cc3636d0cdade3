//! The battery: every channel tries to carry a secret out, first without the
//! filter, then through it, and the sink counts what arrived.

use std::{collections::BTreeMap, io, thread, time::Duration};

use serde::Serialize;

pub mod collector;
pub mod field;
pub mod frame;
pub mod ledger;
pub mod wire;

use super::{
    drops::Dropped,
    namespace::{self, Namespace},
};
use field::{Field, HostOnly};
use ledger::{Found, Pieces, Round, SECRET};

/// How often a channel is tried where there is no filter.
pub const ATTEMPTS: usize = 3;

/// By then what was sent is at the other end of the cable.
const ON_THE_WIRE: Duration = Duration::from_millis(10);

/// A way to carry data out.
#[derive(Clone, Copy)]
pub struct Channel {
    /// As one types it behind `--only`, for instance `dns-txt`.
    pub name: &'static str,
    /// How it works, in a sentence.
    pub how: &'static str,
    /// Tools that use it, or who has described it.
    pub seen_in: &'static str,
    pub aim: Aim,
    /// Sends the secret, from inside the protected machine. An error counts only
    /// where nothing arrived, and is the reason then.
    pub carry: fn(&Field, &Pieces) -> io::Result<()>,
    /// Finds what it carries in a frame at the sink, if it is not in pieces there as
    /// they were made. It must not take another channel's frames for its own.
    pub read: Option<Reader>,
}

impl Channel {
    /// One that the filter is to stop, and whose pieces arrive as they were made.
    pub const fn stop(
        name: &'static str,
        how: &'static str,
        seen_in: &'static str,
        carry: fn(&Field, &Pieces) -> io::Result<()>,
    ) -> Self {
        Self {
            name,
            how,
            seen_in,
            aim: Aim::Stop,
            carry,
            read: None,
        }
    }
}

/// Reads a frame.
pub type Reader = fn(&[u8]) -> Option<Found>;

/// What the filter is to do about a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    Stop,
    /// It cannot be stopped by judging packets.
    OutOfScope {
        why: &'static str,
        remedy: &'static str,
    },
}

/// Channels of a kind.
pub struct Group {
    pub name: &'static str,
    pub channels: &'static [Channel],
}

/// What came of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// It does not work without a filter either, and so shows nothing.
    Unavailable {
        why: String,
    },
    /// It is of the host itself, and means nothing where it was tried from.
    HostOnly {
        why: String,
    },
    /// Not a byte arrived.
    Blocked,
    Leaked {
        bytes: usize,
    },
}

/// A channel that was tried, with and without the filter.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What the kernel counted meanwhile: packets dropped, by reason.
    pub reasons: BTreeMap<String, u64>,
}

/// Where what was carried out is collected.
pub trait Sink {
    /// Forgets everything and expects the secrets of this round.
    fn begin(&self, round: Round) -> io::Result<()>;
    /// How many bytes of each channel's secret have arrived in this round.
    fn arrived(&self) -> io::Result<Vec<usize>>;
}

/// One time that the chosen channels are tried, one after the other.
pub struct Passage<'a> {
    /// Where they are tried from.
    pub inside: &'a Namespace,
    pub field: &'a Field,
    pub sink: &'a dyn Sink,
    /// How often what does not arrive whole is tried: a busy machine loses packets, and what
    /// is lost without a filter would show nothing.
    pub attempts: usize,
    /// The drop counters, where there is a filter.
    pub drops: &'a dyn Fn() -> io::Result<Vec<Dropped>>,
    /// Is told which channel begins.
    pub told: &'a dyn Fn(&Channel),
}

/// What one passage showed of a channel.
#[derive(Debug)]
pub struct Showing {
    arrived: usize,
    error: Option<Hindrance>,
    reasons: BTreeMap<String, u64>,
}

/// Why a channel could not be tried.
#[derive(Debug)]
enum Hindrance {
    Host(HostOnly),
    Other(String),
}

impl Passage<'_> {
    /// `chosen` come with their numbers, which the sink knows them by.
    pub fn run(&self, chosen: &[(u16, &Channel)], round: Round) -> Result<Vec<Showing>, Error> {
        self.sink.begin(round).map_err(Error::Sink)?;
        let mut showings = Vec::with_capacity(chosen.len());
        let mut before = (self.drops)().map_err(Error::Drops)?;
        for &(number, channel) in chosen {
            (self.told)(channel);
            let error = self.carry(number, channel, round)?;
            thread::sleep(ON_THE_WIRE);
            let after = (self.drops)().map_err(Error::Drops)?;
            showings.push(Showing {
                arrived: 0,
                error,
                reasons: counted(&before, &after),
            });
            before = after;
        }
        self.count(chosen, &mut showings)?;
        for _ in 1..self.attempts {
            for (showing, &(number, channel)) in showings.iter_mut().zip(chosen) {
                if showing.arrived < SECRET && !matches!(showing.error, Some(Hindrance::Host(_))) {
                    showing.error = self.carry(number, channel, round)?;
                }
            }
            self.count(chosen, &mut showings)?;
        }
        Ok(showings)
    }

    fn carry(
        &self,
        number: u16,
        channel: &Channel,
        round: Round,
    ) -> Result<Option<Hindrance>, Error> {
        let pieces = Pieces::new(round, number);
        let carried = self.inside.run(|| (channel.carry)(self.field, &pieces))?;
        Ok(carried.err().map(Hindrance::of))
    }

    fn count(&self, chosen: &[(u16, &Channel)], showings: &mut [Showing]) -> Result<(), Error> {
        let arrived = self.sink.arrived().map_err(Error::Sink)?;
        for (showing, &(number, _)) in showings.iter_mut().zip(chosen) {
            let arrived = arrived.get(usize::from(number));
            showing.arrived = arrived.copied().unwrap_or_default();
        }
        Ok(())
    }
}

/// Why the battery could not be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
    #[error("the sink cannot be asked: {0}")]
    Sink(io::Error),
    #[error("the drop counters cannot be read: {0}")]
    Drops(io::Error),
}

impl Hindrance {
    fn of(error: io::Error) -> Self {
        match error.downcast() {
            Ok(host_only) => Self::Host(host_only),
            Err(error) => Self::Other(error.to_string()),
        }
    }
}

impl Trial {
    /// Where there is no such path.
    pub const fn unavailable(why: String) -> Self {
        Self {
            outcome: Outcome::Unavailable { why },
            reasons: BTreeMap::new(),
        }
    }

    pub fn new(without: Showing, through: Showing) -> Self {
        let outcome = match (without.arrived, through.arrived) {
            (SECRET, 0) => Outcome::Blocked,
            (_, bytes @ 1..) => Outcome::Leaked { bytes },
            (0, _) => match without.error {
                Some(Hindrance::Host(HostOnly(why))) => Outcome::HostOnly { why: why.into() },
                Some(Hindrance::Other(why)) => Outcome::Unavailable { why },
                None => Outcome::Unavailable {
                    why: "nothing arrives without a filter either".into(),
                },
            },
            (bytes, _) => Outcome::Unavailable {
                why: match without.error {
                    Some(Hindrance::Other(error)) => {
                        format!("only {bytes} bytes arrive without a filter: {error}")
                    }
                    _ => format!("only {bytes} bytes arrive without a filter"),
                },
            },
        };
        Self {
            outcome,
            reasons: through.reasons,
        }
    }
}

/// The channels of several files, as one list. `N` is how many they are.
pub const fn join<const N: usize>(lists: &[&[Channel]]) -> [Channel; N] {
    let mut all = [lists[0][0]; N];
    let (mut list, mut of_list, mut next) = (0, 0, 0);
    while list < lists.len() {
        if of_list < lists[list].len() {
            all[next] = lists[list][of_list];
            (of_list, next) = (of_list + 1, next + 1);
        } else {
            (list, of_list) = (list + 1, 0);
        }
    }
    assert!(next == N);
    all
}

/// Sends each of them whatever became of the others. The error is the last one.
pub fn each<T>(
    items: impl IntoIterator<Item = T>,
    mut send: impl FnMut(T) -> io::Result<()>,
) -> io::Result<()> {
    let mut result = Ok(());
    for item in items {
        if let Err(error) = send(item) {
            result = Err(error);
        }
    }
    result
}

/// Packets dropped between two readings, by reason.
fn counted(before: &[Dropped], after: &[Dropped]) -> BTreeMap<String, u64> {
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for drop in after {
        *reasons.entry(drop.reason.clone()).or_default() += drop.packets;
    }
    for drop in before {
        if let Some(packets) = reasons.get_mut(&drop.reason) {
            *packets = packets.saturating_sub(drop.packets);
        }
    }
    reasons.retain(|_, packets| *packets > 0);
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_works_without_a_filter_can_be_blocked() {
        let showing = |arrived, error: Option<&str>| Showing {
            arrived,
            error: error.map(|it| Hindrance::of(io::Error::other(it))),
            reasons: BTreeMap::new(),
        };
        let trial = |without, through| Trial::new(without, through).outcome;
        assert_eq!(
            trial(showing(SECRET, None), showing(0, None)),
            Outcome::Blocked
        );
        assert_eq!(
            trial(showing(SECRET, None), showing(12, None)),
            Outcome::Leaked { bytes: 12 }
        );
        assert_eq!(
            trial(showing(0, None), showing(12, None)),
            Outcome::Leaked { bytes: 12 }
        );
        for (arrived, error, why) in [
            (0, Some("no such device"), "no such device"),
            (0, None, "nothing arrives without a filter either"),
            (9, None, "only 9 bytes arrive without a filter"),
            (
                9,
                Some("gone"),
                "only 9 bytes arrive without a filter: gone",
            ),
        ] {
            assert_eq!(
                trial(showing(arrived, error), showing(0, None)),
                Outcome::Unavailable { why: why.into() }
            );
        }
        let of_host = || Showing {
            error: Some(Hindrance::of(io::Error::other(HostOnly("no host")))),
            ..showing(0, None)
        };
        let host_only = Outcome::HostOnly {
            why: "no host".into(),
        };
        assert_eq!(trial(of_host(), showing(0, None)), host_only);
        assert_eq!(
            trial(of_host(), showing(12, None)),
            Outcome::Leaked { bytes: 12 }
        );
    }

    #[test]
    fn drops_are_those_since_the_reading_before_of_each_reason() {
        let reading = |counts: &[(&str, &str, u64)]| -> Vec<Dropped> {
            let drop = |(reason, interface, packets): &(&str, &str, u64)| Dropped {
                reason: (*reason).into(),
                family: "ipv4".into(),
                protocol: "udp".into(),
                interface: (*interface).into(),
                packets: *packets,
            };
            counts.iter().map(drop).collect()
        };
        let before = reading(&[("no_rule", "eth0", 5), ("fragment", "eth0", 3)]);
        let after = [
            ("no_rule", "eth0", 7),
            ("no_rule", "eth1", 4),
            ("fragment", "eth0", 3),
        ];
        let expected = BTreeMap::from([("no_rule".to_owned(), 6)]);
        assert_eq!(counted(&before, &reading(&after)), expected);
        assert!(counted(&before, &before).is_empty());
    }
}
