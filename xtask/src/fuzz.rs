//! Fuzzing with cargo-fuzz: what it compiles needs no nightly compiler while no
//! sanitizer is asked for, and the library that is fuzzed has no unsafe code.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    command::{self, Output},
    setup,
};

/// The newest `cargo-fuzz` that was tried.
const CARGO_FUZZ: &str = "0.13.2";

/// Longer than any input takes by far, in seconds: what takes it hangs.
const HANG: u32 = 10;

/// Fuzz the parsers, from the corpus in fuzz/corpus
#[derive(clap::Args)]
#[command(
    after_help = "What it finds is kept in target/fuzz/corpus, and what crashes in \
                        fuzz/artifacts.\nExample: cargo xtask fuzz answer --seconds 600"
)]
pub(crate) struct Fuzz {
    /// Fuzz this target alone
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u32,
}

impl Fuzz {
    /// Every target for as many seconds.
    pub(crate) const fn of_all(seconds: u32) -> Self {
        Self {
            target: None,
            seconds,
        }
    }
}

pub(crate) fn run(fuzz: &Fuzz) -> Result<()> {
    install()?;
    // cargo-fuzz would change a lock file that does not fit.
    let mut fetch = command::cargo();
    fetch.args(["fetch", "--locked", "--manifest-path", "fuzz/Cargo.toml"]);
    command::run(fetch, Output::OnFailure)?.succeeded()?;
    let target_dir = command::target_dir()?.join("fuzz");
    let cargo = |subcommand: &str| {
        let mut cargo = command::cargo();
        cargo.args(["fuzz", subcommand, "--sanitizer", "none", "--target-dir"]);
        cargo.arg(&target_dir);
        cargo
    };
    let targets = match &fuzz.target {
        Some(target) => vec![target.clone()],
        None => targets()?,
    };
    let mut build = cargo("build");
    build.args(&fuzz.target);
    command::run(build, Output::OnFailure)?.succeeded()?;
    for target in targets {
        let found = target_dir.join("corpus").join(&target);
        fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        let mut run = cargo("run");
        run.arg(&target)
            // New inputs are written to the first.
            .arg(&found)
            .arg(Path::new("fuzz/corpus").join(&target))
            .arg("--")
            .arg(format!("-max_total_time={}", fuzz.seconds))
            .arg(format!("-timeout={HANG}"));
        let ran = command::run(run, Output::OnFailure)?;
        if let Some(done) = ran.lines.iter().find(|line| line.starts_with("Done ")) {
            eprintln!("   {target}: {done}");
        }
        ran.succeeded()?;
    }
    Ok(())
}

fn targets() -> Result<Vec<String>> {
    let directory = command::workspace().join("fuzz/fuzz_targets");
    let mut targets = Vec::new();
    for file in
        fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = file?.path();
        targets.extend(
            path.file_stem()
                .and_then(|stem| stem.to_str())
                .map(str::to_owned),
        );
    }
    targets.sort();
    Ok(targets)
}

fn install() -> Result<()> {
    if setup::asked("cargo", &["fuzz", "--version"]).is_some() {
        return Ok(());
    }
    let mut cargo = command::cargo();
    cargo.args(["install", "--locked", "cargo-fuzz", "--version", CARGO_FUZZ]);
    // It only calls cargo: what it takes to build it is what counts.
    cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
    command::run(cargo, Output::OnFailure)?.succeeded()
}
