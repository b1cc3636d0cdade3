//! Small multiples as SVG, to be read on light and on dark.

use std::fmt::Write as _;

/// One picture: panels side by side, the same lines in all.
pub struct Sheet {
    pub title: String,
    pub note: String,
    pub columns: usize,
    pub lines: Vec<Style>,
    pub panels: Vec<Panel>,
}

/// How a line looks, and what it stands for.
pub struct Style {
    pub title: String,
    /// 0 is what the picture is about, the others are beside it.
    pub colour: usize,
    pub dashed: bool,
}

pub struct Panel {
    pub title: String,
    pub unit: String,
    /// What stands below each place, from left to right.
    pub places: Vec<String>,
    /// From where to where; from none, the values say so.
    pub range: Option<(f64, f64)>,
    /// By the sheet's lines; a line that is not here is empty.
    pub values: Vec<Vec<Point>>,
}

/// At a place, the median, and from where to where half of all is.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub place: usize,
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

const WIDTH: f64 = 430.0;
const HEIGHT: f64 = 200.0;
/// Around a panel's lines: for its title, its numbers and its places.
const TOP: f64 = 34.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const BOTTOM: f64 = 28.0;
/// Of a line of the legend.
const LEGEND: f64 = 20.0;
const MARGIN: f64 = 16.0;

