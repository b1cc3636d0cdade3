//! Rounds: every filter one after the other, so that what changes on the machine meanwhile
//! changes for all.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use crate::{
    filters::{self, Filter, InForce, processor_time},
    load,
    prefixes::Prefixes,
    site::{Side, Site},
};

/// What is measured, in how many rounds.
pub struct Plan {
    pub prefixes: Vec<usize>,
    pub rounds: usize,
    /// For which each load counts.
    pub time: Duration,
    /// Names of filters, loads and sides.
    pub only: Vec<String>,
}

impl Plan {
    /// Whether this one of `all` of a kind is wanted: it is named, or none of them is.
    fn wants(&self, name: &str, mut all: impl Iterator<Item = &'static str>) -> bool {
        let named = |name: &str| self.only.iter().any(|only| only == name);
        named(name) || !all.any(named)
    }

    fn wants_filter(&self, filter: Filter) -> bool {
        let rule = self.wants(filter.name(), Filter::ALL.into_iter().map(Filter::name));
        // What the others are compared with is there in any case.
        rule || matches!(filter, Filter::None | Filter::NoneAgain | Filter::Drop)
    }

    fn wants_load(&self, load: Load) -> bool {
        self.wants(load.name(), Load::ALL.into_iter().map(Load::name))
    }

    fn wants_side(&self, side: Side) -> bool {
        self.wants(side.name(), Side::ALL.into_iter().map(Side::name))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    Stream,
    Datagrams,
    Connections,
    Lookups,
    /// Of datagrams that are denied.
    Flood,
}

impl Load {
    pub const ALL: [Self; 5] = [
        Self::Stream,
        Self::Datagrams,
        Self::Connections,
        Self::Lookups,
        Self::Flood,
    ];

    /// In JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stream => "tcp_bytes",
            Self::Datagrams => "udp_datagrams",
            Self::Connections => "tcp_connections",
            Self::Lookups => "dns_lookups",
            Self::Flood => "denied_datagrams",
        }
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Stream => "TCP throughput",
            Self::Datagrams => "small UDP datagrams to 4,096 destinations",
            Self::Connections => "TCP connect, request, answer, close",
            Self::Lookups => "DNS look-ups",
            Self::Flood => "flood of denied datagrams",
        }
    }

    /// What is measured of a filter.
    const fn is_for(self, filter: Filter, side: Side) -> bool {
        match (self, filter) {
            (Self::Flood, Filter::Drop | Filter::Ours) => true,
            (Self::Flood, Filter::None | Filter::NoneAgain | Filter::Empty) | (_, Filter::Drop) => {
                false
            }
            // The kernel tells a local sender of each, who then does something else.
            (Self::Flood, _) => matches!(side, Side::Workload),
            _ => true,
        }
    }
}

/// One number of one round.
pub struct Sample {
    pub side: Side,
    pub prefixes: usize,
    pub filter: Filter,
    pub load: Load,
    pub round: usize,
    /// Per second.
    pub rate: f64,
    /// Of a flood: the part of one processor that the daemon took.
    pub daemon: Option<f64>,
}

pub struct Measured {
    pub samples: Vec<Sample>,
    pub rounds: usize,
    /// Filters that this machine does not have, and why.
    pub missing: Vec<(Side, usize, Filter, String)>,
}

pub fn run(plan: &Plan) -> Result<Measured, Box<dyn Error>> {
    let mut measured = Measured {
        samples: Vec::new(),
        rounds: plan.rounds,
        missing: Vec::new(),
    };
    let start = Instant::now();
    for &count in &plan.prefixes {
        let prefixes = Prefixes::first(count);
        let sides = Side::ALL.into_iter();
        for side in sides.filter(|side| plan.wants_side(*side)) {
            eprintln!(
                "   {:3} s: {} prefixes, {}",
                start.elapsed().as_secs(),
                count,
                side.name()
            );
            let mut places = Places::new(side, &prefixes, plan)?;
            for (filter, why) in places.missing.drain(..) {
                eprintln!("   {} is not there: {why}", filter.title());
                measured.missing.push((side, count, filter, why));
            }
            for round in 0..plan.rounds {
                let order = order(round).into_iter();
                for filter in order.filter(|filter| plan.wants_filter(*filter)) {
                    let Some(site) = places.of(filter) else {
                        continue;
                    };
                    let samples = of_filter(filter, site, plan)
                        .map_err(|error| format!("{}: {error}", filter.title()))?;
                    measured
                        .samples
                        .extend(samples.map(|(load, rate, daemon)| Sample {
                            side,
                            prefixes: count,
                            filter,
                            load,
                            round,
                            rate,
                            daemon,
                        }));
                }
            }
        }
    }
    Ok(measured)
}

