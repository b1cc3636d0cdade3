//! Runs commands so that a person can follow: what runs, where it is at, how
//! long it took, and what it said if it failed.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::toolchain;

/// How often a command that prints nothing of its own shows a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// How long after its end a command's output is waited for. A process that it
/// left behind can hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where a command's output goes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Output {
    /// To the terminal as it comes.
    Shown,
    /// Shown if the command fails.
    OnFailure,
}

/// A command that came to its end.
pub(crate) struct Ran {
    /// What it printed, on both channels.
    pub(crate) lines: Vec<String>,
    pub(crate) status: ExitStatus,
    line: String,
}

/// Runs a command to its end. If it fails, what it said has been shown.
pub(crate) fn run(mut command: Command, output: Output) -> Result<Ran> {
    let line = line_of(&command);
    eprintln!("   $ {line}");
    let (reader, writer) = io::pipe()?;
    let mut child = command
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    // It holds the pipe's other end.
    drop(command);

    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(reader)
            .split(b'\n')
            .map_while(io::Result::ok)
        {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let (status, lines) = follow(&mut child, &lines, output)?;
    if output == Output::OnFailure && !status.success() {
        for line in lines.iter().filter(|line| !toolchain::is_progress(line)) {
            eprintln!("   | {line}");
        }
    }
    Ok(Ran {
        lines,
        line,
        status,
    })
}

/// Runs a command that has the terminal to itself.
pub(crate) fn hand_over(mut command: Command) -> Result<()> {
    let line = line_of(&command);
    eprintln!("   $ {line}");
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

impl Ran {
    pub(crate) fn succeeded(self) -> Result<()> {
        if !self.status.success() {
            bail!("`{}` failed: {}", self.line, self.status);
        }
        Ok(())
    }
}

fn follow(
    child: &mut Child,
    lines: &mpsc::Receiver<Vec<u8>>,
    output: Output,
) -> Result<(ExitStatus, Vec<String>)> {
    let start = Instant::now();
    let mut shown = start;
    let mut seen = Vec::new();
    let mut ended = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line).into_owned();
                if output == Output::Shown {
                    writeln!(io::stdout(), "{line}")?;
                }
                seen.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok((child.wait()?, seen)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if output == Output::OnFailure && shown.elapsed() >= SIGN_OF_LIFE {
            shown = Instant::now();
            let at = seen.iter().rev().find(|line| !line.trim().is_empty());
            let at = at.map_or("", |line| line.trim());
            eprintln!("     {}: {at}", seconds(start.elapsed()));
        }
        if ended.is_none() {
            ended = child.try_wait()?.map(|status| (status, Instant::now()));
        }
        if let Some((status, at)) = ended
            && at.elapsed() >= LAST_WORDS
        {
            return Ok((status, seen));
        }
    }
}

/// The cargo that runs this task, hence the toolchain that the repository names.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    // What `cargo run` says of this package. Build scripts that look at it would run again.
    let of_package = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    };
    for (name, _) in env::vars_os().filter(|(name, _)| of_package(name)) {
        command.env_remove(name);
    }
    command
}

/// A command as root: through sudo for others.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if toolchain::in_path("sudo").is_none() {
        bail!("this needs root, and there is no sudo here: run it as root");
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The workspace: cargo says at run time where it is, and the compiled-in path is
/// that of before the directory was moved.
pub(crate) fn workspace() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR");
    let mut manifest = PathBuf::from(manifest.unwrap_or(env!("CARGO_MANIFEST_DIR").into()));
    manifest.pop();
    manifest
}

/// The target directory, in which this program lies as `debug/xtask`.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let target = program.ancestors().nth(2);
    Ok(target.context("this program has no directory")?.to_owned())
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:3} s", time.as_secs())
}

/// The command as a person would type it.
fn line_of(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let mut line = match program.file_name() {
        Some(name) if name == "cargo" => "cargo".to_owned(),
        _ => program.display().to_string(),
    };
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