const STYLE: &str = "
text { font: 12px system-ui, sans-serif; fill: #24292f }
.back { fill: #ffffff } .grid { stroke: #d0d7de; stroke-width: 1 }
.title { font-size: 16px; font-weight: 600 } .panel { font-weight: 600 } .faint { fill: #57606a }
.end { text-anchor: end } .middle { text-anchor: middle }
.line { fill: none; stroke-width: 2 } .main { stroke-width: 3.5 } .dashed { stroke-dasharray: 5 4 }
.c0 { stroke: #0550ae } .c1 { stroke: #bc4c00 } .c2 { stroke: #d4a000 } .c3 { stroke: #a40e26 }
.c4 { stroke: #1a7f37 } .c5 { stroke: #8c959f } .c6 { stroke: #8250df }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .back { fill: #0d1117 } .grid { stroke: #30363d } .faint { fill: #9198a1 }
.c0 { stroke: #58a6ff } .c1 { stroke: #f0883e } .c2 { stroke: #e3c04a } .c3 { stroke: #ff7b72 }
.c4 { stroke: #3fb950 } .c5 { stroke: #768390 } .c6 { stroke: #bc8cff }
}
";

pub fn draw(sheet: &Sheet) -> String {
    let columns = sheet.columns;
    let legend = sheet.lines.len().div_ceil(columns) as f64 * LEGEND;
    let head = MARGIN + 48.0 + legend;
    let rows = sheet.panels.len().div_ceil(columns);
    let width = 2.0f64.mul_add(MARGIN, WIDTH * columns as f64);
    let height = HEIGHT.mul_add(rows as f64, head + MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\"><title>{0}</title><style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"{width}\" height=\"{height}\"/>\n",
        escaped(&sheet.title)
    );
    words(&mut svg, MARGIN, MARGIN + 14.0, "title", &sheet.title);
    words(&mut svg, MARGIN, MARGIN + 34.0, "faint", &sheet.note);
    for (number, style) in sheet.lines.iter().enumerate() {
        let x = MARGIN + (number % columns) as f64 * WIDTH;
        let y = MARGIN + 56.0 + (number / columns) as f64 * LEGEND;
        let (from, to) = (x, x + 30.0);
        stroke(&mut svg, style, &[(from, y - 4.0), (to, y - 4.0)]);
        words(&mut svg, to + 8.0, y, "", &style.title);
    }
    for (number, panel) in sheet.panels.iter().enumerate() {
        let x = MARGIN + (number % columns) as f64 * WIDTH;
        let y = head + (number / columns) as f64 * HEIGHT;
        drawn(&mut svg, panel, &sheet.lines, (x, y));
    }
    svg.push_str("</svg>\n");
    svg
}

fn drawn(svg: &mut String, panel: &Panel, lines: &[Style], (x, y): (f64, f64)) {
    let (left, right) = (x + LEFT, x + WIDTH - RIGHT);
    let (top, bottom) = (y + TOP, y + HEIGHT - BOTTOM);
    let (least, most, step) = scale(panel);
    let at =
        |value: f64| bottom - (value.clamp(least, most) - least) / (most - least) * (bottom - top);
    let place = |place: usize| {
        let gap = (right - left) / panel.places.len() as f64;
        (place as f64 + 0.5).mul_add(gap, left)
    };
    words(svg, left, y + 16.0, "panel", &panel.title);
    words(svg, left, y + 29.0, "faint", &panel.unit);
    let mut mark = (least / step).ceil() * step;
    while mark <= most + step / 100.0 {
        let height = at(mark);
        writeln!(
            svg,
            "<path class=\"grid\" d=\"M{left:.1} {height:.1}H{right:.1}\"/>"
        )
        .unwrap();
        words(
            svg,
            left - 6.0,
            height + 4.0,
            "faint end",
            &number(mark, step),
        );
        mark += step;
    }
    for (number, title) in panel.places.iter().enumerate() {
        words(svg, place(number), bottom + 18.0, "faint middle", title);
    }
    // What the picture is about is drawn last, over the others.
    for (style, points) in lines.iter().zip(&panel.values).rev() {
        let middle: Vec<_> = points
            .iter()
            .map(|point| (place(point.place), at(point.value)))
            .collect();
        stroke(svg, style, &middle);
        for point in points {
            let x = place(point.place);
            stroke(
                svg,
                &plain(style),
                &[(x, at(point.low)), (x, at(point.high))],
            );
            let (y, colour) = (at(point.value), style.colour);
            writeln!(
                svg,
                "<circle class=\"line c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>"
            )
            .unwrap();
        }
    }
}

const fn plain(style: &Style) -> Style {
    Style {
        title: String::new(),
        colour: style.colour,
        dashed: false,
    }
}

/// The range, and how far its marks are from each other.
fn scale(panel: &Panel) -> (f64, f64, f64) {
    let points = panel.values.iter().flatten();
    let (least, most) = panel.range.unwrap_or_else(|| {
        points.fold((0.0, 0.0), |(least, most): (f64, f64), point| {
            (least.min(point.value), most.max(point.value))
        })
    });
    let most = if most > least { most } else { least + 1.0 };
    let rough = (most - least) / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    let step = steps.into_iter().map(|step| step * power);
    let step = step.clone().find(|step| *step >= rough).unwrap_or(power);
    match panel.range {
        Some(_) => (least, most, step),
        None => (least, (most / step).ceil() * step, step),
    }
}

fn stroke(svg: &mut String, style: &Style, points: &[(f64, f64)]) {
    let mut path = String::new();
    for (x, y) in points {
        let verb = if path.is_empty() { 'M' } else { 'L' };
        write!(path, "{verb}{x:.1} {y:.1}").unwrap();
    }
    let colour = style.colour;
    let main = if colour == 0 && !style.title.is_empty() {
        " main"
    } else {
        ""
    };
    let dashed = if style.dashed { " dashed" } else { "" };
    writeln!(
        svg,
        "<path class=\"line c{colour}{main}{dashed}\" d=\"{path}\"/>"
    )
    .unwrap();
}

fn words(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = escaped(text);
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"
    )
    .unwrap();
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// With as many places as its neighbours need to differ.
fn number(value: f64, step: f64) -> String {
    let places = (0..4).find(|places| {
        let scaled = step * 10f64.powi(*places);
        (scaled - scaled.round()).abs() < 1e-9
    });
    let places = usize::try_from(places.unwrap_or(4)).unwrap_or(0);
    format!("{:.places$}", value + 0.0)
}
