//! What the lab saw, as a table and as JSON.

use std::time::Duration;

use serde::Serialize;

use super::{
    battery::{self, Trial},
    drops::Dropped,
    probe::{Family, Outcome, Probe, Target},
};

const WIDTH: usize = 100;
const WHAT: usize = 22;
/// The longest of what is probed often: a tag's last IPv6 address, with its port.
const LINE: usize = 47;
const RESULT: usize = 25;

#[derive(Debug, Serialize)]
pub struct Report {
    pub rows: Vec<Row>,
    /// What `/metrics` says of dropped packets.
    pub drops: Vec<Dropped>,
    /// Why `/metrics` says nothing.
    pub no_drops: Option<String>,
    /// Of each channel that was tried, by its place in the list of all.
    #[serde(skip)]
    pub trials: Vec<(usize, Trial)>,
}

#[derive(Debug, Serialize)]
pub struct Row {
    group: String,
    what: &'static str,
    destination: String,
    #[serde(skip)]
    line: String,
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

/// What a row amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
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

    fn finding(&self) -> Finding {
        match (self.expected, self.came_out) {
            (expected, Some(came_out)) if expected == came_out => Finding::AsExpected,
            (Way::Denied, Some(_)) => Finding::Leaked,
            (_, Some(_)) => Finding::Blocked,
            (_, None) => Finding::Unavailable,
        }
    }

    fn result(&self) -> String {
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

impl Report {
    /// Whether every probe showed what the policy says, and the counters could be read.
    pub fn as_expected(&self) -> bool {
        self.no_drops.is_none() && self.count(Finding::AsExpected) == self.rows.len()
    }

    /// A table of at most 100 columns, what it amounts to, and the drop counters.
    pub fn to_text(&self, colours: bool) -> String {
        let paint = |colour: &str, text: &str| match colours {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let mut lines = Vec::new();
        for rows in self.rows.chunk_by(|one, next| one.group == next.group) {
            lines.extend([String::new(), paint(BOLD, &cut(&rows[0].group, WIDTH))]);
            lines.extend(rows.iter().map(|row| {
                let (mark, colour) = match row.finding() {
                    Finding::AsExpected => ("✓", GREEN),
                    Finding::Leaked | Finding::Blocked => ("✗", RED),
                    Finding::Unavailable => ("?", YELLOW),
                };
                let (what, line) = (cut(row.what, WHAT), cut(&row.line, LINE));
                let result = paint(colour, &cut(&row.result(), RESULT));
                format!(
                    "  {} {what:WHAT$} {line:LINE$} {result}",
                    paint(colour, mark)
                )
            }));
        }
        let colour = if self.as_expected() { GREEN } else { RED };
        lines.extend([String::new(), paint(colour, &self.summary()), String::new()]);
        lines.push(match &self.no_drops {
            Some(why) => paint(RED, &format!("/metrics cannot be read: {why}")),
            None if self.drops.is_empty() => "/metrics has counted no dropped packets.".into(),
            None => paint(BOLD, "Dropped packets, from /metrics"),
        });
        lines.extend(self.drops.iter().map(|drop| {
            let Dropped {
                reason,
                family,
                protocol,
                interface,
                packets,
            } = drop;
            format!("  {packets:>6}  {reason:18} {family:6} {protocol:6} {interface}")
        }));
        for (index, trial) in &self.trials {
            let name = battery::all()
                .nth(*index)
                .map_or("", |channel| channel.name);
            lines.push(format!(
                "  {name:24} {:?} {:?}",
                trial.outcome, trial.reasons
            ));
        }
        lines.join("\n") + "\n"
    }

    fn summary(&self) -> String {
        let way = |way| {
            let is = |row: &&Row| row.finding() == Finding::AsExpected && row.expected == way;
            self.rows.iter().filter(is).count()
        };
        let mut summary = format!(
            "{} of {} probes came out as the policy says: {} passed, {} denied",
            self.count(Finding::AsExpected),
            self.rows.len(),
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
        self.rows
            .iter()
            .filter(|row| row.finding() == finding)
            .count()
    }
}

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// Takes out of the middle what is too long: both ends of an address matter.
fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let tail = width / 3;
    let head = text.chars().take(width - tail - 1);
    head.chain(['…'])
        .chain(text.chars().skip(length - tail))
        .collect()
}

#[cfg(test)]
mod tests;
