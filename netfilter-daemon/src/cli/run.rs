//! `netfilter-daemon run`

use std::{
    io::{IsTerminal, Write, stderr},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use super::{NO, StateDir, TagsDir, columns::columns, print};
use crate::{
    daemon::{
        Daemon, End, Setup,
        groundwork::Groundwork,
        loaded,
        opening::{self, Opening},
    },
    interfaces::{self, Choice, Interface, Places},
    policy::Mode,
    sessions::Owners,
    tags::{self, Outcome, store::Store},
};

/// Put a policy into force and look after it
///
/// Stays in the foreground and logs to stderr (RUST_LOG sets what: error,
/// warn, info, debug). Prints one line that begins with `enforcing on`, or in
/// audit with `auditing on`, once packets are filtered.
///
/// The policy is read again on SIGHUP, on `reload`, and when its file changes;
/// a wrong one is refused whole, and what was in force remains. Lists of service
/// tags that the policy names by address are fetched before anything is filtered
/// if none is stored, and refreshed at the policy's interval. When the daemon
/// ends, however it ends, the filter stays in force; `detach` lifts it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo netfilter-daemon run --policy /etc/netfilter/policy.yaml\n  \
    sudo netfilter-daemon run --policy policy.yaml --interface eth0 --audit\n  \
    sudo netfilter-daemon run --policy policy.yaml --confirm 60s")]
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

    #[command(flatten)]
    tags_dir: TagsDir,

    /// Let everything pass; count and report what would be dropped
    #[arg(long)]
    pub(super) audit: bool,

    /// Read and compile the policy, say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Put the state before back unless `netfilter-daemon confirm` follows within this
    /// time (60s, 5m), as routers do; nobody locks himself out for longer
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    confirm: Option<Duration>,

    /// Lift the filter when the daemon ends; for labs
    #[arg(long)]
    pub(super) detach_on_exit: bool,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.tags_dir.store();
        if !self.dry_run {
            fetch_missing(&self.policy, &store)?;
        }
        let loaded = loaded::load(&self.policy, self.audit, &store)?;
        let named = loaded.policy.interfaces.as_deref();
        let present = interfaces::present()?;
        let workloads = &loaded.policy.workloads;
        let choice = interfaces::choose(&self.interfaces, named, workloads, &present)?;
        if self.dry_run {
            let opening = runtime()?.block_on(opening::look(&loaded, &Owners::look()));
            let opening = opening.context("cannot read the table of connections")?;
            print(&plan(&loaded, &choice, &present, &opening))?;
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
            tags: store,
            audit: self.audit,
            detach_on_exit: self.detach_on_exit,
            confirm_within: self.confirm,
        };
        let groundwork = Groundwork::lay(&setup)?;
        let runtime = runtime()?;
        let done = runtime.block_on(async {
            let daemon = Daemon::start(setup, loaded, choice, groundwork).await?;
            // Nobody needs to read it.
            writeln!(stderr(), "{}", daemon.announcement()).ok();
            daemon.run().await
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(match done? {
            End::Unconfirmed => ExitCode::from(NO),
            End::Signal | End::Detached => ExitCode::SUCCESS,
        })
    }
}

/// Lists of service tags that were never fetched; whatever else is stored is used as it
/// is. What an earlier daemon left in force stays so meanwhile.
fn fetch_missing(policy: &Path, store: &Store) -> anyhow::Result<()> {
    let missing = tags::missing(policy, store).map_err(loaded::Error::from)?;
    let is_missing = |url: &str| missing.iter().any(|missing| missing == url);
    let updates = tags::update(policy, store, is_missing, false).map_err(loaded::Error::from)?;
    for update in updates {
        if let Outcome::Failed(why) = update.outcome {
            bail!(
                "a list of service tags is needed, and none is stored: {why}; nothing was changed"
            );
        }
    }
    Ok(())
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// What would be done.
fn plan(
    loaded: &loaded::Loaded,
    choice: &Choice,
    present: &[Interface],
    opening: &Opening,
) -> String {
    let (verb, cut) = match loaded.policy.mode {
        Mode::Enforce => ("enforce", "would be cut"),
        Mode::Report => ("audit, letting everything pass,", "would be counted"),
    };
    let rules = loaded.policy.rules.len();
    let Places { uplinks, workloads } = choice.places(present);
    let interfaces = [uplinks, workloads].concat().join(", ");
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
    let mut plan = format!(
        "would {verb} {rules} rules on {interfaces} (chosen by {})\n{rows}",
        choice.by
    );
    let total = opening.kept + opening.cut.len();
    if opening.cut.is_empty() {
        plan.push_str(&format!("{total} connections are open, and none {cut}\n"));
    } else {
        plan.push_str(&format!(
            "{} of {total} open connections {cut}:\n",
            opening.cut.len()
        ));
        for told in &opening.cut {
            plan.push_str(&format!("  {told}\n"));
        }
        if loaded
            .image
            .names
            .iter()
            .any(|name| name.pattern.is_wildcard() && !name.set.is_empty())
        {
            plan.push_str(
                "  (addresses of wildcard names are not known before somebody asks for such a name)\n",
            );
        }
    }
    plan.push_str("nothing was changed\n");
    plan
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        // Where a line cannot be written, another one cannot be, either.
        .log_internal_errors(false)
        .init();
}
