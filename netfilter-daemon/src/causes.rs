//! An error and its causes as one line, and what to do about some.

use std::io::{self, ErrorKind};

/// Each cause once: many messages here already end with their cause.
pub fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// What to do about a file system that takes nothing; to follow the error.
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull => "; its file system is full: free some space there",
        ErrorKind::ReadOnlyFilesystem => {
            "; its file system is mounted read-only: `mount -o remount,rw` it"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read x: {0}")]
    struct Unreadable(#[source] std::fmt::Error);

    #[test]
    fn a_cause_that_its_error_tells_is_not_told_again() {
        let error = anyhow::Error::from(Unreadable(std::fmt::Error));
        assert_eq!(told(&error), format!("cannot read x: {}", std::fmt::Error));
    }

    #[test]
    fn a_cause_that_its_error_leaves_out_is_told() {
        let error = Err::<(), _>(anyhow!("no such file"))
            .context("cannot start")
            .unwrap_err();
        assert_eq!(told(&error), "cannot start: no such file");
    }
}
