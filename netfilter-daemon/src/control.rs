//! The control socket: one JSON line asks, one answers; those who follow are answered on and on.
//!
//! Only root can open it. Each state directory has its own, so that several
//! daemons can live in different network namespaces.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{self, Path, PathBuf},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{
    causes,
    daemon::{
        audit::Audit,
        event::Events,
        overview::Overview,
        status::{Place, Status},
    },
    tags::Update,
};

mod client;
mod server;

pub use client::{Answers, ask, follow};
pub use server::{Ask, Reply, Socket};

const DIRECTORY: &str = "/run/netfilter-daemon";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    Status,
    /// What `top` shows.
    Overview,
    /// The events that the daemon keeps.
    Events,
    /// Them, and then each that comes.
    Follow,
    /// What audit let pass.
    Audit,
    ForgetAudit,
    Reload {
        /// Seconds in which it must be confirmed.
        confirm: Option<u64>,
    },
    Confirm,
    Detach,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Status {
        status: Box<Status>,
    },
    Overview {
        overview: Box<Overview>,
    },
    Events(Events),
    Audit {
        audit: Box<Audit>,
    },
    Forgotten,
    Reloaded {
        rules: usize,
        generation: u32,
        /// Files of service tags that were not taken: the last good lists stay.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        refused: Vec<Refused>,
    },
    Confirmed {
        generation: u32,
    },
    Detached {
        lifted: Vec<Place>,
    },
    /// It was not done; why not.
    Failed {
        error: String,
        fault: Fault,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub source: String,
    pub reason: String,
}

/// Who has to do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Whoever wrote the policy.
    Policy,
    /// Nobody: there is nothing to be done.
    Nothing,
    System,
}

impl Refused {
    /// None for a list that was not.
    pub fn of(update: &Update) -> Option<Self> {
        let reason = update.outcome.failure()?.to_owned();
        let source = update.source.clone();
        Some(Self { source, reason })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, reason } = self;
        write!(
            f,
            "the service tags of {source} stay as they were: {reason}"
        )
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {operation} {}: {source}{}", path.display(), causes::remedy(source))]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("this needs root: {} cannot be opened; try again with sudo", .0.display())]
    NotRoot(PathBuf),
    #[error("the state directory {} has too long a name for a socket, whose path {} must be shorter than 108 bytes", state_dir.display(), socket.display())]
    TooLong { state_dir: PathBuf, socket: PathBuf },
    #[error(
        "a daemon already runs with the state directory {state} ({pid}); stop it with \
         `kill {pid_number}`, which leaves the filter in force, or with \
         `netfilter-daemon detach --state-dir {state}`, which lifts it",
        state = state_dir.display(),
        pid = if holder.is_empty() { "process unknown".to_owned() } else { format!("process {holder}") },
        pid_number = if holder.is_empty() { "PID" } else { holder },
    )]
    AlreadyRuns { state_dir: PathBuf, holder: String },
    #[error("the daemon closed the connection without an answer")]
    NoAnswer,
    #[error("the daemon has not answered in {} s; its log says what it is at", .0.as_secs())]
    Silent(Duration),
    #[error("the daemon's answer cannot be read: {0}; is it another version?")]
    Garbled(#[source] serde_json::Error),
}

/// Held by whoever changes what is under a state directory: the daemon for all
/// its life, `detach` while it lifts a filter that no daemon looks after.
#[derive(Debug)]
pub struct Claim {
    _lock: Flock<File>,
    socket: PathBuf,
}

/// Claims a state directory for this process.
pub fn claim(state_dir: &Path) -> Result<Claim, Error> {
    claim_in(Path::new(DIRECTORY), state_dir)
}

/// The process that claims a state directory, if one does. Changes nothing.
///
/// # Errors
/// Where this process may not look.
pub fn holder(state_dir: &Path) -> Result<Option<String>, Error> {
    let path = socket(Path::new(DIRECTORY), state_dir)?.with_extension("lock");
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Error::NotRoot(path));
        }
        Err(source) => {
            return Err(Error::File {
                operation: "open",
                path,
                source,
            });
        }
    };
    match Flock::lock(lock, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(None),
        Err((mut held, _)) => {
            let mut holder = String::new();
            // Who holds it is known by the lock alone.
            held.read_to_string(&mut holder).ok();
            Ok(Some(holder.trim().to_owned()))
        }
    }
}

fn claim_in(directory: &Path, state_dir: &Path) -> Result<Claim, Error> {
    let socket = socket(directory, state_dir)?;
    prepare(directory)?;
    let path = socket.with_extension("lock");
    let fail = |operation| {
        let path = path.clone();
        move |source| Error::File {
            operation,
            path,
            source,
        }
    };
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(fail("open"))?;
    let mut lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((mut held, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            held.read_to_string(&mut holder).map_err(fail("read"))?;
            let holder = holder.trim().to_owned();
            return Err(Error::AlreadyRuns {
                state_dir: state_dir.to_owned(),
                holder,
            });
        }
        Err((_, errno)) => return Err(fail("lock")(errno.into())),
    };
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .map_err(fail("write"))?;
    writeln!(lock, "{}", std::process::id()).map_err(fail("write"))?;
    Ok(Claim {
        _lock: lock,
        socket,
    })
}

/// /run is root's; the mode keeps everybody else from the sockets in it.
fn prepare(directory: &Path) -> Result<(), Error> {
    let made = match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(directory, Permissions::from_mode(0o700))
        }
        result => result,
    };
    made.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => Error::NotRoot(directory.to_owned()),
        _ => Error::File {
            operation: "create",
            path: directory.to_owned(),
            source,
        },
    })
}

/// The socket of a state directory: its absolute path with `/` written as `-`,
/// and what could be taken for that escaped.
fn socket(directory: &Path, state_dir: &Path) -> Result<PathBuf, Error> {
    let absolute = path::absolute(state_dir).map_err(|source| Error::File {
        operation: "find",
        path: state_dir.to_owned(),
        source,
    })?;
    let parts = absolute
        .components()
        .filter_map(|component| match component {
            path::Component::Normal(name) => Some(name.to_string_lossy()),
            _ => None,
        });
    let parts: Vec<String> = parts
        .map(|part| part.replace('%', "%25").replace('-', "%2d"))
        .collect();
    let socket = directory.join(format!("{}.sock", parts.join("-")));
    // sun_path, with its final zero.
    if socket.as_os_str().len() >= 108 {
        return Err(Error::TooLong {
            state_dir: state_dir.to_owned(),
            socket,
        });
    }
    Ok(socket)
}

#[cfg(test)]
mod tests;
