//! Medians, and how far they are spread.

use std::fmt::Write as _;

use serde_json::json;

use crate::{
    filters::Filter,
    measure::{Load, Measured, Sample},
    plot::{Panel, Point, Sheet, Style},
    site::Side,
};

/// What the rounds of one filter come to.
pub struct Row {
    pub side: Side,
    pub prefixes: usize,
    pub filter: Filter,
    pub load: Load,
    /// Of no filter in the same round; of a flood, of a program that drops all.
    pub share: Spread,
    /// Per second.
    pub rate: Spread,
    /// Nanoseconds that it adds to each; of a stream, to each 64 KiB.
    pub added: Spread,
    pub daemon: Option<Spread>,
}

/// The median, and the quarters that lie below and above.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at = |part: usize| values.get((values.len().saturating_sub(1) * part + 2) / 4);
        Some(Self {
            median: *at(2)?,
            low: *at(1)?,
            high: *at(3)?,
        })
    }
}

/// In the order in which they are shown.
pub fn rows(measured: &Measured) -> Vec<Row> {
    let mut prefixes: Vec<usize> = measured
        .samples
        .iter()
        .map(|sample| sample.prefixes)
        .collect();
    prefixes.dedup();
    let mut rows = Vec::new();
    for load in Load::ALL {
        for side in Side::ALL {
            for &prefixes in &prefixes {
                let of = |filter| row(measured, load, side, prefixes, filter);
                rows.extend(Filter::ALL.into_iter().filter_map(of));
            }
        }
    }
    rows
}

fn row(
    measured: &Measured,
    load: Load,
    side: Side,
    prefixes: usize,
    filter: Filter,
) -> Option<Row> {
    let of = |filter: Filter, round: usize| {
        measured.samples.iter().find(move |sample: &&Sample| {
            (sample.load, sample.side, sample.prefixes) == (load, side, prefixes)
                && (sample.filter, sample.round) == (filter, round)
        })
    };
    // What it is compared with, in this round.
    let reference = |round| match (load, filter) {
        (Load::Flood, _) => Some(of(Filter::Drop, round)?.rate),
        (_, Filter::NoneAgain) => Some(of(Filter::None, round)?.rate),
        _ => {
            let [first, last] = [Filter::None, Filter::NoneAgain].map(|filter| of(filter, round));
            Some((first?.rate + last?.rate) / 2.0)
        }
    };
    let pairs: Vec<(&Sample, f64)> = (0..measured.rounds)
        .filter_map(|round| Some((of(filter, round)?, reference(round)?)))
        .collect();
    let all = |each: &dyn Fn(&Sample, f64) -> f64| {
        let pairs = pairs.iter();
        Spread::of(
            pairs
                .map(|(sample, reference)| each(sample, *reference))
                .collect(),
        )
    };
    let unit = if load == Load::Stream { 65_536.0 } else { 1.0 };
    let daemon: Vec<f64> = pairs
        .iter()
        .filter_map(|(sample, _)| sample.daemon)
        .collect();
    Some(Row {
        side,
        prefixes,
        filter,
        load,
        share: all(&|sample, reference| sample.rate / reference)?,
        rate: all(&|sample, _| sample.rate)?,
        added: all(&|sample, reference| 1e9 * unit * (1.0 / sample.rate - 1.0 / reference))?,
        daemon: Spread::of(daemon),
    })
}

pub fn json(measured: &Measured) -> String {
    let rows: Vec<_> = rows(measured)
        .iter()
        .map(|row| {
            json!({
                "name": row.load.name(),
                "side": row.side.name(),
                "filter": row.filter.name(),
                "prefixes": row.prefixes,
                "share": row.share.median,
                "share_low": row.share.low,
                "share_high": row.share.high,
                "per_second": row.rate.median,
                "ns_added": row.added.median,
                "daemon_processors": row.daemon.map(|daemon| daemon.median),
            })
        })
        .collect();
    let missing: Vec<_> = measured
        .missing
        .iter()
        .map(|(side, prefixes, filter, why)| {
            json!({ "side": side.name(), "prefixes": prefixes, "filter": filter.name(), "why": why })
        })
        .collect();
    json!({ "rounds": measured.rounds, "rows": rows, "not_there": missing }).to_string()
}

