//! Service tags: names that a cloud publishes for its own address ranges.
//!
//! Prefixes are kept exactly as published. Nested ones stay, and nothing is
//! aggregated: 168.63.129.16 is in no tag although its neighbours are.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::nearest;

mod aws;
mod azure;
mod github;
mod google;
pub mod lists;
pub mod page;
mod platform;
mod published;
mod subtract;

pub(super) use platform::WIRE_SERVER;

const BUILT_IN: &str = include_str!("../../catalogue/azure-public.json");
/// How the built-in catalogue is named: in a policy and in [`Edition::source`].
pub const BUILT_IN_NAME: &str = "built-in";

/// Which published list the tags are from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edition {
    /// `built-in`, or the path as the policy writes it.
    pub source: String,
    /// As the list names it: `Public`, `AzureGovernment`, `AWS`, ...
    pub cloud: String,
    /// The list's own version; 0 where it has none.
    pub change_number: u64,
    /// `YYYY-MM-DD`, where the list or its file name tells.
    pub date: Option<String>,
    pub tags: usize,
    /// `None` for what was not taken from the store.
    pub fetched: Option<Fetched>,
}

/// Of a list that was fetched, or read from a file, and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Seconds since 1970.
    pub at: u64,
    /// Of the bytes that came, in hexadecimal.
    pub sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// In the publisher's spelling.
    pub name: String,
    /// As published: nested ones and all.
    pub prefixes: Vec<IpNet>,
}

/// The tags of one published list, or of several.
#[derive(Debug, Clone)]
pub struct Catalogue {
    edition: Edition,
    /// Of each list that is in it.
    editions: Vec<Edition>,
    /// By lowercase name.
    tags: BTreeMap<String, Tag>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} is a web page; the list itself is the JSON file that the page links to")]
    WebPage { path: String },
    #[error("{path} is no list of service tags{}: {source}", cut_off(source))]
    Malformed {
        path: String,
        source: serde_json::Error,
    },
    #[error(
        "{path} is JSON, but none of the known lists: service tags of Azure, ip-ranges.json of \
         AWS, cloud.json or goog.json of Google, meta of GitHub"
    )]
    UnknownForm { path: String },
    #[error("{path} has no tags; is it the whole list?")]
    NoTags { path: String },
    #[error(
        "no list from {url} is stored yet; fetch it with `netfilter-daemon tags update --policy FILE`"
    )]
    NotFetched { url: String },
    /// Of a store, or of who keeps it, in their own words.
    #[error("{0}")]
    Stored(String),
}

impl Catalogue {
    /// The tags that the `azure-ml` preset and Azure ML's documentation need.
    pub fn built_in() -> Result<Self, Error> {
        Self::parse(BUILT_IN, BUILT_IN_NAME)
    }

    /// Reads a list in the form in which its cloud publishes it. `source` names it
    /// in errors and in the edition.
    pub fn parse(json: &str, source: &str) -> Result<Self, Error> {
        let json = json.trim_start_matches('\u{feff}');
        let path = || source.to_owned();
        if json.trim_start().starts_with('<') {
            return Err(Error::WebPage { path: path() });
        }
        let malformed = |source| Error::Malformed {
            path: path(),
            source,
        };
        let outline: Outline = serde_json::from_str(json).map_err(malformed)?;
        let read = outline
            .reader()
            .ok_or_else(|| Error::UnknownForm { path: path() })?;
        Self::of(read(json).map_err(malformed)?, source)
    }

    pub fn edition(&self) -> &Edition {
        &self.edition
    }

    /// Of each list that is in it, in the order in which they were merged.
    pub fn editions(&self) -> &[Edition] {
        &self.editions
    }

    /// Says when the list came, and where it was if that tells its date.
    #[must_use]
    pub fn fetched(mut self, fetched: Fetched, from: &str) -> Self {
        let edition = &mut self.edition;
        edition.date = edition.date.take().or_else(|| date_in_file_name(from));
        edition.fetched = Some(fetched);
        self.editions = vec![self.edition.clone()];
        self
    }

    /// Whatever the letter case: Microsoft's own spelling varies.
    pub fn tag(&self, name: &str) -> Option<&Tag> {
        self.tags.get(&name.to_lowercase())
    }

