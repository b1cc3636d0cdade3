//! Measures: each row beside an empty program and one that only reads the frame, in rounds.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::Instant,
};

use netfilter_daemon::datapath::{
    bench::Walk,
    test_run::{self, Context},
};

use crate::{bpffs::Kernel, ground::Family};

/// What is run how often.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    pub rounds: usize,
    /// Packets in a row of few destinations.
    pub hot: u32,
    /// Packets in a row of many.
    pub cold: u32,
}

pub const FULL: Effort = Effort {
    rounds: 9,
    hot: 200_000,
    cold: 1 << 20,
};

pub const QUICK: Effort = Effort {
    rounds: 5,
    hot: 50_000,
    cold: 1 << 18,
};

/// One line of the result. Times are nanoseconds for a packet.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: &'static str,
    pub family: Family,
    pub prefixes: usize,
    pub flows: u32,
    pub cache: Cache,
    /// One of each round.
    pub times: Vec<Times>,
}

#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub empty: f64,
    pub parse: f64,
    pub whole: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Few destinations, again and again.
    Hot,
    /// So many that what is looked up for one is not where it was when its turn comes again.
    Cold,
}

impl Cache {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
        }
    }
}

/// A row to be measured: what is run, on which frame, and how that is changed.
pub struct Task {
    pub row: Row,
    pub program: &'static str,
    pub frame: Vec<u8>,
    /// `None`: the frame as it is.
    pub walk: Option<Walk>,
    pub repeat: u32,
    /// To be done before each run.
    pub before: fn(&mut Kernel),
}

const EMPTY: &str = "bench_empty";
const PARSE: &str = "bench_parse";

/// Measures the tasks in interleaved rounds.
pub fn measure(kernel: &mut Kernel, tasks: Vec<Task>, effort: Effort) -> Vec<Row> {
    let mut tasks = tasks;
    let walks = [Family::Ipv4, Family::Ipv6].map(|family| {
        let name = match family {
            Family::Ipv4 => "bench_walk4",
            Family::Ipv6 => "bench_walk6",
        };
        kernel.datapath.bench().program(name).unwrap()
    });
    for round in 0..=effort.rounds {
        for task in &mut tasks {
            let times = Times {
                empty: once(kernel, task, EMPTY, &walks),
                parse: once(kernel, task, PARSE, &walks),
                whole: {
                    (task.before)(kernel);
                    once(kernel, task, task.program, &walks)
                },
            };
            // The first is to make room and to warm up.
            if round > 0 {
                task.row.times.push(times);
            }
        }
    }
    tasks.into_iter().map(|task| task.row).collect()
}

/// Mean time of a packet.
fn once(kernel: &mut Kernel, task: &Task, program: &'static str, walks: &[OwnedFd; 2]) -> f64 {
    match task.walk {
        None => {
            let fd = kernel.datapath.bench().program(program).unwrap();
            run(&fd, task)
        }
        Some(walk) => {
            let mut bench = kernel.datapath.bench();
            bench.walk(walk).unwrap();
            bench.run(program).unwrap();
            run(&walks[task.row.family as usize], task)
        }
    }
}

/// The kernel tells whole nanoseconds. Of so many packets, what the call takes beside them is
/// less than what is cut off.
const TIMED_HERE: u32 = 10_000;

fn run(fd: &OwnedFd, task: &Task) -> f64 {
    let begun = Instant::now();
    let outcome = test_run::run(fd.as_raw_fd(), &task.frame, Context::default(), task.repeat);
    let elapsed = begun.elapsed();
    let mean = outcome.unwrap().duration.as_secs_f64();
    let seconds = if task.repeat >= TIMED_HERE {
        elapsed.as_secs_f64() / f64::from(task.repeat)
    } else {
        mean
    };
    seconds * 1e9
}
