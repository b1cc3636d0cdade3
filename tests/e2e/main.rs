//! What filters cost from end to end: this one, and those that people use, each beside no
//! filter in the same round.
//!
//! `cargo xtask bench --e2e`; needs root. Everything happens in network namespaces, over
//! virtual cables, on two processors.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "it prints, and what cannot go on fails"
)]

use std::{error::Error, fs, path::PathBuf, time::Duration};

use clap::Parser;

#[path = "../bpffs.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod bpffs;
mod filters;
#[path = "../frame.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod frame;
mod growth;
mod load;
mod measure;
mod plot;
mod prefixes;
mod programs;
mod report;
mod site;

use measure::Plan;

/// Compare filters end to end
#[derive(Parser)]
struct Arguments {
    /// A minute's worth: fewer rounds, 10,000 prefixes alone
    #[arg(long)]
    quick: bool,
    /// Numbers of prefixes
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    prefixes: Vec<usize>,
    /// How often each filter is measured, one after the other
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Filters, loads and sides, by their names in JSON; of what is not named, all
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Also draw it, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// How the cost of a packet grows, instead: of what is in this file, which is what
    /// `cargo xtask bench --json` printed, and of what is measured now
    #[arg(long, value_name = "FILE")]
    growth: Option<PathBuf>,
    /// What cargo says to a benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.plot {
        // Said before it is measured, not after.
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)?;
    }
    if let Some(file) = &arguments.growth {
        let sheet = growth::measure(Some(&fs::read_to_string(file)?))?;
        if let Some(file) = &arguments.plot {
            fs::write(file, plot::draw(&sheet))?;
        }
        print!("{}", growth::table(&sheet));
        return Ok(());
    }
    let plan = match arguments.quick {
        false => Plan {
            prefixes: arguments.prefixes,
            rounds: arguments.rounds,
            time: Duration::from_millis(200),
            only: arguments.only,
        },
        true => Plan {
            prefixes: vec![10_000],
            rounds: 3,
            time: Duration::from_millis(120),
            only: arguments.only,
        },
    };
    let measured = measure::run(&plan)?;
    if let Some(file) = &arguments.plot {
        fs::write(file, plot::draw(&report::sheet(&measured)))?;
    }
    if arguments.json {
        println!("{}", report::json(&measured));
    } else {
        print!("{}", report::table(&measured));
    }
    Ok(())
}
