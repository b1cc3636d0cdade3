//! Lists of service tags, from the web and in files: looked at, judged, kept on disk.
//!
//! A list is put into force in one way only: it is stored, and then the policy is
//! loaded, which reads the store and neither the network nor the file. So what a
//! restart finds is what was in force, and a list that cannot be stored is not used at all.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::{
    compile,
    policy::{
        self, Destination, Policy,
        service_tag::{
            self, Catalogue,
            lists::{Lists, Source},
        },
        source::{self, list},
    },
};

pub mod fetch;
mod file;
pub mod judge;
pub mod keep;
pub mod kept;
mod look;
pub mod store;

use kept::Kept;
use look::{Came, Candidate, now};
use store::Store;

/// What became of one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// As the policy writes it.
    pub source: String,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it was.
    Fresh,
    /// It is stored, for the next load of the policy to use.
    New,
    /// What was stored stays; why.
    Failed(String),
    /// What was stored stays, for the good list that came could not be stored; why.
    Unkept(String),
}

/// What of it comes to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeping {
    /// Lists that changed, and of the others when they were looked at.
    All,
    Changes,
    Nothing,
}

impl Outcome {
    /// Why what was stored stays.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Fresh | Self::New => None,
            Self::Failed(why) | Self::Unkept(why) => Some(why),
        }
    }
}

/// Looks for what has changed, judges it, and stores what is good. `which` says at
/// which of the policy's lists. `force` accepts what shrank or is older.
///
/// # Errors
/// Where the policy does not say where its lists come from.
pub fn update(
    policy: &Path,
    store: &Store,
    which: impl Fn(&str) -> bool,
    force: bool,
) -> Result<Vec<Update>, policy::Error> {
    let which = |source: &Source| which(source.as_str());
    look_at(policy, store, which, force, Keeping::All)
}

/// As [`update`], at files only: before each load of the policy, so that a file has
/// no way into force but this.
///
/// # Errors
/// Where the policy does not say where its lists come from.
pub fn take_files(policy: &Path, store: &Store) -> Result<Vec<Update>, policy::Error> {
    look_at(policy, store, is_file, false, Keeping::Changes)
}

/// The files that are not as the stored lists are, and what [`take_files`] would do with
/// them. None of those of which nothing is stored, or nothing that this process may read.
///
/// # Errors
/// Where the policy does not say where its lists come from.
pub fn changed_files(policy: &Path, store: &Store) -> Result<Vec<Update>, policy::Error> {
    let mut files = look_at(policy, store, is_file, false, Keeping::Nothing)?;
    let kept = Kept::of(policy, store);
    files.retain(|file| {
        let source = Source::File(file.source.clone());
        file.outcome != Outcome::Fresh && matches!(kept.load(&source), Ok(Some(_)))
    });
    Ok(files)
}

/// The list in a file beside the policy, judged as if none were before it.
///
/// # Errors
/// Where it cannot be read, is no list, or is refused.
pub fn first(policy: &Path, written: &str) -> Result<Catalogue, service_tag::Error> {
    let list = list::beside(policy, written)?;
    judge::judge(None, &list, &[], false)
        .map_err(|refusals| service_tag::Error::Stored(refusals.to_string()))?;
    Ok(list)
}

/// The addresses of the policy from which nothing usable is stored.
///
/// # Errors
/// Where the policy does not say where its lists come from.
pub fn missing(policy: &Path, store: &Store) -> Result<Vec<String>, policy::Error> {
    let lists = source::lists(policy)?;
    let kept = Kept::of(policy, store);
    let missing = lists
        .changing()
        .filter(|source| !is_file(source) && kept.catalogue(source).is_err());
    Ok(missing.map(|source| source.as_str().to_owned()).collect())
}

