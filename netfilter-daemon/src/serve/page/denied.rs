//! What was denied in the last hour: by reason as the kernel counted it, by name and by process
//! as it was reported.

use maud::{Markup, html};
use netfilter_ebpf::verdict::Reason;

use super::{Detail, ago, chart, counted, now::hour, said, table};
use crate::{
    daemon::{
        overview::{Overview, Tallied, Tallies},
        status::Drops,
    },
    shown::{bytes, number},
};

/// Rows of a table. `top` and `events` show more.
const SHOWN: usize = 15;
const RECENT: usize = 20;

pub(super) fn section(overview: &Overview, detail: Detail) -> Markup {
    let series = chart::series(&overview.hour.by_reason);
    html! {
        section #denied data-live aria-labelledby="denied-title" {
            h2 #denied-title { "Denied in the last hour" }
            (summary(overview))
            (chart::draw(overview, &series))
            (reasons(overview, &series))
            @if detail == Detail::Told {
                (reported(overview))
                (tally("names", "By name", NAMES, &overview.names, overview.time))
                (tally("processes", "By process", PROCESSES, &overview.processes, overview.time))
                (recent(overview))
            } @else {
                p.calm {
                    "Which names and processes were denied is shown to who asks from the machine \
                     itself, by its loopback address (" code { "ssh -L 9477:127.0.0.1:9477" }
                    "), and to who gives a password, where one is asked for."
                }
            }
        }
    }
}

fn summary(overview: &Overview) -> Markup {
    let sum = |audited| {
        let drops = overview.hour.by_reason.iter();
        drops
            .filter(|drops| drops.audited == audited)
            .map(|drops| drops.packets)
            .sum::<u64>()
    };
    let (denied, audited) = (sum(false), sum(true));
    let minute: u64 = overview.seconds.iter().sum();
    html! {
        p {
            @if denied + audited == 0 {
                "Nothing was denied " (hour(overview)) "."
            } @else {
                @if denied > 0 || audited == 0 {
                    strong { (counted(denied, "packet", "packets")) } " denied"
                    @if audited > 0 { ", and " }
                }
                @if audited > 0 {
                    strong { (counted(audited, "packet", "packets")) }
                    " that would be denied, and that audit let pass,"
                }
                " " (hour(overview)) "; " (number(minute)) " of them in the last minute."
            }
        }
    }
}

fn reasons(overview: &Overview, series: &[&Drops]) -> Markup {
    let drops = &overview.hour.by_reason;
    if drops.is_empty() {
        return html! {};
    }
    let head = html! {
        th scope="col" { "Reason" }
        th.n scope="col" { "Packets" } th.n scope="col" { "Bytes" }
        th scope="col" { "What it means" }
    };
    let rows = html! {
        @for each in drops {
            tr {
                th scope="row" {
                    span class={ "swatch " (chart::class(each, series)) } aria-hidden="true" {}
                    "\u{a0}" (each.reason)
                    @if each.audited { " (audit let it pass)" }
                }
                td.n { (number(each.packets)) }
                td.n { (bytes(each.bytes)) }
                td { (sentence(&each.reason)) }
            }
        }
    };
    table(
        "reasons",
        "By reason, as the kernel counted it",
        &head,
        &rows,
    )
}

fn sentence(label: &str) -> &'static str {
    let known = Reason::ALL.iter().find(|known| known.label() == label);
    known.map_or("", |known| known.sentence())
}

/// How much of what was denied the rest is about.
fn reported(overview: &Overview) -> Markup {
    let lost = |what: &str| {
        let mut lost = overview.hour.lost_reports.iter();
        lost.find(|lost| lost.what == what)
            .map_or(0, |lost| lost.count)
    };
    let (limited, full) = (lost("rate_limit"), lost("ring_full"));
    html! {
        @if overview.reports + limited + full > 0 {
            p {
                "The kernel reported " (number(overview.reports)) " of these, with who sent them; "
                @if limited + full == 0 {
                    "it left out none."
                } @else {
                    "it left out " (number(limited)) " of sources that it had reported often"
                    @if full > 0 { ", and " (number(full)) " that came too fast to be read" }
                    "."
                }
            }
        }
    }
}

struct Words {
    subject: &'static str,
    other: &'static str,
    none: &'static str,
}

const NAMES: Words = Words {
    subject: "Name or address",
    other: "Last from",
    none: "No name was denied in the last hour.",
};
const PROCESSES: Words = Words {
    subject: "Executable",
    other: "Last to",
    none: "No process was denied anything in the last hour.",
};

fn tally(id: &str, caption: &str, words: Words, tallies: &Tallies, now: u64) -> Markup {
    if tallies.rows.is_empty() {
        return html! { h3 { (caption) } p.calm { (words.none) } };
    }
    let head = html! {
        th scope="col" { (words.subject) }
        th.n scope="col" { "Reports" } th.n scope="col" { "Not told" }
        th scope="col" { "Last reason" } th scope="col" { (words.other) }
        th.n scope="col" { "Last" }
    };
    let rows = html! {
        @for row in tallies.rows.iter().take(SHOWN) {
            tr {
                th scope="row" {
                    (said(&row.subject.what))
                    @if !row.subject.whose.is_empty() {
                        " " span.whose { (said(&row.subject.whose)) }
                    }
                }
                td.n { (number(row.reports)) }
                td.n { (number(row.untold)) }
                td { (row.reason) @if row.audited { " (passed)" } }
                td { (said(&row.other)) }
                td.n { (ago(row.last, now)) }
            }
        }
    };
    html! {
        (table(id, caption, &head, &rows))
        @let rest = tallies.rows.iter().skip(SHOWN);
        @let others = tallies.others + rest.map(|row: &Tallied| row.reports).sum::<u64>();
        @if others > 0 { p.calm { (counted(others, "report", "reports")) " of others." } }
    }
}

fn recent(overview: &Overview) -> Markup {
    html! {
        @if !overview.recent.is_empty() {
            details #recent {
                summary { "The last reports, one by one" }
                ul {
                    @for event in overview.recent.iter().take(RECENT) {
                        li { (ago(event.time, overview.time)) ": " (said(&event.to_string())) }
                    }
                }
                p.calm { code { "netfilter-daemon events" } " shows all that are kept." }
            }
        }
    }
}
