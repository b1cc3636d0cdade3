//! Lists in files: judged as those from the web are, by whatever way they come.

use std::{
    fs::{self, File},
    path::PathBuf,
    thread,
    time::Duration,
};

use netfilter_daemon::lab::{daemon::Daemon, mounts};
use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{
    in_time,
    lists::{AWS, azure},
    make_overdue, one, said,
};
use crate::world::{BINARY, World, problems};

/// A machine whose policy names a file.
struct Machine {
    world: World,
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            world: World::new(None),
            directory: tempfile::tempdir().unwrap(),
        };
        machine.policy("A", "");
        machine
    }

    /// Allows a tag, and what else is written.
    fn policy(&self, tag: &str, more: &str) {
        self.world.write_policy(&format!(
            "service_tags: {{ from: ['{}'], every: 1d }}\n\
             outbound_rules:\n  \
             - {{ name: a, type: service_tag, destination: {{ service_tag: {tag}, protocol: TCP, port_ranges: '443' }} }}\n{more}",
            self.list().display()
        ));
    }

    fn list(&self) -> PathBuf {
        self.directory.path().join("own.json")
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Replaces the list as most editors do.
    fn write(&self, list: &str) {
        let new = self.directory.path().join("own.json~");
        fs::write(&new, list).unwrap();
        fs::rename(new, self.list()).unwrap();
    }

    fn start(&self) -> Result<Daemon, String> {
        let mut command = self.world.protected().command(BINARY);
        command.args(["run", "--interface", "eth0", "--policy", mounts::POLICY]);
        command.arg("--tags-dir").arg(self.store());
        Daemon::start(command).map_err(|error| error.to_string())
    }

    fn reload(&self) -> (Option<i32>, String) {
        said(self.world.daemon(&["reload"]))
    }

    fn tags(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = self.world.protected().command(BINARY);
        let command = command.arg("tags").args(arguments);
        said(
            command
                .arg("--tags-dir")
                .arg(self.store())
                .output()
                .unwrap(),
        )
    }

    /// Whether a list is in force that has so many addresses for the tag of the policy.
    fn allows(&self, addresses: u8) -> bool {
        let connects = |last: u8| self.world.connects(&format!("192.0.2.{last}"), 443);
        connects(addresses) && !connects(addresses + 1)
    }

    fn failures(&self) -> u64 {
        let source = self.list();
        self.world.metric(&format!(
            "netfilter_service_tags_refresh_failures_total{{source=\"{}\"}}",
            source.display()
        ))
    }
}

fn two() -> String {
    azure(11, &[("A", 9), ("B", 8)])
}

#[test]
fn a_reload_takes_a_good_file_and_no_other_and_says_how_to_insist() {
    let machine = Machine::new();
    machine.write(&one());
    let _daemon = machine.start().unwrap();
    assert!(machine.allows(8));
    machine.write(&two());
    let (code, text) = machine.reload();
    assert!(code == Some(0) && machine.allows(9), "{text}");
    assert_eq!(machine.failures(), 0);

    let wide = two().replace("192.0.2.1/32", "0.0.0.0/0");
    let cases = [
        ("shrunk", azure(12, &[("A", 2), ("B", 2)]), "less than half"),
        ("older", azure(10, &[("A", 9), ("B", 8)]), "older"),
        ("cut off", two()[..60].to_owned(), "cut off"),
        ("a web page", "<html>".to_owned(), "web page"),
        ("nothing", String::new(), "cut off"),
        ("another cloud", AWS.to_owned(), "a list of AWS"),
        ("everything", wide, "far more"),
    ];
    for (count, (what, list, why)) in (1..).zip(cases) {
        machine.write(&list);
        let (code, text) = machine.reload();
        assert!(code == Some(3) && text.contains(why), "{what}: {text}");
        assert!(text.contains("reloaded: 1 rules"), "{what}: {text}");
        assert!(machine.allows(9), "{what}: the last good one is in force");
        assert_eq!(machine.failures(), count, "{what}");
    }

    // Meant, and so accepted, by the way that is told.
    machine.write(&azure(10, &[("A", 1)]));
    let (code, text) = machine.reload();
    assert!(
        code == Some(3) && text.contains("`tags update --force` accepts it"),
        "{text}"
    );
    let (_, status) = said(machine.world.daemon(&["status"]));
    assert!(
        status.contains("PROBLEM") && status.contains("less than half"),
        "{status}"
    );
    let (code, text) = machine.tags(&["list"]);
    assert!(code == Some(0) && text.contains("PROBLEM"), "{text}");
    assert!(text.contains("A  9 of IPv4"), "what is in use: {text}");
    let (code, text) = machine.tags(&["update"]);
    assert!(code == Some(3) && machine.allows(9), "{text}");
    let (code, text) = machine.tags(&["update", "--force"]);
    assert!(code == Some(0) && machine.allows(1), "{text}");
    assert_eq!(machine.reload().0, Some(0), "and stays accepted");
    let (_, status) = said(machine.world.daemon(&["status"]));
    assert_eq!(problems(&status), Vec::<&str>::new());
    let (_, text) = machine.tags(&["list"]);
    assert!(
        !text.contains("PROBLEM") && text.contains(", read "),
        "{text}"
    );
    let source = machine.list();
    let age = format!(
        "netfilter_service_tags_age_seconds{{source=\"{}\"}}",
        source.display()
    );
    assert!(machine.world.metrics().contains(&age));
}

