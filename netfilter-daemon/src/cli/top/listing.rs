//! The lists of `top`: rows of cells, sorted and sifted. Pure.

use std::cmp::Reverse;

use super::screen::Pane;
use crate::{
    daemon::{
        event::Event,
        overview::{Overview, Rule, Tallies},
    },
    moment,
    shown::{bytes, number, visible},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Most,
    Last,
    Name,
}

impl Sort {
    pub(super) const fn next(self) -> Self {
        match self {
            Self::Most => Self::Last,
            Self::Last => Self::Name,
            Self::Name => Self::Most,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Most => "most",
            Self::Last => "last",
            Self::Name => "name",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    /// What is said where there is no row.
    pub(super) none: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) width: Width,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// Characters, of a number.
    Number(u16),
    /// Characters, of a word.
    Word(u16),
    /// A share of what is left.
    Share(u16),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    count: u64,
    last: u64,
    /// Something is wrong with it.
    pub(super) bad: bool,
}

const fn number_of(title: &'static str, width: u16) -> Column {
    Column {
        title,
        width: Width::Number(width),
    }
}

const fn word(title: &'static str, width: u16) -> Column {
    Column {
        title,
        width: Width::Word(width),
    }
}

const fn share(title: &'static str, of: u16) -> Column {
    Column {
        title,
        width: Width::Share(of),
    }
}

impl Listing {
    pub(super) fn of(overview: &Overview, pane: Pane, sort: Sort, filter: &str) -> Self {
        let mut listing = match pane {
            Pane::Names => {
                let titles = ["name or address", "last from"];
                tallies(&overview.names, overview.time, titles, false)
            }
            Pane::Processes => {
                let titles = ["executable", "last to"];
                tallies(&overview.processes, overview.time, titles, true)
            }
            Pane::Reasons => reasons(overview),
            Pane::Rules => rules(overview),
            Pane::Events => events(overview),
            Pane::Tables => tables(overview),
        };
        for cell in listing.rows.iter_mut().flat_map(|row| &mut row.cells) {
            *cell = visible(cell).into_owned();
        }
        let wanted = filter.to_lowercase();
        let has = |cell: &String| cell.to_lowercase().contains(&wanted);
        listing.rows.retain(|row| row.cells.iter().any(has));
        match sort {
            // They come so.
            _ if pane == Pane::Events => {}
            Sort::Most => listing.rows.sort_by_key(|row| Reverse(row.count)),
            Sort::Last => listing.rows.sort_by_key(|row| Reverse(row.last)),
            Sort::Name => listing.rows.sort_by(|one, next| one.cells.cmp(&next.cells)),
        }
        listing
    }
}

/// `whose`: of processes, which have an owner.
fn tallies(tallies: &Tallies, now: u64, titles: [&'static str; 2], whose: bool) -> Listing {
    let [what, other] = titles;
    let mut columns = vec![
        share(what, 3),
        number_of("reports", 7),
        number_of("untold", 7),
        number_of("last", 6),
        word("reason", 15),
        share(other, 2),
    ];
    if whose {
        columns.insert(1, share("user", 2));
    }
    let mut rows: Vec<Row> = tallies
        .rows
        .iter()
        .map(|row| {
            let mut cells = vec![
                row.subject.what.clone(),
                number(row.reports),
                number(row.untold),
                ago(row.last, now),
                format!("{}{}", row.reason, if row.audited { "*" } else { "" }),
                row.other.clone(),
            ];
            if whose {
                cells.insert(1, row.subject.whose.clone());
            }
            Row {
                cells,
                count: row.reports,
                last: row.last,
                bad: false,
            }
        })
        .collect();
    if tallies.others > 0 {
        let mut cells = vec![String::new(); columns.len()];
        cells[0] = "others".to_owned();
        cells[if whose { 2 } else { 1 }] = number(tallies.others);
        rows.push(Row {
            cells,
            count: 0,
            last: 0,
            bad: false,
        });
    }
    Listing {
        columns,
        rows,
        none: "nothing was reported in the last hour",
    }
}

fn reasons(overview: &Overview) -> Listing {
    let lately = |reason: &str, audited| {
        let mut lately = overview.daemon.drops_last_minute.iter();
        let same = lately.find(|drops| drops.reason == reason && drops.audited == audited);
        same.map_or(0, |drops| drops.packets)
    };
    let rows = overview.hour.by_reason.iter().map(|drops| Row {
        cells: vec![
            drops.reason.clone(),
            if drops.audited { "passed" } else { "denied" }.to_owned(),
            number(drops.packets),
            number(lately(&drops.reason, drops.audited)),
            bytes(drops.bytes),
        ],
        count: drops.packets,
        last: lately(&drops.reason, drops.audited),
        bad: false,
    });
    Listing {
        columns: vec![
            share("reason", 1),
            word("", 6),
            number_of("packets/h", 13),
            number_of("packets/min", 13),
            number_of("bytes/h", 10),
        ],
        rows: rows.collect(),
        none: "nothing was denied in the last hour",
    }
}

fn rules(overview: &Overview) -> Listing {
    let rules = overview.rules.hit.iter().chain(&overview.rules.never);
    let rows = rules.map(|rule| {
        let Rule {
            rule,
            action,
            what,
            hits,
        } = rule;
        Row {
            cells: vec![rule.clone(), number(*hits), action.clone(), what.clone()],
            count: *hits,
            last: *hits,
            bad: false,
        }
    });
    Listing {
        columns: vec![
            share("rule", 2),
            number_of("hits", 13),
            word("action", 6),
            share("what", 3),
        ],
        rows: rows.collect(),
        none: "the policy has no rule: it allows nothing",
    }
}

fn events(overview: &Overview) -> Listing {
    let rows = overview.recent.iter().map(|event| Row {
        cells: vec![
            ago(event.time, overview.time),
            who(event),
            what(event),
            format!("{}{}", event.reason, if event.audited { "*" } else { "" }),
            event.rule.clone().unwrap_or_default(),
        ],
        count: 0,
        last: event.time,
        bad: false,
    });
    Listing {
        columns: vec![
            number_of("ago", 6),
            share("from", 2),
            share("to", 3),
            word("reason", 15),
            share("rule", 1),
        ],
        rows: rows.collect(),
        none: "nothing was denied since the daemon's start",
    }
}

/// `/usr/bin/curl (812)`
fn who(event: &Event) -> String {
    let number = |pid: Option<u32>| pid.map_or(String::new(), |pid| format!(" ({pid})"));
    if let Some(socket) = &event.socket {
        let program = socket.program.as_deref().unwrap_or(&socket.user);
        return format!("{program}{}", number(socket.process));
    }
    match &event.sender {
        Some(sender) => {
            let file = sender.executable.as_ref().or(sender.program.as_ref());
            let file = file.unwrap_or(&sender.user);
            format!("{file}{}", number(sender.pid))
        }
        None => event
            .source
            .map_or_else(|| event.interface.clone(), |from| from.to_string()),
    }
}

/// `pypi.org TCP 443`
fn what(event: &Event) -> String {
    match (&event.question, &event.socket, &event.name) {
        (Some(question), ..) => format!("{question} DNS"),
        (_, Some(socket), _) => socket.way.clone(),
        (_, _, Some(name)) => match (&event.protocol, event.destination_port) {
            (Some(protocol), Some(port)) => format!("{name} {protocol} {port}"),
            (Some(protocol), None) => format!("{name} {protocol}"),
            (None, _) => name.clone(),
        },
        (None, None, None) => event.destination(),
    }
}

fn tables(overview: &Overview) -> Listing {
    let rows = overview.tables.iter().map(|table| Row {
        cells: vec![
            table.map.clone(),
            number(table.entries),
            number(table.max_entries),
            format!("{} %", table.percent()),
            table.evictions.map_or(String::new(), number),
        ],
        count: table.percent(),
        last: table.evictions.unwrap_or(0),
        bad: table.is_full(),
    });
    Listing {
        columns: vec![
            share("kernel table", 1),
            number_of("entries", 12),
            number_of("room for", 12),
            number_of("full", 6),
            number_of("forgotten", 12),
        ],
        rows: rows.collect(),
        none: "there are no tables",
    }
}

/// Short, for a column.
fn ago(then: u64, now: u64) -> String {
    let span = moment::span(std::time::Duration::from_secs(now.saturating_sub(then)));
    let mut words = span.split(' ');
    match (words.next(), words.next()) {
        (Some(count), Some(unit)) => format!("{count} {unit}"),
        _ => span,
    }
}
