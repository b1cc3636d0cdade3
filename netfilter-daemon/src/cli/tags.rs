//! `netfilter-daemon tags`

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{NO, REFUSED, StateDir, TagsDir, columns::columns, print, print_json, reload};
use crate::{
    control::{self, Answer, Request},
    daemon::{loaded, status::ServiceTags},
    moment,
    policy::{
        service_tag::{Catalogue, Tag, lists::Source},
        source,
    },
    tags::{self, Outcome, kept::Kept, store::Store},
};

/// Show or refresh the service tags in use
///
/// They come from the lists that the policy names under `service_tags`: files,
/// addresses on the web, or the built-in catalogue. The last good list of each is
/// kept on disk; `update`, and the daemon at the policy's interval, look for newer ones.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    netfilter-daemon tags list --policy policy.yaml\n  \
    netfilter-daemon tags show AzureActiveDirectory\n  \
    sudo netfilter-daemon tags update --policy policy.yaml")]
pub(super) struct Tags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(Show),
    Update(Update),
}

/// Show the lists in use, and the tags in them
#[derive(Debug, Args)]
#[command(after_help = "Example: netfilter-daemon tags list --policy policy.yaml")]
struct List {
    #[command(flatten)]
    used: Used,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Show the prefixes that a tag stands for
///
/// Exit code 1 when there is no such tag.
#[derive(Debug, Args)]
#[command(after_help = "Example: netfilter-daemon tags show AzureActiveDirectory")]
struct Show {
    /// The tag, in any letter case
    #[arg(value_name = "TAG")]
    tag: String,

    #[command(flatten)]
    used: Used,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Fetch or read the lists that the policy names, and have the daemon use them
///
/// A list replaces the one before it only if it is one of the same cloud, is
/// not older, has at least half of the former tags and prefixes, and the policy
/// can be put into force with it. Otherwise the last good one stays, and the
/// exit code is 3.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo netfilter-daemon tags update\n  \
    sudo netfilter-daemon tags update --policy policy.yaml --force")]
struct Update {
    #[command(flatten)]
    used: Used,

    /// Accept lists that shrank or are older; never what is no list
    #[arg(long)]
    force: bool,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Used {
    /// The policy file [default: that of the running daemon]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    #[command(flatten)]
    tags_dir: TagsDir,

    #[command(flatten)]
    state_dir: StateDir,
}

#[derive(Debug, Serialize)]
struct Listed {
    lists: Vec<ServiceTags>,
    /// Files that are not as the lists in use are.
    files: Vec<Updated>,
    tags: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    tag: String,
    ipv4_prefixes: usize,
    ipv6_prefixes: usize,
}

#[derive(Debug, Serialize)]
struct Shown<'t> {
    tag: &'t str,
    prefixes: &'t [ipnet::IpNet],
}

#[derive(Debug, Serialize)]
struct Updated {
    source: String,
    /// `fresh`, `new` or `failed`.
    outcome: &'static str,
    reason: Option<String>,
}

impl Tags {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List(list) => list.run(),
            Command::Show(show) => show.run(),
            Command::Update(update) => update.run(),
        }
    }
}

impl Used {
    /// The daemon's own, unless one is named; none without either.
    fn policy(&self) -> anyhow::Result<Option<PathBuf>> {
        if let Some(policy) = &self.policy {
            return Ok(Some(policy.clone()));
        }
        match control::ask(&self.state_dir.state_dir, Request::Status) {
            Ok(Some(Answer::Status { status })) => Ok(status.daemon.map(|daemon| {
                let directory = fs::read_link(format!("/proc/{}/cwd", daemon.pid));
                let directory = directory.or_else(|_| env::current_dir());
                directory.unwrap_or_default().join(daemon.policy.path)
            })),
            Ok(Some(Answer::Failed { error, .. })) => bail!("the daemon could not tell: {error}"),
            Ok(Some(other)) => bail!("the daemon gave another answer: {other:?}"),
            Ok(None) => Ok(None),
            Err(error @ control::Error::NotRoot(_)) => Err(error)
                .context("cannot ask the daemon which policy it uses; name it with --policy"),
            Err(error) => Err(error.into()),
        }
    }

    fn store(&self) -> Store {
        self.tags_dir.store()
    }

    /// Of files the last good lists; what is in the files, for who may not read those.
    fn catalogue(&self, policy: Option<&Path>) -> anyhow::Result<Catalogue> {
        let Some(policy) = policy else {
            return Ok(Catalogue::built_in()?);
        };
        let store = self.store();
        let kept = Kept::of(policy, &store);
        let given = |source: &Source| match source {
            Source::File(written) => kept
                .catalogue(source)
                .or_else(|_| source::list::beside(policy, written)),
            Source::Url(_) | Source::BuiltIn => kept.catalogue(source),
        };
        Ok(source::catalogue(policy, &given).map_err(loaded::Error::from)?)
    }
}

