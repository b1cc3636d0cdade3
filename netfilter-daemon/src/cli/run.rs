//! `netfilter-daemon run`

use std::{
    io::{IsTerminal, stderr},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use tracing_subscriber::EnvFilter;

use super::{StateDir, columns::columns, print};
use crate::{
    daemon::{Daemon, Setup, loaded},
    interfaces::{self, Choice, Interface},
    policy::Mode,
};

/// Put a policy into force and look after it
///
/// Stays in the foreground and logs to stderr (RUST_LOG sets what: error,
/// warn, info, debug). Prints one line that begins with `enforcing on`, or in
/// audit with `auditing on`, once packets are filtered.
///
/// The policy is read again on SIGHUP, on `reload`, and when its file changes;
/// a wrong one is refused whole, and what was in force remains. When the daemon
/// ends, however it ends, the filter stays in force; `detach` lifts it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo netfilter-daemon run --policy /etc/netfilter/policy.yaml\n  \
    sudo netfilter-daemon run --policy policy.yaml --interface eth0 --audit")]
pub(super) struct Run {
    /// The policy file
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,

    /// An interface to filter; may be repeated [default: those of the policy, else
    /// every one by which a packet can leave; `--dry-run` says which, and why]
    #[arg(long = "interface", value_name = "IF")]
    pub(super) interfaces: Vec<String>,

    /// Where /metrics and /healthz are served
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9477")]
    pub(super) listen: SocketAddr,

    #[command(flatten)]
    pub(super) state_dir: StateDir,

    /// Let everything pass; count and report what would be dropped
    #[arg(long)]
    pub(super) audit: bool,

    /// Read and compile the policy, say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Lift the filter when the daemon ends; for labs
    #[arg(long)]
    pub(super) detach_on_exit: bool,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = loaded::load(&self.policy, self.audit)?;
        let named = loaded.policy.interfaces.as_deref();
        let present = interfaces::present()?;
        let choice = interfaces::choose(&self.interfaces, named, &present)?;
        if self.dry_run {
            print(&plan(&loaded, &choice, &present))?;
            return Ok(ExitCode::SUCCESS);
        }
        log_to_stderr();
        for note in &loaded.policy.notes {
            tracing::warn!("{note}");
        }
        let setup = Setup {
            policy: self.policy,
            listen: self.listen,
            state_dir: self.state_dir.state_dir,
            audit: self.audit,
            detach_on_exit: self.detach_on_exit,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let done = runtime.block_on(async {
            let daemon = Daemon::start(setup, loaded, choice).await?;
            eprintln!("{}", daemon.announcement());
            daemon.run().await
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// What would be done.
fn plan(loaded: &loaded::Loaded, choice: &Choice, present: &[Interface]) -> String {
    let verb = match loaded.policy.mode {
        Mode::Enforce => "enforce",
        Mode::Report => "audit, letting everything pass,",
    };
    let rules = loaded.policy.rules.len();
    let interfaces = choice.names.join(", ");
    let rows = present.iter().map(|interface| {
        let coverage = interfaces::coverage(interface, present, choice);
        let filtered = if coverage.is_covered() {
            "filtered"
        } else {
            "not filtered"
        };
        [
            interface.name.escape_debug().to_string(),
            filtered.to_owned(),
            coverage.reason(),
        ]
    });
    let rows = columns(&rows.collect::<Vec<_>>(), &[0]);
    format!(
        "would {verb} {rules} rules on {interfaces} (chosen by {})\n{rows}nothing was changed\n",
        choice.by
    )
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .init();
}
