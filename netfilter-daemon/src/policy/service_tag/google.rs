//! `https://www.gstatic.com/ipranges/cloud.json` and `goog.json`.
//!
//! Tags are `GoogleCloud` and `GoogleCloud.us-east1`; `Google` for the list of
//! all that Google has, which names neither service nor region.

use serde::Deserialize;

use super::published::{Prefix, Version};
use super::{List, tags_of};

pub(super) fn read(json: &str) -> serde_json::Result<List> {
    let document: Document = serde_json::from_str(json)?;
    Ok(List {
        cloud: "Google".to_owned(),
        change_number: document.sync_token.0,
        date: document
            .creation_time
            .and_then(|time| time.get(..10).map(str::to_owned)),
        tags: tags_of(document.prefixes.into_iter().flat_map(|entry| {
            let service = entry.service.as_deref().unwrap_or("Google");
            let service: String = service.split_whitespace().collect();
            let in_scope = entry.scope.map(|scope| format!("{service}.{scope}"));
            let prefixes = [entry.ipv4_prefix, entry.ipv6_prefix];
            let named = move |Prefix(prefix)| {
                let whole = Some((service.clone(), prefix));
                let part = in_scope.clone().map(|name| (name, prefix));
                [whole, part].into_iter().flatten()
            };
            prefixes.into_iter().flatten().flat_map(named)
        })),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    sync_token: Version,
    creation_time: Option<String>,
    prefixes: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "ipv4Prefix")]
    ipv4_prefix: Option<Prefix>,
    #[serde(rename = "ipv6Prefix")]
    ipv6_prefix: Option<Prefix>,
    service: Option<String>,
    scope: Option<String>,
}
