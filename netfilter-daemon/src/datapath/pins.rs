//! The paths in bpffs:
//!
//! ```text
//! links/egress-2           where a program hangs; replaced in place, by whatever build
//! links/guard              where the program hangs that keeps sockets from passing by
//! links/connect4           and one that notes who uses a socket
//! learned/LEASES-2         what outlives policies and builds, with the version of its layout
//! tables-1-4/ROOTS         a policy's tables: the version of their layout, a running number
//! filling/                 tables that are being filled, and that no link reads
//! next/                    tables that are filled, until every link reads them
//! unfinished-1/            what an earlier start left there when it was killed
//! ```
//!
//! A build uses the maps of the layouts that it knows and no others: one that finds
//! another version makes its own beside it, and so does the former one when it returns.

use std::{
    fs::{self, DirEntry},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use netfilter_ebpf::abi::TABLES_LAYOUT;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{Error, maps};

const LINKS: &str = "links";
const LEARNED: &str = "learned";
const TABLES: &str = "tables";
const FILLING: &str = "filling";
const NEXT: &str = "next";
const UNFINISHED: &str = "unfinished";
/// Of builds before the layouts had versions of their own.
const FORMER: &str = "abi-2";

/// A state directory on a BPF file system.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    state_dir: PathBuf,
    tables: Set,
}

/// Which tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    InForce,
    Filling,
    Next,
}

/// A policy's tables.
struct Tables {
    number: u32,
    layout: u32,
    path: PathBuf,
}

/// What a program does where it hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Ingress,
    Egress,
    /// Reads the answers of local resolvers.
    Loopback,
    /// Judges what a workload sends, by XDP.
    Workload,
    /// Reads what is delivered to a workload.
    Delivery,
    /// Lets in what [`Self::Workload`] has judged, and nothing else.
    Judged,
}

impl Role {
    /// In the order in which they are lifted: `Judged` lets nothing in without `Workload`.
    pub(super) const OF_INTERFACES: [Self; 5] = [
        Self::Egress,
        Self::Ingress,
        Self::Judged,
        Self::Workload,
        Self::Delivery,
    ];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Loopback => "loopback",
            Self::Workload => "workload",
            Self::Delivery => "delivery",
            Self::Judged => "judged",
        }
    }

    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Ingress | Self::Delivery => "netfilter_ingress",
            Self::Egress => "netfilter_egress",
            Self::Loopback => "netfilter_loopback",
            Self::Workload => "netfilter_workload",
            Self::Judged => "netfilter_judged",
        }
    }
}

/// Whether a state directory is on a BPF file system, or would be.
///
/// # Errors
/// [`Error::NotBpffs`], or where nobody may look.
pub(super) fn check(state_dir: &Path) -> Result<(), Error> {
    let mut existing = state_dir;
    while !existing.exists() {
        existing = existing.parent().unwrap_or(Path::new("/"));
    }
    let kind = statfs(existing).map_err(|source| path("look at", existing)(source.into()))?;
    match kind.filesystem_type() == BPF_FS_MAGIC {
        true => Ok(()),
        false => Err(Error::NotBpffs(state_dir.to_owned())),
    }
}

impl Pins {
    /// Makes the directories.
    pub(super) fn create(state_dir: &Path) -> Result<Self, Error> {
        check(state_dir)?;
        let pins = Self::at(state_dir);
        for directory in [pins.directory(LEARNED), pins.directory(LINKS)] {
            fs::create_dir_all(&directory).map_err(path("create", &directory))?;
        }
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(state_dir, mode).map_err(path("protect", state_dir))?;
        pins.take_over()?;
        Ok(pins)
    }

