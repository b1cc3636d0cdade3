//! `cargo xtask catalogue`: cuts the built-in service-tag catalogue out of a published list.
//!
//! The result has the published shape, so that the daemon reads both alike, plus
//! the date; one tag per line, so that its diffs can be read.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::command;

/// What the `azure-ml` preset names, and what Azure ML's documentation asks for besides.
const TAGS: [&str; 11] = [
    "AzureActiveDirectory",
    "AzureContainerRegistry",
    "AzureFrontDoor.FirstParty",
    "AzureFrontDoor.Frontend",
    "AzureKeyVault",
    "AzureMachineLearning",
    "AzureMonitor",
    "AzureResourceManager",
    "BatchNodeManagement",
    "MicrosoftContainerRegistry",
    "Storage",
];

/// Cuts the built-in service-tag catalogue out of a published list
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: cargo xtask catalogue --from ServiceTags_Public_20251027.json --date 2025-10-28"
)]
pub(crate) struct Catalogue {
    /// The list as downloaded from <https://www.microsoft.com/download/details.aspx?id=56519>
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The day of its publication, which the list itself does not tell
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: String,
    /// The tags to keep, instead of those that Azure ML needs
    #[arg(long, value_name = "TAG,...", value_delimiter = ',', default_values_t = TAGS.map(String::from))]
    tags: Vec<String>,
    /// Where to write, instead of the daemon's catalogue
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// # Errors
/// Where the list cannot be read, lacks a tag, or the result cannot be written.
pub(crate) fn run(arguments: &Catalogue) -> Result<()> {
    ensure!(
        is_date(&arguments.date),
        "`{}` is no date; write one such as 2025-10-28",
        arguments.date
    );
    let from = &arguments.from;
    let published =
        fs::read_to_string(from).with_context(|| format!("cannot read {}", from.display()))?;
    let cut = cut(&published, &arguments.date, &arguments.tags)
        .with_context(|| format!("cannot use {}", from.display()))?;
    let to = arguments.to.clone().unwrap_or_else(built_in);
    fs::write(&to, &cut).with_context(|| format!("cannot write {}", to.display()))?;
    eprintln!(
        "{}: {} tags, {} KB",
        to.display(),
        arguments.tags.len(),
        cut.len().div_ceil(1024)
    );
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Published {
    change_number: u64,
    cloud: String,
    values: Vec<Value>,
}

#[derive(Deserialize, Serialize)]
struct Value {
    name: String,
    id: String,
    properties: Properties,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    change_number: u64,
    region: String,
    region_id: u64,
    platform: String,
    system_service: String,
    address_prefixes: Vec<String>,
    network_features: Option<Vec<String>>,
}

fn cut(published: &str, date: &str, tags: &[String]) -> Result<String> {
    let published: Published = serde_json::from_str(published.trim_start_matches('\u{feff}'))?;
    let mut missing: BTreeSet<String> = tags.iter().map(|tag| tag.to_lowercase()).collect();
    let mut lines = Vec::new();
    for value in &published.values {
        if missing.remove(&value.name.to_lowercase()) {
            lines.push(serde_json::to_string(value)?);
        }
    }
    if !missing.is_empty() {
        let missing: Vec<String> = missing.into_iter().collect();
        bail!("it has no tag {}", missing.join(", "));
    }
    Ok(format!(
        "{{\"changeNumber\":{},\"cloud\":{},\"date\":{},\"values\":[\n{}\n]}}\n",
        published.change_number,
        serde_json::to_string(&published.cloud)?,
        serde_json::to_string(date)?,
        lines.join(",\n")
    ))
}

fn built_in() -> PathBuf {
    command::workspace().join("netfilter-daemon/catalogue/azure-public.json")
}

fn is_date(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    shape == "9999-99-99"
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"changeNumber":7,"cloud":"Public","values":[
        {"name":"A","id":"A","properties":{"changeNumber":1,"region":"","regionId":0,
         "platform":"Azure","systemService":"","addressPrefixes":["192.0.2.0/24"],"networkFeatures":null}},
        {"name":"B","id":"B","properties":{"changeNumber":1,"region":"","regionId":0,
         "platform":"Azure","systemService":"","addressPrefixes":[]}}]}"#;

    fn cut_tags(tags: &[&str]) -> Result<String> {
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        cut(LIST, "2025-10-28", &tags)
    }

    #[test]
    fn the_tags_asked_for_are_kept_one_per_line_and_the_others_are_not() {
        let cut = cut_tags(&["a"]).unwrap();
        let lines: Vec<&str> = cut.lines().collect();
        assert_eq!(
            lines[0],
            r#"{"changeNumber":7,"cloud":"Public","date":"2025-10-28","values":["#
        );
        assert!(lines[1].starts_with(r#"{"name":"A","id":"A","#));
        assert_eq!(lines[2], "]}");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn what_is_cut_can_be_cut_again() {
        let once = cut_tags(&["A", "B"]).unwrap();
        let tags = ["A".to_owned(), "B".to_owned()];
        assert_eq!(cut(&once, "2025-10-28", &tags).unwrap(), once);
    }

    #[test]
    fn a_tag_that_the_list_lacks_is_named() {
        let told = cut_tags(&["A", "Storag"]).unwrap_err().to_string();
        assert_eq!(told, "it has no tag storag");
    }

    #[test]
    fn only_days_are_dates() {
        assert!(is_date("2025-10-28"));
        assert!(!is_date("28.10.2025"));
        assert!(!is_date("2025-10"));
    }
}
