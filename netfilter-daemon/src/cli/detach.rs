//! `netfilter-daemon detach`

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::{StateDir, print, print_json};
use crate::{
    control::{self, Answer, Request},
    daemon::status::Place,
    datapath,
};

/// Lift the filter
///
/// The one way to do so: packets pass again, and the daemon, if one runs,
/// ends.
#[derive(Debug, Args)]
#[command(after_help = "Example: sudo netfilter-daemon detach")]
pub(super) struct Detach {
    #[command(flatten)]
    state_dir: StateDir,

    /// Print what was lifted as JSON
    #[arg(long)]
    json: bool,
}

impl Detach {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (lifted, by) = self.detach()?;
        if self.json {
            print_json(&Answer::Detached {
                lifted: lifted.clone(),
            })?;
        } else {
            print(&text(&lifted, by))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn detach(&self) -> anyhow::Result<(Vec<Place>, By)> {
        let state_dir = &self.state_dir.state_dir;
        match control::ask(state_dir, Request::Detach)? {
            Some(Answer::Detached { lifted }) => Ok((lifted, By::Daemon)),
            Some(Answer::Failed { error, .. }) => {
                bail!("the daemon could not lift the filter: {error}")
            }
            Some(other) => bail!("the daemon gave another answer: {other:?}"),
            None => {
                // Held until the end, so that no daemon starts in between.
                let _claim = control::claim(state_dir)?;
                let lifted = datapath::detach(state_dir)?;
                Ok((lifted.into_iter().map(Place::from).collect(), By::Command))
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum By {
    Daemon,
    Command,
}

fn text(lifted: &[Place], by: By) -> String {
    if lifted.is_empty() {
        return "nothing was in force\n".to_owned();
    }
    let mut text = String::new();
    for Place { interface, hook } in lifted {
        text.push_str(&format!("lifted on {interface} ({hook})\n"));
    }
    text.push_str(match by {
        By::Daemon => "every packet passes now; the daemon has ended\n",
        By::Command => "every packet passes now; no daemon was running\n",
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lifted_is_said() {
        let place = |interface: &str, hook: &str| Place {
            interface: interface.to_owned(),
            hook: hook.to_owned(),
        };
        let lifted = [place("eth0", "tcx"), place("eth1", "clsact")];
        assert_eq!(
            text(&lifted, By::Daemon),
            "lifted on eth0 (tcx)\nlifted on eth1 (clsact)\n\
             every packet passes now; the daemon has ended\n"
        );
        assert_eq!(text(&[], By::Command), "nothing was in force\n");
    }
}