    /// `None` where nothing is pinned.
    pub(super) fn open(state_dir: &Path) -> Result<Option<Self>, Error> {
        let pins = Self::at(state_dir);
        match fs::metadata(pins.directory(LEARNED)) {
            Ok(_) => Ok(Some(pins)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(path("look at", state_dir)(error)),
        }
    }

    /// As [`Self::open`], whether or not anything is there.
    pub(super) fn at(state_dir: &Path) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            tables: Set::InForce,
        }
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.state_dir.join(name)
    }

    /// The links of a build that pinned them elsewhere, so that its programs are
    /// replaced and do not stay beside ours.
    fn take_over(&self) -> Result<(), Error> {
        let former = self.directory(FORMER);
        for entry in list(&former.join(LINKS))? {
            let link = self.directory(LINKS).join(entry.file_name());
            fs::rename(entry.path(), &link).map_err(path("take over", &link))?;
        }
        remove(&former)
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> Result<PathBuf, Error> {
        if let Some((_, version)) = maps::LEARNED.iter().find(|(learned, _)| *learned == name) {
            return Ok(self.directory(LEARNED).join(format!("{name}-{version}")));
        }
        let tables = match self.tables {
            Set::Filling => self.directory(FILLING),
            Set::Next => self.directory(NEXT),
            Set::InForce => self
                .in_force()?
                .map_or_else(|| self.directory("no-tables"), |tables| tables.path),
        };
        Ok(tables.join(name))
    }

    /// Where something is pinned for a moment.
    pub(super) fn passing(&self) -> PathBuf {
        self.directory(LEARNED).join("passing")
    }

    /// The policies' tables, oldest first; an unfinished set last. Where they cannot be
    /// listed, nobody knows that there are none.
    fn tables(&self) -> Result<Vec<Tables>, Error> {
        let mut tables: Vec<Tables> = list(&self.state_dir)?
            .into_iter()
            .filter_map(|entry| {
                let name = entry.file_name();
                let mut parts = name.to_str()?.split('-');
                (parts.next()? == TABLES).then_some(())?;
                Some(Tables {
                    layout: parts.next()?.parse().ok()?,
                    number: parts.next()?.parse().ok()?,
                    path: entry.path(),
                })
            })
            .collect();
        tables.sort_by_key(|tables| tables.number);
        Ok(tables)
    }

    fn in_force(&self) -> Result<Option<Tables>, Error> {
        Ok(self.tables()?.pop())
    }

    pub(super) fn has_tables(&self) -> Result<bool, Error> {
        Ok(self.in_force()?.is_some())
    }

    /// Whether this build can fill the tables in force.
    pub(super) fn knows_tables(&self) -> Result<bool, Error> {
        let in_force = self.in_force()?;
        Ok(in_force.is_some_and(|tables| tables.layout == TABLES_LAYOUT))
    }

    /// Where this map of all tables is pinned that a program may read: a start that was
    /// killed may have replaced some programs.
    pub(super) fn all(&self, name: &str) -> Result<Vec<PathBuf>, Error> {
        let tables = self.tables()?.into_iter().map(|tables| tables.path);
        let mut paths = Vec::new();
        for tables in tables
            .chain(self.unfinished()?)
            .chain([self.directory(NEXT)])
        {
            let path = tables.join(name);
            if is_there(&path)? {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    fn unfinished(&self) -> Result<Vec<PathBuf>, Error> {
        let mut unfinished = Vec::new();
        loop {
            let next = self.directory(&format!("{UNFINISHED}-{}", unfinished.len() + 1));
            if !is_there(&next)? {
                return Ok(unfinished);
            }
            unfinished.push(next);
        }
    }

    /// For tables that are made anew.
    pub(super) fn next(&self) -> Result<Self, Error> {
        let directory = self.directory(FILLING);
        remove(&directory)?;
        fs::create_dir(&directory).map_err(path("create", &directory))?;
        Ok(Self {
            state_dir: self.state_dir.clone(),
            tables: Set::Filling,
        })
    }

    pub(super) fn is_filling(&self) -> bool {
        self.tables != Set::InForce
    }

    /// Before a link reads the tables: from here on they stay, whatever happens.
    pub(super) fn show(&mut self) -> Result<(), Error> {
        if self.tables != Set::Filling {
            return Ok(());
        }
        let directory = self.directory(NEXT);
        if is_there(&directory)? {
            let number = self.unfinished()?.len() + 1;
            let kept = self.directory(&format!("{UNFINISHED}-{number}"));
            fs::rename(&directory, &kept).map_err(path("keep", &kept))?;
        }
        fs::rename(self.directory(FILLING), &directory).map_err(path("create", &directory))?;
        self.tables = Set::Next;
        Ok(())
    }

    /// Tables that could not be filled take no memory. If they cannot be removed, the
    /// next start does.
    pub(super) fn give_up(&self) {
        if self.tables == Set::Filling {
            remove(&self.directory(FILLING)).ok();
        }
    }

    /// The tables that were filled are those in force; former ones go.
    pub(super) fn commit(&mut self) -> Result<(), Error> {
        let former = self.tables()?;
        if self.tables == Set::Next {
            let number = former.last().map_or(1, |tables| tables.number + 1);
            let tables = self.directory(&format!("{TABLES}-{TABLES_LAYOUT}-{number}"));
            fs::rename(self.directory(NEXT), &tables).map_err(path("create", &tables))?;
            self.tables = Set::InForce;
        }
        for tables in self.tables()?.iter().rev().skip(1) {
            remove(&tables.path)?;
        }
        self.remove_unfinished()
    }

    fn remove_unfinished(&self) -> Result<(), Error> {
        // The last first: a gap would hide those behind it.
        for directory in self.unfinished()?.iter().rev() {
            remove(directory)?;
        }
        remove(&self.directory(FILLING))?;
        remove(&self.directory(NEXT))
    }

    /// Where the link (or, on clsact, the program) of an interface is pinned.
    pub(super) fn link(&self, role: Role, ifindex: u32) -> PathBuf {
        self.directory(LINKS)
            .join(format!("{}-{ifindex}", role.label()))
    }

    /// Where a link to the root cgroup is pinned.
    pub(super) fn root_link(&self, name: &str) -> PathBuf {
        self.directory(LINKS).join(name)
    }

    /// The interfaces that have a pin of this role, sorted.
    pub(super) fn links(&self, role: Role) -> Result<Vec<u32>, Error> {
        self.links_of(&[role])
    }

    /// The same of several roles, each interface once.
    pub(super) fn links_of(&self, roles: &[Role]) -> Result<Vec<u32>, Error> {
        let mut links: Vec<u32> = list(&self.directory(LINKS))?
            .into_iter()
            .filter_map(|entry| {
                let name = entry.file_name();
                let (label, ifindex) = name.to_str()?.split_once('-')?;
                roles.iter().find(|role| role.label() == label)?;
                ifindex.parse().ok()
            })
            .collect();
        links.sort_unstable();
        links.dedup();
        Ok(links)
    }

    /// Removes the maps and the directories.
    pub(super) fn remove(self) -> Result<(), Error> {
        for tables in self.tables()? {
            remove(&tables.path)?;
        }
        self.remove_unfinished()?;
        // Last that by which there is something to remove.
        for directory in [FORMER, LINKS, LEARNED] {
            remove(&self.directory(directory))?;
        }
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

/// Nothing where there is no such directory.
fn list(directory: &Path) -> Result<Vec<DirEntry>, Error> {
    match fs::read_dir(directory).and_then(Iterator::collect) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.map_err(path("list", directory)),
    }
}

fn is_there(what: &Path) -> Result<bool, Error> {
    what.try_exists().map_err(path("look at", what))
}

fn remove(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(path("remove", directory)(error))
        }
        _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_there_are_no_tables() {
        let directory = tempfile::tempdir().unwrap();
        let pins = Pins::at(&directory.path().join("none"));
        assert!(!pins.has_tables().unwrap() && !pins.knows_tables().unwrap());
        assert!(pins.all(maps::NAMES).unwrap().is_empty());
        assert!(pins.links(Role::Egress).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_listed_is_not_taken_for_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let pins = Pins::at(file.path());
        let refused = [
            pins.has_tables().map(drop),
            pins.knows_tables().map(drop),
            pins.map(maps::NAMES).map(drop),
            pins.all(maps::NAMES).map(drop),
            pins.links(Role::Egress).map(drop),
            pins.clone().commit(),
        ];
        for refused in refused {
            let told = refused.unwrap_err().to_string();
            assert!(told.contains(&file.path().display().to_string()), "{told}");
        }
    }
}
