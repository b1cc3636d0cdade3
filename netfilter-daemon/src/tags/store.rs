//! The last good list of each address and each file, on disk.
//!
//! One file holds a list and what is known of it, so that there is no moment at
//! which the two disagree: a line of JSON, then the body as it came. It is written
//! beside, brought to the disk, and renamed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};
use serde::{Deserialize, Serialize};

use crate::policy::service_tag::{
    self, Catalogue, Fetched,
    lists::{Source, host},
};

/// What systemd's `StateDirectory=netfilter-daemon` makes, too.
pub const DIRECTORY: &str = "/var/lib/netfilter-daemon";

/// Writable by the owner only: who writes here decides what may leave the machine.
const OTHERS_MAY_WRITE: u32 = 0o022;

#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// A list that was good when it came. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The address as the policy writes it, or the whole path of the file.
    pub url: String,
    /// Where redirects and pages led; for a file, as the policy writes it.
    pub from: String,
    pub sha256: String,
    /// For a file, what differs between two editions of it.
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    pub fetched: u64,
    /// When it was last known to be the newest.
    pub checked: u64,
    #[serde(skip)]
    pub body: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {operation} {}: {source}{}", path.display(), remedy(source))]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} can be written by others than its owner, root; `chmod go-w` and look at what is in it", .0.display())]
    Open(PathBuf),
    #[error(
        "the stored list {} is damaged: {reason}; it is not used. `netfilter-daemon tags update` takes it anew",
        path.display()
    )]
    Damaged { path: PathBuf, reason: String },
}

impl Store {
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// What is stored for an address or a path; `None` where nothing is.
    ///
    /// # Errors
    /// Where it cannot be read, is not what was written, or others could have written it.
    pub fn load(&self, url: &str) -> Result<Option<Stored>, Error> {
        let path = self.path(url);
        let bytes = match self.owned(&self.directory).and_then(|()| {
            self.owned(&path)?;
            fs::read(&path).map_err(|source| failed("read", &path)(source))
        }) {
            Ok(bytes) => bytes,
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let damaged = |reason: String| Error::Damaged {
            path: path.clone(),
            reason,
        };
        let stored = decode(bytes).map_err(damaged)?;
        match stored.url == url {
            true => Ok(Some(stored)),
            false => Err(damaged(format!("it is of {}", stored.url))),
        }
    }

    /// Replaces what is stored for the list's address or path, whole or not at all.
    ///
    /// # Errors
    /// Where it did not come to the disk; then what was stored still is.
    pub fn save(&self, stored: &Stored) -> Result<(), Error> {
        self.make()?;
        let _lock = self.lock()?;
        let path = self.path(&stored.url);
        let new = path.with_extension("new");
        let written = write(&new, stored)
            .and_then(|()| fs::rename(&new, &path).map_err(failed("replace", &path)));
        if let Err(error) = written {
            // The disk may be full of it. If it cannot go, the next attempt overwrites it.
            fs::remove_file(&new).ok();
            return Err(error);
        }
        let directory = File::open(&self.directory).and_then(|directory| directory.sync_all());
        directory.map_err(failed("bring to the disk", &self.directory))
    }

    /// Several daemons can share a store.
    fn lock(&self) -> Result<Flock<File>, Error> {
        let path = self.directory.join("lock");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(failed("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed("lock", &path)(errno.into()))
    }

    fn make(&self) -> Result<(), Error> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.directory);
        made.map_err(failed("create", &self.directory))?;
        self.owned(&self.directory)
    }

    fn owned(&self, path: &Path) -> Result<(), Error> {
        let metadata = fs::metadata(path).map_err(failed("read", path))?;
        let owner = metadata.uid();
        let is_ours = owner == 0 || owner == geteuid().as_raw();
        match is_ours && metadata.mode() & OTHERS_MAY_WRITE == 0 {
            true => Ok(()),
            false => Err(Error::Open(path.to_owned())),
        }
    }

    /// By the host or the file's name, for who looks into the directory, and by the
    /// whole address or path.
    fn path(&self, url: &str) -> PathBuf {
        let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '.' || *c == '-';
        let name = match url.starts_with('/') {
            true => url.rsplit('/').next().unwrap_or_default(),
            false => host(url).0,
        };
        let name: String = name.chars().filter(plain).take(64).collect();
        let key = sha256(url.as_bytes());
        self.directory.join(format!("{name}_{}.list", &key[..16]))
    }
}

impl Stored {
    /// # Errors
    /// Where it is no list, which it was when it was stored.
    pub fn catalogue(&self, source: &Source) -> Result<Catalogue, service_tag::Error> {
        let catalogue = Catalogue::parse(&self.body, source.as_str())?;
        let fetched = Fetched {
            at: self.fetched,
            sha256: self.sha256.clone(),
        };
        Ok(catalogue.fetched(fetched, &self.from))
    }

    #[must_use]
    pub fn checked(self, now: u64) -> Self {
        Self {
            checked: now,
            ..self
        }
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    hex.collect()
}

fn decode(bytes: Vec<u8>) -> Result<Stored, String> {
    let text = String::from_utf8(bytes).map_err(|error| format!("it is no text: {error}"))?;
    let (head, body) = text.split_once('\n').ok_or("it is cut off")?;
    let mut stored: Stored = serde_json::from_str(head).map_err(|error| error.to_string())?;
    if sha256(body.as_bytes()) != stored.sha256 {
        return Err("its SHA-256 is not the one that was noted".to_owned());
    }
    stored.body = body.to_owned();
    Ok(stored)
}

fn write(path: &Path, stored: &Stored) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(failed("create", path))?;
    let head =
        serde_json::to_string(stored).map_err(|error| failed("write", path)(error.into()))?;
    let parts = [head.as_bytes(), b"\n", stored.body.as_bytes()];
    parts
        .into_iter()
        .try_for_each(|part| file.write_all(part))
        .and_then(|()| file.sync_all())
        .map_err(failed("write", path))
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "; this needs root",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; make room, for a list that cannot be stored is not used"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "; make it writable or name another directory with --tags-dir, for a list that \
             cannot be stored is not used"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests;
