//! What is wrong with a policy: where, what, and what would be right.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// More than this many lines help nobody.
const SHOWN: usize = 100;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: cannot read the policy: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot {operation}: {source}")]
    System {
        operation: &'static str,
        source: io::Error,
    },
    /// Everything that is wrong with the file, in its order. Never empty.
    #[error("{}", lines(.0))]
    Wrong(Vec<Problem>),
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
pub(super) struct Problems {
    file: Arc<str>,
    wrong: Vec<Problem>,
    notes: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(file: &str) -> Self {
        Self {
            file: file.into(),
            wrong: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, at: At, message: impl fmt::Display) {
        self.wrong.push(self.problem(at, message));
    }

    pub(super) fn note(&mut self, at: At, message: impl fmt::Display) {
        self.notes.push(self.problem(at, message));
    }

    pub(super) fn none_so_far(&self) -> bool {
        self.wrong.is_empty()
    }

    /// The notes, if nothing is wrong.
    pub(super) fn finish(mut self) -> Result<Vec<Problem>, Error> {
        if self.wrong.is_empty() {
            self.notes.sort_by_key(|note| note.at);
            return Ok(self.notes);
        }
        self.wrong.sort_by_key(|problem| problem.at);
        Err(Error::Wrong(self.wrong))
    }

    fn problem(&self, at: At, message: impl fmt::Display) -> Problem {
        Problem {
            file: Arc::clone(&self.file),
            at,
            message: message.to_string(),
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    let mut lines: Vec<String> = problems
        .iter()
        .take(SHOWN)
        .map(Problem::to_string)
        .collect();
    if problems.len() > SHOWN {
        lines.push(format!("... and {} more", problems.len() - SHOWN));
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
    fn just_enough_problems_are_not_cut() {
        let told = problems(SHOWN).finish().unwrap_err().to_string();
        assert_eq!(told.lines().count(), SHOWN);
        assert!(!told.contains("more"));
    }

    #[test]
    fn notes_alone_make_no_error() {
        let mut problems = Problems::new("policy.yaml");
        problems.note(At::START, "know this");
        let notes = problems.finish().unwrap();
        assert_eq!(notes[0].to_string(), "policy.yaml:1:1: know this");
    }
}
