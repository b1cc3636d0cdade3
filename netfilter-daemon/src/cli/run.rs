//! `netfilter-daemon run`

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use netfilter_ebpf::{abi::Users, packet::TCP};
use tokio::runtime::Runtime;

use super::{NO, StateDir, TagsDir, columns::columns, print};
use crate::{
    bypass::{self, Rights},
    daemon::{
        Daemon, End, Setup,
        groundwork::Groundwork,
        heap,
        loaded::{self, Loaded, Read},
        opening::{self, Opening},
    },
    datapath::{Ground, guard},
    interfaces::{self, By, Choice, Interface, Places},
    log::Log,
    policy::{Mode, Policy, Traffic},
    serve::web::Guard,
    sessions::Owners,
    tags::{self, Outcome, Update, store::Store},
};

/// Put a policy into force and look after it
///
/// Stays in the foreground and logs to stderr (RUST_LOG sets what: error,
/// warn, info, debug). Prints one line that begins with `enforcing on`, or in
/// audit with `auditing on`, once packets are filtered.
///
/// The policy is read again on SIGHUP, on `reload`, and when its file changes;
/// a wrong one is refused whole, and what was in force remains. Lists of service
/// tags that the policy names are fetched or read before anything is filtered
/// if none is stored, and looked at again at the policy's interval. When the daemon
/// ends, however it ends, the filter stays in force; `detach` lifts it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo netfilter-daemon run --policy /etc/netfilter-daemon/policy.yaml\n  \
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

    /// An interface that leads to a container or virtual machine, which is judged where
    /// it enters; may be repeated. Of uplinks, only what --interface names is filtered
    /// then [default: those of the policy]
    #[arg(long = "workload", value_name = "IF")]
    workloads: Vec<String>,

    /// Where the status page, /metrics and /healthz are served
    #[arg(long, value_name = "ADDR:PORT", default_value = super::LISTEN,
        value_parser = super::address)]
    pub(super) listen: SocketAddr,

    /// Who may read there: TLS and passwords, in the web configuration that Prometheus and
    /// its exporters have [default: whoever reaches it]
    #[arg(long, value_name = "FILE")]
    web_config: Option<PathBuf>,

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
        let web = Guard::of(self.web_config.as_deref())?;
        let store = self.tags_dir.store();
        let Read { files, loaded } = match self.dry_run {
            true => Read {
                files: Vec::new(),
                loaded: loaded::preview(&self.policy, self.audit, &store),
            },
            false => {
                fetch_missing(&self.policy, &store)?;
                loaded::load(&self.policy, self.audit, &store)
            }
        };
        let loaded = loaded.map_err(|error| because_of_the_store(error, &files))?;
        let named = loaded.policy.interfaces.as_deref();
        let present = interfaces::present()?;
        let workloads = match &self.workloads[..] {
            [] => (&loaded.policy.workloads[..], By::Policy),
            named => (named, By::CommandLine),
        };
        let choice = interfaces::choose(&self.interfaces, named, workloads, &present)?;
        if self.dry_run {
            let opening = runtime()?.block_on(opening::look(&loaded, &Owners::look()));
            let opening = opening.context("cannot read the table of connections")?;
            print(&plan(&loaded, &choice, &present, &opening))?;
            print(&sockets(loaded.image.users)?)?;
            print("nothing was changed\n")?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut log = Log::to_stderr();
        let remarks = &loaded.policy.remarks;
        for note in remarks.notes.iter().chain(&remarks.warnings) {
            tracing::warn!("{note}");
        }
        if let Some(told) = unanswered(self.listen, &loaded.policy) {
            tracing::warn!("{told}");
        }
        let setup = Setup {
            policy: self.policy,
            listen: self.listen,
            web: Arc::new(web),
            state_dir: self.state_dir.state_dir,
            tags: store,
            audit: self.audit,
            detach_on_exit: self.detach_on_exit,
            confirm_within: self.confirm,
        };
        Ok(match serve(setup, loaded, &files, choice, &mut log) {
            Ok(End::Unconfirmed) => ExitCode::from(NO),
            Ok(End::Signal | End::Detached) => ExitCode::SUCCESS,
            Err(error) => {
                log.say(&super::told(&error));
                ExitCode::from(super::code(&error))
            }
        })
    }
}

