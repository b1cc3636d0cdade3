//! What a probe of the policy showed.

use std::time::Duration;

use serde::Serialize;

use crate::lab::probe::{Family, Outcome, Probe, Target};

use super::Probed;

#[derive(Debug, Serialize)]
pub struct Row {
    pub(super) group: String,
    pub(super) what: &'static str,
    destination: String,
    #[serde(skip)]
    pub(super) line: String,
    family: Family,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    expected: Way,
    /// None where the probe does not work without a filter either, and so shows nothing.
    came_out: Option<Way>,
    #[serde(skip_serializing_if = "Option::is_none")]
    milliseconds: Option<f64>,
    /// What came instead of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    Passed,
    /// It got out, and no answer came back.
    Unanswered,
    Denied,
}

/// What a probe amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    AsExpected,
    Leaked,
    Blocked,
    Unavailable,
}

impl Row {
    /// `before` came of the same probe without a filter.
    pub fn new(probe: &Probe, before: Outcome, after: Outcome) -> Self {
        let milliseconds = |took: Duration| took.as_secs_f64() * 1000.0;
        let (came_out, milliseconds, detail) = match (before, after) {
            (Outcome::Stopped(why) | Outcome::Unanswered(why), _) => (None, None, Some(why)),
            (_, Outcome::Reached(took)) => (Some(Way::Passed), Some(milliseconds(took)), None),
            (_, Outcome::Unanswered(why)) => (Some(Way::Unanswered), None, Some(why)),
            (_, Outcome::Stopped(why)) => (Some(Way::Denied), None, Some(why)),
        };
        Self {
            group: probe.group.clone(),
            what: probe.what,
            destination: match &probe.target {
                Target::Address(address) => address.to_string(),
                Target::Name { name, .. } => name.clone(),
            },
            line: probe.to_string(),
            family: probe.target.family(),
            protocol: probe.knock.protocol(),
            port: probe.knock.port(),
            expected: if probe.allowed {
                Way::Passed
            } else {
                Way::Denied
            },
            came_out,
            milliseconds,
            detail,
        }
    }

    pub(super) fn finding(&self) -> Finding {
        match (self.expected, self.came_out) {
            (expected, Some(came_out)) if expected == came_out => Finding::AsExpected,
            (Way::Denied, Some(_)) => Finding::Leaked,
            (_, Some(_)) => Finding::Blocked,
            (_, None) => Finding::Unavailable,
        }
    }

    pub(super) fn result(&self) -> String {
        let detail = self.detail.as_deref().unwrap_or_default();
        let took = self.milliseconds.unwrap_or_default();
        match (self.finding(), self.came_out) {
            (Finding::Leaked, Some(Way::Unanswered)) => "LEAKED, unanswered".into(),
            (Finding::Leaked, _) => format!("LEAKED in {took:.2} ms"),
            (Finding::Blocked, _) => format!("BLOCKED: {detail}"),
            (Finding::AsExpected, Some(Way::Passed)) => format!("passed in {took:.2} ms"),
            (Finding::AsExpected, _) => format!("denied: {detail}"),
            (Finding::Unavailable, _) => format!("unavailable: {detail}"),
        }
    }
}

impl Probed {
    /// Whether every probe showed what the policy says, and the counters could be read.
    pub fn as_expected(&self) -> bool {
        self.no_drops.is_none() && self.count(Finding::AsExpected) == self.probes.len()
    }

    pub(super) fn summary(&self) -> String {
        let way = |way| {
            let is = |row: &&Row| row.finding() == Finding::AsExpected && row.expected == way;
            self.probes.iter().filter(is).count()
        };
        let mut summary = format!(
            "{} of {} probes came out as the policy says: {} passed, {} denied",
            self.count(Finding::AsExpected),
            self.probes.len(),
            way(Way::Passed),
            way(Way::Denied)
        );
        for (finding, word) in [
            (Finding::Leaked, "LEAKED"),
            (Finding::Blocked, "BLOCKED"),
            (Finding::Unavailable, "unavailable"),
        ] {
            if let count @ 1.. = self.count(finding) {
                summary += &format!("; {count} {word}");
            }
        }
        summary
    }

    fn count(&self, finding: Finding) -> usize {
        let is = |row: &&Row| row.finding() == finding;
        self.probes.iter().filter(is).count()
    }
}
