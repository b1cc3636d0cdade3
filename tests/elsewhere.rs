//! `lab --sink`: the battery from a machine as it is, against a sink on another one.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStderr, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::{
    daemon::Daemon,
    mounts,
    namespace::{Namespace, veth},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::world::BINARY;

const CONTROL: &str = "10.77.0.2:9478";
const SINKS: &str = "10.77.0.2,fd77::2";

const ALLOWING_ELSEWHERE: &str = "
resolvers: [10.77.0.53]
outbound_rules:
  - { name: corp, type: ip, destination: { cidr: 10.20.0.0/16, protocol: TCP, port_ranges: '443' } }
";

/// Two machines on one cable. Nothing in the first belongs to the lab.
struct Machines {
    protected: Namespace,
    other: Namespace,
}

impl Machines {
    fn new() -> Self {
        let protected = Namespace::new()
            .and_then(|it| it.with_private_mounts(mounts::prepare))
            .unwrap_or_else(|error| panic!("tests need root: {error}"));
        let other = Namespace::new().unwrap();
        veth(&protected, "eth0", &other, "eth0").unwrap();
        for (end, host) in [(&protected, 1), (&other, 2)] {
            end.ip(&format!("address add 10.77.0.{host}/24 dev eth0"))
                .unwrap();
            end.ip(&format!("address add fd77::{host}/64 dev eth0 nodad"))
                .unwrap();
        }
        Self { protected, other }
    }

    fn write_policy(&self, policy: &str) {
        self.protected
            .run(|| std::fs::write(mounts::POLICY, policy))
            .unwrap()
            .unwrap();
    }

    fn lab(&self, policy: &str, arguments: &[&str]) -> Output {
        self.write_policy(policy);
        self.protected
            .command(BINARY)
            .args(["lab", "--policy", mounts::POLICY])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Whether a connection to where no rule allows it comes about.
    fn connects(&self) -> bool {
        let address: SocketAddr = "10.77.0.2:443".parse().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
        self.protected.run(connect).unwrap().is_ok()
    }

    /// What is pinned under the lab's own state directory.
    fn pins(&self) -> usize {
        let directory = format!("{}-lab", mounts::STATE_DIR);
        let list = || std::fs::read_dir(directory).map_or(0, Iterator::count);
        self.protected.run(list).unwrap()
    }
}

/// `lab sink` on the other machine.
struct Sink {
    child: Child,
    said: Receiver<String>,
}

impl Sink {
    fn start(machines: &Machines) -> Self {
        let mut child = machines
            .other
            .command(BINARY)
            .args(["lab", "sink", "--interface", "eth0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, said) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                sender.send(line).ok();
            }
        });
        let sink = Self { child, said };
        sink.says("asked at [::]:9478");
        sink
    }

