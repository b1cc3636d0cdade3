//! The status page: whole without a script, and read again by one where there is one.
//!
//! Pure: an [`Overview`] goes in, markup comes out, in which every text is escaped by its type
//! (`maud`), and texts of others are made visible by [`said`].

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{
    daemon::overview::Overview,
    moment,
    shown::{self, number},
};

mod chart;
mod denied;
mod health;
mod now;
mod rules;

/// What [`super::headers`] permits, by their hashes.
pub(super) const STYLE: &str = include_str!("page/style.css");
pub(super) const SCRIPT: &str = include_str!("page/script.js");

/// Characters of a text of others; `events` has the whole.
const LONGEST: usize = 120;

/// Whether names and processes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    Told,
    /// To who asks from elsewhere, and could be anybody.
    Withheld,
}

pub(super) fn render(overview: &Overview, detail: Detail) -> String {
    let state = now::state(&overview.daemon);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (state) " · " (overview.host) " · netfilter-daemon" }
                noscript { meta http-equiv="refresh" content="30"; }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "netfilter-daemon " span.host { "on " (said(&overview.host)) } }
                    p #clock data-live { "As of " (time(overview.time)) }
                    noscript { p { "This page is read anew every 30 seconds." } }
                }
                p #stale .problem role="alert" hidden {
                    strong { "Old. " } "The daemon has not answered since the time above."
                }
                main {
                    (now::section(overview))
                    (denied::section(overview, detail))
                    (rules::section(overview))
                    (health::section(overview))
                }
                footer {
                    p #daemon data-live {
                        "netfilter-daemon " (overview.daemon.version) ", process "
                        (overview.daemon.pid) ". For programs: "
                        a href="metrics" { "metrics" } " and " a href="healthz" { "health" }
                        ". This page asks no other host for anything."
                    }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// A text that others have chosen.
fn said(text: &str) -> Markup {
    let visible = shown::visible(text);
    html! { bdi.said { (shown::end_of(&visible, LONGEST)) } }
}

fn time(unix_seconds: u64) -> Markup {
    let utc = moment::utc(unix_seconds);
    let machine = utc.replacen(' ', "T", 1).replace(" UTC", "Z");
    html! { time datetime=(machine) { (utc) } }
}

/// `3 min ago`, with the time for who points at it.
fn ago(then: u64, now: u64) -> Markup {
    let utc = moment::utc(then);
    html! { span title=(utc) { (span(now.saturating_sub(then))) " ago" } }
}

fn span(seconds: u64) -> String {
    moment::span(Duration::from_secs(seconds))
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// A table that a narrow screen can move sideways.
fn table(id: &str, caption: &str, head: &Markup, rows: &Markup) -> Markup {
    html! {
        div.scroll id=(id) role="region" aria-label=(caption) tabindex="0" {
            table {
                caption { (caption) }
                thead { tr { (head) } }
                tbody { (rows) }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