    /// In the order of their names.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.tags.values()
    }

    /// What the tag stands for: a published one, or one of the platform, which are
    /// in no published list. `virtual_network` is what `VirtualNetwork` means.
    pub fn resolve(&self, name: &str, virtual_network: &[IpNet]) -> Option<Tag> {
        platform::tag(name, virtual_network).or_else(|| self.tag(name).cloned())
    }

    /// The names most like one that does not exist.
    pub fn nearest(&self, name: &str) -> Vec<&str> {
        let published = self.tags.values().map(|tag| tag.name.as_str());
        nearest::nearest(name, published.chain(platform::NAMES))
    }

    /// Both lists as one; where both have a tag, it stands for what either says.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        for (key, tag) in other.tags {
            self.add(key, tag);
        }
        self.edition.source = format!("{}, {}", self.edition.source, other.edition.source);
        self.edition.cloud = format!("{}, {}", self.edition.cloud, other.edition.cloud);
        self.edition.tags = self.tags.len();
        self.edition.fetched = None;
        self.editions.extend(other.editions);
        self
    }

    fn of(list: List, source: &str) -> Result<Self, Error> {
        let mut catalogue = Self {
            edition: Edition {
                source: source.to_owned(),
                cloud: list.cloud,
                change_number: list.change_number,
                date: list.date.or_else(|| date_in_file_name(source)),
                tags: 0,
                fetched: None,
            },
            editions: Vec::new(),
            tags: BTreeMap::new(),
        };
        for tag in list.tags {
            catalogue.add(tag.name.to_lowercase(), tag);
        }
        catalogue.edition.tags = catalogue.tags.len();
        catalogue.editions.push(catalogue.edition.clone());
        match catalogue.edition.tags {
            0 => Err(Error::NoTags {
                path: source.to_owned(),
            }),
            _ => Ok(catalogue),
        }
    }

    fn add(&mut self, key: String, tag: Tag) {
        match self.tags.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(tag);
            }
            Entry::Occupied(mut known) => {
                let known = &mut known.get_mut().prefixes;
                let had: HashSet<IpNet> = known.iter().copied().collect();
                known.extend(
                    tag.prefixes
                        .into_iter()
                        .filter(|prefix| !had.contains(prefix)),
                );
            }
        }
    }
}

/// The keys that tell whose list it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    values: Option<IgnoredAny>,
    prefixes: Option<IgnoredAny>,
    create_date: Option<IgnoredAny>,
    creation_time: Option<IgnoredAny>,
    hooks: Option<IgnoredAny>,
}

impl Outline {
    fn reader(&self) -> Option<fn(&str) -> serde_json::Result<List>> {
        if self.values.is_some() {
            return Some(azure::read);
        }
        match (&self.prefixes, &self.create_date, &self.creation_time) {
            (Some(_), Some(_), None) => Some(aws::read),
            (Some(_), None, Some(_)) => Some(google::read),
            _ => self.hooks.as_ref().map(|_| github::read as _),
        }
    }
}

/// A published list, whichever cloud's.
struct List {
    cloud: String,
    change_number: u64,
    date: Option<String>,
    tags: Vec<Tag>,
}

fn cut_off(error: &serde_json::Error) -> &'static str {
    match error.is_eof() {
        true => ", or is cut off",
        false => "",
    }
}

/// Groups prefixes by the tag that they are named with, in the order of the names.
fn tags_of(named: impl Iterator<Item = (String, IpNet)>) -> Vec<Tag> {
    let mut tags: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
    for (name, prefix) in named {
        tags.entry(name).or_default().push(prefix);
    }
    tags.into_iter()
        .map(|(name, prefixes)| Tag { name, prefixes })
        .collect()
}

/// Azure's download is named `ServiceTags_Public_20251027.json`, and says its date nowhere else.
fn date_in_file_name(source: &str) -> Option<String> {
    let stem = source.strip_suffix(".json")?;
    let digits = stem.get(stem.len().checked_sub(8)?..)?;
    let is_date = digits.starts_with("20") && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_date.then(|| format!("{}-{}-{}", &digits[..4], &digits[4..6], &digits[6..]))
}

#[cfg(test)]
mod tests;