#[test]
fn a_file_is_looked_at_again_at_the_interval() {
    let machine = Machine::new();
    machine.write(&one());
    drop(machine.start().unwrap());
    make_overdue(&machine.store());
    // What is overdue waits for a second at least.
    let daemon = machine.start().unwrap();
    machine.write(&two());
    assert!(in_time(|| machine.world.connects("192.0.2.9", 443)));
    assert!(machine.allows(9));
    assert_eq!(machine.failures(), 0);
    drop(daemon);

    make_overdue(&machine.store());
    let _daemon = machine.start().unwrap();
    machine.write(&azure(12, &[("A", 2), ("B", 2)]));
    assert!(in_time(|| machine.failures() == 1));
    assert!(machine.allows(9), "the last good one is in force");
    let (_, status) = said(machine.world.daemon(&["status"]));
    assert!(status.contains("less than half"), "{status}");
}

#[test]
fn a_first_start_needs_the_file_and_a_later_one_the_last_good_list() {
    let machine = Machine::new();
    let unusable: [(&str, &dyn Fn(), &str); 6] = [
        ("nothing", &|| (), "No such file"),
        (
            "a directory",
            &|| fs::create_dir(machine.list()).unwrap(),
            "no ordinary file",
        ),
        (
            "a pipe",
            &|| mkfifo(&machine.list(), Mode::S_IRWXU).unwrap(),
            "no ordinary file",
        ),
        (
            "2 GB",
            &|| {
                File::create(machine.list())
                    .unwrap()
                    .set_len(2 << 30)
                    .unwrap()
            },
            "more than 64 MB",
        ),
        (
            "no list",
            &|| fs::write(machine.list(), "{}").unwrap(),
            "none of the known lists",
        ),
        (
            "no text",
            &|| fs::write(machine.list(), b"\xff").unwrap(),
            "not UTF-8",
        ),
    ];
    let remove = || {
        fs::remove_dir(machine.list())
            .or_else(|_| fs::remove_file(machine.list()))
            .ok();
    };
    for (what, make, why) in unusable {
        remove();
        make();
        let Err(told) = machine.start() else {
            panic!("it started with {what}")
        };
        let place = format!("{}:2:", mounts::POLICY);
        assert!(told.contains("exit status: 2"), "{what}: {told}");
        assert!(
            told.contains(&place) && told.contains(why),
            "{what}: {told}"
        );
        assert!(
            machine.world.connects("192.0.2.9", 443),
            "nothing is filtered"
        );
    }
    remove();
    machine.write(&one());
    drop(machine.start().unwrap());
    for (what, make, why) in unusable {
        remove();
        make();
        let _daemon = machine
            .start()
            .unwrap_or_else(|told| panic!("{what}: {told}"));
        assert!(machine.allows(8), "{what}");
        assert_eq!(machine.failures(), 1, "{what}");
        let (_, status) = said(machine.world.daemon(&["status"]));
        assert!(
            status.contains("PROBLEM") && status.contains(why),
            "{what}: {status}"
        );
    }
}