    fn says(&self, what: &str) -> String {
        loop {
            let line = self.said.recv_timeout(Duration::from_secs(20));
            let line = line.unwrap_or_else(|_| panic!("the sink does not say {what}"));
            if line.contains(what) {
                return line;
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", told(output)))
}

#[test]
fn what_is_blocked_and_what_leaks_to_another_machine_is_told_run_after_run() {
    let machines = Machines::new();
    let sink = Sink::start(&machines);
    let arguments = ["--sink", SINKS, "--yes", "--json", "--only", "plain"];

    let output = machines.lab(ALLOWING_ELSEWHERE, &arguments);
    let told_to_user = told(&output);
    assert_eq!(output.status.code(), Some(0), "{told_to_user}");
    assert!(
        told_to_user.contains("This will, on this machine itself:"),
        "{told_to_user}"
    );
    assert!(
        told_to_user.contains("from eth0 to 10.77.0.2 and fd77::2,"),
        "{told_to_user}"
    );
    let report_of_it = report(&output);
    assert_eq!(report_of_it["summary"]["leaked"], 0);
    assert_eq!(report_of_it["policy"], Value::Null);
    let udp = report_of_it["channels"].as_array().unwrap().iter();
    let udp = udp
        .clone()
        .find(|channel| channel["name"] == "udp6")
        .unwrap();
    assert_eq!(udp["result"], "blocked", "{udp}");
    let dropped = udp["paths"][0]["reasons"]["no_rule"].as_u64().unwrap();
    assert!(dropped >= 60, "{udp}");
    sink.says("10.77.0.1: round 1: of ");
    assert!(sink.says("round 2: of ").contains(" 0 brought something"));
    sink.says("the run is over");
    assert!(machines.connects() && machines.pins() == 0);

    let letting_all_pass = format!("isolation_mode: allow_internet_outbound{ALLOWING_ELSEWHERE}");
    let output = machines.lab(&letting_all_pass, &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let report = report(&output);
    let udp = report["channels"].as_array().unwrap().iter();
    let udp = udp
        .clone()
        .find(|channel| channel["name"] == "udp6")
        .unwrap();
    assert_eq!(udp["result"], "leaked", "{udp}");
    assert_eq!(udp["paths"][0]["bytes"], 65_536, "{udp}");
    assert!(machines.connects() && machines.pins() == 0);
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is() {
    let machines = Machines::new();
    let refused = |policy: &str, arguments: &[&str], code: i32, why: &str| {
        let output = machines.lab(policy, arguments);
        let said = told(&output);
        assert!(
            output.status.code() == Some(code) && said.contains(why),
            "{why}: {said}"
        );
        assert_eq!(machines.pins(), 0);
    };
    let here = ["--sink", SINKS, "--yes", "--only", "plain"];
    refused(
        ALLOWING_ELSEWHERE,
        &here,
        3,
        "is `netfilter-daemon lab sink` running there?",
    );
    let sink = Sink::start(&machines);
    refused(ALLOWING_ELSEWHERE, &["--sink", SINKS], 2, "say --yes");
    refused("outbound_rulez: []", &here, 2, ":1:1: ");
    let allowing = ALLOWING_ELSEWHERE.replace("10.20.0.0/16", "10.77.0.0/24");
    refused(
        &allowing,
        &here,
        2,
        "rule `corp` of the policy allows the sink 10.77.0.2",
    );
    refused(
        ALLOWING_ELSEWHERE,
        &["--sink", "127.0.0.1", "--yes"],
        2,
        "127.0.0.1 has no address",
    );
    refused(
        ALLOWING_ELSEWHERE,
        &["--sink", SINKS, "--only", "policy"],
        2,
        "leave out --sink",
    );

    machines.write_policy(ALLOWING_ELSEWHERE);
    let mut command = machines.protected.command(BINARY);
    command.args(["run", "--policy", mounts::POLICY]);
    drop(Daemon::start(command).unwrap());
    assert!(!machines.connects());
    let remedy = "lift it before: netfilter-daemon detach --state-dir /sys/fs/bpf/netfilter";
    refused(ALLOWING_ELSEWHERE, &here, 3, remedy);
    assert!(!machines.connects(), "that filter stays in force");
    drop(sink);
}

#[test]
fn the_filter_is_lifted_when_the_lab_is_interrupted_or_killed() {
    let machines = Machines::new();
    let sink = Sink::start(&machines);
    // So that every connection takes its time.
    machines.write_policy(&format!("on_deny: drop{ALLOWING_ELSEWHERE}"));
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let mut lab = machines
            .protected
            .command(BINARY)
            .args(["lab", "--policy", mounts::POLICY, "--sink", SINKS, "--yes"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(lab.stderr.take().unwrap());
        read_until(&mut said, "lab: enforcing on eth0");
        kill(Pid::from_raw(lab.id().cast_signed()), signal).unwrap();
        let code = lab.wait().unwrap().code();
        if signal != Signal::SIGKILL {
            assert_eq!(code, Some(3), "{signal}");
            read_until(&mut said, "interrupted; no filter is in force");
            sink.says("10.77.0.1: the run is over");
            assert!(machines.pins() == 0 && machines.connects(), "{signal}");
        }
        let latest = Instant::now() + Duration::from_secs(20);
        while machines.pins() > 0 || !machines.connects() {
            assert!(Instant::now() < latest, "{signal}: the filter stays");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn read_until(said: &mut BufReader<ChildStderr>, what: &str) {
    let mut line = String::new();
    while !line.contains(what) {
        line.clear();
        assert!(
            said.read_line(&mut line).unwrap() > 0,
            "it never said {what}"
        );
    }
}

#[test]
fn a_sink_outlives_strangers_and_serves_one_run_at_a_time() {
    let machines = Machines::new();
    let sink = Sink::start(&machines);
    let from = |namespace: &Namespace, line: &[u8]| {
        let ask = || {
            let mut connection = TcpStream::connect(CONTROL).unwrap();
            // It may have hung up before all is written.
            connection.write_all(line).ok();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).ok();
            answer
        };
        namespace.run(ask).unwrap()
    };
    let ask = |line: &[u8]| from(&machines.protected, line);
    assert!(ask(b"GET / HTTP/1.1\r\n\r\n").contains("is it another version?"));
    ask(&vec![b'a'; 1 << 20]);
    assert!(
        ask(b"").contains("refused"),
        "who says nothing is not waited for long"
    );
    let greeting = br#"{"ask":"greet","version":"0.0.1","channels":[]}
"#;
    assert!(ask(greeting).contains("run the same program on both machines"));
    let begin = |seed: u64| format!("{{\"ask\":\"begin\",\"seed\":{seed},\"round\":0}}\n");
    let done = "{\"answer\":\"done\"}\n";
    assert_eq!(ask(begin(1).as_bytes()), done);
    let busy = from(&machines.other, begin(2).as_bytes());
    assert!(busy.contains("busy with a run by 10.77.0.1"), "{busy}");
    let arrived = |seed: u64| format!("{{\"ask\":\"arrived\",\"seed\":{seed}}}\n");
    assert!(ask(arrived(2).as_bytes()).contains("not the one"));
    assert!(ask(arrived(1).as_bytes()).contains("\"bytes\":[0,"));
    assert_eq!(ask(b"{\"ask\":\"end\",\"seed\":1}\n"), done);
    assert_eq!(from(&machines.other, begin(2).as_bytes()), done);
    sink.says("10.77.0.2: round 1 begins");
}
