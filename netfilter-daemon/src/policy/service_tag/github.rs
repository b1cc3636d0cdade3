//! `https://api.github.com/meta`.
//!
//! Tags are the keys that hold prefixes: `GitHub.actions`, `GitHub.git`, ... The
//! others, such as `ssh_keys` and `domains`, hold something else.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::published::prefix;
use super::{List, Tag};

pub(super) fn read(json: &str) -> serde_json::Result<List> {
    let document: BTreeMap<String, Entry> = serde_json::from_str(json)?;
    let tags = document.into_iter().filter_map(|(key, entry)| {
        let Entry::Texts(texts) = entry else {
            return None;
        };
        let prefixes: Option<Vec<_>> = texts.iter().map(|text| prefix(text)).collect();
        Some(Tag {
            name: format!("GitHub.{key}"),
            prefixes: prefixes.filter(|prefixes| !prefixes.is_empty())?,
        })
    });
    Ok(List {
        cloud: "GitHub".to_owned(),
        change_number: 0,
        date: None,
        tags: tags.collect(),
    })
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Texts(Vec<String>),
    Other(IgnoredAny),
}
