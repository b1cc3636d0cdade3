//! The report as JSON. Programs rely on its shape: names here change with the
//! version of the program only, and what is new is added.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::lab::battery::{Aim, Channel};

use super::{Finding, Path, Probed, Report, Row, Tally};

#[derive(Serialize)]
struct Document<'a> {
    /// Whether the exit code is 0.
    as_expected: bool,
    summary: Tally,
    /// The same of each path by itself.
    paths: Vec<Summed>,
    /// Of the group `policy`; null where it was not chosen.
    policy: Option<&'a Probed>,
    channels: &'a [Row],
}

#[derive(Serialize)]
struct Summed {
    path: Path,
    #[serde(flatten)]
    tally: Tally,
}

/// What there is to know of a channel before it is tried; also what `--list` prints.
#[derive(Serialize)]
pub(in crate::lab) struct Described {
    name: &'static str,
    group: &'static str,
    how: &'static str,
    seen_in: &'static str,
    /// `stop` or `out_of_scope`
    aim: &'static str,
    /// Of what is out of scope only.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

#[derive(Serialize)]
struct Tried<'a> {
    #[serde(flatten)]
    channel: Described,
    /// That of the worst path.
    result: Finding,
    paths: Vec<Result<'a>>,
}

#[derive(Serialize)]
struct Result<'a> {
    path: Path,
    result: Finding,
    /// Of the secret, that arrived through the filter.
    bytes: usize,
    /// Packets that the kernel dropped meanwhile, by reason.
    reasons: &'a BTreeMap<String, u64>,
    /// Of what is unavailable or host only.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

impl Described {
    pub(in crate::lab) fn of(group: &'static str, channel: &'static Channel) -> Self {
        let (aim, why, remedy) = match channel.aim {
            Aim::Stop => ("stop", None, None),
            Aim::OutOfScope { why, remedy } => ("out_of_scope", Some(why), Some(remedy)),
        };
        Self {
            name: channel.name,
            group,
            how: channel.how,
            seen_in: channel.seen_in,
            aim,
            why,
            remedy,
        }
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let document = Document {
            as_expected: self.as_expected(),
            summary: self.tally(),
            paths: (self.tallies().into_iter())
                .map(|(path, tally)| Summed { path, tally })
                .collect(),
            policy: self.policy.as_ref(),
            channels: &self.channels,
        };
        document.serialize(serializer)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let result = |(path, trial)| -> Result<'_> {
            let trial: &super::Trial = trial;
            Result {
                path,
                result: self.of(trial),
                bytes: trial.arrived(),
                reasons: &trial.reasons,
                why: trial.why(),
            }
        };
        let tried = Tried {
            channel: Described::of(self.group, self.channel),
            result: self.finding(),
            paths: self
                .results
                .iter()
                .map(|(path, trial)| result((*path, trial)))
                .collect(),
        };
        tried.serialize(serializer)
    }
}
