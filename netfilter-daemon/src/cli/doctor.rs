//! `netfilter-daemon doctor`

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{NO, StateDir, TagsDir, print, print_json};
use crate::doctor::{self, Finding, Plan, Verdict};

/// Check beforehand whether this machine can run the filter
///
/// Loads the programs into the kernel and throws them away, and tries to attach them
/// in a network namespace that ends with the trial; no packet of this machine meets
/// one. To be asked as who will `run` it. Exit code 1 when something failed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo netfilter-daemon doctor\n  \
    sudo netfilter-daemon doctor --policy /etc/netfilter-daemon/policy.yaml --json")]
pub(super) struct Doctor {
    /// The policy file, to check what it means on this machine
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// Where /metrics and /healthz would be served
    #[arg(long, value_name = "ADDR:PORT", default_value = super::LISTEN,
        value_parser = super::address)]
    listen: SocketAddr,

    #[command(flatten)]
    state_dir: StateDir,

    #[command(flatten)]
    tags_dir: TagsDir,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let findings = doctor::examine(&Plan {
            tags: self.tags_dir.store(),
            policy: self.policy,
            listen: self.listen,
            state_dir: self.state_dir.state_dir,
        })?;
        match self.json {
            true => print_json(&findings)?,
            false => print(&text(&findings))?,
        }
        let worst = findings.iter().map(|finding| finding.verdict).max();
        Ok(match worst {
            Some(Verdict::Failed) => ExitCode::from(NO),
            _ => ExitCode::SUCCESS,
        })
    }
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let verdict = word(finding.verdict);
        text.push_str(&format!(
            "{verdict:<8} {:<12} {}\n",
            finding.check, finding.found
        ));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("{:<8} {:<12} to do: {remedy}\n", "", ""));
        }
    }
    let of = |verdict| {
        findings
            .iter()
            .filter(|each| each.verdict == verdict)
            .count()
    };
    text.push_str(&match (of(Verdict::Failed), of(Verdict::Warning)) {
        (0, 0) => "this machine is ready\n".to_owned(),
        (0, warnings) => format!("this machine is ready; warnings: {warnings}\n"),
        (failed, warnings) => {
            format!("this machine is not ready: {failed} failed; warnings: {warnings}\n")
        }
    });
    text
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(check: &'static str, verdict: Verdict, remedy: Option<&str>) -> Finding {
        Finding {
            check,
            verdict,
            found: format!("{check} is so"),
            remedy: remedy.map(str::to_owned),
        }
    }

    #[test]
    fn each_line_says_what_is_so_and_the_next_what_to_do() {
        let findings = [
            finding("kernel", Verdict::Ok, None),
            finding("names", Verdict::Warning, Some("flush")),
            finding("bpffs", Verdict::Failed, Some("mount it")),
        ];
        assert_eq!(
            text(&findings),
            "ok       kernel       kernel is so\n\
             warning  names        names is so\n                      to do: flush\n\
             failed   bpffs        bpffs is so\n                      to do: mount it\n\
             this machine is not ready: 1 failed; warnings: 1\n"
        );
        assert!(text(&findings[..2]).ends_with("is ready; warnings: 1\n"));
        assert!(text(&findings[..1]).ends_with("this machine is ready\n"));
    }
}
