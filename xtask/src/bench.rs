//! Measures, and compares with what was recorded.

use std::{
    fs,
    path::{self, Path},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    build,
    command::{self, Output},
    setup::{self, Purpose},
};

/// Ratios of the micro-benchmark, as recorded.
const RATIOS: &str = "tests/kept/ratios.txt";

/// How much higher a ratio may be than was recorded: its half again, and a tenth of what
/// LPM_TRIE takes. A guess until ten quick runs have shown how far each row is spread; what is
/// worth finding (a look-up more, a cache line more) is larger. A row has failed when it did in
/// each of [`TRIES`] runs.
const MARGIN: f64 = 0.5;
const FLOOR: f64 = 0.1;
const TRIES: usize = 3;

/// Runs of which the medians are recorded.
const RECORDED: usize = 5;

/// Filters side by side.
pub(crate) fn end_to_end(
    json: bool,
    quick: bool,
    only: &[String],
    plot: Option<&Path>,
) -> Result<()> {
    setup::run(Purpose::Bench)?;
    let mut cargo = whole()?;
    cargo.arg("--");
    cargo.args(json.then_some("--json"));
    cargo.args(quick.then_some("--quick"));
    if !only.is_empty() {
        cargo.arg("--only").arg(only.join(","));
    }
    if let Some(file) = plot {
        cargo.arg("--plot").arg(path::absolute(file)?);
    }
    command::hand_over(cargo)
}

/// How costs grow, as a picture.
pub(crate) fn growth(plot: &Path) -> Result<()> {
    let rows = micro(false)?;
    let file = command::target_dir()?.join("bench.json");
    fs::write(&file, rows.to_string())?;
    let mut cargo = whole()?;
    cargo.arg("--").arg("--growth").arg(&file);
    cargo.arg("--plot").arg(path::absolute(plot)?);
    command::hand_over(cargo)
}

/// The benchmark of filters, with a release build of the daemon.
fn whole() -> Result<Command> {
    let mut cargo = command::cargo();
    cargo.args(["bench", "--locked", "--package", "netfilter-daemon"]);
    cargo.args(["--bench", "e2e"]);
    build::run_as_root(&mut cargo)?;
    Ok(cargo)
}

/// Records what the programs take and what they cost, beside which CI compares.
pub(crate) fn keep() -> Result<()> {
    let mut runs = Vec::new();
    for _ in 0..RECORDED {
        runs.push(ratios(&micro(true)?)?);
    }
    let mut text = String::from(
        "# Rows of `cargo xtask bench --quick`, as shares of what LPM_TRIE takes in the same run.\n\
         # `cargo xtask bench --keep` writes this, `cargo xtask test --only kept` compares.\n",
    );
    for (row, _) in &runs[0] {
        let of = |run: &Vec<(String, f64)>| {
            let found = run.iter().find(|(name, _)| name == row);
            found.map(|(_, ratio)| *ratio)
        };
        let mut values: Vec<f64> = runs.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        text.push_str(&format!("{row:<60}{:>8.3}\n", values[values.len() / 2]));
    }
    fs::write(command::workspace().join(RATIOS), text)?;
    let mut cargo = command::cargo();
    cargo.args(["test", "--locked", "--workspace", "--test", "tests"]);
    build::run_as_root(&mut cargo)?;
    cargo.args(["--", "the_programs_are_no_larger"]);
    cargo.env("NETFILTER_KEEP", "1");
    command::run(cargo, Output::OnFailure)?.succeeded()
}

/// Compares the ratios with the recorded ones. Their sizes are a test of their own.
pub(crate) fn kept() -> Result<()> {
    let file = command::workspace().join(RATIOS);
    let recorded = fs::read_to_string(&file);
    let recorded = recorded.with_context(|| format!("cannot read {}", file.display()))?;
    let recorded = read(&recorded)?;
    let mut worse = Vec::new();
    for run in 1..=TRIES {
        let now = ratios(&micro(true)?)?;
        let found = complaints(&recorded, &now);
        match run {
            1 => worse = found,
            // What is slow each time is not the machine's mood.
            _ => worse.retain(|(row, _)| found.iter().any(|(again, _)| again == row)),
        }
        if worse.is_empty() {
            return Ok(());
        }
    }
    for (_, line) in &worse {
        eprintln!("   {line}");
    }
    bail!("costs more than was recorded; if that is what it takes: cargo xtask bench --keep")
}

