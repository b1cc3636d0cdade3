//! Which rules decided how often, and which never did.

use maud::{Markup, html};

use super::{counted, said, table};
use crate::{
    daemon::overview::{Overview, Rule, Rules},
    shown::number,
};

const SHOWN: usize = 50;

pub(super) fn section(overview: &Overview) -> Markup {
    let Rules {
        hit,
        never,
        hit_in_all,
        never_in_all,
        uncounted,
    } = &overview.rules;
    html! {
        section #rules data-live aria-labelledby="rules-title" {
            h2 #rules-title { "Rules" }
            @if hit.is_empty() && never.is_empty() && *uncounted == 0 {
                p.calm { "The policy has no rule: it allows nothing." }
            } @else if hit.is_empty() {
                p.calm { "No flow has met a rule since the filter came." }
            } @else {
                (table("hits", "Flows that each decided on, since the filter or the rule came", &head(true), &rows(hit, true)))
                (rest(*hit_in_all, hit.len()))
            }
            @if *uncounted > 0 {
                p { (counted(*uncounted, "rule is", "rules are"))
                    " not counted, for the kernel has no more room." }
            }
            @if !never.is_empty() {
                details #never open[hit.is_empty()] {
                    summary {
                        (counted(*never_in_all, "rule was", "rules were"))
                        " never hit"
                    }
                    p.calm {
                        "What was not used for weeks can perhaps go: each rule is a way out."
                    }
                    (table("unused", "Never hit", &head(false), &rows(never, false)))
                    (rest(*never_in_all, never.len()))
                }
            }
        }
    }
}

fn head(hits: bool) -> Markup {
    html! {
        th scope="col" { "Rule" } th scope="col" { "Action" } th scope="col" { "What" }
        @if hits { th.n scope="col" { "Hits" } }
    }
}

fn rows(rules: &[Rule], hits: bool) -> Markup {
    html! {
        @for rule in rules.iter().take(SHOWN) {
            tr {
                th scope="row" { (said(&rule.rule)) }
                td { (rule.action) }
                td { (said(&rule.what)) }
                @if hits { td.n { (number(rule.hits)) } }
            }
        }
    }
}

fn rest(in_all: u64, told: usize) -> Markup {
    let shown = u64::try_from(told.min(SHOWN)).unwrap_or(0);
    html! {
        @if in_all > shown {
            p.calm { "And " (counted(in_all - shown, "more", "more")) "; the metrics have all." }
        }
    }
}
