//! What is wrong with a policy: where, what, and what would be right.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// More than this many lines help nobody.
const SHOWN: usize = 100;
/// Others are counted: a wrong file can have millions.
const KEPT: usize = 1_000;
/// Characters of a message that are shown at either end: it can quote a whole file.
const ENDS: usize = 400;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: cannot read the policy: {source}{}", path.display(), unreadable(source))]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot {operation}: {source}")]
    System {
        operation: &'static str,
        source: io::Error,
    },
    /// Everything that is wrong with the file, in its order. Never empty.
    #[error("{}", lines(problems, *uncounted))]
    Wrong {
        problems: Vec<Problem>,
        /// Those that were not kept.
        uncounted: usize,
    },
}

/// What to do, to follow the error.
fn unreadable(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; name another file, or write one: `isolation_mode: allow_internet_outbound` alone stops \
             nothing and reports everything"
        }
        io::ErrorKind::PermissionDenied => "; try again with sudo, or let this user read it",
        io::ErrorKind::IsADirectory => "; name the file in it",
        _ => "",
    }
}

/// One line of an [`Error::Wrong`], or one note on a right policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: Arc<str>,
    pub at: At,
    /// What is wrong; what would be right.
    pub message: String,
}

/// A place in the policy file. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    pub line: usize,
    pub column: usize,
}

impl At {
    pub const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let At { line, column } = self.at;
        write!(f, "{}:{line}:{column}: {}", self.file, self.message)
    }
}

/// Collects problems while reading goes on, so that all of them are reported.
#[derive(Debug)]
pub(crate) struct Problems {
    file: Arc<str>,
    wrong: Vec<Problem>,
    uncounted: usize,
    notes: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// What is said of a policy that is right, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// What does not do what its author may think.
    pub notes: Vec<Problem>,
    /// Through which data can leave although it looks safe, and what is of no use alone.
    pub warnings: Vec<Problem>,
}

impl Problems {
    pub(crate) fn new(file: &str) -> Self {
        Self {
            file: file.into(),
            wrong: Vec::new(),
            uncounted: 0,
            notes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, at: At, message: impl fmt::Display) {
        if self.wrong.len() < KEPT {
            self.wrong.push(self.problem(at, message));
        } else {
            self.uncounted += 1;
        }
    }

    pub(crate) fn note(&mut self, at: At, message: impl fmt::Display) {
        self.notes.push(self.problem(at, message));
    }

    pub(crate) fn warn(&mut self, at: At, message: impl fmt::Display) {
        self.warnings.push(self.problem(at, message));
    }

    /// Further ones are only counted.
    pub(crate) fn are_enough(&self) -> bool {
        self.wrong.len() >= KEPT
    }

    pub(crate) fn none_so_far(&self) -> bool {
        self.wrong.is_empty()
    }

    /// What is left to say, if nothing is wrong.
    pub(crate) fn finish(mut self) -> Result<Remarks, Error> {
        if self.wrong.is_empty() {
            self.notes.sort_by_key(|note| note.at);
            self.warnings.sort_by_key(|warning| warning.at);
            return Ok(Remarks {
                notes: self.notes,
                warnings: self.warnings,
            });
        }
        self.wrong.sort_by_key(|problem| problem.at);
        Err(Error::Wrong {
            problems: self.wrong,
            uncounted: self.uncounted,
        })
    }

    fn problem(&self, at: At, message: impl fmt::Display) -> Problem {
        Problem {
            file: Arc::clone(&self.file),
            at,
            message: clipped(message.to_string()),
        }
    }
}

/// What is wrong is said at the front, and what would be right at the end.
fn clipped(message: String) -> String {
    if message.len() <= 4 * ENDS {
        return message;
    }
    let first: String = message.chars().take(ENDS).collect();
    let last = message.char_indices().rev().nth(ENDS - 1);
    match last {
        Some((last, _)) if last > first.len() => format!("{first} ... {}", &message[last..]),
        _ => message,
    }
}

fn lines(problems: &[Problem], uncounted: usize) -> String {
    let mut lines: Vec<String> = problems
        .iter()
        .take(SHOWN)
        .map(Problem::to_string)
        .collect();
    if problems.len() > SHOWN {
        let more = problems.len() - SHOWN + uncounted;
        lines.push(format!("... and {more} more"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(count: usize) -> Problems {
        let mut problems = Problems::new("policy.yaml");
        for line in (1..=count).rev() {
            problems.add(At { line, column: 3 }, "wrong; right");
        }
        problems
    }

    #[test]
    fn problems_are_told_in_the_order_of_the_file() {
        let told = problems(2).finish().unwrap_err().to_string();
        assert_eq!(
            told,
            "policy.yaml:1:3: wrong; right\npolicy.yaml:2:3: wrong; right"
        );
    }

    #[test]
    fn a_flood_of_problems_is_cut_and_counted() {
        let told = problems(SHOWN + 7).finish().unwrap_err().to_string();
        assert_eq!(told.lines().count(), SHOWN + 1);
        assert!(told.ends_with("... and 7 more"));
    }

    #[test]
    fn problems_that_are_not_kept_are_counted() {
        let told = problems(KEPT + 7).finish().unwrap_err().to_string();
        assert!(told.ends_with(&format!("... and {} more", KEPT + 7 - SHOWN)));
    }

    #[test]
    fn a_message_that_quotes_a_whole_file_is_cut_in_its_middle() {
        let message = format!("a `{}` is wrong; write b", "ü".repeat(50_000));
        let told = clipped(message);
        assert!(told.starts_with("a `ü") && told.ends_with("ü` is wrong; write b"));
        assert_eq!(told.chars().count(), 2 * ENDS + 5);
        assert_eq!(clipped("short".to_owned()), "short");
    }

    #[test]
    fn just_enough_problems_are_not_cut() {
        let told = problems(SHOWN).finish().unwrap_err().to_string();
        assert_eq!(told.lines().count(), SHOWN);
        assert!(!told.contains("more"));
    }

    #[test]
    fn notes_alone_make_no_error() {
        let mut problems = Problems::new("policy.yaml");
        problems.note(At::START, "know this");
        let notes = problems.finish().unwrap().notes;
        assert_eq!(notes[0].to_string(), "policy.yaml:1:1: know this");
    }
}