/// The rows of the micro-benchmark.
fn micro(quick: bool) -> Result<Value> {
    let mut cargo = build::micro()?;
    cargo.args(["--", "--json"]);
    cargo.args(quick.then_some("--quick"));
    let ran = command::run(cargo, Output::OnFailure)?;
    let line = ran.lines.iter().find(|line| line.starts_with("{\"rows\""));
    let rows = line.map(|line| serde_json::from_str(line)).transpose()?;
    ran.succeeded()?;
    rows.context("the benchmark printed no rows")
}

/// What each row takes, as a share of what LPM_TRIE takes beside it: of the same family, prefixes
/// and cache where there is one, otherwise of few destinations among 10,000 of IPv4.
fn ratios(rows: &Value) -> Result<Vec<(String, f64)>> {
    let rows = rows["rows"].as_array().context("there are no rows")?;
    let cost = |row: &Value| row["ns_over_parse"].as_f64();
    let trie = |family: &Value, prefixes: &Value, cache: &Value| {
        let mut rows = rows.iter().filter(|row| row["name"] == "lpm_trie");
        rows.find(|row| {
            (&row["family"], &row["prefixes"], &row["cache"]) == (family, prefixes, cache)
        })
        .and_then(cost)
    };
    let usual = trie(&"ipv4".into(), &10_000.into(), &"hot".into());
    let usual = usual.context("there is no row of LPM_TRIE for 10,000 prefixes")?;
    let ratio = |row: &Value| {
        let beside = trie(&row["family"], &row["prefixes"], &row["cache"]);
        let word = |key: &str| match &row[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let keys = ["name", "family", "prefixes", "flows", "cache"].map(word);
        Some((keys.join(" "), cost(row)? / beside.unwrap_or(usual)))
    };
    let others = rows.iter().filter(|row| row["name"] != "lpm_trie");
    Ok(others.filter_map(ratio).collect())
}

fn read(text: &str) -> Result<Vec<(String, f64)>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (row, ratio) = line.rsplit_once(' ').context("a line without a number")?;
            Ok((row.trim_end().to_owned(), ratio.parse()?))
        })
        .collect()
}

/// The rows that are worse, or gone, and a line on each.
fn complaints(recorded: &[(String, f64)], now: &[(String, f64)]) -> Vec<(String, String)> {
    let complaint = |(row, then): &(String, f64)| {
        let found = now.iter().find(|(name, _)| name == row);
        let Some((_, ratio)) = found else {
            return Some((row.clone(), format!("{row}: is not measured any more")));
        };
        let limit = then * (1.0 + MARGIN) + FLOOR;
        let line = || {
            let line =
                format!("{row}: {ratio:.2} of LPM_TRIE, {then:.2} was recorded, {limit:.2} may be");
            (row.clone(), line)
        };
        (*ratio > limit).then(line)
    };
    recorded.iter().filter_map(complaint).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ratios_are_to_the_trie_beside_or_to_the_usual_one() {
        let row = |name: &str, family: &str, ns: f64| {
            json!({ "name": name, "family": family, "prefixes": 10_000, "flows": 1,
                "cache": "hot", "ns_over_parse": ns })
        };
        let rows = json!({ "rows": [
            row("lpm_trie", "ipv4", 80.0), row("lpm_trie", "ipv6", 100.0),
            row("verdict/static", "ipv6", 20.0),
            { "name": "denied", "family": "ipv4", "prefixes": 5, "flows": 1, "cache": "hot",
              "ns_over_parse": 160.0 },
        ] });
        assert_eq!(
            ratios(&rows).unwrap(),
            [
                ("verdict/static ipv6 10000 1 hot".to_owned(), 0.2),
                ("denied ipv4 5 1 hot".to_owned(), 2.0),
            ]
        );
    }

    #[test]
    fn what_is_worse_than_its_margin_is_named_and_what_is_gone() {
        let recorded = read("# a line\nverdict hot      0.200\ndenied hot 2.000\n").unwrap();
        let now = |verdict, denied| {
            complaints(
                &recorded,
                &[
                    ("verdict hot".to_owned(), verdict),
                    ("denied hot".to_owned(), denied),
                ],
            )
        };
        assert!(now(0.39, 3.09).is_empty());
        assert!(now(0.01, 0.01).is_empty());
        assert_eq!(now(0.41, 2.0)[0].0, "verdict hot");
        assert_eq!(now(0.2, 3.11)[0].0, "denied hot");
        assert_eq!(complaints(&recorded, &[]).len(), 2);
    }
}
