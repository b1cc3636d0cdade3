//! `netfilter-daemon status`

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::bail;
use clap::Args;

use super::{NO, StateDir, columns::columns, print, print_json};
use crate::{
    control::{self, Answer, Request},
    daemon::{
        repairs::place,
        status::{
            self, Address, DeniedLately, Drops, ListHealth, Place, Repaired, Running, Sockets,
        },
    },
    datapath::State,
    moment,
};

/// Addresses that the text shows; `--json` shows all.
const SHOWN: usize = 20;

/// Show what is enforced where, and what it dropped
///
/// Works without a daemon too, for the filter stays in force when the daemon
/// ends. Exit code 1 when nothing is in force.
#[derive(Debug, Args)]
#[command(after_help = "Example: sudo netfilter-daemon status")]
pub(super) struct Status {
    #[command(flatten)]
    state_dir: StateDir,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut status = self.status()?;
        if let Some(status) = &mut status {
            let state = State::at(&self.state_dir.state_dir);
            status.sockets.look(&state);
        }
        match (&status, self.json) {
            (status, true) => print_json(status)?,
            (Some(status), false) => print(&text(status, moment::unix_seconds(SystemTime::now())))?,
            (None, false) => print(&format!(
                "nothing is in force: nothing is pinned under {}, and no daemon runs; \
                 `netfilter-daemon run --policy FILE` puts a policy into force\n",
                self.state_dir.state_dir.display()
            ))?,
        }
        let in_force = status.is_some_and(|status| !status.attached.is_empty());
        Ok(if in_force {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(NO)
        })
    }

    /// What the daemon knows; without one, what the kernel knows.
    fn status(&self) -> anyhow::Result<Option<status::Status>> {
        let state_dir = &self.state_dir.state_dir;
        match control::ask(state_dir, Request::Status)? {
            Some(Answer::Status { status }) => Ok(Some(*status)),
            Some(Answer::Failed { error, .. }) => bail!("the daemon could not tell: {error}"),
            Some(other) => bail!("the daemon gave another answer: {other:?}"),
            None => match State::open(state_dir)? {
                Some(state) => Ok(Some(status::of_kernel(&state)?)),
                None => Ok(None),
            },
        }
    }
}

/// `now` in seconds since 1970.
fn text(status: &status::Status, now: u64) -> String {
    let mut text = in_force(status, now);
    if let Some(seconds) = status.gives_way_in {
        text.push_str(&format!(
            "unconfirmed   without `netfilter-daemon confirm` the state before comes back in {}\n",
            span(u64::from(seconds))
        ));
    }
    match &status.daemon {
        Some(daemon) => {
            text.push_str(&looked_after(daemon, status.generation, now));
            text.push_str(&interfaces(daemon));
        }
        None => text.push_str(&format!(
            "daemon        none runs; the filter stays in force, with policy generation {}, until\n\
             {:14}`netfilter-daemon detach` lifts it or `run` takes it over\n",
            status.generation, ""
        )),
    }
    text.push_str(&sockets(&status.sockets));
    text.push_str(&learned(&status.learned));
    if let Some(daemon) = &status.daemon {
        text.push_str(&drops(&daemon.drops_last_minute));
        text.push_str(&denied(&daemon.denied_lately, now));
    }
    text.push_str("\nkernel tables\n");
    let widest = status
        .tables
        .iter()
        .map(|table| table.map.len())
        .max()
        .unwrap_or(0);
    for table in &status.tables {
        let forgotten = match table.evictions {
            None | Some(0) => String::new(),
            Some(evictions) => format!("  {evictions} forgotten"),
        };
        text.push_str(&format!(
            "  {:widest$}  {:>9} of {:>9}  {:>3} %{forgotten}\n",
            table.map,
            table.entries,
            table.max_entries,
            table.percent()
        ));
    }
    text
}

fn in_force(status: &status::Status, now: u64) -> String {
    let places: Vec<String> = status
        .attached
        .iter()
        .map(|Place { interface, hook }| format!("{interface} ({hook})"))
        .collect();
    let places = if places.is_empty() {
        "no interface".to_owned()
    } else {
        places.join(", ")
    };
    match &status.daemon {
        None => format!("in force      on {places}\n"),
        Some(daemon) => {
            let verb = if daemon.enforcing {
                "enforcing"
            } else {
                "auditing"
            };
            let mut text = format!(
                "{verb:<13} on {places}\n{:14}since {}\n",
                "",
                since(daemon.since, now)
            );
            if !daemon.enforcing {
                text.push_str(&format!(
                    "{:14}everything passes; what would be dropped is counted\n",
                    ""
                ));
            }
            if let Some(complaint) = &daemon.complaint {
                text.push_str(&format!("PROBLEM       {complaint}\n"));
            }
            text
        }
    }
}

fn looked_after(daemon: &Running, generation: u32, now: u64) -> String {
    let Running {
        pid,
        version,
        policy,
        service_tags,
        ..
    } = daemon;
    let failed = match policy.failed_reloads {
        0 => String::new(),
        1 => format!("{:14}a reload failed; the log says why\n", ""),
        count => format!("{:14}{count} reloads failed; the log says why\n", ""),
    };
    let refreshing: String = daemon
        .service_tag_lists
        .iter()
        .filter_map(|list| refreshing(list, now))
        .collect();
    format!(
        "policy        {}: {}, {}, {}\n{:14}generation {generation}, loaded {}\n{failed}\
         service tags  {service_tags}\n{refreshing}\
         daemon        process {pid}, version {version}\n",
        policy.path,
        counted(policy.rules, "rule", "rules"),
        counted(policy.prefixes, "prefix", "prefixes"),
        counted(policy.names, "name", "names"),
        "",
        since(policy.loaded_at, now),
    )
}

