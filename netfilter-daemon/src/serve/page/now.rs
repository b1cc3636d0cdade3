//! What is enforced where, and what is not as it should be.

use maud::{Markup, html};

use super::{ago, counted, said, span, table, time};
use crate::{
    daemon::{
        overview::Overview,
        repairs::place,
        status::{ListHealth, Looked, Running},
    },
    shown::number,
};

/// `enforcing`
pub(super) fn state(daemon: &Running) -> &'static str {
    if daemon.enforcing {
        "enforcing"
    } else {
        "auditing"
    }
}

pub(super) fn section(overview: &Overview) -> Markup {
    let daemon = &overview.daemon;
    let policy = &daemon.policy;
    html! {
        section #now data-live aria-labelledby="now-title" {
            h2 #now-title { "In force" }
            p.state.enforcing[daemon.enforcing] {
                @if daemon.enforcing {
                    strong { "Enforcing" } " on " (places(overview)) "."
                } @else {
                    strong { "Auditing" } " on " (places(overview))
                    ": everything passes, and what would be denied is counted."
                }
                " Since " (time(daemon.since)) "."
            }
            p {
                "Policy " (said(&policy.path)) ": " (counted(count(policy.rules), "rule", "rules"))
                ", " (counted(count(policy.prefixes), "prefix", "prefixes")) ", "
                (counted(count(policy.names), "name", "names")) "; generation "
                (overview.generation) ", loaded " (ago(policy.loaded_at, overview.time)) "."
            }
            @let problems = problems(overview);
            @if problems.is_empty() {
                p.calm { "No problem is known." }
            } @else {
                ul.problems { @for problem in problems { li { strong { "Problem: " } (problem) } } }
            }
            (interfaces(&daemon.interfaces))
            @if !daemon.repairs.is_empty() {
                ul {
                    @for repair in &daemon.repairs {
                        li {
                            (said(place(&repair.interface))) ": another tool interfered ("
                            (repair.cause) "), put right " (times(repair.count)) "."
                        }
                    }
                }
            }
        }
    }
}

fn places(overview: &Overview) -> Markup {
    html! {
        @if overview.attached.is_empty() { "no interface" }
        @for (index, place) in overview.attached.iter().enumerate() {
            @if index > 0 { ", " }
            (said(&place.interface)) " (" (place.hook) ")"
        }
    }
}

fn problems(overview: &Overview) -> Vec<Markup> {
    let daemon = &overview.daemon;
    let mut problems: Vec<Markup> = Vec::new();
    problems.extend(daemon.complaint.as_deref().map(said));
    problems.extend(overview.sockets.unguarded.as_deref().map(said));
    if daemon.policy.failed_reloads > 0 {
        let reloads = counted(daemon.policy.failed_reloads, "reload", "reloads");
        problems.push(html! {
            (reloads) " failed, and the former policy stayed in force; the log says why"
        });
    }
    for list in daemon
        .service_tag_lists
        .iter()
        .filter(|list| is_stale(list))
    {
        let reason = list.last_failure_reason.as_deref().unwrap_or_default();
        problems.push(html! {
            "service tags of " (said(&list.list.source)) " could not be refreshed: " (said(reason))
        });
    }
    for table in overview.tables.iter().filter(|table| table.is_full()) {
        problems.push(html! { "the kernel table " (table.map) " is full" });
    }
    problems
}

/// Its last attempt failed.
pub(super) fn is_stale(list: &ListHealth) -> bool {
    list.last_failure.is_some() && list.last_success < list.last_failure
}

fn interfaces(interfaces: &[Looked]) -> Markup {
    if interfaces.is_empty() {
        return html! { p.calm { "No interface was looked at yet." } };
    }
    let head = html! {
        th scope="col" { "Interface" } th scope="col" { "Filtered" } th scope="col" { "Why" }
    };
    let rows = html! {
        @for Looked { interface, filtered, why } in interfaces {
            tr {
                th scope="row" { (said(interface)) }
                td { @if *filtered { strong { "yes" } } @else { "no" } }
                td { (said(why)) }
            }
        }
    };
    table("interfaces", "Interfaces", &head, &rows)
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{} times", number(count)),
    }
}

pub(super) fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Since when the last hour is counted.
pub(super) fn hour(overview: &Overview) -> Markup {
    let runs = overview.time.saturating_sub(overview.daemon.since);
    html! {
        @if runs < 3600 {
            "in the " (span(runs)) " since the daemon started"
        } @else {
            "in the last hour"
        }
    }
}
