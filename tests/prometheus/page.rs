//! Reads a page of metrics.

use std::collections::BTreeMap;

/// The samples of a page in Prometheus' text format.
pub fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| line.starts_with("netfilter_"));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
            // The values' escapes are those of JSON, too.
            let labels = labels.trim_end_matches('}');
            let mut json = format!("{{\"__name__\":\"{name}\"");
            for label in split(labels) {
                let (name, value) = label.split_once('=').unwrap();
                json.push_str(&format!(",\"{name}\":{value}"));
            }
            let labels: BTreeMap<String, String> =
                serde_json::from_str(&format!("{json}}}")).unwrap();
            let labels: BTreeMap<_, _> = labels
                .into_iter()
                .filter(|(_, it)| !it.is_empty())
                .collect();
            (
                serde_json::to_string(&labels).unwrap(),
                value.parse().unwrap(),
            )
        })
        .collect()
}

/// At commas outside of quotes.
fn split(labels: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, letter) in labels.char_indices() {
        match letter {
            '"' if !escaped => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&labels[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        escaped = letter == '\\' && !escaped;
    }
    parts.push(&labels[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}
