//! The side that asks: `status`, `reload`, `detach`.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{Answer, DIRECTORY, Error, Request, socket};

/// A reload of the largest policy takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
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
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(fail("set up"))?;
    let line = serde_json::to_string(&request).map_err(Error::Garbled)?;
    writeln!(stream, "{line}").map_err(fail("write to"))?;
    stream.shutdown(Shutdown::Write).map_err(fail("write to"))?;

    let mut line = String::new();
    BufReader::new(stream)
        .take(LONGEST)
        .read_line(&mut line)
        .map_err(fail("read from"))?;
    if line.is_empty() {
        return Err(Error::NoAnswer);
    }
    serde_json::from_str(&line)
        .map(Some)
        .map_err(Error::Garbled)
}
