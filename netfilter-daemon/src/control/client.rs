//! The side that asks: `status`, `events`, `reload`, `detach`.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Answer, DIRECTORY, Error, Request, socket};

/// A reload of the largest policy takes seconds, and minutes on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// Far more than the status of a full table of learned addresses.
const LONGEST: u64 = 256 << 20;

/// The daemon's answer; `None` when no daemon runs with this state directory.
pub fn ask(state_dir: &Path, request: Request) -> Result<Option<Answer>, Error> {
    ask_in(Path::new(DIRECTORY), state_dir, request)
}

pub(super) fn ask_in(
    directory: &Path,
    state_dir: &Path,
    request: Request,
) -> Result<Option<Answer>, Error> {
    match converse(directory, state_dir, request, Some(PATIENCE))? {
        Some(mut answers) => answers.next().unwrap_or(Err(Error::NoAnswer)).map(Some),
        None => Ok(None),
    }
}

/// Answer after answer, for as long as the daemon runs.
pub fn follow(state_dir: &Path) -> Result<Option<Answers>, Error> {
    follow_in(Path::new(DIRECTORY), state_dir)
}

pub(super) fn follow_in(directory: &Path, state_dir: &Path) -> Result<Option<Answers>, Error> {
    converse(directory, state_dir, Request::Follow, None)
}

/// What the daemon says, until it says no more.
#[derive(Debug)]
pub struct Answers {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Iterator for Answers {
    type Item = Result<Answer, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        match self.stream.by_ref().take(LONGEST).read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).map_err(Error::Garbled)),
            Err(source) if source.kind() == io::ErrorKind::WouldBlock => {
                Some(Err(Error::Silent(PATIENCE)))
            }
            Err(source) => Some(Err(Error::File {
                operation: "read from",
                path: self.path.clone(),
                source,
            })),
        }
    }
}

/// Says what is asked. The other direction stays open: its end would mean that
/// nobody waits any more.
fn converse(
    directory: &Path,
    state_dir: &Path,
    request: Request,
    patience: Option<Duration>,
) -> Result<Option<Answers>, Error> {
    let path = socket(directory, state_dir)?;
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                // The second is a socket that a killed daemon left behind.
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                io::ErrorKind::PermissionDenied => Err(Error::NotRoot(path)),
                _ => Err(Error::File {
                    operation: "connect to",
                    path,
                    source: error,
                }),
            };
        }
    };
    let fail = |operation| {
        let path = path.clone();
        move |source| Error::File {
            operation,
            path,
            source,
        }
    };
    stream.set_read_timeout(patience).map_err(fail("set up"))?;
    let line = serde_json::to_string(&request).map_err(Error::Garbled)?;
    writeln!(stream, "{line}").map_err(fail("write to"))?;
    Ok(Some(Answers {
        stream: BufReader::new(stream),
        path,
    }))
}
