//! What the lab saw, and what it amounts to: as a table for people, as JSON, as
//! Markdown and as JUnit.

use serde::Serialize;

use super::{
    battery::{Aim, Channel, Outcome, Trial},
    drops::Dropped,
};

mod json;
mod junit;
mod markdown;
pub mod probes;
mod text;
mod words;

pub(super) use json::Described;
pub(super) use text::WIDTH;
pub(super) use words::wrap;

pub struct Report {
    /// Where the policy was probed.
    pub policy: Option<Probed>,
    /// Of each channel that was tried, in the order of the list of all.
    pub channels: Vec<Row>,
}

/// What came of the policy's probes.
#[derive(Debug, Serialize)]
pub struct Probed {
    pub probes: Vec<probes::Row>,
    /// What `/metrics` says of dropped packets.
    pub drops: Vec<Dropped>,
    /// Why `/metrics` says nothing.
    pub no_drops: Option<String>,
}

/// A channel and what came of it on each path out of the machine.
pub struct Row {
    pub group: &'static str,
    pub channel: &'static Channel,
    pub results: Vec<(Path, Trial)>,
}

/// Whose packets are judged: `host`, those of the machine itself.
pub type Path = &'static str;

pub const HOST: Path = "host";

/// What a channel amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    Blocked,
    Leaked,
    /// Data arrived as the channel's [`Aim`] says that it will.
    OutOfScope,
    Unavailable,
}

/// How many channels amount to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub channels: usize,
    pub blocked: usize,
    pub leaked: usize,
    pub out_of_scope: usize,
    pub unavailable: usize,
}

impl Report {
    /// Whether nothing leaked and every probe showed what the policy says. What is
    /// unavailable or out of scope is told, and is no failure.
    pub fn as_expected(&self) -> bool {
        self.tally().leaked == 0 && self.policy.as_ref().is_none_or(Probed::as_expected)
    }

    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for row in &self.channels {
            tally.channels += 1;
            *match row.finding() {
                Finding::Blocked => &mut tally.blocked,
                Finding::Leaked => &mut tally.leaked,
                Finding::OutOfScope => &mut tally.out_of_scope,
                Finding::Unavailable => &mut tally.unavailable,
            } += 1;
        }
        tally
    }

    /// The rows of each group, in their order.
    fn groups(&self) -> impl Iterator<Item = &[Row]> {
        self.channels.chunk_by(|one, next| one.group == next.group)
    }
}

impl Row {
    /// The worst of all paths: where data arrives on one, it leaves the machine.
    pub fn finding(&self) -> Finding {
        let findings = || self.results.iter().map(|(_, trial)| self.of(trial));
        let [leaked, out_of_scope, blocked] =
            [Finding::Leaked, Finding::OutOfScope, Finding::Blocked]
                .map(|finding| findings().any(|other| other == finding));
        match (leaked, out_of_scope, blocked) {
            (true, ..) => Finding::Leaked,
            (_, true, _) => Finding::OutOfScope,
            (_, _, true) => Finding::Blocked,
            _ => Finding::Unavailable,
        }
    }

    /// What one of its trials amounts to.
    pub fn of(&self, trial: &Trial) -> Finding {
        match (&trial.outcome, self.channel.aim) {
            (Outcome::Blocked, _) => Finding::Blocked,
            (Outcome::Leaked { .. }, Aim::Stop) => Finding::Leaked,
            (Outcome::Leaked { .. }, Aim::OutOfScope { .. }) => Finding::OutOfScope,
            (Outcome::Unavailable { .. }, _) => Finding::Unavailable,
        }
    }
}

#[cfg(test)]
mod promises;
#[cfg(test)]
mod tests;
