//! What the policy means on this machine.

use std::{collections::BTreeSet, env, path::Path};

use super::{Finding, Plan, Verdict, kernel};
use crate::{
    daemon::{
        loaded::{self, Loaded},
        opening,
    },
    datapath::{State, rehearsal},
    interfaces::{self, By, Coverage},
    policy::Mode,
    sessions::{self, Fate, Owners},
    tags,
};

fn read_policy(path: &Path, plan: &Plan) -> (Option<Loaded>, Vec<Finding>) {
    if let Ok(missing) = tags::missing(path, &plan.tags)
        && !missing.is_empty()
    {
        let finding = Finding::warning(
            "policy",
            format!(
                "its lists of service tags were never fetched: {}",
                missing.join(", ")
            ),
            format!(
                "`netfilter-daemon tags update --policy {}` fetches them now, `run` before it \
                 filters; then ask again",
                path.display()
            ),
        );
        return (None, vec![finding]);
    }
    match loaded::preview(path, false, &plan.tags) {
        Ok(loaded) => {
            let rules = loaded.policy.rules.len();
            let mode = match loaded.policy.mode {
                Mode::Enforce => "what no rule allows is stopped",
                Mode::Report => "everything passes, and what no rule allows is reported",
            };
            let told = format!("{}: {rules} rules; {mode}", path.display());
            let mut findings = vec![Finding::ok("policy", told)];
            let remarks = &loaded.policy.remarks;
            let told = remarks.notes.iter().chain(&remarks.warnings);
            findings.extend(told.map(|note| {
                Finding::warning(
                    "policy",
                    note,
                    "see what `netfilter-daemon check` says of it",
                )
            }));
            (Some(loaded), findings)
        }
        Err(error) => {
            let remedy = format!("mend it, then `netfilter-daemon check {}`", path.display());
            (None, vec![Finding::failed("policy", error, remedy)])
        }
    }
}

/// The policy, if there is one that can be read.
pub(super) fn read(plan: &Plan) -> (Option<Loaded>, Vec<Finding>) {
    match &plan.policy {
        Some(path) => read_policy(path, plan),
        None => (None, Vec::new()),
    }
}

/// `given`: the policy says what is cut, and is not what everybody's begins with.
pub(super) fn look(plan: &Plan, loaded: &Loaded, given: bool) -> Vec<Finding> {
    let mut findings = vec![resolvers(loaded)];
    findings.extend(unseen_names(&kernel::read("/etc/nsswitch.conf")));
    findings.extend(ways_out(plan, loaded));
    let owners = Owners::look();
    findings.push(remote_shell(loaded, &owners));
    if given {
        findings.push(connections(loaded, &owners));
    }
    findings
}

fn resolvers(loaded: &Loaded) -> Finding {
    let resolvers: Vec<String> = loaded
        .policy
        .resolvers
        .iter()
        .map(ToString::to_string)
        .collect();
    match resolvers.is_empty() {
        false => Finding::ok("resolvers", resolvers.join(", ")),
        true => Finding::warning(
            "resolvers",
            "none found: no name can be asked for, and rules with names allow nothing",
            "write `resolvers:` in the policy, or `nameserver` lines in /etc/resolv.conf",
        ),
    }
}

/// The known limit of nss-resolve.
fn unseen_names(nsswitch: &str) -> Option<Finding> {
    let hosts = nsswitch
        .lines()
        .find_map(|line| line.trim().strip_prefix("hosts:"))?;
    hosts
        .split_whitespace()
        .any(|service| service == "resolve")
        .then(|| {
            Finding::warning(
                "names",
                "programs ask systemd-resolved over a socket (nss-resolve in /etc/nsswitch.conf): \
                 what it has cached before the filter comes is unknown to the filter",
                "`resolvectl flush-caches` once, when the filter is in force",
            )
        })
}