/// Whether this process may read all that a reload reads.
pub fn can_be_read(policy: &Path, store: &Store) -> bool {
    let kept = Kept::of(policy, store);
    let denied = |path: PathBuf| {
        list::open(&path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    let files_can = |lists: Lists| {
        !lists.changing().any(|source| match source {
            Source::File(written) => denied(kept.path(written)),
            Source::Url(_) | Source::BuiltIn => false,
        })
    };
    source::load(policy, &|source| kept.catalogue(source)).is_ok()
        && source::lists(policy).is_ok_and(files_can)
}

fn is_file(source: &Source) -> bool {
    matches!(source, Source::File(_))
}

fn look_at(
    policy: &Path,
    store: &Store,
    which: impl Fn(&Source) -> bool,
    force: bool,
    keeping: Keeping,
) -> Result<Vec<Update>, policy::Error> {
    let lists = source::lists(policy)?;
    let sources = lists.changing().filter(|source| which(source)).cloned();
    let sources: Vec<Source> = sources.collect();
    let kept = Kept::of(policy, store);
    let came = look::look(&sources, &lists, &kept, force);
    let changed: Vec<(&Source, &Candidate)> = sources
        .iter()
        .zip(&came)
        .filter_map(|(source, came)| match came {
            Came::Changed(candidate) => Some((source, &**candidate)),
            Came::Unchanged(_) | Came::Nothing(_) => None,
        })
        .collect();
    let in_use = InUse::of(policy, &kept, &changed);
    let judged = sources.iter().zip(&came).map(|(source, came)| Update {
        source: source.as_str().to_owned(),
        outcome: in_use.keep(source, came, force, keeping),
    });
    Ok(judged.collect())
}

/// The policy that the lists are for.
struct InUse<'a> {
    policy: &'a Path,
    kept: &'a Kept<'a>,
    changed: &'a [(&'a Source, &'a Candidate)],
    /// Names of the tags that its rules are about.
    tags: Result<Vec<String>, policy::Error>,
    /// Whether it can be put into force with what is stored.
    loads: bool,
}

impl<'a> InUse<'a> {
    fn of(
        policy: &'a Path,
        kept: &'a Kept<'a>,
        changed: &'a [(&'a Source, &'a Candidate)],
    ) -> Self {
        let mut in_use = Self {
            policy,
            kept,
            changed,
            tags: Ok(Vec::new()),
            loads: false,
        };
        // To load it takes time, and nobody would ask.
        if changed.is_empty() {
            return in_use;
        }
        let stored = source::load(policy, &|source| in_use.stored(source));
        in_use.loads = stored
            .as_ref()
            .is_ok_and(|policy| compile::compile(policy).is_ok());
        // It may have been written for the new lists.
        let loaded = stored.or_else(|error| {
            let new = |source: &Source| match in_use.candidate(source) {
                Some(new) => Ok(new),
                None => kept.catalogue(source),
            };
            // Where it is wrong with both, what is wrong with the stored ones is told.
            source::load(policy, &new).or(Err(error))
        });
        in_use.tags = loaded.map(|policy| tags_of(&policy));
        in_use
    }

    /// What is stored or, as the first of its source, will be.
    fn stored(&self, source: &Source) -> Result<Catalogue, service_tag::Error> {
        let stored = self.kept.catalogue(source);
        stored.or_else(|error| self.candidate(source).ok_or(error))
    }

    fn candidate(&self, source: &Source) -> Option<Catalogue> {
        let mut changed = self.changed.iter();
        let (_, candidate) = changed.find(|(changed, _)| *changed == source)?;
        Some(candidate.catalogue.clone())
    }

    /// Stores what passes. The judgement of each does not depend on the others'.
    fn keep(&self, source: &Source, came: &Came, force: bool, keeping: Keeping) -> Outcome {
        let (list, outcome) = match came {
            Came::Nothing(why) => return Outcome::Failed(why.clone()),
            Came::Unchanged(_) if keeping != Keeping::All => return Outcome::Fresh,
            Came::Unchanged(list) => (list.clone().checked(now()), Outcome::Fresh),
            Came::Changed(candidate) => match self.judge(source, candidate, force) {
                Ok(()) => (candidate.list.clone(), Outcome::New),
                Err(why) => return Outcome::Failed(why),
            },
        };
        if keeping == Keeping::Nothing {
            return outcome;
        }
        match self.kept.save(&list) {
            Ok(()) => outcome,
            Err(error) => Outcome::Unkept(error.to_string()),
        }
    }

    fn judge(&self, source: &Source, candidate: &Candidate, force: bool) -> Result<(), String> {
        let former = candidate.former.as_ref();
        let former = former.and_then(|former| former.catalogue(source).ok());
        let tags = match &self.tags {
            Ok(tags) => tags.as_slice(),
            // The first one replaces nothing.
            Err(_) if former.is_none() || force => &[],
            Err(error) => {
                return Err(format!(
                    "it has changed, and whether it still has what the policy uses cannot be \
                     told before the policy is right: {error}"
                ));
            }
        };
        judge::judge(former.as_ref(), &candidate.catalogue, tags, force)
            .map_err(|refusals| refusals.to_string())?;
        // A policy that is wrong already does not make the list wrong.
        if self.loads {
            self.compiles_with(source, &candidate.catalogue)
                .map_err(|error| format!("the policy cannot be put into force with it: {error}"))?;
        }
        Ok(())
    }

    fn compiles_with(&self, source: &Source, catalogue: &Catalogue) -> Result<(), String> {
        let given = |asked: &Source| match asked == source {
            true => Ok(catalogue.clone()),
            false => self.stored(asked),
        };
        let policy = source::load(self.policy, &given).map_err(|error| error.to_string())?;
        compile::compile(&policy).map_err(|error| error.to_string())?;
        Ok(())
    }
}

fn tags_of(policy: &Policy) -> Vec<String> {
    let tags = policy
        .rules
        .iter()
        .filter_map(|rule| match &rule.destination {
            Destination::Tag { tag, .. } => Some(tag.clone()),
            Destination::Prefixes(_) | Destination::Name(_) => None,
        });
    tags.collect()
}
