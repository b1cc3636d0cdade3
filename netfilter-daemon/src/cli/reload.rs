//! `netfilter-daemon reload`

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Args;

use super::{NO, REFUSED, StateDir, WRONG, print, print_json};
use crate::control::{self, Answer, Fault, Request};

/// Have the running daemon read its policy again
///
/// All or nothing: a policy that is wrong is refused, with the place of what
/// is wrong, and what was in force remains. Files of service tags that have
/// changed are taken unless `tags update` would refuse them; then the last good
/// list stays, and `tags update --force` accepts one that is meant to be smaller.
///
/// Exit code: 0 reloaded, 1 no daemon runs, 2 the policy is wrong, 3 reloaded, but
/// a file of service tags was refused.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo netfilter-daemon reload\n  \
    sudo netfilter-daemon reload --confirm 60s && sudo netfilter-daemon confirm")]
pub(super) struct Reload {
    #[command(flatten)]
    state_dir: StateDir,

    /// Put the former policy back unless `netfilter-daemon confirm` follows within this
    /// time (60s, 5m), as routers do
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    confirm: Option<Duration>,

    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Reload {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let state_dir = &self.state_dir.state_dir;
        let request = Request::Reload {
            confirm: self.confirm.map(|within| within.as_secs()),
        };
        let Some(answer) = control::ask(state_dir, request)? else {
            eprintln!(
                "no daemon runs with the state directory {}; `netfilter-daemon run`, or \
                 `systemctl start netfilter-daemon`, starts one",
                state_dir.display()
            );
            return Ok(ExitCode::from(NO));
        };
        if self.json {
            print_json(&answer)?;
        }
        let code = told(&answer, self.json)?;
        if let (Some(within), Answer::Reloaded { .. }, false) = (self.confirm, &answer, self.json) {
            print(&format!(
                "unless `netfilter-daemon confirm` follows within {} s, the former policy comes back\n",
                within.as_secs()
            ))?;
        }
        Ok(code)
    }
}

/// What a person reads; nothing of success where `json` is printed.
pub(super) fn told(answer: &Answer, json: bool) -> anyhow::Result<ExitCode> {
    match answer {
        Answer::Reloaded {
            rules,
            generation,
            refused,
        } => {
            if !json {
                print(&format!(
                    "reloaded: {rules} rules, generation {generation}\n"
                ))?;
            }
            for refused in refused {
                eprintln!("{refused}");
            }
            Ok(match refused.is_empty() {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(REFUSED),
            })
        }
        Answer::Failed { error, fault } => {
            eprintln!("{error}\nnot reloaded; the former policy remains in force");
            Ok(ExitCode::from(match fault {
                Fault::Policy => WRONG,
                Fault::System => REFUSED,
                Fault::Nothing => NO,
            }))
        }
        other => bail!("the daemon gave another answer: {other:?}"),
    }
}
