//! Measures, and records what is compared with later.

use std::{
    fs,
    path::{self, Path},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    build,
    command::{self, Output},
    setup::{self, Purpose},
};

/// Filters side by side.
pub(crate) fn end_to_end(
    json: bool,
    quick: bool,
    only: &[String],
    plot: Option<&Path>,
) -> Result<()> {
    setup::run(Purpose::Bench)?;
    let mut cargo = whole()?;
    cargo.arg("--");
    cargo.args(json.then_some("--json"));
    cargo.args(quick.then_some("--quick"));
    if !only.is_empty() {
        cargo.arg("--only").arg(only.join(","));
    }
    if let Some(file) = plot {
        cargo.arg("--plot").arg(path::absolute(file)?);
    }
    command::hand_over(cargo)
}

/// How costs grow, as a picture.
pub(crate) fn growth(plot: &Path) -> Result<()> {
    let rows = micro()?;
    let file = command::target_dir()?.join("bench.json");
    fs::write(&file, rows.to_string())?;
    let mut cargo = whole()?;
    cargo.arg("--").arg("--growth").arg(&file);
    cargo.arg("--plot").arg(path::absolute(plot)?);
    command::hand_over(cargo)
}

/// Records what the programs take, which a test compares with.
pub(crate) fn keep() -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args(["test", "--locked", "--package", "netfilter-daemon"]);
    cargo.args(["--test", "tests"]);
    build::run_as_root(&mut cargo)?;
    cargo.args(["--", "the_programs_are_no_larger"]);
    cargo.env("NETFILTER_KEEP", "1");
    command::run(cargo, Output::OnFailure)?.succeeded()
}

/// The benchmark of filters, with a release build of the daemon.
fn whole() -> Result<Command> {
    let mut cargo = command::cargo();
    cargo.args(["bench", "--locked", "--package", "netfilter-daemon"]);
    cargo.args(["--bench", "e2e"]);
    build::run_as_root(&mut cargo)?;
    Ok(cargo)
}

/// The rows of the micro-benchmark.
fn micro() -> Result<Value> {
    let mut cargo = build::micro()?;
    cargo.args(["--", "--json"]);
    let ran = command::run(cargo, Output::OnFailure)?;
    let line = ran.lines.iter().find(|line| line.starts_with("{\"rows\""));
    let rows = line.map(|line| serde_json::from_str(line)).transpose()?;
    ran.succeeded()?;
    rows.context("the benchmark printed no rows")
}
