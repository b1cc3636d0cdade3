//! A policy's lists as they are stored.

use std::{
    fs,
    path::{self, Path, PathBuf},
};

use super::store::{self, Store, Stored};
use crate::policy::service_tag::{self, Catalogue, lists::Source};

/// The store, as one policy names what is in it.
#[derive(Debug, Clone)]
pub struct Kept<'s> {
    store: &'s Store,
    /// The policy's.
    directory: PathBuf,
}

impl<'s> Kept<'s> {
    pub fn of(policy: &Path, store: &'s Store) -> Self {
        let directory = match policy.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // However the policy is named, its files are the same.
        let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
        Self { store, directory }
    }

    /// Where a file of the policy is. A link is not followed: it may be turned to the
    /// next edition, whose former is then the one before it.
    pub fn path(&self, written: &str) -> PathBuf {
        let path = self.directory.join(written);
        path::absolute(&path).unwrap_or(path)
    }

    /// Under which a list is stored: its address, or its whole path.
    pub fn key(&self, source: &Source) -> String {
        match source {
            Source::File(written) => self.path(written).display().to_string(),
            Source::Url(_) | Source::BuiltIn => source.as_str().to_owned(),
        }
    }

    /// # Errors
    /// As [`Store::load`].
    pub fn load(&self, source: &Source) -> Result<Option<Stored>, store::Error> {
        self.store.load(&self.key(source))
    }

    /// In the words of [`crate::policy::source`].
    ///
    /// # Errors
    /// Where nothing is stored, or nothing that can be used.
    pub fn catalogue(&self, source: &Source) -> Result<Catalogue, service_tag::Error> {
        match self.load(source) {
            Ok(Some(stored)) => stored.catalogue(source),
            Ok(None) => Err(service_tag::Error::NotFetched {
                url: source.as_str().to_owned(),
            }),
            Err(error) => Err(service_tag::Error::Stored(error.to_string())),
        }
    }

    /// # Errors
    /// As [`Store::save`].
    pub fn save(&self, stored: &Stored) -> Result<(), store::Error> {
        self.store.save(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_however_its_policy_is_named_and_another_beside_another() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (folder.path().join("here"), folder.path().join("there"));
        fs::create_dir(&here).unwrap();
        fs::create_dir(&there).unwrap();
        std::os::unix::fs::symlink(&here, folder.path().join("link")).unwrap();
        let store = Store::new(folder.path());
        let key = |policy: &Path, written: &str| {
            Kept::of(policy, &store).key(&Source::File(written.to_owned()))
        };
        let wanted = here.join("own.json").display().to_string();
        for policy in [
            here.join("policy.yaml"),
            here.join("../here/other.yaml"),
            folder.path().join("link/policy.yaml"),
        ] {
            assert_eq!(key(&policy, "own.json"), wanted);
            assert_eq!(key(&policy, "./own.json"), wanted);
            assert_eq!(key(&policy, &wanted), wanted);
        }
        assert_ne!(key(&there.join("policy.yaml"), "own.json"), wanted);
        let url = Source::Url("https://lists.example/".to_owned());
        assert_eq!(Kept::of(&here, &store).key(&url), url.as_str());
    }

    #[test]
    fn a_policy_in_the_working_directory_has_its_files_there() {
        let store = Store::new("/store");
        let kept = Kept::of(Path::new("policy.yaml"), &store);
        let here = std::env::current_dir().unwrap();
        assert_eq!(kept.path("own.json"), here.join("own.json"));
    }
}
