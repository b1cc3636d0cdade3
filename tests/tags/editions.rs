//! One edition of a file after another, without a daemon.

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use super::{USED, lists::azure, one, said};
use crate::world::BINARY;

/// A policy and its files in a directory, and no daemon.
struct Desk(tempfile::TempDir);

impl Desk {
    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn policy(&self, from: &str) {
        let text = format!("resolvers: [10.0.0.53]\nservice_tags: {{ from: {from} }}\n{USED}\n");
        fs::write(self.file("policy.yaml"), text).unwrap();
    }

    fn check(&self) -> (Option<i32>, String) {
        let mut command = Command::new(BINARY);
        command.args(["check", "policy.yaml", "--tags-dir", "store"]);
        said(command.current_dir(&self.0).output().unwrap())
    }

    /// The policy is named as it is from its own directory.
    fn update(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(BINARY);
        command.args(["tags", "update", "--policy", "policy.yaml"]);
        command.args(["--tags-dir", "store", "--state-dir", "state"]);
        said(command.args(more).current_dir(&self.0).output().unwrap())
    }
}

#[test]
fn a_link_that_is_turned_to_another_edition_is_the_same_file() {
    let desk = Desk(tempfile::tempdir().unwrap());
    desk.policy("./own.json");
    let turn = |to: &str| {
        symlink(to, desk.file("new")).unwrap();
        fs::rename(desk.file("new"), desk.file("own.json")).unwrap();
    };
    for (name, list) in [
        ("1", one()),
        ("2", azure(11, &[("A", 1)])),
        ("3", azure(11, &[("A", 9), ("B", 8)])),
    ] {
        fs::write(desk.file(name), list).unwrap();
    }
    turn("1");
    let (code, text) = desk.update(&[]);
    assert!(
        code == Some(0) && text.contains("./own.json: a new list"),
        "{text}"
    );
    turn("2");
    let (code, text) = desk.update(&[]);
    assert!(code == Some(3) && text.contains("less than half"), "{text}");
    let (code, text) = desk.check();
    assert!(
        code == Some(0) && text.contains("would not take this list"),
        "{text}"
    );
    turn("3");
    assert!(!desk.check().1.contains("would not take"));
    assert_eq!(desk.update(&[]).0, Some(0));
    let (code, text) = desk.update(&["--json"]);
    let updated: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(updated[0]["source"], "./own.json");
    assert_eq!(updated[0]["outcome"], "fresh");
}

#[test]
fn a_list_that_is_new_does_not_hide_what_another_has_lost() {
    let desk = Desk(tempfile::tempdir().unwrap());
    desk.policy("[./own.json]");
    fs::write(desk.file("own.json"), one()).unwrap();
    assert_eq!(desk.update(&[]).0, Some(0));
    desk.policy("[./own.json, ./more.json]");
    fs::write(desk.file("own.json"), azure(11, &[("B", 99), ("C", 1)])).unwrap();
    fs::write(desk.file("more.json"), azure(1, &[("D", 1)])).unwrap();
    let (code, text) = desk.update(&[]);
    assert!(code == Some(3) && text.contains("tag A"), "{text}");
    assert!(text.contains("./more.json: a new list"), "{text}");
}
