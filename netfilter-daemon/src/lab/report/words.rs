//! The words of a report, and how they are made to fit.

use crate::lab::battery::{Outcome, Trial};

use super::{Finding, Path, Report, Row, Tally};

impl Row {
    /// `blocked`, `LEAKED 12,345 bytes`, `out of scope`, `unavailable`, `host only`
    pub(super) fn word(&self, trial: &Trial) -> String {
        match self.of(trial) {
            Finding::Blocked => "blocked".into(),
            Finding::Leaked => format!("LEAKED {}", bytes(trial.arrived())),
            Finding::OutOfScope => "out of scope".into(),
            Finding::Unavailable => "unavailable".into(),
            Finding::HostOnly => "host only".into(),
        }
    }

    /// As one types it, and the path where there are several.
    pub(super) fn name_on(&self, path: &str) -> String {
        match self.results.len() {
            ..=1 => self.channel.name.to_owned(),
            _ => format!("{} ({path})", self.channel.name),
        }
    }
}

impl Trial {
    pub(super) fn arrived(&self) -> usize {
        match self.outcome {
            Outcome::Leaked { bytes } => bytes,
            Outcome::Blocked | Outcome::Unavailable { .. } | Outcome::HostOnly { .. } => 0,
        }
    }

    /// Why it shows nothing.
    pub(super) fn why(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Unavailable { why } | Outcome::HostOnly { why } => Some(why),
            Outcome::Blocked | Outcome::Leaked { .. } => None,
        }
    }

    /// Drop reasons with the packets dropped, the most frequent first: `no_rule 64, fragment 2`
    pub(super) fn reasons(&self) -> String {
        self.counted().join(", ")
    }

    /// As many of them as there is room for, whole.
    pub(super) fn reasons_within(&self, width: usize) -> String {
        let counted = self.counted();
        let fitting = (0..=counted.len()).rev().map(|number| {
            let more = if number < counted.len() { "…" } else { "" };
            let told = counted[..number].iter().map(String::as_str);
            let told: Vec<_> = told.chain(Some(more).filter(|it| !it.is_empty())).collect();
            told.join(", ")
        });
        let mut fitting = fitting.filter(|text| text.chars().count() <= width);
        fitting.next().unwrap_or_default()
    }

    fn counted(&self) -> Vec<String> {
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        // Stable: those of one number stay in the order of their names.
        reasons.sort_by_key(|(_, packets)| std::cmp::Reverse(**packets));
        let told = |(reason, packets): (&String, &u64)| format!("{reason} {packets}");
        reasons.into_iter().map(told).collect()
    }
}

impl Tally {
    pub(super) fn summary(self) -> String {
        let host_only = match self.host_only {
            0 => String::new(),
            number => format!(", {number} host only"),
        };
        format!(
            "{} channels: {} blocked, {} leaked, {} out of scope, {} unavailable{host_only}",
            self.channels, self.blocked, self.leaked, self.out_of_scope, self.unavailable
        )
    }
}

impl Report {
    /// A line, or one for each path.
    pub(super) fn summaries(&self) -> Vec<String> {
        let tallies = self.tallies();
        let width = tallies.iter().map(|(path, _)| path.len() + 1).max();
        let width = width.filter(|_| tallies.len() > 1);
        let line = |(path, tally): (Path, Tally)| match width {
            None => tally.summary(),
            Some(width) => format!("{:width$} {}", format!("{path}:"), tally.summary()),
        };
        tallies.into_iter().map(line).collect()
    }
}

/// `12,345 bytes`
pub(super) fn bytes(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + if number == 1 { " byte" } else { " bytes" }
}

/// Takes out of the middle what is too long: both ends of an address matter.
pub(super) fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let tail = width / 3;
    let head = text.chars().take(width.saturating_sub(tail + 1));
    head.chain(['…'])
        .chain(text.chars().skip(length - tail))
        .collect()
}

/// Takes off the end what is too long, by whole words.
pub(super) fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut clipped = String::new();
    for word in text.split(' ') {
        let blank = if clipped.is_empty() { "" } else { " " };
        let longer = format!("{clipped}{blank}{word}");
        // The ellipsis.
        if longer.chars().count() + 1 > width {
            break;
        }
        clipped = longer;
    }
    clipped.trim_end_matches([',', ';']).to_owned() + "…"
}

/// Breaks a text between its words. A longer word has a line of its own.
pub(in crate::lab) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
