//! Measures what needs a release build and a while.

use std::ffi::OsString;

use anyhow::Result;

use crate::{build, command};

/// Measure large answers, large policies and the idle daemon (as root)
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask load policy --json")]
pub(crate) struct Load {
    /// `answers`, `policy` or `daemon`; all of them if none is named
    groups: Vec<OsString>,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(load: &Load) -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args(["bench", "--locked", "--package", "netfilter-daemon"]);
    cargo.args(["--bench", "load"]);
    build::run_as_root(&mut cargo)?;
    cargo.arg("--").args(&load.groups);
    cargo.args(load.json.then_some("--json"));
    command::hand_over(cargo)
}
