//! The dashboard asks for what there is, and Grafana can read it.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use super::server::{Prometheus, repository, within};
use crate::world::World;

/// Every query of it, against what was scraped. Returns how often what is audited was used.
pub fn shows_something(world: &World, prometheus: &Prometheus) -> u64 {
    let dashboard =
        fs::read_to_string(repository().join("packaging/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut queries: Vec<String> = expressions(&dashboard)
        .into_iter()
        .map(|query| {
            let query = query.replace("$instance", "127.0.0.1:9477");
            query
                .replace("$__rate_interval", "30s")
                .replace("$__range", "1m")
        })
        .collect();
    assert!(queries.len() > 20);
    assert!(
        queries.iter().all(|query| !query.contains('$')),
        "{queries:#?}"
    );
    // Rates take two samples, and some traffic between them.
    let mut used = 0;
    let all_answered = || {
        assert!(world.connects("203.0.113.9", 443));
        used += 1;
        world.connects("8.8.8.8", 443);
        queries.retain(|query| prometheus.query(world, query).is_empty());
        queries.is_empty()
    };
    let answered = within(60, all_answered);
    assert!(
        answered,
        "nothing to show: {queries:#?}\n{}\n{}",
        prometheus.log(),
        world.metrics()
    );
    used
}

/// All that is under a key `expr`.
fn expressions(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value.as_str()) {
                ("expr", Some(text)) => vec![text.to_owned()],
                _ => expressions(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

/// Grafana is in no registry, so this is as far as a test goes.
#[test]
fn the_dashboard_has_what_grafana_needs_of_one() {
    let text = fs::read_to_string(repository().join("packaging/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    assert!(
        dashboard["id"].is_null(),
        "one that is imported gets its number there"
    );
    let panels = dashboard["panels"].as_array().unwrap();
    let mut numbers = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = &panel["title"];
        assert!(numbers.insert(panel["id"].as_u64().unwrap()), "{title}");
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title}");
        for cell in (at("x")..at("x") + at("w"))
            .flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert(cell), "{title} lies on another");
        }
        let kind = panel["type"].as_str().unwrap();
        assert!(
            ["row", "stat", "table", "timeseries"].contains(&kind),
            "{title}"
        );
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(targets.is_empty(), kind == "row", "{title}");
        let references: BTreeSet<&str> = targets
            .iter()
            .map(|it| it["refId"].as_str().unwrap())
            .collect();
        assert_eq!(references.len(), targets.len(), "{title}");
        assert!(
            targets
                .iter()
                .all(|it| it["datasource"]["uid"] == "${datasource}"),
            "{title}"
        );
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<&str> = variables
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "instance"]);
}

/// What is asked for under a name that no metric has is never there, and nobody would see.
#[test]
fn alerts_and_dashboard_name_metrics_that_there_are() {
    let golden =
        fs::read_to_string(repository().join("tests/golden/metrics-prometheus.txt")).unwrap();
    let declared = golden
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let declared: BTreeSet<&str> = declared
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    for file in [
        "packaging/prometheus-alerts.yaml",
        "packaging/grafana-dashboard.json",
    ] {
        let text = fs::read_to_string(repository().join(file)).unwrap();
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let named: BTreeSet<&str> = words
            .filter(|word| word.starts_with("netfilter_"))
            .collect();
        assert!(named.len() > 10);
        let unknown: Vec<_> = named.difference(&declared).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}
