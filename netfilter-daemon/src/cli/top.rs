//! `netfilter-daemon top`

use std::{
    env,
    io::{self, IsTerminal},
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{self, Event, KeyEventKind},
};

use super::{NO, StateDir, WRONG, complain, interrupt::when_interrupted, print, print_json};
use crate::{
    control::{self, Answer, Request},
    daemon::overview::Overview,
};

mod draw;
mod listing;
mod screen;

use screen::{Next, Screen};

const PERIOD: Duration = Duration::from_secs(1);
/// How long a key or a signal may wait for what else is looked at.
const TURN: Duration = Duration::from_millis(200);
/// Of what is drawn where there is no terminal.
const SIZE: (u16, u16) = (80, 24);

/// Watch what is denied, to whom, and which rules decide
///
/// Reads the daemon once a second. Keys: q ends it; Tab, the arrows and 1 to 6 choose a
/// list; up, down, PgUp, PgDn move in it; s sorts it by most, last, name; / shows what has
/// some text; p pauses; ? explains. NO_COLOR is heeded.
///
/// Exit code 1 when no daemon runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo netfilter-daemon top\n  \
    sudo netfilter-daemon top --json | jq '.processes.rows[0]'")]
pub(super) struct Top {
    #[command(flatten)]
    state_dir: StateDir,

    /// Print one picture, as text, and end
    #[arg(long)]
    once: bool,

    /// Print what is shown, once, as JSON
    #[arg(long, conflicts_with = "once")]
    json: bool,
}

impl Top {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let watching = !self.once && !self.json;
        if watching && !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            complain(
                "error: `top` draws on a terminal, and this is none; `top --once` prints one \
                 picture, `top --json` what it is drawn from",
            );
            return Ok(ExitCode::from(WRONG));
        }
        let Some(overview) = read(&self.state_dir)? else {
            complain(&format!(
                "no daemon runs with the state directory {}; `netfilter-daemon run` starts one, \
                 and `netfilter-daemon status` shows what is in force without",
                self.state_dir.state_dir.display()
            ));
            return Ok(ExitCode::from(NO));
        };
        if self.json {
            print_json(&overview)?;
        } else if self.once {
            print(&picture(&Screen::new(overview, false), SIZE)?)?;
        } else {
            self.watch(overview)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn watch(self, overview: Overview) -> anyhow::Result<()> {
        let interrupted = interrupted().context("cannot wait for signals")?;
        let readings = read_on(self.state_dir);
        let colours = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let mut screen = Screen::new(overview, colours);
        // It also has a panic leave the terminal as it was.
        let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
        let mut shown = || -> io::Result<()> {
            let mut changed = true;
            while !interrupted.load(Ordering::Relaxed) {
                if changed {
                    terminal.draw(|frame| draw::draw(&mut screen, frame.buffer_mut()))?;
                }
                changed = false;
                if event::poll(TURN)? {
                    changed = true;
                    match event::read()? {
                        Event::Key(key) if key.kind != KeyEventKind::Release => {
                            match screen.press(key) {
                                Next::Stay => {}
                                Next::Clear => terminal.clear()?,
                                Next::End => break,
                            }
                        }
                        _ => {} // resized: drawn anew
                    }
                }
                while let Ok(reading) = readings.try_recv() {
                    changed |= screen.take(reading);
                }
            }
            Ok(())
        };
        let result = shown();
        ratatui::try_restore().context("cannot leave the terminal as it was; `reset` does")?;
        result.context("cannot draw on this terminal")
    }
}

fn read(state_dir: &StateDir) -> anyhow::Result<Option<Overview>> {
    match control::ask(&state_dir.state_dir, Request::Overview)? {
        None => Ok(None),
        Some(Answer::Overview { overview }) => Ok(Some(*overview)),
        Some(Answer::Failed { error, .. }) if error.contains("unknown variant") => {
            bail!("the daemon is older than `top`; restart it: its filter stays in force meanwhile")
        }
        Some(Answer::Failed { error, .. }) => bail!("the daemon could not tell: {error}"),
        Some(other) => bail!("the daemon gave another answer: {other:?}"),
    }
}

/// What was read, or why nothing was.
type Reading = Result<Overview, String>;

/// On a thread of its own, for a daemon may be busy for a while.
fn read_on(state_dir: StateDir) -> Receiver<Reading> {
    let (sender, readings) = mpsc::channel();
    thread::spawn(move || {
        loop {
            thread::sleep(PERIOD);
            let reading = match read(&state_dir) {
                Ok(Some(overview)) => Ok(overview),
                Ok(None) => Err("the daemon has ended; its filter stays in force".to_owned()),
                Err(error) => Err(format!("{error:#}")),
            };
            if sender.send(reading).is_err() {
                return;
            }
        }
    });
    readings
}

/// Becomes true when it is to end. Where the terminal is no more, its keys are waited for
/// without end; then the process ends by itself after a while.
fn interrupted() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&interrupted);
    when_interrupted(move || {
        told.store(true, Ordering::Relaxed);
        thread::sleep(5 * TURN);
        ratatui::try_restore().ok();
        process::exit(0);
    })?;
    Ok(interrupted)
}

/// As text.
fn picture(screen: &Screen, (width, height): (u16, u16)) -> anyhow::Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    let mut screen = screen.clone();
    terminal.draw(|frame| draw::draw(&mut screen, frame.buffer_mut()))?;
    Ok(text(terminal.backend().buffer()))
}

fn text(buffer: &Buffer) -> String {
    let lines = buffer.content.chunks(usize::from(buffer.area.width));
    let lines = lines.map(|line| {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

#[cfg(test)]
mod tests;
