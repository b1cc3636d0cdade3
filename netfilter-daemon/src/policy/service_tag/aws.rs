//! `https://ip-ranges.amazonaws.com/ip-ranges.json`.
//!
//! Tags are the services, `S3`, and the services in a region, `S3.eu-west-1`.
//! `AMAZON` is all of it.

use serde::Deserialize;

use super::published::{Prefix, Version};
use super::{List, tags_of};

pub(super) fn read(json: &str) -> serde_json::Result<List> {
    let document: Document = serde_json::from_str(json)?;
    let ipv4 = document.prefixes.into_iter();
    let ipv6 = document.ipv6_prefixes.into_iter();
    let entries = ipv4
        .map(|V4 { ip_prefix, place }| (ip_prefix, place))
        .chain(ipv6.map(|V6 { ipv6_prefix, place }| (ipv6_prefix, place)));
    Ok(List {
        cloud: "AWS".to_owned(),
        change_number: document.sync_token.0,
        date: document
            .create_date
            .and_then(|date| date.get(..10).map(str::to_owned)),
        tags: tags_of(entries.flat_map(|(Prefix(prefix), place)| {
            let in_region = format!("{}.{}", place.service, place.region);
            [(place.service, prefix), (in_region, prefix)]
        })),
    })
}

#[derive(Deserialize)]
struct Document {
    #[serde(default, rename = "syncToken")]
    sync_token: Version,
    #[serde(rename = "createDate")]
    create_date: Option<String>,
    prefixes: Vec<V4>,
    #[serde(default)]
    ipv6_prefixes: Vec<V6>,
}

#[derive(Deserialize)]
struct V4 {
    ip_prefix: Prefix,
    #[serde(flatten)]
    place: Place,
}

#[derive(Deserialize)]
struct V6 {
    ipv6_prefix: Prefix,
    #[serde(flatten)]
    place: Place,
}

#[derive(Deserialize)]
struct Place {
    service: String,
    region: String,
}