/// The policy is not wrong where a list that it names is good, and cannot be stored.
fn because_of_the_store(error: loaded::Error, files: &[Update]) -> anyhow::Error {
    let told = error.to_string();
    let unkept = files.iter().find_map(|file| match &file.outcome {
        Outcome::Unkept(why) if told.contains(why) => Some((&file.source, why)),
        _ => None,
    });
    match unkept {
        Some((source, why)) => anyhow!(
            "the list of service tags {source} is needed, and none is stored: {why}; nothing \
             was changed"
        ),
        None => error.into(),
    }
}

/// Whom the filter would keep from scraping: the daemon's own answers are filtered like all else.
fn unanswered(listen: SocketAddr, policy: &Policy) -> Option<String> {
    let port = listen.port();
    let lets_in = |traffic: &Traffic| traffic.covers(TCP, Some(port));
    let local = listen.ip().is_loopback() || policy.mode == Mode::Report;
    (!local && !policy.inbound.iter().any(lets_in)).then(|| {
        format!(
            "from elsewhere only addresses that a rule allows are answered at {listen}; add \
             `- {{ protocol: TCP, port_ranges: \"{port}\" }}` to `inbound:` in the policy"
        )
    })
}

/// To the daemon's end, whether or not somebody reads its log.
fn serve(
    setup: Setup,
    loaded: Loaded,
    files: &[Update],
    choice: Choice,
    log: &mut Log,
) -> anyhow::Result<End> {
    heap::share();
    let groundwork = Groundwork::lay(&setup)?;
    log.write().context("cannot write a log")?;
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let daemon = Daemon::start(setup, loaded, files, choice, groundwork).await?;
        log.say(daemon.announcement());
        daemon.run().await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Lists of service tags that were never fetched; whatever else is stored is used as it
/// is. What an earlier daemon left in force stays so meanwhile.
fn fetch_missing(policy: &Path, store: &Store) -> anyhow::Result<()> {
    let missing = tags::missing(policy, store).map_err(loaded::Error::from)?;
    let is_missing = |url: &str| missing.iter().any(|missing| missing == url);
    let updates = tags::update(policy, store, is_missing, false).map_err(loaded::Error::from)?;
    for update in updates {
        if let Some(why) = update.outcome.failure() {
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
fn plan(loaded: &Loaded, choice: &Choice, present: &[Interface], opening: &Opening) -> String {
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
    plan
}

/// Those that pass by the filter, and whether others could.
fn sockets(users: Users) -> anyhow::Result<String> {
    let mut text = String::new();
    if let Err(unguarded) = Ground::find().is_there() {
        text.push_str(&format!("{}\n", unguarded.sentence()));
    }
    if let Some(rdma) = bypass::rdma() {
        text.push_str(&format!("{rdma}\n"));
    }
    let network = guard::cookie().context("cannot tell the network namespace")?;
    let rights = Rights {
        users,
        closes: false,
    };
    let look = bypass::look(network, &rights).context("cannot look at other processes")?;
    for passing in &look.passing {
        text.push_str(&format!("{passing}\n"));
    }
    if let Some(gap) = look.gap() {
        text.push_str(&format!("{gap} for sockets that pass by the filter\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{self, System, service_tag::Catalogue};

    fn told(listen: &str, text: &str) -> Option<String> {
        let system = System {
            resolvers: vec!["192.0.2.53".parse().unwrap()],
            ..System::default()
        };
        let policy = policy::parse(text, "policy.yaml", &system, &|_| Catalogue::built_in());
        unanswered(listen.parse().unwrap(), &policy.unwrap())
    }

    #[test]
    fn who_scrapes_from_elsewhere_and_would_get_no_answer_is_told_of() {
        let told_of = told("0.0.0.0:9477", "outbound_rules: []\n").unwrap();
        assert!(told_of.contains("`- { protocol: TCP, port_ranges: \"9477\" }`"));
        assert!(told("[::]:9477", "outbound_rules: []\n").is_some());
        let let_in = "inbound: [{ protocol: TCP, port_ranges: '22, 9477' }]\noutbound_rules: []\n";
        assert_eq!(told("0.0.0.0:9477", let_in), None);
        assert!(told("0.0.0.0:9478", let_in).is_some());
    }

    #[test]
    fn who_is_answered_is_not_told_of() {
        assert_eq!(told("127.0.0.1:9477", "outbound_rules: []\n"), None);
        assert_eq!(told("[::1]:9477", "outbound_rules: []\n"), None);
        let audit = "isolation_mode: allow_internet_outbound\noutbound_rules: []\n";
        assert_eq!(told("0.0.0.0:9477", audit), None);
    }
}
