//! The report as a table of at most 100 columns.

use crate::lab::{
    battery::{Aim, Trial},
    drops::Dropped,
};

use super::{
    Finding, Path, Probed, Report, Row, probes,
    words::{bytes, clip, cut, wrap},
};

pub(in crate::lab) const WIDTH: usize = 100;

const WHAT: usize = 22;
/// The longest of what is probed often: a tag's last IPv6 address, with its port.
const LINE: usize = 47;
const RESULT: usize = 25;

/// What stands before a name: two blanks, the mark, a blank.
const MARGIN: usize = 4;
/// Longer names of channels are cut.
const NAME: usize = 24;
/// More than the reasons of most channels need.
const REASONS: usize = 24;

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Report {
    pub fn to_text(&self, colours: bool) -> String {
        let mut page = Page {
            colours,
            lines: Vec::new(),
        };
        if let Some(policy) = &self.policy {
            page.probes(policy);
            page.drops(policy);
        }
        if !self.channels.is_empty() {
            page.channels(self);
            page.notes(&self.channels);
        }
        page.lines.push(String::new());
        if let Some(policy) = &self.policy {
            page.summary(&policy.summary(), policy.as_expected());
        }
        if !self.channels.is_empty() {
            let leaked = self.tallies().into_iter().map(|(_, tally)| tally.leaked);
            for (summary, leaked) in self.summaries().iter().zip(leaked) {
                page.summary(summary, leaked == 0);
            }
        }
        page.lines.join("\n") + "\n"
    }
}

struct Page {
    colours: bool,
    lines: Vec<String>,
}

impl Page {
    fn paint(&self, colour: &str, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn heading(&mut self, text: &str) {
        let heading = self.paint(BOLD, &cut(text, WIDTH));
        self.lines.extend([String::new(), heading]);
    }

    fn summary(&mut self, text: &str, well: bool) {
        let colour = if well { GREEN } else { RED };
        self.lines.push(self.paint(colour, text));
    }

    fn probes(&mut self, policy: &Probed) {
        for rows in policy.probes.chunk_by(|one, next| one.group == next.group) {
            self.heading(&rows[0].group);
            for row in rows {
                let (mark, colour) = match row.finding() {
                    probes::Finding::AsExpected => ("✓", GREEN),
                    probes::Finding::Leaked | probes::Finding::Blocked => ("✗", RED),
                    probes::Finding::Unavailable => ("?", YELLOW),
                };
                let (what, line) = (cut(row.what, WHAT), cut(&row.line, LINE));
                let result = self.paint(colour, &cut(&row.result(), RESULT));
                let mark = self.paint(colour, mark);
                self.lines
                    .push(format!("  {mark} {what:WHAT$} {line:LINE$} {result}"));
            }
        }
    }

    fn drops(&mut self, policy: &Probed) {
        self.lines.push(String::new());
        self.lines.push(match &policy.no_drops {
            Some(why) => self.paint(RED, &format!("/metrics cannot be read: {why}")),
            None if policy.drops.is_empty() => "/metrics has counted no dropped packets.".into(),
            None => self.paint(BOLD, "Dropped packets, from /metrics"),
        });
        self.lines.extend(policy.drops.iter().map(|drop| {
            let Dropped {
                reason,
                family,
                protocol,
                interface,
                packets,
            } = drop;
            format!("  {packets:>6}  {reason:18} {family:6} {protocol:6} {interface}")
        }));
    }

    fn channels(&mut self, report: &Report) {
        let columns = Columns::of(&report.channels);
        let paths = report.channels.iter().map(|row| &row.results);
        if let Some(results) = paths.max_by_key(|results| results.len())
            && results.len() > 1
        {
            let cells = results.iter().map(|(path, _)| (*path).to_owned());
            let line = columns.line("", "", cells.collect());
            self.heading(&format!("{:MARGIN$}{line}", ""));
        }
        for rows in report.groups() {
            self.heading(rows[0].group);
            for row in rows {
                let (mark, colour) = match row.finding() {
                    Finding::Blocked => ("✓", GREEN),
                    Finding::Leaked => ("✗", RED),
                    Finding::OutOfScope => ("~", YELLOW),
                    Finding::Unavailable | Finding::HostOnly => ("?", YELLOW),
                };
                let mark = self.paint(colour, mark);
                let cells = row.results.iter().map(|(_, trial)| {
                    // Painted when it has its width. A leak's is the longest, and takes the
                    // room of its reasons.
                    let word = format!("{:width$}", row.word(trial), width = columns.result);
                    let room = columns.cell.saturating_sub(word.chars().count() + 1);
                    let colour = match row.of(trial) {
                        Finding::Blocked => GREEN,
                        Finding::Leaked => RED,
                        Finding::OutOfScope | Finding::Unavailable | Finding::HostOnly => YELLOW,
                    };
                    let reasons = trial.reasons_within(room);
                    format!("{} {reasons:room$}", self.paint(colour, &word))
                });
                let line = columns.line(row.channel.name, row.channel.how, cells.collect());
                self.lines.push(format!("  {mark} {line}"));
            }
        }
    }

    /// What has no room in a table, in full.
    fn notes(&mut self, rows: &[Row]) {
        for (finding, heading) in [
            (Finding::Leaked, "Leaked"),
            (
                Finding::OutOfScope,
                "Out of scope: judging packets cannot stop them",
            ),
            (
                Finding::Unavailable,
                "Unavailable: they do not work here without the filter either, and show nothing",
            ),
            (
                Finding::HostOnly,
                "Host only: what a machine can do to its own filter, and a workload behind it cannot",
            ),
        ] {
            let notes: Vec<_> = rows.iter().flat_map(|row| row.notes(finding)).collect();
            if !notes.is_empty() {
                self.heading(heading);
                let names = notes.iter().map(|(name, _)| name.chars().count());
                let width = names.max().unwrap_or_default();
                for (mut name, note) in notes {
                    let room = WIDTH - MARGIN - width - 1;
                    for line in note.iter().flat_map(|text| wrap(text, room)) {
                        self.lines
                            .push(format!("{:MARGIN$}{name:width$} {line}", ""));
                        name.clear();
                    }
                }
            }
        }
    }
}

impl Row {
    /// What is to be said where this came out, under the channel's name; once if it is
    /// the same on all paths.
    fn notes(&self, finding: Finding) -> Vec<(String, Vec<String>)> {
        let on: Vec<_> = self
            .results
            .iter()
            .filter(|(_, trial)| self.of(trial) == finding)
            .collect();
        let note = |paths: &[&(Path, Trial)]| {
            // Of a host, they say it themselves.
            let name = match (paths, finding) {
                (_, Finding::HostOnly) => self.channel.name.to_owned(),
                _ if paths.len() == self.results.len() => self.channel.name.to_owned(),
                (paths, _) => self.name_on(paths[0].0),
            };
            (name, self.note(paths))
        };
        let is_same = on.windows(2).all(|pair| pair[0].1.why() == pair[1].1.why());
        if on.len() == self.results.len() && is_same {
            return vec![note(&on)];
        }
        on.iter().map(|one| note(&[*one])).collect()
    }

