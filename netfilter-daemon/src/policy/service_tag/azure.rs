//! Azure's service tags: the downloaded JSON, and that of the REST API and of
//! `az network list-service-tags`, of the public, government and China clouds.
//!
//! What is not read here differs between these forms and is ignored:
//! `networkFeatures` may be null or absent; a dot in a name need not stand before
//! a region (`AzureFrontDoor.FirstParty`); REST adds `id`, `type` and `nextLink`.

use serde::Deserialize;

use super::published::{Prefix, Version};
use super::{List, Tag};

pub(super) fn read(json: &str) -> serde_json::Result<List> {
    let document: Document = serde_json::from_str(json)?;
    Ok(List {
        cloud: document.cloud.unwrap_or_default(),
        change_number: document.change_number.0,
        date: document.date,
        tags: document.values.into_iter().map(Tag::from).collect(),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    change_number: Version,
    cloud: Option<String>,
    /// Only the built-in catalogue has it.
    date: Option<String>,
    values: Vec<Value>,
}

#[derive(Deserialize)]
struct Value {
    name: String,
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    address_prefixes: Vec<Prefix>,
}

impl From<Value> for Tag {
    fn from(value: Value) -> Self {
        Self {
            name: value.name,
            prefixes: value
                .properties
                .address_prefixes
                .into_iter()
                .map(|Prefix(network)| network)
                .collect(),
        }
    }
}
