//! What is seen while the lab runs.

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
};

use crate::lab::Step;

/// Of a line that is written again and again; longer ones would wrap and stay.
const WIDTH: usize = 79;

/// On a terminal one line that is rewritten; elsewhere a line for each stage.
pub(super) struct Progress<W> {
    out: Mutex<W>,
    terminal: bool,
}

impl<W: Write> Progress<W> {
    pub(super) fn new(out: W, terminal: bool) -> Self {
        Self {
            out: Mutex::new(out),
            terminal,
        }
    }

    pub(super) fn tell(&self, step: Step<'_>) {
        let line = match step {
            Step::Stage(what) => format!("lab: {what}"),
            Step::Channel { .. } if !self.terminal => return,
            Step::Channel {
                name,
                pass,
                done,
                all,
            } => format!("lab: {pass}: channel {} of {all}, {name}", done + 1),
        };
        match self.terminal {
            true => {
                let line: String = line.chars().take(WIDTH).collect();
                self.write(&format!("\r\x1b[K{line}"));
            }
            false => self.write(&format!("{line}\n")),
        }
    }

    /// Leaves the place to the report.
    pub(super) fn end(&self) {
        if self.terminal {
            self.write("\r\x1b[K");
        }
    }

    /// Nobody needs to see it.
    fn write(&self, text: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(terminal: bool) -> String {
        let progress = Progress::new(Vec::new(), terminal);
        progress.tell(Step::Stage("without the filter"));
        for (done, name) in ["dns-txt", "dns-null"].into_iter().enumerate() {
            progress.tell(Step::Channel {
                name,
                pass: "without the filter",
                done,
                all: 2,
            });
        }
        progress.tell(Step::Stage(&"x".repeat(100)));
        progress.end();
        String::from_utf8(progress.out.into_inner().unwrap()).unwrap()
    }

    #[test]
    fn on_a_terminal_one_line_is_rewritten_and_gone_in_the_end() {
        let long = format!("lab: {}", "x".repeat(WIDTH - 5));
        assert_eq!(
            told(true),
            format!(
                "\r\x1b[Klab: without the filter\
                 \r\x1b[Klab: without the filter: channel 1 of 2, dns-txt\
                 \r\x1b[Klab: without the filter: channel 2 of 2, dns-null\
                 \r\x1b[K{long}\r\x1b[K"
            )
        );
    }

    #[test]
    fn on_a_pipe_every_stage_has_a_line_and_no_channel_has() {
        let long = "x".repeat(100);
        assert_eq!(
            told(false),
            format!("lab: without the filter\nlab: {long}\n")
        );
    }
}