    fn note(&self, paths: &[&(Path, Trial)]) -> Vec<String> {
        let arrived = || {
            let mut told: Vec<_> = paths
                .iter()
                .map(|(_, trial)| bytes(trial.arrived()))
                .collect();
            told.dedup();
            match &told[..] {
                [one] => format!("{one} arrived"),
                _ => {
                    let of = |(path, trial): &&(Path, Trial)| {
                        format!("{} ({path})", bytes(trial.arrived()))
                    };
                    let told: Vec<_> = paths.iter().map(of).collect();
                    format!("{} arrived", told.join(" and "))
                }
            }
        };
        let why = paths.first().and_then(|(_, trial)| trial.why());
        match (why, self.channel.aim) {
            (Some(why), _) => vec![why.to_owned()],
            (None, Aim::Stop) => vec![
                format!("{} by {}", arrived(), self.channel.how),
                format!("seen in: {}", self.channel.seen_in),
            ],
            (None, Aim::OutOfScope { why, remedy }) => {
                vec![format!("{}: {why}", arrived()), format!("remedy: {remedy}")]
            }
        }
    }
}

/// How wide the columns of the channels are.
struct Columns {
    name: usize,
    /// Where there are several paths, the table has room for their results only.
    how: Option<usize>,
    result: usize,
    /// A result and its reasons.
    cell: usize,
}

impl Columns {
    fn of(rows: &[Row]) -> Self {
        let longest = |texts: &mut dyn Iterator<Item = String>| {
            let widths = texts.map(|text| text.chars().count());
            widths.max().unwrap_or_default()
        };
        let trials = || {
            rows.iter()
                .flat_map(|row| row.results.iter().map(move |(_, it)| (row, it)))
        };
        let paths = rows
            .iter()
            .map(|row| row.results.len())
            .max()
            .unwrap_or(1)
            .max(1);
        let name = longest(&mut rows.iter().map(|row| row.channel.name.to_owned())).min(NAME);
        let stopped = trials().filter(|(row, trial)| row.of(trial) != Finding::Leaked);
        let result = longest(&mut stopped.map(|(row, trial)| row.word(trial)));
        let wanted = |(row, trial): (&Row, &Trial)| {
            let word = row.word(trial).chars().count().max(result);
            word + 1 + trial.reasons().chars().count().min(REASONS)
        };
        let cell = trials().map(wanted).max().unwrap_or_default();
        let room = WIDTH - MARGIN - name;
        let (how, cell) = match paths {
            1 => (Some(room.saturating_sub(2 + cell)), cell),
            _ => (None, cell.min((room / paths).saturating_sub(1))),
        };
        Self {
            name,
            how,
            result,
            cell,
        }
    }

    /// Cells are as wide as they are to be, but for escape sequences, or shorter.
    fn line(&self, name: &str, how: &str, cells: Vec<String>) -> String {
        let mut line = format!("{:width$}", cut(name, self.name), width = self.name);
        if let Some(width) = self.how {
            line += &format!(" {:width$}", clip(how, width));
        }
        let width = self.cell;
        for cell in cells {
            line += &format!(" {cell:width$}");
        }
        line.trim_end().to_owned()
    }
}