/// Only what is not as it should be.
fn refreshing(list: &ListHealth, now: u64) -> Option<String> {
    let (at, why) = (list.last_failure?, list.last_failure_reason.as_ref()?);
    if list.last_success >= Some(at) {
        return None;
    }
    let succeeded = match list.last_success {
        Some(last) => format!("was last refreshed {}", since(last, now)),
        None => "was not refreshed since the daemon started".to_owned(),
    };
    Some(format!(
        "PROBLEM       {} {succeeded}; failed {}: {why}\n",
        list.list.source,
        since(at, now)
    ))
}

fn interfaces(daemon: &Running) -> String {
    let rows = daemon.interfaces.iter().map(|looked| {
        let filtered = if looked.filtered {
            "filtered"
        } else {
            "not filtered"
        };
        [
            looked.interface.clone(),
            filtered.to_owned(),
            looked.why.clone(),
        ]
    });
    let rows = columns(&rows.collect::<Vec<_>>(), &[0]);
    let mut text = format!("\ninterfaces\n{rows}");
    for Repaired {
        interface,
        cause,
        count,
    } in &daemon.repairs
    {
        let times = match count {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        text.push_str(&format!(
            "  {}: another tool interfered ({cause}), put right {times}\n",
            place(interface)
        ));
    }
    text
}

/// Only what is not as it should be.
fn sockets(sockets: &Sockets) -> String {
    let Sockets {
        unguarded,
        rdma,
        passing,
        unseen,
        untold,
    } = sockets;
    let mut text = String::new();
    for passing in passing {
        let label = if passing.allowed {
            "sockets"
        } else {
            "PROBLEM"
        };
        text.push_str(&format!("{label:<13} {passing}\n"));
    }
    for problem in [unguarded, rdma].into_iter().flatten() {
        text.push_str(&format!("PROBLEM       {problem}\n"));
    }
    if let Some(why) = unseen {
        text.push_str(&format!(
            "PROBLEM       sockets that pass by the filter may have been missed: {why}\n\
             {:14}(`sudo ls -l /proc/<number>/fd` says what hinders that)\n",
            ""
        ));
    }
    for untold in untold {
        text.push_str(&format!("events        {untold}\n"));
    }
    if text.is_empty() {
        text
    } else {
        format!("\n{text}")
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn since(then: u64, now: u64) -> String {
    let ago = span(now.saturating_sub(then));
    format!("{} ({ago} ago)", moment::utc(then))
}

fn span(seconds: u64) -> String {
    moment::span(Duration::from_secs(seconds))
}

fn learned(addresses: &[Address]) -> String {
    if addresses.is_empty() {
        return "\nno address is learned from DNS\n".to_owned();
    }
    let count = counted(addresses.len(), "address", "addresses");
    let mut text = format!("\n{count} learned from DNS\n");
    let rows = addresses.iter().take(SHOWN).map(|address| {
        [
            address.address.to_string(),
            address.pattern.clone(),
            address.name.clone().unwrap_or_default(),
            format!("for {}", span(address.expires_in.into())),
        ]
    });
    text.push_str(&columns(&rows.collect::<Vec<_>>(), &[1, 2]));
    if addresses.len() > SHOWN {
        text.push_str(&format!(
            "  and {} more; --json shows all\n",
            addresses.len() - SHOWN
        ));
    }
    text
}

fn drops(drops: &[Drops]) -> String {
    if drops.is_empty() {
        return "\nnothing was dropped in the last minute\n".to_owned();
    }
    let mut text = "\ndropped in the last minute\n".to_owned();
    for Drops {
        reason,
        audited,
        packets,
        bytes,
    } in drops
    {
        let audited = if *audited {
            "  (audit let them pass)"
        } else {
            ""
        };
        text.push_str(&format!(
            "  {reason:<17} {packets:>9} packets {bytes:>12} bytes{audited}\n"
        ));
    }
    text
}

fn denied(lately: &[DeniedLately], now: u64) -> String {
    if lately.is_empty() {
        return String::new();
    }
    let rows = lately.iter().map(|DeniedLately { event, count }| {
        let (what, name) = match &event.question {
            Some(name) => ("DNS question".to_owned(), Some(name.clone())),
            None => match &event.socket {
                Some(socket) => (socket.way.clone(), Some(socket.to_string())),
                None => (event.destination(), event.name.clone()),
            },
        };
        [
            what,
            name.unwrap_or_default(),
            match count {
                1 => "once".to_owned(),
                count => format!("{count} times"),
            },
            format!("{} ago", span(now.saturating_sub(event.time))),
            if event.audited { "audited" } else { "" }.to_owned(),
        ]
    });
    let rows = columns(&rows.collect::<Vec<_>>(), &[1]);
    format!("\ndenied lately; `events` shows each\n{rows}")
}

#[cfg(test)]
mod tests;
