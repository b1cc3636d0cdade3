//! What was judged, as the programs count it on each processor. It is looked at each second, so
//! the maps stay open.

use std::io;

use aya::maps::MapData;
use netfilter_ebpf::{
    abi::DropKey,
    verdict::{Answer, Family, LossStage, LostFlow, ProtocolLabel, Question, Reason},
};

use super::{Counters, Dropped, Error, Passed, State, keys, maps, pins::Pins};

/// The counters but those of what passed.
pub struct Totals {
    dropped: MapData,
    questions: MapData,
    answers: MapData,
    lost_events: MapData,
    lost_flows: MapData,
}

impl State {
    /// Of the maps that are pinned now.
    ///
    /// # Errors
    /// Where one cannot be opened.
    pub fn totals(&self) -> Result<Totals, Error> {
        Totals::open(self.pins())
    }
}

impl Totals {
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        Ok(Self {
            dropped: maps::data(pins, maps::DROPPED)?,
            questions: maps::data(pins, maps::QUESTION_COUNTS)?,
            answers: maps::data(pins, maps::ANSWER_COUNTS)?,
            lost_events: maps::data(pins, maps::LOST)?,
            lost_flows: maps::data(pins, maps::LOST_FLOWS)?,
        })
    }

    /// All interfaces as one without a name.
    ///
    /// # Errors
    /// Where a map cannot be read.
    pub fn read(&self) -> Result<Counters, Error> {
        self.judged(Vec::new(), &|_| String::new())
    }

    /// `name`: of the interface that has a slot.
    pub(super) fn judged(
        &self,
        passed: Vec<Passed>,
        name: &impl Fn(u32) -> String,
    ) -> Result<Counters, Error> {
        Ok(Counters {
            passed,
            dropped: self.dropped(name)?,
            questions: counts(&self.questions, Question::ALL, |question| question as u8)?,
            answers: counts(&self.answers, Answer::ALL, |answer| answer as u8)?,
            lost_events: counts(&self.lost_events, LossStage::ALL, |stage| stage as u8)?,
            lost_flows: counts(&self.lost_flows, LostFlow::ALL, |flow| flow as u8)?,
        })
    }

    fn dropped(&self, name: &impl Fn(u32) -> String) -> Result<Vec<Dropped>, Error> {
        let mut dropped: Vec<Dropped> = Vec::new();
        let see = |key: &DropKey, words: &[u64]| {
            let DropKey {
                interface,
                reason,
                family,
                protocol,
                audited,
            } = *key;
            let (Some(reason), Some(family), Some(protocol)) = (
                Reason::from_number(reason),
                Family::from_number(family),
                ProtocolLabel::from_number(protocol),
            ) else {
                return; // of a newer build with the same layout
            };
            let interface = match reason {
                // A socket, wherever it would have sent.
                Reason::RawSocket => String::new(),
                _ => name(interface),
            };
            dropped.push(Dropped {
                interface,
                reason,
                family,
                protocol,
                audited: audited != 0,
                // As in `Counter`.
                packets: words.iter().step_by(2).sum(),
                bytes: words.iter().skip(1).step_by(2).sum(),
            });
        };
        keys::walk_per_cpu(&self.dropped, see).map_err(reading)?;
        dropped.sort_by(|one, other| {
            let key = |entry: &Dropped| {
                (
                    entry.interface.clone(),
                    entry.reason,
                    entry.family,
                    entry.protocol,
                    entry.audited,
                )
            };
            key(one).cmp(&key(other))
        });
        dropped.dedup_by(|one, kept| {
            let label = |each: &Dropped| (each.reason, each.family, each.protocol, each.audited);
            let same = one.interface == kept.interface && label(one) == label(kept);
            if same {
                kept.packets += one.packets;
                kept.bytes += one.bytes;
            }
            same
        });
        Ok(dropped)
    }
}

fn counts<T: Copy>(
    map: &MapData,
    all: &[T],
    number: impl Fn(T) -> u8,
) -> Result<Vec<(T, u64)>, Error> {
    let mut sums = Vec::new();
    let see = |_: &u32, words: &[u64]| sums.push(words.iter().sum());
    keys::walk_per_cpu(map, see).map_err(reading)?;
    let sum = |label| sums.get(usize::from(number(label))).copied().unwrap_or(0);
    Ok(all.iter().map(|&label| (label, sum(label))).collect())
}

fn reading(source: io::Error) -> Error {
    Error::System {
        operation: "read the counters",
        source,
    }
}
