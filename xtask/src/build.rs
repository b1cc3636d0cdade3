//! Builds things, and runs what was built.

use std::{ffi::OsString, fs, path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    bench,
    command::{self, Output},
    setup::{self, Purpose},
    toolchain,
};

/// Kill daemons at random instants under traffic, then flip policies (as root)
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask chaos --minutes 30")]
pub(crate) struct Chaos {
    /// For each of the two
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// Another build of the daemon, to upgrade to and go back from
    #[arg(long, value_name = "FILE")]
    other: Option<PathBuf>,
}

#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask demo -- --policy policy.yaml")]
pub(crate) struct Demo {
    /// For `netfilter-daemon lab`
    #[arg(last = true, value_name = "ARGS")]
    lab: Vec<OsString>,
}

#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask bench --quick --json")]
pub(crate) struct Bench {
    /// Compare filters end to end, in network namespaces
    #[arg(long, conflicts_with_all = ["growth", "keep"])]
    e2e: bool,
    /// Of that, these filters, loads and sides, by their names in JSON
    #[arg(long, value_delimiter = ',', value_name = "NAMES", requires = "e2e")]
    only: Vec<String>,
    /// Draw that, as SVG
    #[arg(long, value_name = "FILE", requires = "e2e")]
    plot: Option<PathBuf>,
    /// Draw how costs grow, as SVG
    #[arg(long, value_name = "FILE", conflicts_with = "keep")]
    growth: Option<PathBuf>,
    /// Record what the programs take and cost, which CI compares with
    #[arg(long)]
    keep: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Fewer rows, rounds and packets: enough to compare rows of one run
    #[arg(long)]
    quick: bool,
}

/// Builds the release binary.
pub(crate) fn daemon() -> Result<()> {
    let start = Instant::now();
    let mut cargo = command::cargo();
    cargo.args([
        "build",
        "--locked",
        "--release",
        "--package",
        "netfilter-daemon",
    ]);
    cargo.arg("--target-dir").arg(command::target_dir()?);
    command::hand_over(cargo)?;
    eprintln!(
        "{} after {}",
        binary()?.display(),
        command::seconds(start.elapsed()).trim()
    );
    Ok(())
}

/// Where [`daemon`] leaves it.
pub(crate) fn binary() -> Result<PathBuf> {
    Ok(command::target_dir()?.join("release/netfilter-daemon"))
}

/// Builds the integration tests, and the daemon that they run. Returns where they are.
pub(crate) fn tests() -> Result<PathBuf> {
    let build = || {
        let mut cargo = command::cargo();
        cargo.args(["test", "--locked", "--workspace"]);
        cargo.args(["--test", "tests", "--no-run"]);
        cargo
    };
    command::run(build(), Output::OnFailure)?.succeeded()?;
    // Again, now that there is nothing to be said for people.
    let mut told = build();
    told.arg("--message-format=json");
    let built = command::run(told, Output::OnFailure)?;
    let executable = built.lines.iter().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str().map(PathBuf::from)?;
        (message["target"]["name"] == "tests").then_some(path)
    });
    built.succeeded()?;
    executable.context("cargo does not say where the tests are")
}

pub(crate) fn demo(demo: &Demo) -> Result<()> {
    // Before the long wait.
    let mut lab = command::as_root(binary()?)?;
    setup::run(Purpose::Demo)?;
    daemon()?;
    lab.arg("lab").args(&demo.lab);
    command::hand_over(lab)
}

pub(crate) fn bench(arguments: &Bench) -> Result<()> {
    if arguments.keep {
        return bench::keep();
    }
    if let Some(file) = &arguments.growth {
        return bench::growth(file);
    }
    if arguments.e2e {
        return bench::end_to_end(
            arguments.json,
            arguments.quick,
            &arguments.only,
            arguments.plot.as_deref(),
        );
    }
    let mut cargo = micro()?;
    cargo.arg("--");
    cargo.args(arguments.json.then_some("--json"));
    cargo.args(arguments.quick.then_some("--quick"));
    command::hand_over(cargo)
}

/// The micro-benchmark. In the profile of the tests, which are built already where this runs in
/// CI: what is measured runs in the kernel, and the BPF object is optimised in every profile.
pub(crate) fn micro() -> Result<Command> {
    let mut cargo = command::cargo();
    cargo.args(["bench", "--locked", "--profile", "dev"]);
    cargo.args(["--workspace", "--features", "netfilter-daemon/bench"]);
    cargo.args(["--bench", "datapath"]);
    run_as_root(&mut cargo)?;
    Ok(cargo)
}

pub(crate) fn chaos(chaos: &Chaos) -> Result<()> {
    setup::run(Purpose::Tests)?;
    for test in ["kills::", "reload::ten_reloads_a_second"] {
        let mut cargo = command::cargo();
        cargo.args([
            "test",
            "--release",
            "--locked",
            "--package",
            "netfilter-daemon",
        ]);
        cargo.args(["--test", "tests"]);
        run_as_root(&mut cargo)?;
        cargo.args(["--", "--nocapture", test]);
        cargo.env("NETFILTER_CHAOS_SECONDS", (chaos.minutes * 60).to_string());
        if let Some(other) = &chaos.other {
            let other = fs::canonicalize(other)
                .with_context(|| format!("cannot read {}", other.display()))?;
            cargo.env("NETFILTER_CHAOS_OTHER", other);
        }
        command::run(cargo, Output::Shown)?.succeeded()?;
    }
    Ok(())
}

pub(crate) fn object() -> Result<()> {
    let toolchain = toolchain::find().map_err(|missing| anyhow!("{missing}"))?;
    let target_dir = command::target_dir()?.join("bpf");
    eprintln!("{toolchain}");
    let build = toolchain.command("build", &command::workspace(), &target_dir);
    command::run(build, Output::Shown)?.succeeded()?;
    let object = toolchain::object(&target_dir);
    let size = fs::metadata(&object)
        .with_context(|| format!("cannot read {}", object.display()))?
        .len();
    eprintln!("{} ({} KiB)", object.display(), size.div_ceil(1024));
    Ok(())
}

/// Makes cargo run as root what it built as the user.
pub(crate) fn run_as_root(cargo: &mut Command) -> Result<()> {
    if !command::is_root() {
        // For its message, should there be no sudo.
        command::as_root("cargo")?;
        cargo.args(["--config", "target.'cfg(all())'.runner = 'sudo -E'"]);
    }
    Ok(())
}
