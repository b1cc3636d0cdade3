//! `netfilter-daemon explain`

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{NO, TagsDir, print, print_json};
use crate::{
    daemon::loaded::{self, Loaded},
    explain::{self, Account, Explanation, Link, Question, Resolution, Resolved},
    policy::{Mode, Pattern, Policy},
    resolvers::{self, Answers},
};

/// Say whether a destination is allowed, and by which rule
///
/// DEST is an address or a name. Without a port it lists what would be let out
/// to that destination. Works with no daemon and needs no privileges; the
/// verdict is that of the code that runs in the kernel.
///
/// In a policy, `*.` stands for one or more labels and never for the name
/// behind it: `*.pypi.org` is a.pypi.org and a.b.pypi.org, but not pypi.org.
///
/// With --resolve it also shows the aliases and addresses that the name has now. They do
/// not change the exit code.
///
/// Exit code: 0 allowed, 1 denied, 2 wrong usage or wrong policy.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    netfilter-daemon explain --policy policy.yaml mcr.microsoft.com:443\n  \
    netfilter-daemon explain --policy policy.yaml mcr.microsoft.com --resolve\n  \
    netfilter-daemon explain --policy policy.yaml 20.190.128.5\n  \
    netfilter-daemon explain --policy policy.yaml '[2603:1006:2000::1]:5831' --protocol udp")]
pub(super) struct Explain {
    /// The policy file
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,

    /// An address or a name; an IPv6 address with a port in brackets
    #[arg(value_name = "DEST[:PORT]")]
    destination: String,

    /// tcp, udp, icmp, or a protocol number [default: tcp with a port, else all]
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,

    /// Ask the policy's resolvers for the name, and judge each address that they give
    #[arg(long)]
    resolve: bool,

    #[command(flatten)]
    tags_dir: TagsDir,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let question = Question::parse(&self.destination, self.protocol.as_deref())?;
        let name = self.resolve.then(|| question.name()).transpose()?;
        let Loaded { policy, image, .. } =
            loaded::preview(&self.policy, false, &self.tags_dir.store())?;
        let mut explanation = match name {
            Some(name) => {
                let answers = ask(&policy, name)?;
                explain::explain_answers(&policy, &image, &question, name, answers)
            }
            None => explain::explain(&policy, &image, &question),
        };
        if policy.mode == Mode::Report {
            explanation.notes.push(
                "the policy only reports (`isolation_mode: allow_internet_outbound`): everything passes, and what is denied here is counted".to_owned(),
            );
        }
        match self.json {
            true => print_json(&explanation)?,
            false => print(&text(&explanation))?,
        }
        Ok(if explanation.allowed {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(NO)
        })
    }
}

fn ask(policy: &Policy, name: &Pattern) -> io::Result<Answers> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let servers = resolvers::at_their_port(&policy.resolvers);
    Ok(runtime.block_on(resolvers::ask_all(&servers, &name.to_string())))
}

fn text(explanation: &Explanation) -> String {
    let Explanation {
        allowed,
        sentence,
        reason,
        decisive,
        others,
        resolution,
        notes,
        ..
    } = explanation;
    let verdict = if *allowed { "allowed" } else { "denied" };
    let mut text = format!("{verdict}: {}", asked(explanation));
    if let (Some(sentence), Some(reason)) = (sentence, reason) {
        text.push_str(&format!("\n  {sentence} ({reason})"));
    }
    text.push('\n');
    for account in decisive {
        text.push_str(&told("by", account));
    }
    let lead = if decisive.is_empty() {
        "nearest:"
    } else {
        "also:"
    };
    for account in others {
        text.push_str(&told(lead, account));
    }
    if let Some(resolution) = resolution {
        text.push_str(&resolved(resolution));
    }
    for note in notes {
        text.push_str(&wrapped("note:", note));
    }
    text
}

fn asked(explanation: &Explanation) -> String {
    let Explanation {
        destination,
        protocol,
        port,
        ..
    } = explanation;
    match (protocol, port) {
        (Some(protocol), Some(port)) => format!("{destination}, {protocol} port {port}"),
        (Some(protocol), None) => format!("{destination}, {protocol}"),
        _ => destination.clone(),
    }
}

fn told(lead: &str, account: &Account) -> String {
    let Account {
        rule,
        action,
        traffic,
        service_tag,
        prefix,
        name,
    } = account;
    let verb = match *action {
        "deny" => "denies",
        "audit" => "lets pass and reports",
        _ => "allows",
    };
    let tag = service_tag.as_ref().map(|tag| format!("service tag {tag}"));
    let prefix = prefix.as_ref().map(|prefix| format!("prefix {prefix}"));
    let name = name.as_ref().map(|name| format!("name {name}"));
    let destination: Vec<String> = [tag, prefix, name].into_iter().flatten().collect();
    format!(
        "  {lead} rule `{rule}`, which {verb} {}\n      to {}\n",
        traffic.join("; "),
        destination.join(", ")
    )
}

fn resolved(resolution: &Resolution) -> String {
    let mut text = String::new();
    if !resolution.resolvers.is_empty() {
        let resolvers = resolution.resolvers.iter().map(ToString::to_string);
        let resolvers: Vec<String> = resolvers.collect();
        text.push_str(&format!("  asked: {}\n", resolvers.join(", ")));
    }
    for Link {
        name, data, ttl, ..
    } in &resolution.chain
    {
        text.push_str(&format!("      {name} -> {data}, TTL {ttl}\n"));
    }
    for resolved in &resolution.addresses {
        let Resolved { address, ttl, .. } = resolved;
        text.push_str(&format!("      {address}, TTL {ttl}: {}\n", fate(resolved)));
    }
    if let Some(error) = &resolution.error {
        text.push_str(&wrapped("could not be resolved:", error));
    }
    text
}

/// The verdict on an address, and whose it is.
fn fate(resolved: &Resolved) -> String {
    let told = |by: &str, lent: bool| {
        let accounts = resolved.by.iter();
        let accounts = accounts.filter(|account| account.prefix.is_none() == lent);
        let rules: Vec<String> = accounts
            .map(|account| format!("rule `{}`", account.rule))
            .collect();
        (!rules.is_empty()).then(|| format!("{by} {}", rules.join(", ")))
    };
    let (verdict, own) = match resolved.allowed {
        true => ("allowed", "anyway by"),
        false => ("denied", "by"),
    };
    let by = [told("by", true), told(own, false)].into_iter().flatten();
    let by: Vec<String> = by.collect();
    let mut text = verdict.to_owned();
    if !by.is_empty() {
        text.push_str(&format!(" {}", by.join(", and ")));
    }
    if let Some(reason) = resolved.reason {
        text.push_str(&format!(" ({reason})"));
    }
    text
}

/// A remark in lines of at most 100 columns.
fn wrapped(lead: &str, remark: &str) -> String {
    let mut text = String::new();
    let mut line = format!("  {lead}");
    for word in remark.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > 100 {
            text.push_str(&line);
            text.push('\n');
            line = " ".repeat(7);
        }
        line.push(' ');
        line.push_str(word);
    }
    text + &line + "\n"
}

#[cfg(test)]
mod tests;
