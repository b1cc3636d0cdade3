//! `netfilter-daemon confirm`

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::{NO, REFUSED, StateDir, print, print_json};
use crate::control::{self, Answer, Fault, Request};

/// Keep the policy that `run --confirm` or `reload --confirm` put into force
///
/// Exit code: 0 confirmed, 1 nothing waits to be confirmed, or it is too late.
#[derive(Debug, Args)]
#[command(after_help = "Example: sudo netfilter-daemon confirm")]
pub(super) struct Confirm {
    #[command(flatten)]
    state_dir: StateDir,

    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Confirm {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let state_dir = &self.state_dir.state_dir;
        let Some(answer) = control::ask(state_dir, Request::Confirm)? else {
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
        match answer {
            Answer::Confirmed { generation } => {
                if !self.json {
                    print(&format!(
                        "confirmed: generation {generation} stays in force\n"
                    ))?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Answer::Failed { error, fault } => {
                eprintln!("{error}");
                Ok(ExitCode::from(match fault {
                    Fault::Nothing => NO,
                    Fault::Policy | Fault::System => REFUSED,
                }))
            }
            other => bail!("the daemon gave another answer: {other:?}"),
        }
    }
}
