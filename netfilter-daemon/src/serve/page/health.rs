//! The health of service tags, names and kernel tables.

use maud::{Markup, html};

use super::{
    ago, counted,
    now::{hour, is_stale},
    said, span, table,
};
use crate::{
    daemon::{
        overview::{Counted, Overview},
        status::ListHealth,
    },
    shown::number,
};

const PATTERNS: usize = 20;

pub(super) fn section(overview: &Overview) -> Markup {
    html! {
        section #health data-live aria-labelledby="health-title" {
            h2 #health-title { "Health" }
            h3 { "Service tags" } (tags(overview))
            h3 { "Names" } (names(overview))
            h3 { "Kernel tables" } (tables(overview))
        }
    }
}

fn tags(overview: &Overview) -> Markup {
    let lists = &overview.daemon.service_tag_lists;
    if lists.is_empty() {
        return html! { p.calm { "The policy uses no service tag." } };
    }
    let head = html! {
        th scope="col" { "List" } th scope="col" { "Cloud" }
        th.n scope="col" { "Change" } th.n scope="col" { "Age" } th scope="col" { "Refreshing" }
    };
    let rows = html! {
        @for health in lists {
            tr {
                th scope="row" { (said(&health.list.source)) }
                td { (said(&health.list.cloud)) }
                td.n { (health.list.change_number) }
                td.n { (health.list.age_seconds.map_or("unknown".to_owned(), span)) }
                td { (refreshing(health, overview.time)) }
            }
        }
    };
    table("tags", "Lists in force", &head, &rows)
}

fn refreshing(health: &ListHealth, now: u64) -> Markup {
    html! {
        @match (is_stale(health), health.last_success) {
            (true, _) => {
                strong { "failed" } " " (ago(health.last_failure.unwrap_or(now), now)) ": "
                (said(health.last_failure_reason.as_deref().unwrap_or_default()))
            }
            (false, Some(last)) => { "was the newest " (ago(last, now)) }
            (false, None) => { "nothing to refresh" }
        }
    }
}

fn names(overview: &Overview) -> Markup {
    let learned = &overview.learned;
    let hour = hour(overview);
    let head = html! {
        th scope="col" { "Name of the policy" } th.n scope="col" { "Addresses" }
        th.n scope="col" { "Known for" }
    };
    let rows = html! {
        @for pattern in learned.patterns.iter().take(PATTERNS) {
            tr {
                th scope="row" { (said(&pattern.pattern)) }
                td.n { (number(pattern.addresses)) }
                td.n { (span(pattern.expires_in.into())) }
            }
        }
    };
    html! {
        p { "Questions " (hour) ": " (told(&overview.hour.questions)) ". Answers: "
            (told(&overview.hour.answers)) "." }
        @if learned.patterns.is_empty() {
            p.calm { "No address is learned from DNS now." }
        } @else {
            (table("learned", "Addresses learned from DNS", &head, &rows))
        }
        @if learned.without > 0 {
            p.calm {
                (counted(learned.without, "name of the policy has", "names of the policy have"))
                " no address now: nobody asked for them lately."
            }
        }
    }
}

/// What happened; nothing, if nothing did.
fn told(counts: &[Counted]) -> String {
    let happened = counts.iter().filter(|each| each.count > 0);
    let told: Vec<String> = happened
        .map(|each| format!("{} {}", number(each.count), each.what.replace('_', " ")))
        .collect();
    match told.is_empty() {
        true => "none".to_owned(),
        false => told.join(", "),
    }
}

fn tables(overview: &Overview) -> Markup {
    let head = html! {
        th scope="col" { "Table" } th.n scope="col" { "Entries" } th.n scope="col" { "Room for" }
        th scope="col" { "Full" } th.n scope="col" { "Forgotten" }
    };
    let rows = html! {
        @for each in &overview.tables {
            tr {
                th scope="row" { (each.map) }
                td.n { (number(each.entries)) }
                td.n { (number(each.max_entries)) }
                td.full {
                    @let percent = each.percent();
                    meter min="0" max="100" low="60" high="80" optimum="0" value=(percent) {}
                    " " (percent) " %"
                }
                td.n { @match each.evictions { Some(count) => (number(count)), None => "–" } }
            }
        }
    };
    table("maps", "How full each is", &head, &rows)
}