pub fn table(measured: &Measured) -> String {
    let rows = rows(measured);
    let mut text = format!(
        "Shares of no filter in the same round (of a flood: of a program that drops all); medians \
         of {} interleaved rounds, in brackets the middle half of them; what each adds, in ns.\n",
        measured.rounds
    );
    let mut sizes: Vec<usize> = rows.iter().map(|row| row.prefixes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for load in Load::ALL {
        for side in Side::ALL {
            let shown: Vec<&Row> = rows
                .iter()
                .filter(|row| (row.load, row.side) == (load, side))
                .collect();
            if shown.is_empty() {
                continue;
            }
            write!(
                text,
                "\n{:<42}",
                format!("{}, {}", load.title(), side.name())
            )
            .unwrap();
            for size in &sizes {
                write!(text, " {:>26}", format!("{size} prefixes")).unwrap();
            }
            text.push('\n');
            for filter in Filter::ALL {
                line(&mut text, filter, &shown, &sizes);
            }
        }
    }
    for (side, prefixes, filter, why) in &measured.missing {
        let (title, side) = (filter.title(), side.name());
        writeln!(
            text,
            "\n{title} ({side}, {prefixes} prefixes) is not there: {why}"
        )
        .unwrap();
    }
    text
}

fn line(text: &mut String, filter: Filter, rows: &[&Row], sizes: &[usize]) {
    let cells: Vec<Option<&&Row>> = sizes
        .iter()
        .map(|size| {
            let mut rows = rows.iter();
            rows.find(|row| row.filter == filter && row.prefixes == *size)
        })
        .collect();
    if cells.iter().all(Option::is_none) {
        return;
    }
    write!(text, "  {:<40}", filter.title()).unwrap();
    for row in cells {
        let cell = row.map_or_else(String::new, |row| match filter {
            Filter::None | Filter::Drop => quantity(row),
            _ => format!(
                "{:.3} ({:.2}-{:.2}) {:>+5.0}",
                row.share.median, row.share.low, row.share.high, row.added.median
            ),
        });
        write!(text, " {cell:>26}").unwrap();
    }
    let daemon = rows.iter().filter(|row| row.filter == filter);
    let most = daemon
        .filter_map(|row| row.daemon)
        .map(|daemon| daemon.median);
    if let Some(most) = most.reduce(f64::max) {
        write!(text, "   daemon: {:.1} % of a processor", 100.0 * most).unwrap();
    }
    text.push('\n');
}

/// What it is in itself.
fn quantity(row: &Row) -> String {
    match row.load {
        Load::Stream => format!("{:.2} Gbit/s", row.rate.median * 8e-9),
        _ => format!("{:.0} k/s", row.rate.median / 1e3),
    }
}

/// The filters that are drawn, and the colours of their lines.
const DRAWN: [(Filter, usize, bool); 6] = [
    (Filter::Ours, 0, false),
    (Filter::NftSet, 1, false),
    (Filter::NftPorts, 2, false),
    (Filter::NftConntrack, 3, false),
    (Filter::Ipset, 4, false),
    (Filter::Empty, 5, true),
];

pub fn sheet(measured: &Measured) -> Sheet {
    let rows = rows(measured);
    let mut sizes: Vec<usize> = rows.iter().map(|row| row.prefixes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let style = |(filter, colour, dashed): (Filter, usize, bool)| Style {
        title: filter.title().to_owned(),
        colour,
        dashed,
    };
    let mut panels = Vec::new();
    for load in Load::ALL {
        for side in Side::ALL {
            let here = |row: &&Row| (row.load, row.side) == (load, side);
            let here: Vec<&Row> = rows.iter().filter(here).collect();
            let values = DRAWN.map(|(filter, ..)| points(&here, filter, &sizes));
            let least = values.iter().flatten().map(|point| point.low);
            let most = values.iter().flatten().map(|point| point.high);
            panels.push(Panel {
                title: format!("{}, {}", load.title(), side.name()),
                unit: match load {
                    Load::Flood => "rate, as a share of a program that drops all",
                    _ => "rate, as a share of no filter",
                }
                .to_owned(),
                places: sizes
                    .iter()
                    .map(|size| format!("{} k", size / 1000))
                    .collect(),
                range: Some((
                    least.fold(0.9, f64::min) - 0.02,
                    most.fold(1.0, f64::max) + 0.02,
                )),
                values: values.to_vec(),
            });
        }
    }
    Sheet {
        title: "What filters leave, by the number of prefixes".to_owned(),
        note: format!(
            "medians of {} interleaved rounds, and the middle half of them; cargo xtask bench --e2e",
            measured.rounds
        ),
        columns: 2,
        lines: DRAWN.map(style).into(),
        panels,
    }
}

fn points(rows: &[&Row], filter: Filter, sizes: &[usize]) -> Vec<Point> {
    let rows = rows.iter().filter(|row| row.filter == filter);
    let point = |row: &&Row| {
        let place = sizes.iter().position(|size| *size == row.prefixes)?;
        Some(Point {
            place,
            value: row.share.median,
            low: row.share.low,
            high: row.share.high,
        })
    };
    rows.filter_map(point).collect()
}
