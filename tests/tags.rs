//! Lists of service tags: what is fetched or read, refused, kept, and put into force.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::{
    lab::namespace::Namespace,
    tags::fetch::{Client, Patience, Reply},
};
use nix::mount::{MsFlags, mount};

use crate::world::BINARY;
use lists::{AWS, azure};
use server::{CA, OTHER_CA, Server, Stream, answer};

mod daemon;
mod editions;
mod fetching;
mod files;
mod lists;
mod server;
mod storing;

/// A directory with a policy, its authority, and a store; and a server.
struct Place {
    directory: tempfile::TempDir,
    server: Server,
}

const USED: &str = "outbound_rules: [{ name: a, type: service_tag, destination: { service_tag: A, protocol: TCP, port_ranges: '443' } }]";

impl Place {
    fn new() -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
            server: Server::start(None, "127.0.0.1:0"),
        };
        fs::write(place.file("ca.pem"), CA).unwrap();
        place.policy(USED);
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn policy(&self, rules: &str) {
        let url = self.server.url("/list.json");
        let text = format!(
            "resolvers: [10.0.0.53]\nservice_tags: {{ from: ['{url}'], ca: ca.pem }}\n{rules}\n"
        );
        fs::write(self.file("policy.yaml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(arguments)
            .arg("--tags-dir")
            .arg(self.file("store"));
        command
    }

    fn update(&self, more: &[&str]) -> (Option<i32>, String) {
        said(self.update_command().args(more).output().unwrap())
    }

    /// With a state directory of its own: this machine's daemon is not told.
    fn update_command(&self) -> Command {
        let mut command = self.command(&["tags", "update"]);
        command.arg("--policy").arg(self.file("policy.yaml"));
        command.arg("--state-dir").arg(self.file("state"));
        command
    }

    fn check(&self) -> (Option<i32>, String) {
        let policy = self.file("policy.yaml");
        said(
            self.command(&["check", policy.to_str().unwrap()])
                .output()
                .unwrap(),
        )
    }

    /// The one list that is stored.
    fn stored(&self) -> PathBuf {
        stored_in(&self.file("store"))
    }

    fn client(&self, patience: Patience) -> Client {
        Client::new(Some(&self.file("ca.pem")), patience).unwrap()
    }

    fn fetch(&self, patience: Patience) -> Result<Reply, String> {
        let url = self.server.url("/list.json");
        let client = self.client(patience);
        let reply = client.fetch(&url, None, Instant::now());
        reply.map_err(|error| error.to_string())
    }
}

fn stored_in(store: &Path) -> PathBuf {
    let entries = fs::read_dir(store).unwrap();
    let mut lists = entries.map(|entry| entry.unwrap().path()).filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "list")
    });
    lists.next().unwrap()
}

/// As if the interval had passed since the list was looked at.
fn make_overdue(store: &Path) {
    let stored = stored_in(store);
    let text = fs::read_to_string(&stored).unwrap();
    let (head, body) = text.split_once('\n').unwrap();
    let mut head: serde_json::Value = serde_json::from_str(head).unwrap();
    head["checked"] = 0.into();
    fs::write(&stored, format!("{head}\n{body}")).unwrap();
}

/// Longer than what is overdue at the start waits.
fn in_time(mut holds: impl FnMut() -> bool) -> bool {
    (0..250).any(|_| {
        holds() || {
            thread::sleep(Duration::from_millis(100));
            false
        }
    })
}

fn said(output: Output) -> (Option<i32>, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn one() -> String {
    azure(10, &[("A", 8), ("B", 8)])
}

#[test]
fn a_list_is_fetched_and_used_and_asked_for_again_only_if_it_changed() {
    let place = Place::new();
    let (code, text) = place.check();
    assert!(code == Some(2) && text.contains("tags update"), "{text}");
    assert!(text.contains("policy.yaml:2:"), "{text}");
    assert!(place.server.requests().is_empty(), "check fetches nothing");

    place.server.sends(
        "ETag: \"one\"\r\nLast-Modified: Mon, 16 Nov 2026 08:00:00 GMT\r\n",
        &one(),
    );
    let (code, text) = place.update(&[]);
    assert!(
        code == Some(0) && text.contains("a new list is stored"),
        "{text}"
    );
    let (code, text) = place.check();
    assert!(
        code == Some(0) && text.contains("tag A (8 prefixes)"),
        "{text}"
    );
    assert!(text.contains("able to refresh this list"), "a note: {text}");

    place.server.does(|request, stream| {
        let request = request.to_ascii_lowercase();
        assert!(request.contains("if-none-match: \"one\"\r\n"), "{request}");
        assert!(request.contains("if-modified-since: mon, 16 nov 2026 08:00:00 gmt\r\n"));
        answer(stream, "304 Not Modified", "", "");
    });
    let (code, text) = place.update(&[]);
    assert!(
        code == Some(0) && text.contains("still the newest"),
        "{text}"
    );
    assert_eq!(place.check().0, Some(0));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.stored()), 0o600);
    assert_eq!(mode(&place.file("store")), 0o700);
}

#[test]
fn what_must_not_replace_the_last_good_list_does_not() {
    let place = Place::new();
    place.server.sends("", &one());
    assert_eq!(place.update(&[]).0, Some(0));
    let before = fs::read(place.stored()).unwrap();
    let cases = [
        ("a web page", "<!DOCTYPE html>".to_owned(), "web page"),
        (
            "garbage",
            "\u{1}\u{2}".to_owned(),
            "no list of service tags",
        ),
        ("cut off", one()[..60].to_owned(), "cut off"),
        ("another cloud", AWS.to_owned(), "a list of AWS"),
        ("older", azure(9, &[("A", 8), ("B", 8)]), "older"),
        (
            "a used tag shrank",
            azure(11, &[("A", 3), ("B", 99)]),
            "tag A",
        ),
        (
            "a used tag is gone",
            azure(11, &[("B", 99), ("C", 1)]),
            "tag A",
        ),
        (
            "shrunk",
            azure(11, &[("A", 7), ("B", 0)]),
            "7 prefixes, less than half",
        ),
        (
            "everything",
            one()
                .replace("192.0.2.1/32", "0.0.0.0/0")
                .replace("10,", "11,"),
            "far more",
        ),
    ];
    for (what, list, why) in cases {
        place.server.sends("", &list);
        let (code, text) = place.update(&[]);
        assert!(code == Some(3) && text.contains(why), "{what}: {text}");
        assert_eq!(fs::read(place.stored()).unwrap(), before, "{what}");
    }
    // The mirror: what looks alike and may.
    for (what, list) in [
        ("half", azure(10, &[("A", 4), ("B", 4)])),
        ("grown", azure(12, &[("A", 9), ("B", 9), ("C", 50)])),
    ] {
        place.server.sends("", &list);
        let (code, text) = place.update(&[]);
        assert!(code == Some(0), "{what}: {text}");
    }
}

#[test]
fn force_accepts_what_shrank_or_is_older_and_nothing_else() {
    let place = Place::new();
    place.server.sends("", &one());
    assert_eq!(place.update(&[]).0, Some(0));
    for list in ["<html>", AWS, &azure(11, &[("B", 9)])] {
        place.server.sends("", list);
        let (code, text) = place.update(&["--force"]);
        assert_eq!(code, Some(3), "{list}: {text}");
    }
    place.server.sends("", &azure(9, &[("A", 1)]));
    let (code, text) = place.update(&[]);
    assert!(code == Some(3) && text.contains("--force"), "{text}");
    let (code, text) = place.update(&["--force"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(place.check().1.contains("tag A (1 prefix)"));
}
