//! `top` on a real terminal, that of tmux.

use std::{fs, process::Output};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::world::{BINARY, World, eventually};

const POLICY: &str = "
outbound_rules:
  - { name: used, type: ip, destination: { cidr: 192.0.2.0/24, protocol: TCP, port_ranges: '443' } }
";

/// A terminal of 80 by 24 in which a shell has started `top`, and waits for it to end.
struct Pane<'a> {
    world: &'a World,
    directory: TempDir,
}

impl<'a> Pane<'a> {
    fn start(world: &'a World) -> Self {
        Self::start_after(world, ":")
    }

    /// After a command of the shell that becomes `top`.
    fn start_after(world: &'a World, first: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let pane = Self { world, directory };
        let number = pane.directory.path().join("number");
        let script = format!(
            "echo before; sh -c 'echo $$ > {}; {first}; exec {BINARY} top'; echo ended with $?; \
             stty -a | grep -o ' icanon\\| echo '; echo shell waits; read line",
            number.display()
        );
        let size = ["-x", "80", "-y", "24"];
        pane.tmux(
            &[
                &["-f", "/dev/null", "new-session", "-d"],
                &size[..],
                &["sh", "-c", &script],
            ]
            .concat(),
        );
        pane
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let socket = self.directory.path().join("tmux");
        let mut tmux = self.world.protected().command("tmux");
        tmux.arg("-S").arg(socket).args(arguments);
        let output = tmux.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output
    }

    fn shown(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]);
        String::from_utf8(output.stdout).unwrap()
    }

    fn shows(&self, text: &str) {
        assert!(
            eventually(|| self.shown().contains(text)),
            "no {text}: {}",
            self.shown()
        );
    }

    fn process(&self) -> Pid {
        let number = fs::read_to_string(self.directory.path().join("number")).unwrap();
        Pid::from_raw(number.trim().parse().unwrap())
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// What was there before is there again, and the shell can be typed to.
    fn left_as_it_was(&self) {
        self.shows("shell waits");
        let shown = self.shown();
        for line in ["before", "ended with 0", " icanon", " echo"] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
        assert!(!shown.contains("reports"), "{shown}");
    }
}

impl Drop for Pane<'_> {
    fn drop(&mut self) {
        let socket = self.directory.path().join("tmux");
        let mut tmux = self.world.protected().command("tmux");
        // It may have ended with a test that failed.
        tmux.arg("-S").arg(socket).arg("kill-server").output().ok();
    }
}

fn top(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = world.daemon(&[&["top"], arguments].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn it_shows_what_is_denied_as_it_happens_and_leaves_the_terminal_as_it_was() {
    let world = World::new(None);
    let daemon = world.enforce(POLICY);
    let pane = Pane::start(&world);
    pane.shows("enforcing on eth0 (");
    pane.shows("nothing was reported in the last hour");
    assert!(!world.connects("203.0.113.9", 8443));
    pane.shows("203.0.113.9");
    pane.press(&["Tab"]);
    pane.shows("executable");
    pane.press(&["5"]);
    pane.shows("203.0.113.9 TCP 8443");

    pane.tmux(&["resize-window", "-x", "150", "-y", "40"]);
    pane.shows("4 rules");
    assert!(pane.shown().contains("last from"), "four lists at once");
    pane.tmux(&["resize-window", "-x", "40", "-y", "10"]);
    pane.press(&["1"]);
    pane.shows("203.0.113.9");

    pane.press(&["p"]);
    pane.shows("PAUSED");
    pane.press(&["p"]);
    drop(daemon);
    pane.shows("PROBLEM the daemon has ended");
    pane.press(&["q"]);
    pane.left_as_it_was();
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was_too() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let pane = Pane::start(&world);
        pane.shows("enforcing on eth0 (");
        kill(pane.process(), signal).unwrap();
        pane.left_as_it_was();
    }
}

#[test]
fn it_ends_when_its_terminal_goes_even_if_no_signal_says_so() {
    let world = World::new(None);
    let _daemon = world.enforce(POLICY);
    let pane = Pane::start_after(&world, "trap \"\" HUP");
    pane.shows("enforcing on eth0 (");
    let process = pane.process();
    assert_eq!(kill(process, None), Ok(()));
    pane.tmux(&["kill-server"]);
    assert!(eventually(|| kill(process, None) == Err(Errno::ESRCH)));
}

#[test]
fn without_a_daemon_or_a_terminal_it_says_what_to_do() {
    let world = World::new(None);
    let (code, _, said) = top(&world, &["--once"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.starts_with("no daemon runs with the state directory"),
        "{said}"
    );
    assert!(said.contains("`netfilter-daemon run` starts one"), "{said}");
    let (code, _, said) = top(&world, &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`top --once` prints one picture"), "{said}");

    let _daemon = world.enforce(POLICY);
    assert!(world.connects("192.0.2.1", 443));
    assert!(!world.connects("203.0.113.9", 8443));
    let mut overview = Value::Null;
    assert!(
        eventually(|| {
            let (code, text, _) = top(&world, &["--json"]);
            assert_eq!(code, Some(0));
            overview = serde_json::from_str(&text).unwrap();
            overview["hour"]["by_reason"][0]["packets"].as_u64() > Some(0)
        }),
        "{overview}"
    );
    assert_eq!(overview["hour"]["by_reason"][0]["reason"], "no_rule");
    assert_eq!(overview["names"]["rows"][0]["what"], "203.0.113.9");
    let packets = overview["hour"]["by_reason"][0]["packets"]
        .as_u64()
        .unwrap();
    assert_eq!(
        packets,
        world.metric("netfilter_dropped_packets_total{reason=\"no_rule\"")
    );
    assert_eq!(overview["rules"]["hit"][0]["rule"], "used");
    let (code, picture, _) = top(&world, &["--once"]);
    assert_eq!(code, Some(0));
    assert!(
        picture.contains("203.0.113.9") && !picture.contains('\u{1b}'),
        "{picture}"
    );
    assert_eq!(picture.lines().count(), 24);
}
