//! `netfilter-daemon suggest`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::{NO, StateDir, TagsDir, complain, print, print_json};
use crate::{
    control::{self, Answer, Request},
    daemon::{
        audit::Audit,
        loaded::{self, Loaded},
    },
    policy::{
        query_type,
        service_tag::{Catalogue, lists::Source},
        source,
    },
    suggest::{self, Addition, Left, Suggestion, written},
    tags,
    tags::kept::Kept,
};

/// Write the policy that would have allowed what audit let pass
///
/// Prints the policy in use, comments and all, with the fewest rules added that would have
/// allowed what `isolation_mode: allow_internet_outbound` or `run --audit` let pass, and
/// enforced: if the same happens again, nothing is dropped. Names come before addresses,
/// service tags before ranges; a wildcard stands for three or more names of one parent that
/// were used alike. Each rule says who used it, and what `check` would warn of.
///
/// Some of it no rule is made for, and stands in comments, with the reason: what a rule
/// denies; the cloud's metadata service; other DNS servers than the policy's; multicast and
/// broadcast; replies to those who connect from outside (`inbound`); many names below one
/// parent that were asked for and led nowhere, as tunnels do. It would be dropped.
///
/// The kernel keeps up to 16384 destinations and as many questions, over restarts of the
/// daemon, until `detach`; what found no room is told. Names that share an address get the
/// ports that were used there.
///
/// Exit code 1 when there is nothing to suggest, or no daemon runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo netfilter-daemon suggest > policy.yaml\n  \
    netfilter-daemon check --strict policy.yaml\n  \
    sudo netfilter-daemon suggest --json | jq '.rules[].name'")]
pub(super) struct Suggest {
    #[command(flatten)]
    state_dir: StateDir,

    /// The policy to add to [default: that of the running daemon]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    #[command(flatten)]
    tags_dir: TagsDir,

    /// Print it as JSON: the policy as text, what it adds, and what it leaves out
    #[arg(long)]
    json: bool,

    /// Forget what audit has let pass so far, and suggest nothing
    #[arg(long, conflicts_with_all = ["json", "policy"])]
    forget: bool,
}

#[derive(Debug, Serialize)]
struct Report<'s> {
    /// The whole policy file.
    policy: &'s str,
    rules: Vec<Row>,
    query_types: Vec<String>,
    left_out: Vec<LeftOut>,
    /// When the first and the last of it was seen, in seconds since 1970.
    first_seen: Option<u64>,
    last_seen: Option<u64>,
    /// Packets and questions that found no room to be remembered.
    lost: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    destination: Vec<String>,
    traffic: String,
    users: Vec<String>,
    connections: u64,
    packets: u64,
    questions: u64,
    first_seen: Option<u64>,
    last_seen: Option<u64>,
    remarks: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LeftOut {
    why: String,
    names: Vec<String>,
    destinations: Vec<String>,
    /// What `inbound` would have to let in.
    inbound: Option<String>,
    users: Vec<String>,
}

impl Suggest {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let state_dir = &self.state_dir.state_dir;
        let request = match self.forget {
            true => Request::ForgetAudit,
            false => Request::Audit,
        };
        let Some(answer) = control::ask(state_dir, request)? else {
            eprintln!(
                "what audit let pass is told by the daemon, and none runs with the state directory {}; \
                 `netfilter-daemon run --audit` starts one that stops nothing",
                state_dir.display()
            );
            return Ok(ExitCode::from(NO));
        };
        match answer {
            Answer::Audit { audit } => self.suggest(&audit),
            Answer::Forgotten => Ok(ExitCode::SUCCESS),
            Answer::Failed { error, .. } => bail!("the daemon could not tell: {error}"),
            other => bail!("the daemon gave another answer: {other:?}"),
        }
    }

    fn suggest(&self, audit: &Audit) -> anyhow::Result<ExitCode> {
        let path = match &self.policy {
            Some(policy) => policy.clone(),
            None => PathBuf::from(&audit.policy),
        };
        let text = source::policy_text(&path).map_err(loaded::Error::from)?;
        let Loaded { policy, image, .. } = self.read(&path, &text)?;
        let suggestion = suggest::suggest(audit, &policy, &image, &self.catalogue(&path)?);
        if suggestion.is_empty() {
            complain(nothing(audit));
            return Ok(ExitCode::from(NO));
        }
        let written = written::policy(&text, &policy, audit, &suggestion, |text| {
            self.read(&path, text).ok().map(|loaded| loaded.policy)
        });
        let written = written.with_context(|| {
            format!(
                "{} is written in a way that cannot be added to; write its rules as a list under \
                 `outbound_rules:`, one below the other",
                path.display()
            )
        })?;
        match self.json {
            true => print_json(&Report::of(&written, &suggestion, audit))?,
            false => print(&written)?,
        }
        if !suggestion.adds() {
            complain(
                "nothing is added to the policy: what is left out, in comments, is for you to decide",
            );
            return Ok(ExitCode::from(NO));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn read(&self, path: &Path, text: &str) -> Result<Loaded, loaded::Error> {
        loaded::preview_text(path, text, &self.tags_dir.store())
    }

    /// The service tags that the policy can name.
    fn catalogue(&self, policy: &Path) -> anyhow::Result<Catalogue> {
        let store = self.tags_dir.store();
        let kept = Kept::of(policy, &store);
        let given = |source: &Source| match source {
            Source::File(written) => tags::first(policy, written),
            Source::Url(_) | Source::BuiltIn => kept.catalogue(source),
        };
        Ok(source::catalogue(policy, &given).map_err(loaded::Error::from)?)
    }
}

fn nothing(audit: &Audit) -> &'static str {
    match audit.auditing {
        true => "nothing to suggest: audit let nothing pass that the policy does not allow",
        false => {
            "nothing to suggest: the policy is enforced, so that nothing passes which it does not allow; \
             `run --audit`, or `isolation_mode: allow_internet_outbound`, lets it pass and remembers it"
        }
    }
}

impl<'s> Report<'s> {
    fn of(policy: &'s str, suggestion: &Suggestion, audit: &Audit) -> Self {
        let Suggestion {
            additions,
            query_types,
            left,
            seen,
        } = suggestion;
        let (first_seen, last_seen) = seen.unzip();
        Self {
            policy,
            rules: additions.iter().map(Row::of).collect(),
            query_types: query_types
                .iter()
                .map(|&it| query_type::written(it))
                .collect(),
            left_out: left.iter().map(LeftOut::of).collect(),
            first_seen,
            last_seen,
            lost: audit.lost,
        }
    }
}

impl Row {
    fn of(addition: &Addition) -> Self {
        let used = &addition.used;
        Self {
            name: addition.name.clone(),
            destination: addition.destinations(),
            traffic: addition.traffic.to_string(),
            users: used.users.iter().cloned().collect(),
            connections: used.connections,
            packets: used.packets,
            questions: used.questions,
            first_seen: used.first,
            last_seen: used.last,
            remarks: addition.remarks.clone(),
        }
    }
}

impl LeftOut {
    fn of(left: &Left) -> Self {
        let told = |(address, (protocol, port)): &(std::net::IpAddr, suggest::Flow)| {
            written::told(*address, *protocol, *port)
        };
        Self {
            why: left.why.clone(),
            names: left.names.clone(),
            destinations: left.flows.iter().map(told).collect(),
            inbound: left.inbound.as_ref().map(ToString::to_string),
            users: left.used.users.iter().cloned().collect(),
        }
    }
}
