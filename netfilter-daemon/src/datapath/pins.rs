//! The paths in bpffs. The number of the ABI is part of them, so no daemon reads
//! maps of another layout.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use netfilter_ebpf::abi::ABI;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::Error;

/// A state directory on a BPF file system.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    base: PathBuf,
    state_dir: PathBuf,
}

/// What a program does where it hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Ingress,
    Egress,
    /// Reads the answers of local resolvers.
    Loopback,
}

impl Role {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Loopback => "loopback",
        }
    }

    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Ingress => "netfilter_ingress",
            Self::Egress => "netfilter_egress",
            Self::Loopback => "netfilter_loopback",
        }
    }
}

impl Pins {
    /// Makes the directories.
    pub(super) fn create(state_dir: &Path) -> Result<Self, Error> {
        let mut existing = state_dir;
        while !existing.exists() {
            existing = existing.parent().unwrap_or(Path::new("/"));
        }
        let kind = statfs(existing).map_err(|source| path("look at", existing)(source.into()))?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            return Err(Error::NotBpffs(state_dir.to_owned()));
        }
        let pins = Self::at(state_dir);
        for directory in [pins.base.join("maps"), pins.base.join("links")] {
            fs::create_dir_all(&directory).map_err(path("create", &directory))?;
        }
        Ok(pins)
    }

    /// `None` where nothing is pinned.
    pub(super) fn open(state_dir: &Path) -> Result<Option<Self>, Error> {
        let pins = Self::at(state_dir);
        match fs::metadata(pins.base.join("maps")) {
            Ok(_) => Ok(Some(pins)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(path("look at", &pins.base)(error)),
        }
    }

    fn at(state_dir: &Path) -> Self {
        Self {
            base: state_dir.join(format!("abi-{ABI}")),
            state_dir: state_dir.to_owned(),
        }
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.base.join("maps").join(name)
    }

    /// Where the link (or, on clsact, the program) of an interface is pinned.
    pub(super) fn link(&self, role: Role, ifindex: u32) -> PathBuf {
        self.base
            .join("links")
            .join(format!("{}-{ifindex}", role.label()))
    }

    /// The interfaces that have a pin of this role, sorted.
    pub(super) fn links(&self, role: Role) -> Result<Vec<u32>, Error> {
        let directory = self.base.join("links");
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(path("list", &directory)(error)),
        };
        let mut links: Vec<u32> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                name.to_str()?
                    .strip_prefix(role.label())?
                    .strip_prefix('-')?
                    .parse()
                    .ok()
            })
            .collect();
        links.sort_unstable();
        Ok(links)
    }

    /// Removes the maps and the directories.
    pub(super) fn remove(self) -> Result<(), Error> {
        fs::remove_dir_all(&self.base).map_err(path("remove", &self.base))?;
        // Only if nothing else is there.
        match fs::remove_dir(&self.state_dir) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
                ) =>
            {
                Err(path("remove", &self.state_dir)(error))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn path(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Path {
        operation,
        path,
        source,
    }
}
