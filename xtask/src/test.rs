//! `cargo xtask test`: everything that CI runs, step by step.

use std::{ffi::OsString, fmt, process::Command, time::Instant};

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;

use crate::{
    bench, build,
    command::{self, Output},
    fuzz::{self, Fuzz},
    setup::{self, Purpose},
    toolchain::{self, Toolchain},
    vm::{self, Vmtest},
};

#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask test --only integration -- --nocapture names")]
pub(crate) struct Test {
    /// Run this step alone (may be given several times)
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
    /// For the test runner
    #[arg(last = true, value_name = "ARGS")]
    runner: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Step {
    /// Install what is missing
    Setup,
    /// The sources are formatted
    Fmt,
    /// The BPF programs build
    Object,
    /// No warnings, in the daemon or in the BPF programs
    Clippy,
    /// The documentation builds without warnings
    Doc,
    /// Tests that need no privilege
    Unit,
    /// The fuzzers find nothing in their corpus, nor in seconds from there
    Fuzz,
    /// Tests with namespaces and BPF programs, as root
    Integration,
    /// The programs cost no more than was recorded, beside LPM_TRIE
    Kept,
    /// The lab and the tests that show it, on Debian 12's kernel
    Vm,
}

/// What the test runners counted, and what the tests said that failed.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    passed: u32,
    failed: u32,
    ignored: u32,
    said: Vec<String>,
}

/// Lines of one failed test that are said again at the end.
const SAID_AGAIN: usize = 60;

