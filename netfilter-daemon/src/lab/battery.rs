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
use field::Field;
use ledger::{Found, Pieces, Round, SECRET};

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
    /// The drop counters, where there is a filter.
    pub drops: &'a dyn Fn() -> io::Result<Vec<Dropped>>,
    /// Is told which channel begins: how many are done, of how many.
    pub told: &'a dyn Fn(&Channel, usize, usize),
}

/// What one passage showed of a channel.
#[derive(Debug)]
pub struct Showing {
    arrived: usize,
    error: Option<String>,
    reasons: BTreeMap<String, u64>,
}

impl Passage<'_> {
    /// `chosen` are places in the list of all channels.
    pub fn run(&self, chosen: &[usize], round: Round) -> Result<Vec<Showing>, Error> {
        let channels: Vec<_> = all().collect();
        self.sink.begin(round).map_err(Error::Sink)?;
        let mut showings = Vec::with_capacity(chosen.len());
        let mut before = (self.drops)().map_err(Error::Drops)?;
        for (done, &index) in chosen.iter().enumerate() {
            let channel = channels[index];
            (self.told)(channel, done, chosen.len());
            let number = u16::try_from(index).unwrap_or(u16::MAX);
            let pieces = Pieces::new(round, number);
            let carried = self.inside.run(|| (channel.carry)(self.field, &pieces))?;
            thread::sleep(ON_THE_WIRE);
            let after = (self.drops)().map_err(Error::Drops)?;
            showings.push(Showing {
                arrived: 0,
                error: carried.err().map(|error| error.to_string()),
                reasons: counted(&before, &after),
            });
            before = after;
        }
        let arrived = self.sink.arrived().map_err(Error::Sink)?;
        for (showing, &index) in showings.iter_mut().zip(chosen) {
            showing.arrived = arrived.get(index).copied().unwrap_or_default();
        }
        Ok(showings)
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

impl Trial {
    pub fn new(without: Showing, through: Showing) -> Self {
        let outcome = match (without.arrived, through.arrived) {
            (SECRET, 0) => Outcome::Blocked,
            (_, bytes @ 1..) => Outcome::Leaked { bytes },
            (0, _) => Outcome::Unavailable {
                why: without
                    .error
                    .unwrap_or_else(|| "nothing arrives without a filter either".into()),
            },
            (bytes, _) => Outcome::Unavailable {
                why: format!("only {bytes} bytes arrive without a filter"),
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

/// All channels there are, in the order of the report.
pub fn all() -> impl Iterator<Item = &'static Channel> {
    super::channels::GROUPS
        .iter()
        .flat_map(|group| group.channels)
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
            error: error.map(Into::into),
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
        ] {
            assert_eq!(
                trial(showing(arrived, error), showing(0, None)),
                Outcome::Unavailable { why: why.into() }
            );
        }
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

    #[test]
    fn names_of_channels_are_unique_and_can_be_typed() {
        let mut names: Vec<_> = all().map(|channel| channel.name).collect();
        let typed = |name: &&str| {
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        assert!(names.iter().all(typed), "{names:?}");
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
