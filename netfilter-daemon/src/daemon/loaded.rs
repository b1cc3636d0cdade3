//! From a policy file to what the kernel needs.

use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::watch::Stamp;
use crate::{
    compile::{self, Image},
    policy::{
        self, Mode, Policy,
        service_tag::{self, Catalogue, lists::Source},
        source,
    },
    tags::{self, Update, kept::Kept, store::Store},
};

/// A policy that can be put into force.
#[derive(Debug)]
pub struct Loaded {
    pub policy: Policy,
    pub image: Image,
    /// Of the file, taken before it was read: a later change shows.
    pub stamp: Option<Stamp>,
    /// The subnets that the machine was in, taken likewise.
    pub connected: Option<Vec<IpNet>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Policy(#[from] policy::Error),
    #[error("{}: {source}", path.display())]
    Compile {
        path: PathBuf,
        source: compile::Error,
    },
}

/// What reading a policy ended in.
#[derive(Debug)]
pub struct Read {
    /// What became of the files of service tags that it names. One that is refused does
    /// not keep the policy from being loaded.
    pub files: Vec<Update>,
    pub loaded: Result<Loaded, Error>,
}

/// Reads and compiles what is to be put into force. Lists of service tags are those in
/// `store`, where files that have changed come first if they are good. `audit` reports
/// what the policy would drop and lets it pass.
pub fn load(path: &Path, audit: bool, store: &Store) -> Read {
    let before = before(path);
    // What is wrong with the policy is told below.
    let files = tags::take_files(path, store).unwrap_or_default();
    let given = |source: &Source| stored(source, &Kept::of(path, store), &files);
    let policy = source::load(path, &given);
    let loaded = policy
        .map_err(Error::from)
        .and_then(|policy| compiled(path, policy, audit, before));
    Read { files, loaded }
}

/// As [`load`] for the first time, with files of service tags as they are now: changes
/// nothing, and for them needs no store.
pub fn preview(path: &Path, audit: bool, store: &Store) -> Result<Loaded, Error> {
    let before = before(path);
    let kept = Kept::of(path, store);
    let given = |source: &Source| match source {
        Source::File(written) => tags::first(path, written),
        Source::Url(_) | Source::BuiltIn => kept.catalogue(source),
    };
    compiled(path, source::load(path, &given)?, audit, before)
}

/// As [`preview`], were this the text of the policy.
pub fn preview_text(path: &Path, text: &str, store: &Store) -> Result<Loaded, Error> {
    let before = before(path);
    let kept = Kept::of(path, store);
    let given = |source: &Source| match source {
        Source::File(written) => tags::first(path, written),
        Source::Url(_) | Source::BuiltIn => kept.catalogue(source),
    };
    compiled(path, source::load_text(path, text, &given)?, false, before)
}

fn before(path: &Path) -> (Option<Stamp>, Option<Vec<IpNet>>) {
    (Stamp::of(path), source::subnets().ok())
}

fn stored(
    source: &Source,
    kept: &Kept<'_>,
    files: &[Update],
) -> Result<Catalogue, service_tag::Error> {
    kept.catalogue(source).map_err(|error| {
        let mut files = files.iter();
        let file = files.find(|file| file.source == source.as_str());
        let why = file.and_then(|file| file.outcome.failure());
        why.map_or(error, |why| service_tag::Error::Stored(why.to_owned()))
    })
}

fn compiled(
    path: &Path,
    mut policy: Policy,
    audit: bool,
    (stamp, connected): (Option<Stamp>, Option<Vec<IpNet>>),
) -> Result<Loaded, Error> {
    if audit {
        policy.mode = Mode::Report;
    }
    let image = compile::compile(&policy).map_err(|source| Error::Compile {
        path: path.to_owned(),
        source,
    })?;
    Ok(Loaded {
        policy,
        image,
        stamp,
        connected,
    })
}
