//! Puts a screen on a terminal, of whatever size.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::Span,
    widgets::{Sparkline, Widget},
};

use super::{
    listing::{Listing, Width},
    screen::{Pane, Screen},
};
use crate::{
    moment,
    shown::{number, visible},
};

/// From this size on, four lists are shown at once.
const WIDE: (u16, u16) = (130, 34);
const GAP: u16 = 2;
const NARROWEST: u16 = 6;
const KEYS: &str = "q end  Tab list  ↑↓ move  s sort  / find  p pause  ? explain";

const HELP: [&str; 12] = [
    "Denied packets are counted by the kernel: the graph and `reasons` are exact.",
    "Names and processes are known from reports, of which the kernel gives a",
    "bounded number for each source; `untold` are those that it left out. A reason",
    "with a * was let pass by audit.",
    "",
    "1-6, Tab, Left, Right   choose a list",
    "Up, Down, PgUp, PgDn    move in it; Home, End",
    "s                       sort by most, last, name",
    "/ text Enter            show rows with this text; Esc shows all again",
    "p, Space                stop, and go on",
    "Ctrl-L                  draw all of it anew",
    "q, Esc, Ctrl-C          end",
];

pub(super) fn draw(screen: &mut Screen, buffer: &mut Buffer) {
    let area = buffer.area;
    if area.width < 20 || area.height < 6 {
        return put(buffer, area, 0, "too small", Style::new());
    }
    let colour = |colour| match screen.colours {
        true => Style::new().fg(colour),
        false => Style::new(),
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    put(buffer, area, 0, &headline(screen), bold);
    let clock = clock(screen);
    let at = area.width.saturating_sub(width_of(&clock));
    buffer.set_string(at, 0, &clock, Style::new());
    let (line, style) = match problem(screen) {
        Some(problem) => (problem, colour(Color::Red).add_modifier(Modifier::BOLD)),
        None => (policy(screen), Style::new()),
    };
    put(buffer, area, 1, &line, style);
    put(buffer, area, 2, &rates(screen), Style::new());
    let graph = Rect::new(0, 3, area.width, if area.height >= 20 { 3 } else { 1 });
    Sparkline::default()
        .data(seconds(screen, area.width))
        .style(colour(Color::Yellow))
        .render(graph, buffer);

    let top = graph.bottom();
    let below = area.height.saturating_sub(top + 1);
    let body = Rect::new(0, top, area.width, below);
    if screen.help {
        for (line, text) in (0..below).zip(HELP) {
            put(buffer, body, line, text, Style::new());
        }
    } else if area.width >= WIDE.0 && area.height >= WIDE.1 {
        grid(screen, buffer, body);
    } else {
        one(screen, buffer, body);
    }
    let last = Rect::new(0, area.height - 1, area.width, 1);
    buffer.set_style(last, Style::new().add_modifier(Modifier::REVERSED));
    put(buffer, last, 0, &foot(screen), Style::new());
}

/// A bar of all lists, and the chosen one.
fn one(screen: &mut Screen, buffer: &mut Buffer, area: Rect) {
    let mut at = 0;
    for (place, pane) in Pane::ALL.into_iter().enumerate() {
        let title = format!(" {} {} ", place + 1, pane.title());
        let style = match pane == screen.pane {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        let room = usize::from(area.width.saturating_sub(at));
        buffer.set_stringn(at, area.y, &title, room, style);
        at += width_of(&title);
        if at >= area.width {
            break;
        }
    }
    let list = Rect::new(
        area.x,
        area.y + 1,
        area.width,
        area.height.saturating_sub(1),
    );
    screen.page = usize::from(list.height.saturating_sub(1));
    rows(screen, screen.pane, screen.offset, buffer, list);
}

/// The chosen list, and three others beside and below it.
fn grid(screen: &mut Screen, buffer: &mut Buffer, area: Rect) {
    let mut panes = vec![Pane::Names, Pane::Processes, Pane::Rules, Pane::Events];
    if !panes.contains(&screen.pane) {
        panes[3] = screen.pane;
    }
    let (half, height) = (area.width / 2, area.height / 2);
    for (place, pane) in panes.into_iter().enumerate() {
        let (right, lower) = (place % 2 == 1, place >= 2);
        let x = if right { half + 1 } else { 0 };
        let y = area.y + if lower { height } else { 0 };
        let width = if right {
            area.width - half - 1
        } else {
            half - 1
        };
        let all = if lower { area.height - height } else { height };
        let mut style = Style::new().add_modifier(Modifier::UNDERLINED);
        if pane == screen.pane {
            style = style.add_modifier(Modifier::REVERSED | Modifier::BOLD);
        }
        let number = Pane::ALL.iter().position(|known| *known == pane);
        let title = format!(" {} {} ", number.unwrap_or(0) + 1, pane.title());
        buffer.set_string(x, y, &title, style);
        let list = Rect::new(x, y + 1, width, all.saturating_sub(2));
        let mut offset = 0;
        if pane == screen.pane {
            screen.page = usize::from(list.height.saturating_sub(1));
            offset = screen.offset;
        }
        rows(screen, pane, offset, buffer, list);
    }
}

fn rows(screen: &Screen, pane: Pane, offset: usize, buffer: &mut Buffer, area: Rect) {
    let Listing {
        columns,
        rows,
        none,
    } = screen.listing(pane);
    if area.height == 0 {
        return;
    }
    if rows.is_empty() {
        let said = match screen.filter.as_str() {
            "" => none.to_owned(),
            filter => format!("no row has `{filter}`; Esc shows all"),
        };
        return put(
            buffer,
            area,
            0,
            &said,
            Style::new().add_modifier(Modifier::DIM),
        );
    }
    let widths: Vec<Width> = columns.iter().map(|column| column.width).collect();
    let widths = resolve(&widths, area.width);
    let head: Vec<String> = columns
        .iter()
        .map(|column| column.title.to_owned())
        .collect();
    let dim = Style::new().add_modifier(Modifier::DIM);
    let mut line = |y: u16, cells: &[String], style: Style| {
        let mut x = area.x;
        for ((cell, column), width) in cells.iter().zip(&columns).zip(&widths) {
            if *width == 0 {
                continue;
            }
            let cell = fit(cell, *width);
            let room = width.saturating_sub(width_of(&cell));
            let indent = match column.width {
                Width::Number(_) => room,
                Width::Word(_) | Width::Share(_) => 0,
            };
            buffer.set_stringn(x + indent, area.y + y, &cell, usize::from(*width), style);
            x += width + GAP;
        }
    };
    line(0, &head, dim);
    let shown = rows.iter().skip(offset);
    for (y, row) in (1..area.height).zip(shown) {
        let mut style = Style::new();
        if row.bad {
            style = style.add_modifier(Modifier::BOLD);
            if screen.colours {
                style = style.fg(Color::Red);
            }
        }
        line(y, &row.cells, style);
    }
}

/// Where not all columns have room, those at the end go first, but for the shares of the first.
fn resolve(widths: &[Width], room: u16) -> Vec<u16> {
    let mut kept = widths.len();
    loop {
        let fixed: u16 = widths[..kept]
            .iter()
            .map(|width| match width {
                Width::Number(width) | Width::Word(width) => *width + GAP,
                Width::Share(_) => NARROWEST * 2 + GAP,
            })
            .sum();
        if fixed <= room + GAP || kept <= 1 {
            break;
        }
        kept -= 1;
    }
    let shares = |width: &Width| match width {
        Width::Share(share) => *share,
        Width::Number(_) | Width::Word(_) => 0,
    };
    let taken: u16 = widths[..kept]
        .iter()
        .map(|width| match width {
            Width::Number(width) | Width::Word(width) => *width + GAP,
            Width::Share(_) => GAP,
        })
        .sum();
    let left = (room + GAP).saturating_sub(taken);
    let all: u16 = widths[..kept].iter().map(shares).sum();
    let each = widths.iter().enumerate().map(|(place, width)| match width {
        _ if place >= kept => 0,
        Width::Number(width) | Width::Word(width) => *width,
        Width::Share(share) => left * share / all.max(1),
    });
    each.collect()
}

fn headline(screen: &Screen) -> String {
    let overview = &screen.overview;
    let verb = match overview.daemon.enforcing {
        true => "enforcing",
        false => "auditing",
    };
    let places = overview.attached.iter();
    let places: Vec<String> = places
        .map(|place| format!("{} ({})", visible(&place.interface), place.hook))
        .collect();
    let places = match places.is_empty() {
        true => "no interface".to_owned(),
        false => places.join(", "),
    };
    format!("{}: {verb} on {places}", visible(&overview.host))
}

fn clock(screen: &Screen) -> String {
    let utc = moment::utc(screen.overview.time);
    let time = utc.get(11..).unwrap_or(&utc);
    match screen.paused {
        true => format!("  PAUSED at {time}"),
        false => format!("  {time}"),
    }
}

fn problem(screen: &Screen) -> Option<String> {
    let overview = &screen.overview;
    let problem = screen
        .trouble
        .clone()
        .or_else(|| overview.daemon.complaint.clone())
        .or_else(|| overview.sockets.unguarded.clone())?;
    Some(format!("PROBLEM {}", visible(&problem)))
}

fn policy(screen: &Screen) -> String {
    let policy = &screen.overview.daemon.policy;
    let failed = match policy.failed_reloads {
        0 => String::new(),
        count => format!("; {count} reloads failed"),
    };
    let rules = match policy.rules {
        1 => "1 rule".to_owned(),
        rules => format!("{} rules", number(u64::try_from(rules).unwrap_or(u64::MAX))),
    };
    format!(
        "{rules}, generation {}{failed}; {} learned addresses; {}",
        screen.overview.generation,
        number(screen.overview.learned.addresses),
        visible(&policy.path)
    )
}

fn rates(screen: &Screen) -> String {
    let overview = &screen.overview;
    let minute: u64 = overview.seconds.iter().sum();
    let drops = overview.hour.by_reason.iter();
    let hour: u64 = drops.map(|drops| drops.packets).sum();
    let word = match overview.daemon.enforcing {
        true => "denied",
        false => "would be denied",
    };
    format!(
        "{word}: {} in this second, {} in a minute, {} in an hour",
        number(overview.seconds.last().copied().unwrap_or(0)),
        number(minute),
        number(hour)
    )
}

/// The last one at the right, each as wide as there is room for.
fn seconds(screen: &Screen, width: u16) -> Vec<Option<u64>> {
    let seconds = &screen.overview.seconds;
    let each = (usize::from(width) / 60).max(1);
    let shown = usize::from(width) / each;
    let skipped = seconds.len().saturating_sub(shown);
    let missing = shown.saturating_sub(seconds.len());
    let before = std::iter::repeat_n(None, missing);
    let known = seconds[skipped..].iter().map(|second| Some(*second));
    before
        .chain(known)
        .flat_map(|second| std::iter::repeat_n(second, each))
        .collect()
}

fn foot(screen: &Screen) -> String {
    if screen.typing {
        return format!(" find: {}_   Enter keeps it, Esc shows all", screen.filter);
    }
    let filter = match screen.filter.as_str() {
        "" => String::new(),
        filter => format!("  with `{filter}`"),
    };
    format!(" {KEYS}   by {}{filter}", screen.sort.word())
}

fn put(buffer: &mut Buffer, area: Rect, line: u16, text: &str, style: Style) {
    if line < area.height {
        buffer.set_stringn(area.x, area.y + line, text, usize::from(area.width), style);
    }
}

/// Cut at its front, for a name's end tells whose it is.
fn fit(text: &str, width: u16) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut rest = text.chars();
    while rest.next().is_some() {
        let cut = format!("…{}", rest.as_str());
        if width_of(&cut) <= width {
            return cut;
        }
    }
    String::new()
}

fn width_of(text: &str) -> u16 {
    u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX)
}