/// Runs every step, also after one that failed, so that one run tells all.
pub(crate) fn run(test: &Test) -> Result<()> {
    let mut summary = Vec::new();
    let mut failed = Vec::new();
    let mut said = Vec::new();
    for step in Step::value_variants() {
        if !test.only.is_empty() && !test.only.contains(step) {
            continue;
        }
        let (name, promise) = step.words();
        eprintln!("\n== {name}: {promise}");
        let start = Instant::now();
        let mut counts = Counts::default();
        let result = step.run(&test.runner, &mut counts);
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        let line = format!("{verdict:7}{}{counts}", command::seconds(start.elapsed()));
        if let Err(error) = result {
            eprintln!("   {error:#}");
            failed.push(name.clone());
        }
        eprintln!("   {line}");
        summary.push(format!("   {name:12} {line}"));
        said.append(&mut counts.said);
        if *step == Step::Setup && !failed.is_empty() {
            break;
        }
    }
    // Once more, for it may be far above.
    if !said.is_empty() {
        eprintln!("\n== what failed");
    }
    for line in said {
        eprintln!("   {line}");
    }
    eprintln!("\n== summary");
    for line in summary {
        eprintln!("{line}");
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

impl Step {
    fn run(self, runner: &[OsString], counts: &mut Counts) -> Result<()> {
        match self {
            Self::Setup => setup::run(Purpose::Tests),
            Self::Fmt => fmt(),
            Self::Object => quietly(programs(&find()?, "build")?),
            Self::Clippy => clippy(),
            Self::Doc => doc(),
            Self::Unit => unit(runner, counts),
            Self::Fuzz => fuzz::run(&Fuzz::of_all(5)),
            Self::Integration => integration(runner, counts),
            Self::Kept => bench::kept(),
            Self::Vm => vm(counts),
        }
    }

    /// Its name, and what it shows: those of the command line.
    fn words(self) -> (String, String) {
        let value = self.to_possible_value().unwrap_or_default();
        let promise = value.get_help().map(ToString::to_string);
        (value.get_name().to_owned(), promise.unwrap_or_default())
    }
}

fn fmt() -> Result<()> {
    quietly(cargo(&["fmt", "--all", "--", "--check"]))?;
    quietly(cargo(&[
        "fmt",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--",
        "--check",
    ]))
}

fn clippy() -> Result<()> {
    const DENY: [&str; 3] = ["--", "-D", "warnings"];
    let mut host = cargo(&["clippy", "--locked", "--workspace", "--all-targets"]);
    host.args(DENY);
    quietly(host)?;
    let toolchain = find()?;
    if toolchain.compiler.external("clippy").is_none() {
        eprintln!("   the BPF programs are not linted: their compiler came without clippy");
        return Ok(());
    }
    let mut programs = programs(&toolchain, "clippy")?;
    programs.args(["--features", "bench"]).args(DENY);
    quietly(programs)
}

fn doc() -> Result<()> {
    let mut doc = cargo(&["doc", "--locked", "--workspace", "--no-deps"]);
    doc.arg("--document-private-items")
        .env("RUSTDOCFLAGS", "-D warnings");
    quietly(doc)
}

fn unit(runner: &[OsString], counts: &mut Counts) -> Result<()> {
    let targets = ["test", "--locked", "--workspace", "--lib", "--bins"];
    let targets = [&targets[..], &["--test", "messages"]].concat();
    let mut build = cargo(&targets);
    build.arg("--no-run");
    quietly(build)?;
    let mut code = cargo(&targets);
    code.arg("--no-fail-fast");
    let code = tests(code, runner, counts);
    let examples = cargo(&["test", "--locked", "--workspace", "--doc", "--no-fail-fast"]);
    code.and(tests(examples, runner, counts))
}

fn integration(runner: &[OsString], counts: &mut Counts) -> Result<()> {
    // All packages, or it would be built anew with the features that this one alone asks for.
    let target = ["test", "--locked", "--workspace"];
    let target = [&target[..], &["--test", "tests"]].concat();
    let mut build = cargo(&target);
    build.arg("--no-run");
    quietly(build)?;
    let mut run = cargo(&target);
    build::run_as_root(&mut run)?;
    let promises = tests(run, runner, counts);
    // Those of the lab's own parts that need root.
    let mut parts = cargo(&["test", "--locked", "--workspace", "--lib"]);
    build::run_as_root(&mut parts)?;
    let mut with_root = vec![OsString::from("--ignored")];
    with_root.extend_from_slice(runner);
    promises.and(tests(parts, &with_root, counts))
}

/// After all others: it has the processors to itself.
fn vm(counts: &mut Counts) -> Result<()> {
    let console = vm::run(&Vmtest::in_ci())?;
    for line in &console {
        counts.add(line);
    }
    Ok(())
}

/// Shows what the test runner says, and adds up what it counts.
fn tests(mut command: Command, runner: &[OsString], counts: &mut Counts) -> Result<()> {
    command.arg("--").args(runner);
    let ran = command::run(command, Output::Shown)?;
    for line in &ran.lines {
        counts.add(line);
    }
    counts.said.extend(of_failures(&ran.lines));
    ran.succeeded()
}

fn quietly(command: Command) -> Result<()> {
    command::run(command, Output::OnFailure)?.succeeded()
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = command::cargo();
    cargo.args(arguments);
    cargo
}

fn programs(toolchain: &Toolchain, subcommand: &str) -> Result<Command> {
    let target_dir = command::target_dir()?.join("bpf");
    Ok(toolchain.command(subcommand, &command::workspace(), &target_dir))
}

fn find() -> Result<Toolchain> {
    toolchain::find().map_err(|missing| anyhow!("{missing}"))
}

/// What the failed tests said: sections of `---- name stdout ----`, without their stacks.
fn of_failures(lines: &[String]) -> Vec<String> {
    let mut said = Vec::new();
    let mut left = 0;
    let mut in_stack = false;
    for line in lines {
        if line.starts_with("---- ") && line.ends_with(" ----") {
            (left, in_stack) = (SAID_AGAIN, false);
        } else if line == "failures:" {
            left = 0;
        }
        in_stack = !line.is_empty() && (in_stack || line == "stack backtrace:");
        if left > 0 && !in_stack {
            said.push(line.clone());
            left -= 1;
        }
    }
    said
}

impl Counts {
    /// Reads `test result: ok. 12 passed; 0 failed; 1 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some((_, result)) = line
            .strip_prefix("test result: ")
            .and_then(|result| result.split_once(". "))
        else {
            return;
        };
        for part in result.split("; ") {
            match part.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => self.ignored += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            ignored,
            ..
        } = self;
        if passed + failed + ignored == 0 {
            return Ok(());
        }
        write!(f, "   {passed} passed, {failed} failed, {ignored} ignored")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_several_runners_add_up() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; \
             finished in 0.00s",
            "test result: FAILED. 1 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; \
             finished in 0.00s",
        ] {
            counts.add(line);
        }
        assert_eq!(counts.to_string(), "   3 passed, 4 failed, 1 ignored");
    }

    #[test]
    fn what_failed_tests_said_is_kept_without_their_stacks() {
        let lines = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n\
            ---- b stdout ----\nthread 'b' panicked at b.rs:1:\nleft: 1\nstack backtrace:\n   \
            0: begin\n   1: b\n\nafterwards\n\nfailures:\n    b\n\ntest result: FAILED. 1 \
            passed; 1 failed";
        let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        let said = of_failures(&lines).join("\n");
        let expected =
            "---- b stdout ----\nthread 'b' panicked at b.rs:1:\nleft: 1\n\nafterwards\n";
        assert_eq!(said, expected);
        let mut long = vec!["word".to_owned(); 500];
        long.insert(0, "---- a stdout ----".to_owned());
        assert_eq!(of_failures(&long).len(), SAID_AGAIN);
    }

    #[test]
    fn a_step_without_tests_shows_no_counts() {
        let mut counts = Counts::default();
        counts.add("a test result: of no runner. 2 passed; 0 failed");
        assert_eq!(counts.to_string(), "");
    }
}
