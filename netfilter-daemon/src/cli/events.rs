//! `netfilter-daemon events`

use std::process::{self, ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::{NO, StateDir, interrupt::when_interrupted, print};
use crate::{
    control::{self, Answer, Request},
    daemon::{event, history::KEPT},
    moment,
};

mod filter;

use filter::Filter;

const SCHEMA: &str = include_str!("events/schema.json");

/// Show what was denied, or would have been
///
/// Packets, DNS questions and sockets since the daemon's start, oldest first, each
/// packet with who sent it, and the name that its destination was last resolved
/// from. The daemon keeps the last 4096. The kernel reports 150 at once and 2 in a
/// second for each process (without a socket: for each address), 600 at once and 10
/// in a second for each user and cgroup, and says of how many more it did not.
///
/// With --json each line is an object: an event, or {"skipped": N} in the place
/// of N that are not kept. Fields may be added; --schema describes them.
///
/// Options of one kind widen, of several kinds narrow what is shown.
///
/// Exit code 1 when no daemon runs, or no longer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo netfilter-daemon events\n  \
    sudo netfilter-daemon events --process curl --destination example.com\n  \
    sudo netfilter-daemon events --follow --json | jq .sender")]
pub(super) struct Events {
    #[command(flatten)]
    state_dir: StateDir,

    /// Go on with what comes, until interrupted
    #[arg(long, short)]
    follow: bool,

    /// Print each as a line of JSON
    #[arg(long)]
    json: bool,

    /// Print the JSON Schema of a line of --json, and nothing else
    #[arg(long, exclusive = true)]
    schema: bool,

    #[command(flatten)]
    filter: Filter,
}

impl Events {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if self.schema {
            print(SCHEMA)?;
            Ok(ExitCode::SUCCESS)
        } else if self.follow {
            self.follow()
        } else {
            self.show()
        }
    }

    fn show(&self) -> anyhow::Result<ExitCode> {
        let Some(answer) = control::ask(&self.state_dir.state_dir, Request::Events)? else {
            return Ok(self.nobody());
        };
        let events = self.admitted(events(answer)?);
        if events == event::Events::default() && !self.json {
            print(if self.filter.is_empty() {
                "nothing was denied since the daemon's start\n"
            } else {
                "nothing of this was denied since the daemon's start\n"
            })?;
        }
        print(&lines(&events, self.json)?)?;
        Ok(ExitCode::SUCCESS)
    }

    fn follow(&self) -> anyhow::Result<ExitCode> {
        let Some(answers) = control::follow(&self.state_dir.state_dir)? else {
            return Ok(self.nobody());
        };
        // At once, for this thread may be writing to a reader that has stopped, or
        // wait for an event that never comes.
        when_interrupted(|| process::exit(0)).context("cannot wait for signals")?;
        for answer in answers {
            print(&lines(&self.admitted(events(answer?)?), self.json)?)?;
        }
        eprintln!("the daemon has ended");
        Ok(ExitCode::from(NO))
    }

    fn admitted(&self, mut events: event::Events) -> event::Events {
        events.events.retain(|event| self.filter.admits(event));
        events
    }

    fn nobody(&self) -> ExitCode {
        eprintln!(
            "events are kept by the daemon, and none runs with the state directory {}; \
             `netfilter-daemon run` starts one",
            self.state_dir.state_dir.display()
        );
        ExitCode::from(NO)
    }
}

fn events(answer: Answer) -> anyhow::Result<event::Events> {
    match answer {
        Answer::Events(events) => Ok(events),
        Answer::Failed { error, .. } => bail!("the daemon could not tell: {error}"),
        other => bail!("the daemon gave another answer: {other:?}"),
    }
}

fn lines(events: &event::Events, json: bool) -> anyhow::Result<String> {
    let event::Events { skipped, events } = events;
    let mut text = match (skipped, json) {
        (0, _) => String::new(),
        (skipped, true) => format!("{}\n", json!({ "skipped": skipped })),
        (1, false) => format!("1 event was skipped; the daemon keeps the last {KEPT}\n"),
        (skipped, false) => {
            format!("{skipped} events were skipped; the daemon keeps the last {KEPT}\n")
        }
    };
    for event in events {
        match json {
            true => text.push_str(&serde_json::to_string(event)?),
            false => text.push_str(&format!("{} {event}", moment::utc(event.time))),
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
