//! How the cost of a packet grows: with prefixes and flows, by the micro-benchmark's rows;
//! with names and rules, and when two processors send at once, measured here.

use std::{
    error::Error,
    fmt::Write as _,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use netfilter_daemon::datapath::test_run::{self, Context, Program};
use serde_json::Value;

use crate::{
    bpffs::Kernel,
    frame::{self, ACK, SYN, answer, datagram, query, segment, tcp, to, udp},
    load,
    plot::{Panel, Point, Sheet, Style},
};

const ROUNDS: usize = 9;
const REPEAT: u32 = 50_000;

const NAMES: [usize; 5] = [10, 100, 1_000, 10_000, 20_000];
const RULES: [usize; 5] = [1, 10, 100, 1_000, 10_000];

/// The lines of the picture.
const HOT: usize = 0;
const TWO: usize = 4;
const LINES: [(&str, usize, bool); 5] = [
    ("this one, few destinations", 0, false),
    ("this one, a million destinations", 6, false),
    ("LPM_TRIE, few destinations", 1, true),
    ("LPM_TRIE, a million destinations", 3, true),
    ("this one, two processors at once", 4, false),
];

/// `micro`: what `cargo xtask bench --json` printed.
pub fn measure(micro: Option<&str>) -> Result<Sheet, Box<dyn Error>> {
    let mut panels = Vec::new();
    if let Some(text) = micro {
        let micro: Value = serde_json::from_str(text)?;
        let rows = micro["rows"].as_array().ok_or("no rows")?;
        panels.push(of_prefixes(rows, "ipv4"));
        panels.push(of_prefixes(rows, "ipv6"));
        panels.push(of_flows(rows));
    }
    panels.push(of_names());
    panels.push(of_rules());
    panels.push(of_processors());
    Ok(Sheet {
        title: "What a packet costs, by how much there is".to_owned(),
        note: "nanoseconds in BPF_PROG_TEST_RUN; medians and quarters; cargo xtask bench --growth FILE"
            .to_owned(),
        columns: 3,
        lines: LINES
            .iter()
            .map(|(title, colour, dashed)| Style {
                title: (*title).to_owned(),
                colour: *colour,
                dashed: *dashed,
            })
            .collect(),
        panels,
    })
}

/// The same for who reads no pictures.
pub fn table(sheet: &Sheet) -> String {
    let mut text = String::new();
    for panel in &sheet.panels {
        writeln!(text, "{}: {}", panel.title, panel.unit).unwrap();
        for (points, line) in panel.values.iter().zip(&sheet.lines) {
            if points.is_empty() {
                continue;
            }
            write!(text, "  {:<36}", line.title).unwrap();
            for point in points {
                write!(text, " {} {:.0}", panel.places[point.place], point.value).unwrap();
            }
            text.push('\n');
        }
    }
    text
}

fn of_prefixes(rows: &[Value], family: &str) -> Panel {
    let here = |row: &&Value| row["family"] == family && row["flows"] == 1;
    let rows: Vec<&Value> = rows.iter().filter(here).collect();
    let line = |name: &str, cache: &str| -> Vec<(u64, f64)> {
        let of = |row: &&&Value| row["name"] == name && row["cache"] == cache;
        let found = rows.iter().filter(of);
        found
            .filter_map(|row| Some((row["prefixes"].as_u64()?, row["ns_over_parse"].as_f64()?)))
            .collect()
    };
    let lines = [
        line("verdict/static", "hot"),
        line("verdict/static", "cold"),
        line("lpm_trie", "hot"),
        line("lpm_trie", "cold"),
    ];
    let family = if family == "ipv4" { "IPv4" } else { "IPv6" };
    from_rows(format!("prefixes, {family}"), &lines)
}

fn of_flows(rows: &[Value]) -> Panel {
    let line = |cache: &str| -> Vec<(u64, f64)> {
        let of = |row: &&Value| {
            row["name"] == "verdict/static"
                && row["cache"] == cache
                && row["family"] == "ipv4"
                && row["prefixes"] == 10_000
        };
        let found = rows.iter().filter(of);
        found
            .filter_map(|row| Some((row["flows"].as_u64()?, row["ns_over_parse"].as_f64()?)))
            .collect()
    };
    from_rows(
        "flows, 10,000 prefixes".to_owned(),
        &[line("hot"), line("cold")],
    )
}

fn from_rows(title: String, lines: &[Vec<(u64, f64)>]) -> Panel {
    let mut numbers: Vec<u64> = lines.iter().flatten().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let point = |(number, value): &(u64, f64)| Point {
        place: numbers
            .iter()
            .position(|there| there == number)
            .unwrap_or(0),
        value: *value,
        low: *value,
        high: *value,
    };
    Panel {
        title,
        unit: "ns over a program that parses only".to_owned(),
        places: numbers.iter().map(|number| short(*number)).collect(),
        range: None,
        values: lines
            .iter()
            .map(|line| line.iter().map(point).collect())
            .collect(),
    }
}

fn short(number: u64) -> String {
    match number {
        1_000_000.. => format!("{} M", number / 1_000_000),
        1_000.. => format!("{} k", number / 1_000),
        _ => number.to_string(),
    }
}

fn of_names() -> Panel {
    let kernels = NAMES.map(|count| {
        let mut policy = String::from("resolvers: [10.0.0.53]\noutbound_rules:\n");
        for number in 0..count {
            // Every second one is a wildcard.
            let star = if number % 2 == 1 { "*." } else { "" };
            writeln!(
                policy,
                "- {{ name: r{number}, type: fqdn, destination: {{ fqdn: '{star}n{number}.bench.example', protocol: TCP, port_ranges: '443' }} }}"
            )
            .unwrap();
        }
        let question = query(7, &format!("n{}.bench.example", count / 4 * 2), 1);
        let frame = to("10.0.0.53", frame::UDP, datagram(40_000, 53, &question));
        (Kernel::new(&policy), frame.bytes())
    });
    panel("names, one question", &NAMES, kernels)
}

fn of_rules() -> Panel {
    let kernels = RULES.map(|count| {
        let mut policy = String::from("resolvers: [10.0.0.53]\noutbound_rules:\n");
        for number in 0..count {
            let (high, low) = (number / 256, number % 256);
            // As many sets of ports as a policy can tell apart, and prefixes that share them.
            let port = 1_000 + number % 200;
            writeln!(
                policy,
                "- {{ name: r{number}, type: ip, destination: {{ cidr: 30.{high}.{low}.0/24, protocol: TCP, port_ranges: '443,{port}' }} }}"
            )
            .unwrap();
        }
        let last = count - 1;
        let frame = tcp(&format!("30.{}.{}.1", last / 256, last % 256), 443);
        (Kernel::new(&policy), frame.bytes())
    });
    panel("rules, one packet", &RULES, kernels)
}

/// One packet that passes, by how large the policy is, in interleaved rounds.
fn panel<const N: usize>(
    title: &str,
    counts: &[usize; N],
    kernels: [(Kernel, Vec<u8>); N],
) -> Panel {
    let mut kernels = kernels;
    let mut rounds = vec![Vec::new(); N];
    for _ in 0..ROUNDS {
        for ((kernel, frame), rounds) in kernels.iter_mut().zip(&mut rounds) {
            let run = |kernel: &mut Kernel| {
                let context = Context::default();
                kernel
                    .datapath
                    .test_run(Program::Egress, frame, context, REPEAT)
                    .unwrap()
            };
            let outcome = run(kernel);
            assert_eq!(outcome.action, crate::bpffs::PASS, "{title}");
            rounds.push(outcome.duration.as_secs_f64() * 1e9);
        }
    }
    Panel {
        title: title.to_owned(),
        unit: "ns, and what a test run takes".to_owned(),
        places: counts.iter().map(|count| short(*count as u64)).collect(),
        range: None,
        values: vec![
            rounds
                .into_iter()
                .enumerate()
                .map(|(place, rounds)| point(place, rounds))
                .collect(),
        ],
    }
}

fn point(place: usize, mut values: Vec<f64>) -> Point {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values[(values.len() - 1) * part / 4];
    Point {
        place,
        value: at(2),
        low: at(1),
        high: at(3),
    }
}

const BOTH: &str = "
resolvers: [10.0.0.53]
on_deny: drop
inbound: [{ protocol: TCP, port_ranges: '22' }]
outbound_rules:
  - { name: net, type: ip, destination: { cidr: 198.51.100.0/24, protocol: TCP, port_ranges: '443' } }
  - { name: name, type: fqdn, destination: { fqdn: '*.bench.example', protocol: TCP, port_ranges: '443' } }
";

/// The same kinds of packets by one processor, and by two at the same time. Both of a kind want
/// the same entry wherever there is one: the worst of what they can do to each other.
fn of_processors() -> Panel {
    let mut kernel = Kernel::new(BOTH);
    let question = query(7, "a.bench.example", 1);
    let asked = to("10.0.0.53", frame::UDP, datagram(40_000, 53, &question)).bytes();
    kernel.egress(&asked);
    let answered = datagram(53, 40_000, &answer(&question, 3600, &["192.0.2.1"]));
    let answered = to(frame::LOCAL, frame::UDP, answered).from("10.0.0.53");
    kernel.ingress(&answered.bytes());
    let came = to(frame::LOCAL, frame::TCP, segment(5000, 22, SYN)).from("8.8.8.8");
    kernel.ingress(&came.bytes());
    let cases = [
        ("range", tcp("198.51.100.1", 443).bytes()),
        (
            "learned",
            to("192.0.2.1", frame::TCP, segment(40_000, 443, ACK)).bytes(),
        ),
        (
            "reply",
            to("8.8.8.8", frame::TCP, segment(22, 5000, SYN | ACK)).bytes(),
        ),
        ("question", asked),
        ("denied", udp("9.9.9.9", 9).bytes()),
    ];
    let (mut alone, mut both) = (vec![Vec::new(); cases.len()], vec![Vec::new(); cases.len()]);
    for _ in 0..ROUNDS {
        for (case, (_, frame)) in cases.iter().enumerate() {
            alone[case].push(at_once(&kernel, frame, 1));
            both[case].push(at_once(&kernel, frame, 2));
        }
    }
    let points = |rounds: Vec<Vec<f64>>| -> Vec<Point> {
        let rounds = rounds.into_iter().enumerate();
        rounds.map(|(place, rounds)| point(place, rounds)).collect()
    };
    let mut values = vec![Vec::new(); LINES.len()];
    values[HOT] = points(alone);
    values[TWO] = points(both);
    Panel {
        title: "processors".to_owned(),
        unit: "ns for each packet of one processor".to_owned(),
        places: cases.iter().map(|(name, _)| (*name).to_owned()).collect(),
        range: None,
        values,
    }
}

/// What a packet takes, while as many processors do the same.
fn at_once(kernel: &Kernel, frame: &[u8], processors: usize) -> f64 {
    let fd = kernel.datapath.descriptor(Program::Egress).unwrap();
    let (start, done) = (&Barrier::new(processors), &AtomicBool::new(false));
    let fd = &fd;
    thread::scope(|scope| {
        let run = |number: usize| {
            scope.spawn(move || {
                load::on(number).unwrap();
                start.wait();
                let once = || {
                    let fd = std::os::fd::AsRawFd::as_raw_fd(fd);
                    test_run::run(fd, frame, Context::default(), REPEAT).unwrap()
                };
                let outcome = once();
                if number == 0 {
                    done.store(true, Ordering::Relaxed);
                }
                // The others go on until the first has its number.
                while number > 0 && !done.load(Ordering::Relaxed) {
                    once();
                }
                outcome.duration.as_secs_f64() * 1e9
            })
        };
        let threads: Vec<_> = (0..processors).map(run).collect();
        let times: Vec<f64> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        times[0]
    })
}