/// No filter first and last, the others in turns.
fn order(round: usize) -> Vec<Filter> {
    let mut between: Vec<_> = Filter::ALL.into_iter().collect();
    between.retain(|filter| !matches!(filter, Filter::None | Filter::NoneAgain));
    let turn = round % between.len();
    between.rotate_left(turn);
    between.insert(0, Filter::None);
    between.push(Filter::NoneAgain);
    between
}

/// A site for each filter whose rules stay, and one for the others.
struct Places {
    bare: Site,
    ruled: Vec<(Filter, Site)>,
    missing: Vec<(Filter, String)>,
}

impl Places {
    fn new(side: Side, prefixes: &Prefixes, plan: &Plan) -> Result<Self, Box<dyn Error>> {
        let mut places = Self {
            bare: Site::new(side, prefixes)?,
            ruled: Vec::new(),
            missing: Vec::new(),
        };
        let ruled = Filter::ALL.into_iter().filter(|filter| filter.has_rules());
        for filter in ruled.filter(|filter| plan.wants_filter(*filter)) {
            let site = Site::new(side, prefixes)?;
            match filters::prepare(filter, &site, prefixes) {
                Ok(()) => places.ruled.push((filter, site)),
                Err(why) => places.missing.push((filter, why.to_string())),
            }
        }
        Ok(places)
    }

    fn of(&self, filter: Filter) -> Option<&Site> {
        if !filter.has_rules() {
            return Some(&self.bare);
        }
        let mut ruled = self.ruled.iter();
        ruled.find_map(|(there, site)| (*there == filter).then_some(site))
    }
}

type Figure = (Load, f64, Option<f64>);

/// Everything that is measured of one filter in one round.
fn of_filter(
    filter: Filter,
    site: &Site,
    plan: &Plan,
) -> Result<impl Iterator<Item = Figure> + use<>, Box<dyn Error>> {
    let time = plan.time;
    let in_force = filters::enforce(filter, site)?;
    let mut figures = Vec::new();
    let loads = Load::ALL.into_iter();
    let loads = loads.filter(|load| load.is_for(filter, site.side));
    for load in loads.filter(|load| plan.wants_load(*load)) {
        let failed = |error| format!("{}: {error}", load.title());
        let ends = site.ends();
        let mut daemon = None;
        let rate = match load {
            Load::Stream => load::stream(&ends, time).map_err(failed)?,
            Load::Connections => load::connections(&ends, time).map_err(failed)?,
            Load::Lookups => load::lookups(&ends, time).map_err(failed)?,
            Load::Datagrams => {
                let sent = load::datagrams(&ends, &[0], time).map_err(failed)?;
                if sent.arrived < 0.99 {
                    return Err(format!("only {:.1} % arrived", 100.0 * sent.arrived).into());
                }
                sent.rate
            }
            Load::Flood => {
                let spent = || match &in_force {
                    InForce::Daemon(daemon) => processor_time(daemon.id()).map(Some),
                    _ => Ok(None),
                };
                let (before, start) = (spent()?, Instant::now());
                let sent = load::datagrams(&site.denied(), &[0], time).map_err(failed)?;
                let elapsed = start.elapsed().as_nanos() as f64;
                daemon = before
                    .zip(spent()?)
                    .map(|(before, after)| (after - before) as f64 / elapsed);
                if sent.arrived > 0.01 {
                    return Err(format!("{:.1} % arrived", 100.0 * sent.arrived).into());
                }
                sent.rate
            }
        };
        figures.push((load, rate, daemon));
    }
    Ok(figures.into_iter())
}
