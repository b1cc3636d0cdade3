//! `events` and `status` name the destination that an address was last resolved from.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::{daemon::Daemon, dns::Zone};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::world::{BINARY, World, eventually, resolve};

/// More than the kernel reports in a second would be lost.
const NAMES: u8 = 60;

fn zone() -> Zone {
    let mut zone = Zone::new();
    zone.alias("eastus.data.mcr.microsoft.com", 60, "d.example.net")
        .unwrap();
    zone.address("d.example.net", 60, [192, 0, 2, 20].into())
        .unwrap();
    zone.address("Evil.example.net", 60, [192, 0, 2, 66].into())
        .unwrap();
    for number in 0..NAMES {
        let name = format!("n{number}.data.mcr.microsoft.com");
        zone.address(&name, 60, [198, 18, 0, number].into())
            .unwrap();
    }
    zone
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed())
}

fn json(world: &World) -> Vec<Value> {
    let output = world.daemon(&["events", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Events of connections to an address, once there are any.
fn to(world: &World, address: &str) -> Vec<Value> {
    let mut found = Vec::new();
    eventually(|| {
        found = json(world);
        found.retain(|event| event["destination"] == address && event["question"].is_null());
        !found.is_empty()
    });
    found
}

fn status(world: &World) -> (Value, String) {
    let read = |arguments: &[&str]| String::from_utf8(world.daemon(arguments).stdout).unwrap();
    let json = serde_json::from_str(&read(&["status", "--json"])).unwrap();
    (json, read(&["status"]))
}

#[test]
fn an_approved_name_is_told_where_its_address_is_denied_on_another_port() {
    let world = World::new(Some(zone()));
    let none = world.daemon(&["events"]);
    assert_eq!(none.status.code(), Some(1));
    let said = String::from_utf8_lossy(&none.stderr);
    assert!(
        said.contains("events are kept by the daemon, and none runs"),
        "{said}"
    );

    let daemon = world.enforce("presets: [azure-ml]");
    let said = String::from_utf8(world.daemon(&["events"]).stdout).unwrap();
    assert_eq!(said, "nothing was denied since the daemon's start\n");
    assert!(world.connects_by_name("EASTUS.data.mcr.microsoft.com", 443));
    assert!(!world.connects("192.0.2.20", 8443));
    assert!(!world.connects_by_name("evil.example.net", 443));
    assert!(!world.connects("192.0.2.66", 443));

    let name = "eastus.data.mcr.microsoft.com";
    let event = &to(&world, "192.0.2.20")[0];
    assert_eq!(event["name"], name);
    assert!(event["resolved_at"].as_u64().unwrap() <= event["time"].as_u64().unwrap());
    assert_eq!(
        (&event["protocol"], &event["destination_port"]),
        (&"TCP".into(), &8443.into())
    );
    assert_eq!(
        (&event["reason"], &event["audited"]),
        (&"no_rule".into(), &false.into())
    );
    let denied = &to(&world, "192.0.2.66")[0];
    assert!(
        denied["name"].is_null(),
        "its name was not resolved: {denied}"
    );
    let question = json(&world)
        .into_iter()
        .find(|event| event["question"] == "evil.example.net")
        .unwrap();
    assert_eq!(question["reason"], "dns_name");
    let text = String::from_utf8(world.daemon(&["events"]).stdout).unwrap();
    let sentence = format!(" to 192.0.2.20 port 8443 ({name}), 74 bytes: no rule allows ");
    assert!(text.contains(&sentence), "{text}");
    assert!(
        text.contains(", DNS question for `evil.example.net` from "),
        "{text}"
    );

    let (json, text) = status(&world);
    assert_eq!(json["learned"][0]["name"], name);
    let lately = json["daemon"]["denied_lately"].as_array().unwrap();
    let lately = |key: &str, value: &str| lately.iter().find(|denied| denied[key] == value);
    assert_eq!(lately("destination", "192.0.2.20").unwrap()["name"], name);
    assert!(lately("question", "evil.example.net").unwrap()["count"].as_u64() >= Some(1));
    for line in [
        format!("  192.0.2.20  *.data.mcr.microsoft.com  {name}  for "),
        format!("  192.0.2.20 TCP 8443  {name}  once "),
        "  DNS question         evil.example.net ".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }

    drop(daemon);
    let (json, text) = status(&world);
    assert!(json["learned"][0]["name"].is_null());
    assert!(
        text.contains("  192.0.2.20  *.data.mcr.microsoft.com  for "),
        "{text}"
    );
}

#[test]
fn audit_names_the_destination_that_no_rule_allows() {
    let world = World::new(Some(zone()));
    let _daemon = world.enforce("isolation_mode: allow_internet_outbound\npresets: [azure-ml]");
    assert!(world.connects_by_name("evil.example.net", 443));
    let event = &to(&world, "192.0.2.66")[0];
    assert_eq!(event["name"], "evil.example.net");
    assert_eq!(
        (&event["audited"], &event["reason"]),
        (&true.into(), &"no_rule".into())
    );
    let (json, text) = status(&world);
    let lately = &json["daemon"]["denied_lately"][0];
    assert_eq!(
        (&lately["name"], &lately["audited"]),
        (&"evil.example.net".into(), &true.into())
    );
    assert!(
        text.contains("  192.0.2.66 TCP 443  evil.example.net  "),
        "{text}"
    );
}

#[test]
fn what_a_rule_for_a_name_has_audited_is_told_with_the_rule() {
    let world = World::new(Some(zone()));
    let _daemon = world.enforce(
        "outbound_rules: [{ name: watched, type: fqdn, action: audit, destination: '*.example.net' }]",
    );
    assert!(world.connects_by_name("evil.example.net", 443));
    let event = &to(&world, "192.0.2.66")[0];
    assert_eq!(
        (&event["name"], &event["audited"], &event["rule"]),
        (&"evil.example.net".into(), &true.into(), &"watched".into())
    );
    let counted = |name: &str| world.metric(name);
    assert!(counted("netfilter_would_drop_packets_total{reason=\"no_rule\"") >= 3);
    assert_eq!(
        counted("netfilter_dropped_packets_total{reason=\"no_rule\""),
        0
    );
    assert_eq!(counted("netfilter_rule_hits_total{rule=\"watched\"}"), 1);
}

/// The answers and the denials wait in two rings when the daemon wakes up.
#[test]
fn a_denial_never_overtakes_the_answer_that_names_it() {
    let world = World::new(Some(zone()));
    let daemon = world.enforce("presets: [azure-ml]");
    kill(pid(daemon.id()), Signal::SIGSTOP).unwrap();
    for number in 0..NAMES {
        let name = format!("n{number}.data.mcr.microsoft.com");
        let resolved = world
            .protected()
            .run(|| resolve(&name, 8443))
            .unwrap()
            .unwrap();
        assert_eq!(resolved.ip().to_string(), format!("198.18.0.{number}"));
        assert!(!world.connects(&resolved.ip().to_string(), 8443));
    }
    kill(pid(daemon.id()), Signal::SIGCONT).unwrap();
    let last = format!("198.18.0.{}", NAMES - 1);
    assert!(!to(&world, &last).is_empty());
    let mut events = json(&world);
    events.retain(|event| event["destination_port"] == 8443);
    assert!(events.len() >= usize::from(NAMES), "{}", events.len());
    for event in events {
        let number = event["destination"]
            .as_str()
            .unwrap()
            .rsplit('.')
            .next()
            .unwrap();
        assert_eq!(event["name"], format!("n{number}.data.mcr.microsoft.com"));
    }
}

/// `events --follow`, and its lines as they come.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let (mut child, stdout) = spawn(world, arguments);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                sender.send(line).ok();
            }
        });
        assert!(child.try_wait().unwrap().is_none());
        Self { child, lines }
    }

    fn expect(&self, what: &str, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            if line
                .unwrap_or_else(|_| panic!("no {what} in {within:?}"))
                .contains(what)
            {
                return;
            }
        }
    }
}

