//! The command line: what was typed, what it means, and how it ends.

use std::{
    io::{self, ErrorKind, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde::Serialize;

use crate::{
    causes, compile,
    daemon::loaded,
    explain as explaining, interfaces, policy,
    tags::store::{self, Store},
};

mod check;
mod columns;
mod confirm;
mod detach;
mod doctor;
mod events;
mod explain;
mod interrupt;
pub mod lab;
mod reload;
mod run;
mod status;
mod suggest;
mod tags;
mod top;

/// The answer is no: a destination is denied, nothing is in force.
const NO: u8 = 1;
/// Wrong usage or wrong policy.
const WRONG: u8 = 2;
/// The system refused: permissions, kernel.
const REFUSED: u8 = 3;

/// Lets data leave this machine only for approved places
///
/// Exit codes: 0 done; 1 the answer is no; 2 wrong usage or wrong policy;
/// 3 the system refused (permissions, kernel).
#[derive(Debug, Parser)]
#[command(name = "netfilter-daemon", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Doctor(doctor::Doctor),
    Explain(explain::Explain),
    Status(status::Status),
    Events(events::Events),
    Top(top::Top),
    Suggest(suggest::Suggest),
    Reload(reload::Reload),
    Confirm(confirm::Confirm),
    Tags(tags::Tags),
    Detach(detach::Detach),
    Lab(lab::Lab),
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Check(check) => check.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Explain(explain) => explain.run(),
        Command::Status(status) => status.run(),
        Command::Events(events) => events.run(),
        Command::Top(top) => top.run(),
        Command::Suggest(suggest) => suggest.run(),
        Command::Reload(reload) => reload.run(),
        Command::Confirm(confirm) => confirm.run(),
        Command::Tags(tags) => tags.run(),
        Command::Detach(detach) => detach.run(),
        Command::Lab(lab) => lab.run(),
    };
    result.unwrap_or_else(|error| {
        complain(&told(&error));
        ExitCode::from(code(&error))
    })
}

/// Where a daemon is seen if nobody says otherwise.
const LISTEN: &str = "127.0.0.1:9477";

#[derive(Debug, Args)]
struct StateDir {
    /// Where the filter is pinned; each network namespace can have its own
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/netfilter")]
    state_dir: PathBuf,
}

/// `60s`, `5m`, `1h`; a bare number is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let (number, seconds) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) if text.ends_with('h') => (number, 3600),
        Some(number) if text.ends_with('m') => (number, 60),
        Some(number) => (number, 1),
        None => (text, 1),
    };
    number
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .filter(|seconds| (1..=86_400).contains(seconds))
        .map(|seconds| Duration::from_secs(seconds.into()))
        .ok_or_else(|| "write a time between 1s and 24h, such as 60s or 5m".to_owned())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_error| "write an address and a port, such as 127.0.0.1:9477".to_owned())
}

#[derive(Debug, Args)]
struct TagsDir {
    /// Where the last good lists of service tags are kept; daemons can share it
    #[arg(long, value_name = "DIR", default_value = store::DIRECTORY)]
    tags_dir: PathBuf,
}

impl TagsDir {
    fn store(&self) -> Store {
        Store::new(&self.tags_dir)
    }
}

/// A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Nobody needs to read it.
fn complain(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// What is wrong with a policy begins with its place, as compilers write it.
fn told(error: &anyhow::Error) -> String {
    let prefix = if error.is::<loaded::Error>() {
        ""
    } else {
        "error: "
    };
    format!("{prefix}{}", causes::told(error))
}

fn code(error: &anyhow::Error) -> u8 {
    let system = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(policy::Error::System { .. }))
            || matches!(
                cause.downcast_ref(),
                Some(loaded::Error::Policy(policy::Error::System { .. }))
            )
            || matches!(cause.downcast_ref(), Some(interfaces::Error::List(_)))
    };
    let wrong = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<loaded::Error>()
            || cause.is::<policy::Error>()
            || cause.is::<compile::Error>()
            || cause.is::<interfaces::Error>()
            || cause.is::<explaining::Error>()
    };
    match error.chain().any(system) {
        false if error.chain().any(wrong) => WRONG,
        _ => REFUSED,
    }
}

#[cfg(test)]
mod tests;
