//! Where systemd's journal reads the log, events have fields there.

use std::{
    collections::HashMap,
    os::{linux::fs::MetadataExt, unix::net::UnixDatagram},
};

use nix::mount::{MsFlags, mount};

use super::*;

const SOCKET: &str = "/run/systemd/journal/socket";

fn fields(entry: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(entry);
    let fields = text.lines().filter_map(|line| line.split_once('='));
    fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn an_event_is_an_entry_with_fields_and_a_line_where_the_journal_is_not() {
    let world = World::new(None);
    // The machine may have a journal of its own.
    let journal = world.protected().run(|| {
        mount::<str, str, str, str>(Some("test"), "/run", Some("tmpfs"), MsFlags::empty(), None)?;
        fs::create_dir_all(PRIVATE)?;
        fs::create_dir_all(Path::new(SOCKET).parent().unwrap())?;
        UnixDatagram::bind(SOCKET)
    });
    let journal = journal.unwrap().unwrap();
    world.write_policy(POLICY);
    journal
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let named = fs::metadata(log.path()).unwrap();
    let mut command = world.protected().command(BINARY);
    command.args(["run", "--interface", "eth0", "--policy", mounts::POLICY]);
    command.env(
        "JOURNAL_STREAM",
        format!("{}:{}", named.st_dev(), named.st_ino()),
    );
    command.stderr(Stdio::from(log.reopen().unwrap()));
    let mut daemon = command.spawn().unwrap();
    let read = || fs::read_to_string(log.path()).unwrap();
    // A busy machine takes its time to load the programs.
    assert!(
        (0..6).any(|_| eventually(|| read().contains("enforcing on eth0 (policy"))),
        "{}",
        read()
    );

    let pid = bash(&world, &connected("169.254.169.254", 2601));
    let mut entry = vec![0; 65_536];
    let length = journal.recv(&mut entry).unwrap();
    let entry = fields(&entry[..length]);
    for (name, value) in [
        ("PRIORITY", "6".to_owned()),
        ("NETFILTER_VERDICT", "denied".to_owned()),
        ("NETFILTER_REASON", "denied_by_rule".to_owned()),
        ("NETFILTER_RULE", "no-metadata".to_owned()),
        ("NETFILTER_DESTINATION", "169.254.169.254".to_owned()),
        ("NETFILTER_DESTINATION_PORT", "2601".to_owned()),
        ("NETFILTER_PROCESS", pid.to_string()),
        ("NETFILTER_EXECUTABLE", path_of("bash")),
    ] {
        assert_eq!(entry.get(name), Some(&value), "{name}: {entry:?}");
    }
    assert!(
        entry["MESSAGE"].starts_with("denied on eth0: "),
        "{entry:?}"
    );
    assert!(!read().contains("denied on eth0"), "told once: {}", read());

    // The journal has gone: the line is for whoever reads stderr.
    world
        .protected()
        .run(|| fs::remove_file(SOCKET))
        .unwrap()
        .unwrap();
    bash(&world, &connected("169.254.169.254", 2602));
    assert!(eventually(|| read().contains(" port 2602")), "{}", read());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
