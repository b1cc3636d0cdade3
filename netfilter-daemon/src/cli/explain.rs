//! `netfilter-daemon explain`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{NO, print, print_json};
use crate::{
    daemon::loaded,
    explain::{self, Account, Explanation, Question},
    policy::Mode,
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
/// Exit code: 0 allowed, 1 denied, 2 wrong usage or wrong policy.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    netfilter-daemon explain --policy policy.yaml mcr.microsoft.com:443\n  \
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

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let question = Question::parse(&self.destination, self.protocol.as_deref())?;
        let loaded = loaded::load(&self.policy, false)?;
        let mut explanation = explain::explain(&loaded.policy, &loaded.image, &question);
        if loaded.policy.mode == Mode::Report {
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

fn text(explanation: &Explanation) -> String {
    let Explanation {
        allowed,
        sentence,
        reason,
        decisive,
        others,
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
    for note in notes {
        text.push_str(&wrapped(note));
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

/// A note in lines of at most 100 columns.
fn wrapped(note: &str) -> String {
    let mut text = String::new();
    let mut line = "  note:".to_owned();
    for word in note.split(' ') {
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
