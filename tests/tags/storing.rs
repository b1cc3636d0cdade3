//! What is on the disk survives whatever happens to the disk.

use super::*;

#[test]
fn a_stored_list_that_is_not_what_was_written_is_refused_and_fetched_anew() {
    let place = Place::new();
    place.server.sends("ETag: \"one\"\r\n", &one());
    assert_eq!(place.update(&[]).0, Some(0));
    let stored = place.stored();
    let right = fs::read_to_string(&stored).unwrap();
    let damage = [
        right.replace("192.0.2.8", "192.0.2.9"),
        right[..right.len() - 1].to_owned(),
        right[..right.len() / 4].to_owned(),
        String::new(),
    ];
    for wrong in damage {
        fs::write(&stored, &wrong).unwrap();
        let (code, text) = place.check();
        assert!(code == Some(2) && text.contains("damaged"), "{text}");
        let (code, text) = place.update(&[]);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(place.check().0, Some(0));
    }
    fs::set_permissions(&stored, fs::Permissions::from_mode(0o620)).unwrap();
    let (code, text) = place.check();
    assert!(code == Some(2) && text.contains("by others"), "{text}");
}

/// What a run that was killed at any point left behind neither is used nor in the way.
#[test]
fn a_list_that_was_half_written_when_the_power_went_is_not_seen() {
    let place = Place::new();
    place.server.sends("", &one());
    assert_eq!(place.update(&[]).0, Some(0));
    fs::write(place.stored().with_extension("new"), "{\"url\"").unwrap();
    assert_eq!(place.check().0, Some(0));
    place.server.sends("", &azure(11, &[("A", 9), ("B", 9)]));
    assert_eq!(place.update(&[]).0, Some(0));
    assert!(place.check().1.contains("tag A (9 prefixes)"));
    assert!(!place.stored().with_extension("new").exists());
}

#[test]
fn killed_while_it_writes_it_leaves_the_old_list_or_the_new_one() {
    let place = Place::new();
    let large = |change| {
        azure(change, &[("A", 8), ("B", 200)])
            .replace("]}}", &format!("]}}}}{}", " ".repeat(3_000_000)))
    };
    place.server.sends("", &large(1));
    assert_eq!(place.update(&[]).0, Some(0));
    let mut ends = [0; 2];
    for round in 0..8 {
        place.server.sends("", &large(round + 2));
        let new = place.stored().with_extension("new");
        // What the former round left would pass for this one's.
        fs::remove_file(&new).ok();
        let mut command = place.update_command();
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        // From the moment at which it begins to write, a little later each time.
        let begun = || new.exists() || child_is_done(&child);
        for _ in 0..100_000 {
            if begun() {
                break;
            }
            thread::sleep(Duration::from_micros(100));
        }
        thread::sleep(Duration::from_micros(round * 500));
        child.kill().unwrap();
        child.wait().unwrap();
        ends[usize::from(new.exists())] += 1;
        assert_eq!(place.check().0, Some(0), "round {round}");
    }
    assert!(
        ends[1] > 0,
        "some were killed in the middle of it: {ends:?}"
    );
}

fn child_is_done(child: &Child) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()));
    stat.is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn a_full_or_read_only_disk_is_told_and_the_last_good_list_stays() {
    let place = Place::new();
    let store = place.file("store");
    fs::create_dir(&store).unwrap();
    let inside = Namespace::new()
        .unwrap()
        .with_private_mounts(|| {
            let options = Some("size=64k,mode=700");
            mount(
                Some("test"),
                &store,
                Some("tmpfs"),
                MsFlags::empty(),
                options,
            )?;
            Ok(())
        })
        .unwrap();
    let server = Server::start(Some(&inside), "127.0.0.1:0");
    let place = Place { server, ..place };
    place.policy(USED);
    let policy = place.file("policy.yaml");
    let policy = policy.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = inside.command(BINARY);
        let command = command.args(arguments).arg("--tags-dir").arg(&store);
        said(command.output().unwrap())
    };
    let state = place.file("state");
    let state = state.to_str().unwrap();
    let update = || run(&["tags", "update", "--policy", policy, "--state-dir", state]);

    place.server.sends("", &one());
    assert_eq!(update().0, Some(0));
    let padded = azure(11, &[("A", 9), ("B", 9)]) + &" ".repeat(100_000);
    place.server.sends("", &padded);
    let (code, text) = update();
    assert!(code == Some(3) && text.contains("make room"), "{text}");
    let (code, text) = run(&["check", policy]);
    assert!(
        code == Some(0) && text.contains("tag A (8 prefixes)"),
        "{text}"
    );

    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    inside
        .run(|| mount::<Path, Path, str, str>(None, &store, None, read_only, None).unwrap())
        .unwrap();
    place.server.sends("", &azure(11, &[("A", 9), ("B", 9)]));
    let (code, text) = update();
    assert!(code == Some(3) && text.contains("writable"), "{text}");
    let (code, text) = run(&["check", policy]);
    assert!(
        code == Some(0) && text.contains("tag A (8 prefixes)"),
        "{text}"
    );
}
