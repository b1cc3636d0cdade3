//! From a policy file to what the kernel needs.

use std::path::{Path, PathBuf};

use super::watch::Stamp;
use crate::{
    compile::{self, Image},
    policy::{self, Mode, Policy},
    tags::store::Store,
};

/// A policy that can be put into force.
#[derive(Debug)]
pub struct Loaded {
    pub policy: Policy,
    pub image: Image,
    /// Of the file, taken before it was read: a later change shows.
    pub stamp: Option<Stamp>,
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

/// Reads and compiles; lists of service tags from the web are those in `store`. `audit` reports what the policy would drop and lets it pass.
pub fn load(path: &Path, audit: bool, store: &Store) -> Result<Loaded, Error> {
    let stamp = Stamp::of(path);
    let mut policy = policy::source::load(path, &|url| store.catalogue(url))?;
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
    })
}
