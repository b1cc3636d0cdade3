//! The result: a table for people, or JSON.

use serde_json::{Value, json};

use crate::run::{Row, Times};

/// The middle one.
fn median(row: &Row, of: impl Fn(&Times) -> f64) -> f64 {
    let mut values: Vec<f64> = row.times.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn over_parse(row: &Row) -> f64 {
    median(row, |times| times.whole - times.parse)
}

fn over_empty(row: &Row) -> f64 {
    median(row, |times| times.whole - times.empty)
}

/// The least and the most of all rounds, over parsing.
fn spread(row: &Row) -> (f64, f64) {
    let values = row.times.iter().map(|times| times.whole - times.parse);
    let least = values.clone().fold(f64::INFINITY, f64::min);
    (least, values.fold(f64::NEG_INFINITY, f64::max))
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

pub fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let (least, most) = spread(row);
        json!({
            "name": row.name,
            "family": row.family.label(),
            "prefixes": row.prefixes,
            "flows": row.flows,
            "cache": row.cache.label(),
            "ns_over_parse": tenth(over_parse(row)),
            "ns_over_parse_min": tenth(least),
            "ns_over_parse_max": tenth(most),
            "ns_over_empty": tenth(over_empty(row)),
            "ns": tenth(median(row, |times| times.whole)),
        })
    };
    json!({ "rows": rows.iter().map(row).collect::<Vec<_>>() })
}

pub fn heading() -> String {
    format!(
        "{:<22} {:<6} {:>8} {:>8} {:<5} {:>10} {:>16} {:>10}",
        "", "family", "prefixes", "flows", "cache", "over parse", "least to most", "over empty"
    )
}

pub fn line(row: &Row) -> String {
    let (least, most) = spread(row);
    format!(
        "{:<22} {:<6} {:>8} {:>8} {:<5} {:>10.1} {:>16} {:>10.1}",
        row.name,
        row.family.label(),
        row.prefixes,
        row.flows,
        row.cache.label(),
        over_parse(row),
        format!("{least:.1} to {most:.1}"),
        over_empty(row),
    )
}