fn spawn(world: &World, arguments: &[&str]) -> (Child, ChildStdout) {
    let mut command: Command = world.protected().command(BINARY);
    command.args(["events", "--follow"]).args(arguments);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    (child, stdout)
}

fn ends(child: &mut Child) -> Option<i32> {
    let mut status = None;
    eventually(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    if status.is_none() {
        child.kill().unwrap();
    }
    status.and_then(|status| status.code())
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn who_follows_gets_the_history_and_each_event_within_a_second_and_ends_when_told() {
    let world = World::new(None);
    let daemon: Daemon = world.enforce("outbound_rules: []");
    assert!(!world.connects("192.0.2.1", 443));
    to(&world, "192.0.2.1");

    for (signal, arguments) in [(Signal::SIGINT, &[][..]), (Signal::SIGTERM, &["--json"])] {
        let mut following = Following::start(&world, arguments);
        following.expect("192.0.2.1", 5 * SECOND);
        let address = format!("192.0.2.{}", 10 + signal as i32);
        assert!(!world.connects(&address, 443));
        following.expect(&address, SECOND);
        kill(pid(following.child.id()), signal).unwrap();
        assert_eq!(ends(&mut following.child), Some(0), "{signal}");
    }

    // Nobody reads any more, and nothing happens that would show it.
    let (mut child, stdout) = spawn(&world, &[]);
    drop(stdout);
    assert_eq!(ends(&mut child), Some(0), "a closed pipe");

    let mut following = Following::start(&world, &[]);
    following.expect("192.0.2.1", 5 * SECOND);
    // One that has stopped does not keep the daemon from ending.
    let (mut stopped, stdout) = spawn(&world, &[]);
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut String::new()).unwrap();
    kill(pid(stopped.id()), Signal::SIGSTOP).unwrap();
    let before = Instant::now();
    drop(daemon);
    assert!(before.elapsed() < 3 * SECOND, "{:?}", before.elapsed());
    assert_eq!(ends(&mut following.child), Some(1), "the daemon has ended");
    stopped.kill().unwrap();
    stopped.wait().unwrap();
}

#[test]
fn who_follows_some_events_gets_no_others() {
    let world = World::new(None);
    let _daemon = world.enforce("outbound_rules: []");
    let mut following = Following::start(&world, &["--destination", "192.0.2.77"]);
    for address in ["192.0.2.76", "192.0.2.77"] {
        assert!(!world.connects(address, 443));
    }
    let line = following.lines.recv_timeout(5 * SECOND).unwrap();
    assert!(line.contains(" to 192.0.2.77 port 443"), "{line}");
    kill(pid(following.child.id()), Signal::SIGINT).unwrap();
    assert_eq!(ends(&mut following.child), Some(0));
}

/// What was denied while no daemon ran waits in the kernel, with its own time and name.
#[test]
fn what_was_denied_without_a_daemon_is_told_with_its_time() {
    let world = World::new(Some(zone()));
    let mut daemon = world.enforce("presets: [azure-ml]");
    daemon.kill();
    let before = now();
    assert!(world.connects_by_name("eastus.data.mcr.microsoft.com", 443));
    assert!(!world.connects("192.0.2.20", 8443));
    thread::sleep(Duration::from_secs(3));
    let _daemon = world.start();
    let event = &to(&world, "192.0.2.20")[0];
    assert_eq!(event["name"], "eastus.data.mcr.microsoft.com");
    for time in [&event["time"], &event["resolved_at"]] {
        let time = time.as_u64().unwrap();
        assert!(
            (before - 1..=before + 1).contains(&time),
            "{before}: {event}"
        );
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}
