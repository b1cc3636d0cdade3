//! `netfilter-daemon lab`

use std::{
    io::{IsTerminal, stdout},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;

use super::{NO, REFUSED, WRONG, print, print_json};
use crate::lab::{self, battery, daemon};

/// Show on this machine what a policy lets out
///
/// Makes a small network of its own, in namespaces, with a DNS server and
/// an answer at every address; starts this program in it with the policy; and
/// tries to reach what the policy allows and what it does not, by address and
/// by name, over IPv4 and IPv6. Every attempt is made without the filter first:
/// what does not work then shows nothing and is called unavailable.
///
/// Needs root, and the command `ip`. The machine's own interfaces are not
/// touched, and nothing is left behind, however the lab ends.
///
/// Exit code: 0 when all came out as the policy says, 1 when not.
#[derive(Debug, Args)]
#[command(after_help = "Example: sudo netfilter-daemon lab --policy /etc/netfilter/policy.yaml")]
pub(super) struct Lab {
    /// The policy to show [default: one of the lab's own, with the preset azure-ml]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Lab {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let stage = |what: &str| eprintln!("lab: {what}");
        let all = battery::all().enumerate();
        let chosen: Vec<usize> = all.map(|(index, _)| index).collect();
        let report = match lab::run(self.policy.as_deref(), &chosen, &stage) {
            Ok(report) => report,
            Err(error) => {
                match error {
                    // It begins with its place, as compilers write it.
                    lab::Error::Policy(_) => eprintln!("{error}"),
                    _ => eprintln!("error: {error}"),
                }
                return Ok(ExitCode::from(code(&error)));
            }
        };
        if self.json {
            print_json(&report)?;
        } else {
            print(&report.to_text(stdout().is_terminal()))?;
        }
        Ok(if report.as_expected() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(NO)
        })
    }
}

/// That of the daemon, where it is the daemon that refused.
fn code(error: &lab::Error) -> u8 {
    match error {
        lab::Error::Policy(_) => WRONG,
        lab::Error::Daemon(daemon::Error::Ended { status, .. }) => match status.code() {
            Some(2) => WRONG,
            _ => REFUSED,
        },
        _ => REFUSED,
    }
}
