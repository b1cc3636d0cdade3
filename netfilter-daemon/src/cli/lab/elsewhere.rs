//! `netfilter-daemon lab --sink`

use std::{
    io::{self, IsTerminal, Write, stderr, stdin},
    path::Path,
    process::{self, ExitCode},
};

use super::{Lab, NO, Progress, REFUSED, WRONG, code_of, complain};
use crate::lab::{
    remote::{Error, Lifted, Plan},
    selection::Selection,
};

impl Lab {
    pub(super) fn elsewhere(&self, mut selection: Selection) -> anyhow::Result<ExitCode> {
        selection.policy = false;
        if selection.channels.is_empty() {
            complain(
                "error: the policy's probes need the lab's own network; choose channels, or leave out --sink",
            );
            return Ok(ExitCode::from(WRONG));
        }
        // Clap has seen to it that there is one.
        let policy = self.policy.as_deref().unwrap_or(Path::new(""));
        let plan = match Plan::of(&self.sink, policy, &self.state_dir.state_dir) {
            Ok(plan) => plan,
            Err(error) => return Ok(refusal(&error)),
        };
        complain(plan.told(&selection).trim_end());
        if !self.yes {
            if !stdin().is_terminal() {
                complain("error: nobody can be asked here; say --yes");
                return Ok(ExitCode::from(WRONG));
            }
            if !agreed()? {
                complain("nothing was done");
                return Ok(ExitCode::from(NO));
            }
        }
        let progress = Progress::new(stderr(), stderr().is_terminal());
        let ran = plan.run(&selection, &|step| progress.tell(step), end);
        progress.end();
        match ran {
            Ok(report) => self.conclude(&report),
            Err(error) => Ok(refusal(&error)),
        }
    }
}

fn agreed() -> io::Result<bool> {
    write!(stderr(), "Go on? [y/N] ").ok();
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Somebody interrupts it.
fn end(lifted: Lifted) -> ! {
    match lifted {
        Ok(()) => complain("\nlab: interrupted; no filter is in force"),
        Err(error) => complain(&format!(
            "\nlab: interrupted, and the filter cannot be lifted: {error}"
        )),
    }
    process::exit(REFUSED.into())
}

fn refusal(error: &Error) -> ExitCode {
    match error {
        // It begins with its place, as compilers write it.
        Error::Policy(_) => complain(&error.to_string()),
        _ => complain(&format!("error: {error}")),
    }
    ExitCode::from(match error {
        Error::Policy(_) | Error::NoAddress(_) | Error::Approved { .. } => WRONG,
        Error::Daemon(error) => code_of(error),
        _ => REFUSED,
    })
}