impl List {
    fn run(self) -> anyhow::Result<ExitCode> {
        let policy = self.used.policy()?;
        let catalogue = self.used.catalogue(policy.as_deref())?;
        let changed = match &policy {
            Some(policy) => {
                let files = tags::changed_files(policy, &self.used.store());
                let files = files.map_err(loaded::Error::from)?.into_iter();
                files.map(Updated::from).collect()
            }
            None => Vec::new(),
        };
        let now = moment::unix_seconds(SystemTime::now());
        let listed = Listed::of(&catalogue, changed, now);
        match self.json {
            true => print_json(&listed)?,
            false => print(&listed.text())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Listed {
    fn of(catalogue: &Catalogue, files: Vec<Updated>, now: u64) -> Self {
        let editions = catalogue.editions().iter();
        Self {
            lists: editions
                .map(|edition| ServiceTags::of(edition, now))
                .collect(),
            files,
            tags: catalogue.tags().map(Row::of).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for list in &self.lists {
            text.push_str(&format!("{list}\n"));
        }
        for Updated { source, reason, .. } in &self.files {
            text.push_str(&match reason {
                Some(reason) => format!("PROBLEM {source} stays as it was: {reason}\n"),
                None => format!("{source} has changed since; `reload` or `tags update` takes it\n"),
            });
        }
        text.push('\n');
        let rows = self.tags.iter().map(|row| {
            [
                row.tag.clone(),
                format!("{} of IPv4", row.ipv4_prefixes),
                format!("{} of IPv6", row.ipv6_prefixes),
            ]
        });
        text.push_str(&columns(&rows.collect::<Vec<_>>(), &[]));
        text
    }
}

impl Row {
    fn of(tag: &Tag) -> Self {
        let ipv4 = tag.prefixes.iter().filter(|prefix| prefix.addr().is_ipv4());
        let ipv4_prefixes = ipv4.count();
        Self {
            tag: tag.name.clone(),
            ipv4_prefixes,
            ipv6_prefixes: tag.prefixes.len() - ipv4_prefixes,
        }
    }
}

impl Show {
    fn run(self) -> anyhow::Result<ExitCode> {
        let catalogue = self.used.catalogue(self.used.policy()?.as_deref())?;
        let Some(tag) = catalogue.resolve(&self.tag, &[]) else {
            let near = catalogue.nearest(&self.tag);
            let near = match near.is_empty() {
                true => String::new(),
                false => format!("; did you mean {}?", near.join(" or ")),
            };
            let source = &catalogue.edition().source;
            eprintln!(
                "no service tag is named `{}` in {source}{near}; `netfilter-daemon tags list` names the \
                 lists and the tags in use",
                self.tag
            );
            return Ok(ExitCode::from(NO));
        };
        let Tag { name, prefixes } = &tag;
        match self.json {
            true => print_json(&Shown {
                tag: name,
                prefixes,
            })?,
            false => {
                let prefixes = prefixes.iter().map(|prefix| format!("{prefix}\n"));
                print(&prefixes.collect::<String>())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Update {
    fn run(self) -> anyhow::Result<ExitCode> {
        let Some(policy) = self.used.policy()? else {
            bail!(
                "no daemon runs with the state directory {}, so name the policy: `tags update \
                 --policy FILE`",
                self.used.state_dir.state_dir.display()
            );
        };
        let updates = tags::update(&policy, &self.used.store(), |_| true, self.force)
            .map_err(loaded::Error::from)?;
        let updates: Vec<Updated> = updates.into_iter().map(Updated::from).collect();
        match self.json {
            true => print_json(&updates)?,
            false => print(&text(&updates, &policy))?,
        }
        let failed = updates.iter().any(|update| update.outcome == "failed");
        let reloaded = match updates.iter().any(|update| update.outcome != "failed") {
            true => self.reload()?,
            false => ExitCode::SUCCESS,
        };
        Ok(match failed {
            true => ExitCode::from(REFUSED),
            false => reloaded,
        })
    }

    /// Also where nothing is new: another process may have stored what the daemon does
    /// not use yet.
    fn reload(&self) -> anyhow::Result<ExitCode> {
        let state_dir = &self.used.state_dir.state_dir;
        match control::ask(state_dir, Request::Reload { confirm: None })? {
            Some(mut answer) => {
                // Of those was told when they were looked at.
                if let Answer::Reloaded { refused, .. } = &mut answer {
                    refused.clear();
                }
                reload::told(&answer, self.json)
            }
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

fn text(updates: &[Updated], policy: &Path) -> String {
    if updates.is_empty() {
        return format!(
            "{} names no list but the built-in one, which comes with the program\n",
            policy.display()
        );
    }
    let lines = updates.iter().map(|update| {
        let Updated { source, reason, .. } = update;
        match (update.outcome, reason) {
            ("new", _) => format!("{source}: a new list is stored\n"),
            ("failed", Some(reason)) => {
                format!("{source}: FAILED, the last good list stays: {reason}\n")
            }
            _ => format!("{source}: the stored list is still the newest\n"),
        }
    });
    lines.collect()
}

impl From<tags::Update> for Updated {
    fn from(update: tags::Update) -> Self {
        let (outcome, reason) = match update.outcome {
            Outcome::Fresh => ("fresh", None),
            Outcome::New => ("new", None),
            Outcome::Failed(reason) | Outcome::Unkept(reason) => ("failed", Some(reason)),
        };
        Self {
            source: update.source,
            outcome,
            reason,
        }
    }
}
