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

/// Whose packets are judged.
pub type Path = &'static str;

/// Those of the machine itself, where they leave it.
pub const HOST: Path = "host";

/// Those of a container or virtual machine that it forwards for, where they enter it.
pub const WORKLOAD: Path = "workload";

/// What a channel amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    Blocked,
    Leaked,
    /// Data arrived as the channel's [`Aim`] says that it will.
    OutOfScope,
    Unavailable,
    /// It is of the host itself.
    HostOnly,
}

/// How many channels amount to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub channels: usize,
    pub blocked: usize,
    pub leaked: usize,
    pub out_of_scope: usize,
    pub unavailable: usize,
    pub host_only: usize,
}

impl Report {
    /// Whether nothing leaked and every probe showed what the policy says. What is
    /// unavailable or out of scope is told, and is no failure.
    pub fn as_expected(&self) -> bool {
        self.tally().leaked == 0 && self.policy.as_ref().is_none_or(Probed::as_expected)
    }

    /// Of the worst paths.
    pub fn tally(&self) -> Tally {
        Tally::of(self.channels.iter().map(Row::finding))
    }

    /// Of each path, in the order of the columns.
    pub fn tallies(&self) -> Vec<(Path, Tally)> {
        let Some(first) = self.channels.first() else {
            return Vec::new();
        };
        let of = |path: Path| {
            let on = self.channels.iter().filter_map(move |row| row.on(path));
            (path, Tally::of(on))
        };
        first.results.iter().map(|(path, _)| of(path)).collect()
    }

    /// The rows of each group, in their order.
    fn groups(&self) -> impl Iterator<Item = &[Row]> {
        self.channels.chunk_by(|one, next| one.group == next.group)
    }
}

impl Tally {
    fn of(findings: impl Iterator<Item = Finding>) -> Self {
        let mut tally = Self::default();
        for finding in findings {
            tally.channels += 1;
            *match finding {
                Finding::Blocked => &mut tally.blocked,
                Finding::Leaked => &mut tally.leaked,
                Finding::OutOfScope => &mut tally.out_of_scope,
                Finding::Unavailable => &mut tally.unavailable,
                Finding::HostOnly => &mut tally.host_only,
            } += 1;
        }
        tally
    }
}

impl Row {
    /// The worst of all paths: where data arrives on one, it leaves the machine.
    pub fn finding(&self) -> Finding {
        let worst_first = [
            Finding::Leaked,
            Finding::OutOfScope,
            Finding::Blocked,
            Finding::HostOnly,
        ];
        let findings = || self.results.iter().map(|(_, trial)| self.of(trial));
        let mut found = worst_first
            .into_iter()
            .filter(|finding| findings().any(|other| other == *finding));
        found.next().unwrap_or(Finding::Unavailable)
    }

    /// What it amounts to on this path, if it was tried there.
    fn on(&self, path: Path) -> Option<Finding> {
        let mut results = self.results.iter().filter(|(other, _)| *other == path);
        results.next().map(|(_, trial)| self.of(trial))
    }

    /// What one of its trials amounts to.
    pub fn of(&self, trial: &Trial) -> Finding {
        match (&trial.outcome, self.channel.aim) {
            (Outcome::Blocked, _) => Finding::Blocked,
            (Outcome::Leaked { .. }, Aim::Stop) => Finding::Leaked,
            (Outcome::Leaked { .. }, Aim::OutOfScope { .. }) => Finding::OutOfScope,
            (Outcome::Unavailable { .. }, _) => Finding::Unavailable,
            (Outcome::HostOnly { .. }, _) => Finding::HostOnly,
        }
    }
}

#[cfg(test)]
mod promises;
#[cfg(test)]
mod tests;