#[test]
fn a_file_that_is_half_written_is_waited_for() {
    let machine = Machine::new();
    machine.write(&one());
    let _daemon = machine.start().unwrap();
    let (list, two) = (machine.list(), two());
    // In place, from its beginning, in eight steps.
    let mut step = 0;
    let mut write = move || {
        step += 1;
        fs::write(&list, &two[..two.len() * step / 8]).unwrap();
        step
    };
    write();
    let writer = thread::spawn(move || {
        while write() < 8 {
            thread::sleep(Duration::from_millis(250));
        }
    });
    let (code, text) = machine.reload();
    writer.join().unwrap();
    assert!(code == Some(0) && machine.allows(9), "{text}");
    assert_eq!(machine.failures(), 0);
}

#[test]
fn a_policy_that_is_changed_with_a_file_that_is_refused_comes_into_force_without_it() {
    let machine = Machine::new();
    machine.write(&one());
    let _daemon = machine.start().unwrap();
    machine.write(&azure(11, &[("A", 2), ("C", 2)]));
    machine.policy(
        "A",
        "  - { name: deny, type: ip, action: deny, destination: { cidr: 192.0.2.1/32, protocol: TCP, port_ranges: '443' } }\n",
    );
    let (code, text) = machine.reload();
    assert!(
        code == Some(3) && text.contains("reloaded: 2 rules"),
        "{text}"
    );
    assert!(machine.allows(8) && !machine.world.connects("192.0.2.1", 443));

    // What only the new list has is not there, and why is told.
    machine.policy("C", "");
    let (code, text) = machine.reload();
    assert!(code == Some(2) && text.contains("`C`"), "{text}");
    assert!(text.contains("less than half"), "{text}");
    assert!(machine.allows(8));
    // A good list with a tag that the policy is changed for comes in one reload.
    machine.write(&azure(11, &[("A", 8), ("B", 8), ("C", 5)]));
    let (code, text) = machine.reload();
    assert!(code == Some(0) && machine.allows(5), "{text}");
    // While the policy is wrong, nothing is known of what it uses: C would vanish.
    machine.policy("C", "  - nonsense\n");
    machine.write(&azure(12, &[("A", 9), ("B", 9)]));
    assert_eq!(machine.reload().0, Some(2));
    machine.policy("C", "");
    let (code, text) = machine.reload();
    assert!(
        code == Some(3) && text.contains("no longer in it"),
        "{text}"
    );
    assert!(machine.allows(5));
}

#[test]
fn where_nothing_can_be_stored_nothing_starts_and_check_and_explain_need_no_store() {
    let machine = Machine::new();
    machine.write(&one());
    let run = |arguments: &[&str]| {
        let mut command = machine.world.protected().command(BINARY);
        command
            .args(arguments)
            .args(["--tags-dir", "/dev/null/store"]);
        command
    };
    let start = run(&["run", "--interface", "eth0", "--policy", mounts::POLICY]);
    let Err(told) = Daemon::start(start) else {
        panic!("it started without a store")
    };
    let told = told.to_string();
    assert!(
        told.contains("exit status: 3") && told.contains("/dev/null/store"),
        "{told}"
    );
    assert!(
        machine.world.connects("192.0.2.9", 443),
        "nothing is filtered"
    );
    let check = || said(run(&["check", mounts::POLICY]).output().unwrap());
    let (code, text) = check();
    assert!(
        code == Some(0) && text.contains("tag A (8 prefixes)"),
        "{text}"
    );
    let explain = run(&["explain", "--policy", mounts::POLICY, "192.0.2.8:443"]).output();
    assert_eq!(said(explain.unwrap()).0, Some(0));
    for (list, why) in [
        ("[", "cut off"),
        (&one().replace("192.0.2.1/32", "0.0.0.0/0"), "`type: ip`"),
    ] {
        fs::write(machine.list(), list).unwrap();
        let (code, text) = check();
        assert!(code == Some(2) && text.contains(why), "{text}");
    }
}
