//! Debian's Prometheus, and what comes with it.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    resolvers::servers,
    world::{World, patience},
};

/// Ends with the test.
pub struct Prometheus {
    child: Child,
    port: u16,
    directory: TempDir,
}

impl Prometheus {
    /// In the namespace of the daemon, whose listener is for its machine alone.
    pub fn start(world: &World, jobs: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = 9090;
        let rules = repository().join("packaging/prometheus-alerts.yaml");
        let config = format!(
            "global: {{ scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 1s }}\n\
             rule_files: ['{}']\nscrape_configs:\n{jobs}",
            rules.display()
        );
        fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        let mut command = servers::command(world.protected(), "prometheus");
        command
            .arg(format!(
                "--config.file={}",
                directory.path().join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stderr(fs::File::create(directory.path().join("log")).unwrap());
        let child = command
            .spawn()
            .expect("cargo xtask test unpacks prometheus");
        let prometheus = Self {
            child,
            port,
            directory,
        };
        let ready = || prometheus.get(world, "/-/ready", "").contains("Ready");
        assert!(within(30, ready), "{}", prometheus.log());
        prometheus
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    fn get(&self, world: &World, path: &str, query: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut command = world.protected().command("curl");
        command.args(["-s", "--max-time", "5", &url]);
        if !query.is_empty() {
            command.args(["-G", "--data-urlencode", &format!("query={query}")]);
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    pub fn api(&self, world: &World, path: &str, query: &str) -> Value {
        let text = self.get(world, path, query);
        let answer: Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{query}: {text}"));
        assert_eq!(answer["status"], "success", "{query}: {text}");
        answer["data"].clone()
    }

    /// Samples, by their labels as text, without those that Prometheus adds.
    pub fn query(&self, world: &World, query: &str) -> BTreeMap<String, f64> {
        let data = self.api(world, "/api/v1/query", query);
        let samples = data["result"].as_array().unwrap().iter();
        samples
            .map(|sample| {
                let labels = sample["metric"].as_object().unwrap();
                let added = ["job", "instance"];
                let labels = labels
                    .iter()
                    .filter(|(name, _)| !added.contains(&name.as_str()));
                let labels: BTreeMap<_, _> = labels.collect();
                let value = sample["value"][1].as_str().unwrap().parse().unwrap();
                (serde_json::to_string(&labels).unwrap(), value)
            })
            .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

pub fn repository() -> PathBuf {
    let daemon = Path::new(env!("CARGO_MANIFEST_DIR"));
    daemon.parent().unwrap().to_owned()
}

pub fn within(seconds: u64, mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    let bound = Duration::from_secs(seconds) * patience();
    loop {
        if holds() {
            return true;
        }
        if begun.elapsed() > bound {
            return false;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// What it says, if it is content.
pub fn promtool(arguments: &[&str], input: &str) -> String {
    let unpacked = servers::servers().join("usr/bin/promtool");
    let program = if unpacked.is_file() {
        unpacked
    } else {
        "promtool".into()
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(repository())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .expect("cargo xtask test unpacks prometheus");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}
