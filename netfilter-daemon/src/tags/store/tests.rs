use std::os::unix::fs::PermissionsExt;

use super::*;

const URL: &str = "https://lists.example:8443/a.json?b";
const BODY: &str = r#"{"changeNumber": 1, "cloud": "Public", "values": [
    {"name": "A", "properties": {"addressPrefixes": ["192.0.2.0/24"]}}]}"#;

fn stored(url: &str) -> Stored {
    Stored {
        url: url.to_owned(),
        from: "https://lists.example/ServiceTags_Public_20261116.json".to_owned(),
        sha256: sha256(BODY.as_bytes()),
        etag: Some("\"a\nb\"".to_owned()),
        last_modified: None,
        fetched: 1_790_000_000,
        checked: 1_790_000_001,
        body: BODY.to_owned(),
    }
}

#[test]
fn the_checksum_is_sha_256() {
    let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(sha256(b""), of_nothing);
}

#[test]
fn what_is_saved_is_loaded_and_other_addresses_have_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("a/b"));
    assert_eq!(store.load(URL).unwrap(), None);
    store.save(&stored(URL)).unwrap();
    assert_eq!(store.load(URL).unwrap(), Some(stored(URL)));
    assert_eq!(
        store.load("https://lists.example:8443/a.json").unwrap(),
        None
    );
    let source = Source::Url(URL.to_owned());
    let edition = stored(URL).catalogue(&source).unwrap().edition().clone();
    assert_eq!(edition.date.as_deref(), Some("2026-11-16"));
    assert_eq!(edition.fetched.unwrap().at, 1_790_000_000);
}

#[test]
fn an_address_cannot_name_a_file_elsewhere() {
    let store = Store::new("/store");
    for url in [
        "https://../../etc/passwd",
        "https://a/../../b",
        "https://[::1]:4/",
        "/etc/../etc/..",
        "/",
    ] {
        let path = store.path(url);
        assert_eq!(path.parent(), Some(Path::new("/store")), "{path:?}");
    }
}

#[test]
fn a_list_of_one_address_does_not_pass_for_another_s() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    store.save(&stored(URL)).unwrap();
    let other = "https://other.example/";
    fs::copy(store.path(URL), store.path(other)).unwrap();
    let told = store.load(other).unwrap_err().to_string();
    assert!(told.contains("it is of https://lists.example"), "{told}");
}

#[test]
fn a_directory_that_others_may_write_to_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    let mode = |mode| fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode));
    mode(0o755).unwrap();
    store.save(&stored(URL)).unwrap();
    for open in [0o775, 0o757, 0o1777] {
        mode(open).unwrap();
        assert!(matches!(store.load(URL), Err(Error::Open(_))), "{open:o}");
        assert!(
            matches!(store.save(&stored(URL)), Err(Error::Open(_))),
            "{open:o}"
        );
    }
    mode(0o755).unwrap();
    assert!(store.load(URL).unwrap().is_some());
}

#[test]
fn two_that_save_at_once_leave_a_whole_list() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("store"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    store.save(&stored(URL)).unwrap();
                    assert!(store.load(URL).unwrap().is_some());
                }
            });
        }
    });
}
