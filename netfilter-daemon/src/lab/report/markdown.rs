//! The report as Markdown, for a wiki or a pull request.

use crate::lab::battery::Aim;

use super::{Finding, Report, probes, words::bytes};

impl Report {
    pub fn to_markdown(&self) -> String {
        let mut lines = vec!["## netfilter-daemon lab".to_owned()];
        if let Some(policy) = &self.policy {
            lines.extend([String::new(), bold(&policy.summary())]);
            if let Some(why) = &policy.no_drops {
                lines.extend([
                    String::new(),
                    format!("`/metrics` cannot be read: {}", plain(why)),
                ]);
            }
        }
        if !self.channels.is_empty() {
            for summary in self.summaries() {
                lines.extend([String::new(), bold(&summary)]);
            }
            lines.push(String::new());
            self.channels_to(&mut lines);
        }
        self.probes_to(&mut lines);
        lines.join("\n") + "\n"
    }

    fn channels_to(&self, lines: &mut Vec<String>) {
        lines.push(row(&["group", "channel", "how", "result", "drop reasons"]));
        lines.push(row(&["---"; 5]));
        for channel in &self.channels {
            for (path, trial) in &channel.results {
                let result = match (channel.of(trial), trial.why(), channel.channel.aim) {
                    (Finding::Blocked, ..) => "blocked".to_owned(),
                    (Finding::Leaked, ..) => bold(&channel.word(trial)),
                    (_, Some(why), _) => format!("{}: {}", channel.word(trial), plain(why)),
                    (_, None, Aim::OutOfScope { why, remedy }) => format!(
                        "out of scope, {} arrived: {}. Remedy: {}",
                        bytes(trial.arrived()),
                        plain(why),
                        plain(remedy)
                    ),
                    (_, None, Aim::Stop) => channel.word(trial),
                };
                lines.push(row(&[
                    channel.group,
                    &format!("`{}`", channel.name_on(path)),
                    &plain(channel.channel.how),
                    &result,
                    &plain(&trial.reasons()),
                ]));
            }
        }
    }

    fn probes_to(&self, lines: &mut Vec<String>) {
        let Some(policy) = &self.policy else { return };
        let heading = "<details><summary>The policy's probes</summary>";
        lines.extend(["", heading, ""].map(str::to_owned));
        lines.push(row(&["rule", "probe", "destination", "result"]));
        lines.push(row(&["---"; 4]));
        for probe in &policy.probes {
            let result = match probe.finding() {
                probes::Finding::AsExpected => plain(&probe.result()),
                _ => bold(&plain(&probe.result())),
            };
            lines.push(row(&[
                &plain(&probe.group),
                probe.what,
                &plain(&probe.line),
                &result,
            ]));
        }
        lines.extend(["", "</details>"].map(str::to_owned));
    }
}

fn row(cells: &[&str]) -> String {
    format!("| {} |", cells.join(" | "))
}

fn bold(text: &str) -> String {
    format!("**{text}**")
}

/// A text without anything that Markdown or HTML would take for their own.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '|' | '*' | '_' | '`' | '[' | ']' | '<' | '>' | '\\' | '~' => {
                plain.extend(['\\', character]);
            }
            '\n' | '\r' => plain.push(' '),
            _ => plain.push(character),
        }
    }
    plain
}
