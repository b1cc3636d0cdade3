//! Small lists in Azure's form.

/// As many prefixes for each tag as are asked for.
pub fn azure(change_number: u64, tags: &[(&str, usize)]) -> String {
    let values = tags.iter().map(|(name, prefixes)| {
        let prefixes: Vec<String> = (0..*prefixes)
            .map(|last| format!("\"192.0.2.{}/32\"", last + 1))
            .collect();
        format!(
            r#"{{"name": "{name}", "properties": {{"addressPrefixes": [{}]}}}}"#,
            prefixes.join(", ")
        )
    });
    let values: Vec<String> = values.collect();
    format!(
        r#"{{"changeNumber": {change_number}, "cloud": "Public", "values": [{}]}}"#,
        values.join(", ")
    )
}

pub const AWS: &str = r#"{"syncToken": "1", "createDate": "2026-08-22-15-17-05",
    "prefixes": [{"ip_prefix": "192.0.2.0/24", "region": "eu-west-1", "service": "S3"}]}"#;
