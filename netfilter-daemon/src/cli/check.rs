//! `netfilter-daemon check`

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use clap::Args;
use netfilter_ebpf::abi::ATOMS;
use serde::Serialize;

use super::{TagsDir, WRONG, complain, print, print_json};
use crate::{
    compile::Summary,
    control::Refused,
    daemon::{
        loaded::{self, Loaded},
        status::ServiceTags,
    },
    moment,
    policy::{Action, Destination, Mode, Policy, Problem, Rule},
    tags,
};

/// Validate a policy and show what it compiles to
///
/// Needs no daemon and no privileges. Exit code 2, with the place of
/// everything that is wrong, when the policy is not right.
///
/// Warns of rules through which data can leave although they look safe, for anybody can
/// rent a place behind them, and of rules that are of no use without another one.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: netfilter-daemon check --strict /etc/netfilter-daemon/policy.yaml"
)]
pub(super) struct Check {
    /// The policy file
    #[arg(value_name = "FILE")]
    policy: PathBuf,

    #[command(flatten)]
    tags_dir: TagsDir,

    /// Exit with 2 where there is a warning
    #[arg(long)]
    strict: bool,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    policy: String,
    mode: &'static str,
    /// `null`: chosen when the daemon starts.
    interfaces: Option<Vec<String>>,
    /// Those that lead to workloads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    workloads: Vec<String>,
    resolvers: Vec<std::net::IpAddr>,
    inbound: Vec<String>,
    /// The numbers of users whose sockets may pass by the filter.
    bypass_users: Vec<u32>,
    #[serde(flatten)]
    summary: Summary,
    service_tags: ServiceTags,
    each_rule: Vec<Line>,
    notes: Vec<String>,
    warnings: Vec<String>,
}

