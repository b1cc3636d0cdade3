//! A headless Chromium in the protected namespace, with a home of its own that goes with it.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::World;

const PROGRAM: &str = "chromium-headless-shell";

/// One that is spoken to in the protocol of its developer tools, by two pipes.
pub(super) struct Browser {
    child: Child,
    requests: File,
    answers: BufReader<File>,
    asked: u64,
    session: Option<String>,
    /// What it told unasked.
    pub(super) events: Vec<Value>,
    _home: TempDir,
}

fn arguments(home: &TempDir) -> Vec<String> {
    vec![
        // Its sandbox does not run as root; the namespace has nothing but the lab.
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        format!("--user-data-dir={}", home.path().display()),
    ]
}

impl Browser {
    pub(super) fn start(world: &World) -> Self {
        let home = TempDir::new().unwrap();
        let pipe = |name: &str| -> PathBuf {
            let path = home.path().join(name);
            mkfifo(&path, Mode::S_IRWXU).unwrap();
            path
        };
        let (requests, answers) = (pipe("requests"), pipe("answers"));
        // It reads at 3 and writes at 4.
        let script = format!("exec {PROGRAM} \"${{@:3}}\" 3<\"$1\" 4>\"$2\"");
        let mut command: Command = world.protected().command("bash");
        command
            .args(["-c", &script, "bash"])
            .args([&requests, &answers]);
        command
            .args(arguments(&home))
            .args(["--remote-debugging-pipe", "about:blank"]);
        command.env("HOME", home.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        // In the order in which the shell opens them.
        let requests = fs::OpenOptions::new().write(true).open(requests).unwrap();
        let answers = BufReader::new(File::open(answers).unwrap());
        let mut browser = Self {
            child,
            requests,
            answers,
            asked: 0,
            session: None,
            events: Vec::new(),
            _home: home,
        };
        let new = browser.ask("Target.createTarget", &json!({ "url": "about:blank" }));
        let to = json!({ "targetId": new["targetId"], "flatten": true });
        let attached = browser.ask("Target.attachToTarget", &to);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Network", "Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// As one does whose owner has switched scripts off.
    pub(super) fn run_no_scripts(&mut self) {
        let off = json!({ "value": true });
        self.ask("Emulation.setScriptExecutionDisabled", &off);
    }

    /// What it has made of the page, as markup; why not, when another page comes meanwhile.
    pub(super) fn document(&mut self) -> Result<String, String> {
        let root = self.try_ask("DOM.getDocument", &json!({}))?;
        let of = json!({ "nodeId": root["root"]["nodeId"] });
        let markup = self.try_ask("DOM.getOuterHTML", &of)?["outerHTML"].clone();
        Ok(markup.as_str().unwrap().to_owned())
    }

    /// What it answers.
    pub(super) fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        let answer = self.try_ask(method, parameters);
        answer.unwrap_or_else(|error| panic!("{error}"))
    }

    /// What it tells before it answers is kept.
    fn try_ask(&mut self, method: &str, parameters: &Value) -> Result<Value, String> {
        self.asked += 1;
        let mut request = json!({ "id": self.asked, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        self.requests
            .write_all(format!("{request}\0").as_bytes())
            .unwrap();
        loop {
            let mut message = Vec::new();
            self.answers.read_until(0, &mut message).unwrap();
            assert_eq!(message.pop(), Some(0), "the browser ended at {method}");
            let message: Value = serde_json::from_slice(&message).unwrap();
            if message["id"] == self.asked {
                return match &message["error"] {
                    Value::Null => Ok(message["result"].clone()),
                    error => Err(format!("{method}: {error}")),
                };
            }
            self.events.push(message);
        }
    }

    /// The value of an expression in the page; of one that throws, why.
    pub(super) fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let result = self.ask("Runtime.evaluate", &parameters);
        match &result["exceptionDetails"] {
            Value::Null => result["result"]["value"].clone(),
            thrown => thrown["exception"]["description"].clone(),
        }
    }

    pub(super) fn told(&self, method: &str) -> Vec<&Value> {
        let events = self.events.iter();
        events.filter(|event| event["method"] == method).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It can only have ended meanwhile.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}
