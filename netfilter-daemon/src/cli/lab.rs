//! `netfilter-daemon lab`

use std::{
    io::{IsTerminal, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};

mod elsewhere;
mod progress;
mod sink;

use super::{NO, REFUSED, StateDir, WRONG, complain, print, print_json};
use crate::lab::{
    self, daemon,
    remote::Host,
    report::Report,
    selection::{Only, Selection},
};
use progress::Progress;

/// Show on this machine what a policy lets out
///
/// Makes a small network of its own, in namespaces, with a DNS server and
/// an answer at every address; starts this program in it with the policy; and
/// tries to reach what the policy allows and what it does not, by address and
/// by name, over IPv4 and IPv6. Then each of many channels by which data is known
/// to be carried out tries to move a secret of 64 KiB, which is checked at the
/// far end. Every attempt is made without the filter first: what does not work then
/// shows nothing and is called unavailable.
///
/// Needs root, and the command `ip`. The machine's own interfaces are not
/// touched, and nothing is left behind, however the lab ends.
///
/// With --sink, channels are tried on the machine as it is, against `lab sink` on
/// another one; what that does is said before, and is done when you agree.
///
/// Exit code: 0 when nothing leaked and all came out as the policy says, 1 when not.
/// Channels that are unavailable or out of scope are shown, and do not count.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo netfilter-daemon lab --policy /etc/netfilter-daemon/policy.yaml\n  \
    sudo netfilter-daemon lab --only policy,dns-* --json\n  \
    sudo netfilter-daemon lab --sink 192.0.2.7 --policy policy.yaml\n  \
    netfilter-daemon lab --list")]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Lab {
    #[command(subcommand)]
    command: Option<Command>,

    /// The policy to show [default: one of the lab's own, with the preset azure-ml]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// Run these only: channels and groups by name, * for anything, `policy` for the
    /// probes of the policy's rules; may be repeated [default: everything]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<Only>,

    /// Name the channels, how they work and where they were seen, and do nothing
    #[arg(long, conflicts_with_all = ["markdown", "junit", "policy"])]
    list: bool,

    #[command(flatten)]
    form: Form,

    /// Try the channels against `lab sink` on another machine; may be repeated, for
    /// its address of the other family
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        value_delimiter = ',',
        requires = "policy"
    )]
    #[arg(conflicts_with = "list")]
    sink: Vec<Host>,

    /// With --sink: do not ask before this machine is touched
    #[arg(long, requires = "sink")]
    yes: bool,

    #[command(flatten)]
    state_dir: StateDir,
}

#[derive(Debug, Subcommand)]
enum Command {
    Sink(sink::Listen),
}

/// What the report is printed as.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Form {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    /// Print the report as Markdown, for a wiki or a pull request
    #[arg(long)]
    markdown: bool,

    /// Print the report as JUnit XML, for CI: what leaked failed, what is unavailable
    /// or out of scope was skipped
    #[arg(long)]
    junit: bool,
}

impl Lab {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(Command::Sink(sink)) = self.command {
            return sink.run();
        }
        let selection = Selection::of(&self.only);
        if self.list {
            match self.form.json {
                true => print_json(&selection.to_json())?,
                false => print(&selection.to_text())?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        if !self.sink.is_empty() {
            return self.elsewhere(selection);
        }
        let progress = Progress::new(stderr(), stderr().is_terminal());
        let ran = lab::run(self.policy.as_deref(), &selection, &|step| {
            progress.tell(step)
        });
        progress.end();
        let report = match ran {
            Ok(report) => report,
            Err(error) => return Ok(refusal(&error)),
        };
        self.conclude(&report)
    }

    fn conclude(&self, report: &Report) -> anyhow::Result<ExitCode> {
        self.form.print(report)?;
        Ok(match report.as_expected() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(NO),
        })
    }
}

impl Form {
    fn print(&self, report: &Report) -> anyhow::Result<()> {
        match self {
            Self { json: true, .. } => print_json(report),
            Self { markdown: true, .. } => print(&report.to_markdown()),
            Self { junit: true, .. } => print(&report.to_junit()),
            _ => print(&report.to_text(stdout().is_terminal())),
        }
    }
}

fn refusal(error: &lab::Error) -> ExitCode {
    match error {
        // It begins with its place, as compilers write it.
        lab::Error::Policy(_) => complain(&error.to_string()),
        _ => complain(&format!("error: {error}")),
    }
    ExitCode::from(code(error))
}

/// That of the daemon, where it is the daemon that refused.
fn code(error: &lab::Error) -> u8 {
    match error {
        lab::Error::Policy(_) => WRONG,
        lab::Error::Daemon(error) => code_of(error),
        _ => REFUSED,
    }
}

fn code_of(error: &daemon::Error) -> u8 {
    match error {
        daemon::Error::Ended { status, .. } if status.code() == Some(WRONG.into()) => WRONG,
        _ => REFUSED,
    }
}