/// One rule.
#[derive(Debug, Serialize)]
struct Line {
    rule: String,
    action: &'static str,
    destination: String,
    /// As published, nested ones and all; 0 for a name.
    prefixes: usize,
    traffic: Vec<String>,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = loaded::preview(&self.policy, false, &self.tags_dir.store())?;
        let now = moment::unix_seconds(SystemTime::now());
        let mut report = Report::of(&self.policy.display().to_string(), &loaded, now);
        let files = tags::changed_files(&self.policy, &self.tags_dir.store());
        let refused = files.map_err(loaded::Error::from)?;
        let refused = refused.iter().filter_map(Refused::of);
        report.notes.extend(refused.map(|file| {
            format!(
                "{}: a daemon would not take this list in place of the stored one: {}",
                file.source, file.reason
            )
        }));
        match self.json {
            true => print_json(&report)?,
            false => print(&report.text())?,
        }
        if self.strict && !report.warnings.is_empty() {
            complain(
                "error: --strict takes no policy with warnings; do as they say, or leave --strict out",
            );
            return Ok(ExitCode::from(WRONG));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Report {
    fn of(path: &str, loaded: &Loaded, now: u64) -> Self {
        let Policy {
            mode,
            interfaces,
            workloads,
            resolvers,
            inbound,
            bypass_users,
            rules,
            catalogue,
            remarks,
            ..
        } = &loaded.policy;
        let told = |problems: &[Problem]| problems.iter().map(ToString::to_string).collect();
        Self {
            policy: path.to_owned(),
            mode: match mode {
                Mode::Enforce => "enforce",
                Mode::Report => "report",
            },
            interfaces: interfaces.clone(),
            workloads: workloads.clone(),
            resolvers: resolvers.clone(),
            inbound: inbound.iter().map(ToString::to_string).collect(),
            bypass_users: bypass_users.clone(),
            summary: loaded.image.summary(),
            service_tags: ServiceTags::of(catalogue, now),
            each_rule: rules.iter().map(Line::of).collect(),
            notes: told(&remarks.notes),
            warnings: told(&remarks.warnings),
        }
    }

    fn text(&self) -> String {
        let Summary {
            rules,
            ipv4_prefixes,
            ipv6_prefixes,
            names,
            atoms,
            classes,
            kernel_bytes,
        } = &self.summary;
        let or = |list: String, nothing: &str| {
            if list.is_empty() {
                nothing.to_owned()
            } else {
                list
            }
        };
        let mode = match self.mode {
            "enforce" => "enforce: what no rule allows is stopped",
            _ => "report: everything passes; what no rule allows is counted and reported",
        };
        let resolvers: Vec<String> = self.resolvers.iter().map(ToString::to_string).collect();
        let lines = [
            ("mode", mode.to_owned()),
            ("rules", rules.to_string()),
            (
                "prefixes",
                format!("{ipv4_prefixes} of IPv4, {ipv6_prefixes} of IPv6, after flattening"),
            ),
            ("names", names.to_string()),
            ("port atoms", format!("{atoms} of {ATOMS}")),
            ("classes", format!("{classes} distinct sets of rights")),
            (
                "memory",
                format!(
                    "{} in the kernel for each of two copies",
                    bytes(*kernel_bytes)
                ),
            ),
            ("service tags", self.service_tags.to_string()),
            ("resolvers", or(resolvers.join(", "), "none")),
            (
                "interfaces",
                self.interfaces
                    .as_ref()
                    .map_or("auto".to_owned(), |names| or(names.join(", "), "none")),
            ),
            ("inbound", or(self.inbound.join("; "), "none")),
        ];
        let listed = |label, of: String| (!of.is_empty()).then_some((label, of));
        let bypass: Vec<String> = self.bypass_users.iter().map(u32::to_string).collect();
        let bypass = (!bypass.is_empty()).then(|| ("unfiltered", users(&bypass)));
        let bypass = bypass
            .into_iter()
            .chain(listed("workloads", self.workloads.join(", ")));
        let warned = match self.warnings.len() {
            0 => String::new(),
            1 => ", with a warning".to_owned(),
            count => format!(", with {count} warnings"),
        };
        let mut text = format!("{}: right{warned}\n\n", self.policy);
        for (label, value) in lines.into_iter().chain(bypass) {
            text.push_str(&format!("  {label:<13} {value}\n"));
        }
        if !self.each_rule.is_empty() {
            text.push('\n');
        }
        let widest =
            |column: fn(&Line) -> usize| self.each_rule.iter().map(column).max().unwrap_or(0);
        let (first, second) = (
            widest(|line| line.rule.chars().count()),
            widest(|line| line.destination().chars().count()),
        );
        for line in &self.each_rule {
            let Line {
                rule,
                action,
                traffic,
                ..
            } = line;
            let (destination, traffic) = (line.destination(), traffic.join("; "));
            text.push_str(&format!(
                "  {action:<5}  {rule:<first$}  {destination:<second$}  {traffic}\n"
            ));
        }
        if !self.notes.is_empty() {
            text.push_str(&format!("\nnotes:\n{}\n", self.notes.join("\n")));
        }
        if !self.warnings.is_empty() {
            text.push_str(&format!("\nwarnings:\n{}\n", self.warnings.join("\n")));
        }
        text
    }
}

impl Line {
    fn of(rule: &Rule) -> Self {
        let (destination, prefixes) = match &rule.destination {
            Destination::Tag { tag, prefixes } => (format!("tag {tag}"), prefixes.len()),
            Destination::Prefixes(prefixes) => (listed(prefixes), prefixes.len()),
            Destination::Name(pattern) => (format!("name {pattern}"), 0),
        };
        Self {
            rule: rule.name.clone(),
            action: match rule.action {
                Action::Allow => "allow",
                Action::Deny => "deny",
                Action::Audit => "audit",
            },
            destination,
            prefixes,
            traffic: rule.traffic.iter().map(ToString::to_string).collect(),
        }
    }

    fn destination(&self) -> String {
        match self.prefixes {
            0 => self.destination.clone(),
            1 => format!("{} (1 prefix)", self.destination),
            count => format!("{} ({count} prefixes)", self.destination),
        }
    }
}

fn users(numbers: &[String]) -> String {
    format!("sockets that pass by, of user {}", numbers.join(", "))
}

/// The first few.
fn listed(prefixes: &[ipnet::IpNet]) -> String {
    const SHOWN: usize = 2;
    let mut shown: Vec<String> = prefixes
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    if prefixes.len() > SHOWN {
        shown.push("...".to_owned());
    }
    shown.join(", ")
}

fn bytes(count: usize) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", count / unit, count % unit * 10 / unit),
        None => format!("{count} B"),
    }
}

#[cfg(test)]
mod tests;