/// What would be filtered, why, and what stands there already.
fn ways_out(plan: &Plan, loaded: &Loaded) -> Vec<Finding> {
    let check = "interfaces";
    let policy = &loaded.policy;
    let present = match interfaces::present() {
        Ok(present) => present,
        Err(error) => return vec![Finding::refused(check, error)],
    };
    let named = policy.interfaces.as_deref();
    let workloads = (policy.workloads.as_slice(), By::Policy);
    let choice = match interfaces::choose(&[], named, workloads, &present) {
        Ok(choice) => choice,
        Err(error) => return vec![Finding::refused(check, error)],
    };
    let ours = State::at(&plan.state_dir).attachments().unwrap_or_default();
    let mut findings = Vec::new();
    for interface in &present {
        let coverage = interfaces::coverage(interface, &present, &choice);
        let name = interface.name.escape_debug();
        let verb = match coverage.is_covered() {
            true => "would be filtered",
            false => "would not be filtered",
        };
        let told = format!("{name} {verb}: {}", coverage.reason());
        findings.push(Finding::ok(check, told));
        let is_ours = ours.iter().any(|place| place.ifindex == interface.index);
        if !coverage.is_covered() || matches!(coverage, Coverage::Workload(_)) || is_ours {
            continue;
        }
        // Without the right to look, that is said elsewhere.
        if let Ok(Some(first)) = rehearsal::first_program(&interface.name, interface.index) {
            findings.push(Finding::warning(
                check,
                format!("{first} hangs on {name} already; the filter goes before it"),
                "nothing, unless that tool insists on being the first: then `status` counts \
                 repairs, and one of the two has to go",
            ));
        }
    }
    findings
}

/// Whether whoever starts the filter from afar locks himself out.
fn remote_shell(loaded: &Loaded, owners: &Owners) -> Finding {
    let check = "ssh";
    let sessions = sessions::established().unwrap_or_default();
    let of_sshd = sessions.iter().filter(|session| {
        let owner = owners.of(session);
        owner.is_some_and(|owner| owner.starts_with("sshd"))
            || Some(session.local.port()) == port(env::var("SSH_CONNECTION").ok().as_deref())
    });
    let mut ports = BTreeSet::new();
    let mut cut = BTreeSet::new();
    for session in of_sshd {
        ports.insert(session.local.port());
        if matches!(session.fate(&loaded.image, &[]), Fate::Cut(_)) {
            cut.insert(session.local.port());
        }
    }
    let listed = |ports: &BTreeSet<u16>| {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        ports.join(", ")
    };
    match (ports.is_empty(), cut.is_empty()) {
        (true, _) => Finding::ok(check, "nobody is here by SSH, as far as this process sees"),
        (false, true) => Finding::ok(check, format!("sessions by port {} stay", listed(&ports))),
        (false, false) => {
            let told = format!("sessions by port {} would be cut off", listed(&cut));
            let remedy = format!(
                "add `- {{ protocol: TCP, port_ranges: \"{}\" }}` to `inbound:` in the policy",
                listed(&cut)
            );
            match loaded.policy.mode {
                Mode::Enforce => Finding::failed(check, told, remedy),
                Mode::Report => Finding::warning(check, told + " once it is enforced", remedy),
            }
        }
    }
}

/// Of `SSH_CONNECTION`: the client's address and port, the server's.
fn port(connection: Option<&str>) -> Option<u16> {
    connection?.split(' ').nth(3)?.parse().ok()
}

/// Those that are open and would be cut.
fn connections(loaded: &Loaded, owners: &Owners) -> Finding {
    let check = "connections";
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let looked = runtime.and_then(|runtime| runtime.block_on(opening::look(loaded, owners)));
    let opening = match looked {
        Ok(opening) => opening,
        Err(error) => return Finding::refused(check, error).but(Verdict::Warning),
    };
    if opening.cut.is_empty() {
        let told = format!("{} are open, and none would be cut", opening.kept);
        return Finding::ok(check, told);
    }
    let verb = match loaded.policy.mode {
        Mode::Enforce => "would be cut",
        Mode::Report => "would be cut if it were enforced",
    };
    Finding::warning(
        check,
        format!(
            "{} that are open {verb}: {}",
            opening.cut.len(),
            opening.cut.join("; ")
        ),
        "allow what is needed in the policy; `run --dry-run` shows the same",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hosts_line_with_resolve_is_the_known_limit() {
        for (nsswitch, is_known) in [
            (
                "passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n",
                true,
            ),
            ("hosts:          files dns\n", false),
            ("passwd: resolve\nhosts: files myhostname\n", false),
            ("", false),
        ] {
            assert_eq!(unseen_names(nsswitch).is_some(), is_known, "{nsswitch}");
        }
    }

    #[test]
    fn the_servers_port_is_the_last_word() {
        assert_eq!(port(Some("10.0.0.9 50022 10.0.0.5 2222")), Some(2222));
        assert_eq!(port(Some("")), None);
        assert_eq!(port(None), None);
    }
}
