//! Packets that were denied, minute by minute.

use maud::{Markup, html};

use crate::{
    daemon::{overview::Overview, status::Drops},
    moment,
    shown::number,
};

/// Reasons that have a colour of their own.
const SERIES: usize = 4;
const COLOURS: [&str; SERIES] = ["s1", "s2", "s3", "s4"];
const OTHERS: &str = "s5";
/// Units of the drawing for the highest column.
const HEIGHT: u64 = 1000;

/// Those with most packets.
pub(super) fn series(by_reason: &[Drops]) -> Vec<&Drops> {
    by_reason.iter().take(SERIES).collect()
}

/// The colour of a reason.
pub(super) fn class(drops: &Drops, series: &[&Drops]) -> &'static str {
    let same = |known: &&Drops| (&known.reason, known.audited) == (&drops.reason, drops.audited);
    let place = series.iter().position(same);
    place
        .and_then(|place| COLOURS.get(place))
        .unwrap_or(&OTHERS)
}

pub(super) fn draw(overview: &Overview, series: &[&Drops]) -> Markup {
    let minutes = &overview.hour.minutes;
    let sums: Vec<u64> = minutes.iter().map(|drops| sum(drops)).collect();
    let highest = sums.iter().copied().max().unwrap_or(0);
    if highest == 0 {
        return html! {};
    }
    let last = minutes.len().saturating_sub(1);
    let began = |minute: usize| {
        let ago = u64::try_from(last - minute).unwrap_or(0) * 60;
        // `14:02 UTC`
        let utc = moment::utc(overview.time.saturating_sub(ago));
        utc.get(11..16)
            .map(|time| format!("{time} UTC"))
            .unwrap_or(utc)
    };
    let at = sums.iter().position(|sum| *sum == highest).unwrap_or(0);
    html! {
        figure {
            figcaption {
                "Packets in each minute; most, " (number(highest)) ", about " (began(at)) "."
            }
            svg.chart viewBox={ "0 0 " (minutes.len()) " " (HEIGHT) } preserveAspectRatio="none"
                role="img" aria-label="Packets that were denied in each of the last 60 minutes" {
                @for (minute, drops) in minutes.iter().enumerate() {
                    g {
                        title { (began(minute)) ": " (told(drops)) }
                        rect.back x=(minute) y="0" width="1" height=(HEIGHT) {}
                        @for column in columns(drops, series, highest) {
                            rect class=(column.class) x={ (minute) ".1" } width="0.8"
                                y=(HEIGHT.saturating_sub(column.foot + column.height))
                                height=(column.height) {}
                        }
                    }
                }
            }
            p.axis aria-hidden="true" {
                span { "60 min ago" } span { "45" } span { "30" } span { "15" } span { "now" }
            }
        }
    }
}

struct Column {
    class: &'static str,
    foot: u64,
    height: u64,
}

/// One on the other, in the order of the table below.
fn columns(drops: &[Drops], series: &[&Drops], highest: u64) -> Vec<Column> {
    let height = |packets: u64| {
        let height = u128::from(packets) * u128::from(HEIGHT) / u128::from(highest.max(1));
        // What happened once is seen.
        u64::try_from(height).unwrap_or(HEIGHT).max(HEIGHT / 100)
    };
    let mut foot = 0;
    let mut columns = Vec::new();
    for colour in COLOURS.iter().chain([&OTHERS]) {
        let of_it = drops.iter().filter(|drops| class(drops, series) == *colour);
        let packets: u64 = of_it.map(|drops| drops.packets).sum();
        if packets > 0 {
            let height = height(packets);
            columns.push(Column {
                class: colour,
                foot,
                height,
            });
            foot += height;
        }
    }
    columns
}

fn sum(drops: &[Drops]) -> u64 {
    drops.iter().map(|drops| drops.packets).sum()
}

fn told(drops: &[Drops]) -> String {
    if drops.is_empty() {
        return "nothing".to_owned();
    }
    let each = drops.iter().map(|drops| {
        let passed = if drops.audited { " (passed)" } else { "" };
        format!("{} {}{passed}", number(drops.packets), drops.reason)
    });
    each.collect::<Vec<_>>().join(", ")
}
