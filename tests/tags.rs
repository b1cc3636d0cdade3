//! Service tags from the web: what is fetched, refused, kept, and put into force.

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
mod lists;
mod server;

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

#[test]
fn only_a_server_with_a_right_certificate_is_believed() {
    let place = Place::new();
    place.server.sends("", &one());
    fs::write(place.file("ca.pem"), OTHER_CA).unwrap();
    let (code, text) = place.update(&[]);
    assert!(code == Some(3) && text.contains("ertificate"), "{text}");
    fs::write(place.file("ca.pem"), CA).unwrap();
    // The certificate does not name the address.
    let policy = fs::read_to_string(place.file("policy.yaml")).unwrap();
    fs::write(
        place.file("policy.yaml"),
        policy.replace("localhost", "127.0.0.1"),
    )
    .unwrap();
    let (code, text) = place.update(&[]);
    assert!(code == Some(3) && text.contains("ertificate"), "{text}");
    // Nor do browsers' authorities know ours.
    fs::write(
        place.file("policy.yaml"),
        policy.replace(", ca: ca.pem", ""),
    )
    .unwrap();
    let (code, text) = place.update(&[]);
    assert!(code == Some(3) && text.contains("ertificate"), "{text}");
    assert!(place.server.requests().is_empty());
    fs::write(place.file("policy.yaml"), policy).unwrap();
    assert_eq!(place.update(&[]).0, Some(0));
}

#[test]
fn redirects_are_followed_to_https_only_and_not_for_ever() {
    let place = Place::new();
    let list = one();
    place.server.does(
        move |request, stream| match request.contains("GET /list.json") {
            true => answer(stream, "302 Found", "Location: /there.json\r\n", ""),
            false => answer(stream, "200 OK", "", &list),
        },
    );
    assert!(place.fetch(Patience::default()).is_ok());
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    plain.set_nonblocking(true).unwrap();
    let location = format!("Location: http://{}/\r\n", plain.local_addr().unwrap());
    place
        .server
        .does(move |_, stream| answer(stream, "302 Found", &location, ""));
    let why = place.fetch(Patience::default()).unwrap_err();
    assert!(why.contains("https only"), "{why}");
    assert!(plain.accept().is_err(), "nobody asks it");
    place
        .server
        .does(|_, stream| answer(stream, "302 Found", "Location: /list.json\r\n", ""));
    let before = place.server.requests().len();
    let why = place.fetch(Patience::default()).unwrap_err();
    assert!(why.contains("redirects"), "{why}");
    assert_eq!(place.server.requests().len() - before, 6);
}

#[test]
fn a_body_that_ends_early_or_never_or_is_too_large_is_refused() {
    let place = Place::new();
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
    let cases = [
        ("shorter than promised", "Content-Length: 5000\r\n\r\n{}"),
        (
            "a chunk is missing",
            "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        ),
    ];
    for (what, rest) in cases {
        let text = format!("{head}{rest}");
        place
            .server
            .does(move |_, stream| stream.write_all(text.as_bytes()).unwrap());
        let why = place.fetch(Patience::default()).unwrap_err();
        assert!(why.contains("https://localhost"), "{what}: {why}");
    }
    place.server.sends("Content-Encoding: gzip\r\n", &one());
    let why = place.fetch(Patience::default()).unwrap_err();
    assert!(why.contains("not asked for"), "{why}");
    place
        .server
        .does(|_, stream| answer(stream, "500 No", "", "{}"));
    let why = place.fetch(Patience::default()).unwrap_err();
    assert!(why.contains("500"), "{why}");

    let small = Patience {
        bytes: 1000,
        ..Patience::default()
    };
    place.server.sends("", &"x".repeat(1000));
    assert!(place.fetch(small).is_ok(), "just as much as may be");
    place.server.sends("", &"x".repeat(1001));
    assert!(place.fetch(small).unwrap_err().contains("more than"));
    let text = format!("{head}\r\n{}", "x".repeat(100_000));
    place.server.does(move |_, stream| {
        stream.write_all(text.as_bytes()).ok();
    });
    assert!(place.fetch(small).unwrap_err().contains("more than"));
}

#[test]
fn a_server_that_drips_or_is_silent_is_left() {
    let place = Place::new();
    let patience = Patience {
        connect: Duration::from_secs(1),
        headers: Duration::from_secs(1),
        whole: Duration::from_secs(2),
        ..Patience::default()
    };
    let drips = |after: &'static str| {
        move |_: &str, stream: &mut Stream| {
            stream.write_all(after.as_bytes()).unwrap();
            // Longer than the test waits; ends when the client is gone.
            while stream.write_all(b"x").and_then(|()| stream.flush()).is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        }
    };
    let begin = Instant::now();
    place.server.does(drips("HTTP/1.1 200 OK\r\nX: "));
    assert!(place.fetch(patience).unwrap_err().contains("timeout"));
    place
        .server
        .does(drips("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"));
    assert!(place.fetch(patience).unwrap_err().contains("timeout"));
    place
        .server
        .does(|_, _| thread::sleep(Duration::from_secs(5)));
    assert!(place.fetch(patience).unwrap_err().contains("timeout"));
    // Not even the handshake is answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/", silent.local_addr().unwrap().port());
    let client = place.client(patience);
    let why = client.fetch(&url, None, Instant::now()).unwrap_err();
    assert!(why.to_string().contains("timeout"), "{why}");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

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
    for round in 0..24 {
        place.server.sends("", &large(round + 2));
        let mut command = place.update_command();
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        // From the moment at which it begins to write, a little later each time.
        let new = place.stored().with_extension("new");
        let begun = || new.exists() || child_is_done(&child);
        for _ in 0..100_000 {
            if begun() {
                break;
            }
            thread::sleep(Duration::from_micros(100));
        }
        thread::sleep(Duration::from_micros(round * 300));
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

/// What the clouds publish, cut down: four forms in which a list comes.
#[test]
fn the_lists_of_all_four_clouds_are_fetched_in_their_published_forms() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus");
    for (file, tag, prefix) in [
        (
            "service-tags-public.json",
            "AzureCloud.eastasia",
            "168.63.129.0/28",
        ),
        ("aws-ip-ranges.json", "AMAZON.eu-west-1", "3.4.12.4/32"),
        ("google-cloud.json", "GoogleCloud", "34.1.208.0/20"),
        ("github-meta.json", "GitHub.hooks", "192.30.252.0/22"),
    ] {
        let place = Place::new();
        place.policy("");
        let list = fs::read_to_string(corpus.join(file)).unwrap();
        place
            .server
            .sends("Content-Type: application/json\r\n", &list);
        let (code, text) = place.update(&[]);
        assert_eq!(code, Some(0), "{file}: {text}");
        let policy = place.file("policy.yaml");
        let show = ["tags", "show", tag, "--policy", policy.to_str().unwrap()];
        let (code, text) = said(place.command(&show).output().unwrap());
        assert!(code == Some(0) && text.contains(prefix), "{file}: {text}");
        let list = [
            "tags",
            "list",
            "--json",
            "--policy",
            policy.to_str().unwrap(),
        ];
        let (_, text) = said(place.command(&list).output().unwrap());
        let listed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(listed["lists"][0]["age_seconds"].is_u64(), "{file}: {text}");
    }
}

/// The page's address stays and its link changes; both are Microsoft's, on port 443.
#[test]
fn azure_s_list_is_found_by_the_page_that_links_to_it() {
    let place = Place::new();
    let hosts = place.file("hosts");
    fs::write(
        &hosts,
        "127.0.0.1 www.microsoft.com download.microsoft.com lists.example\n",
    )
    .unwrap();
    let inside = Namespace::new().unwrap().with_private_mounts(|| {
        let bind = MsFlags::MS_BIND;
        mount::<_, _, str, str>(Some(&hosts), "/etc/hosts", None, bind, None)?;
        Ok(())
    });
    let inside = inside.unwrap();
    let server = Server::start(Some(&inside), "127.0.0.1:443");
    let place = Place { server, ..place };
    let page = "https://www.microsoft.com/en-us/download/details.aspx?id=56519";
    let policy = place.file("policy.yaml");
    let text =
        format!("resolvers: [10.0.0.53]\nservice_tags: {{ from: ['{page}'], ca: ca.pem }}\n");
    fs::write(&policy, text + USED).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = inside.command(BINARY);
        command.args(arguments).arg("--policy").arg(&policy);
        let command = command.arg("--tags-dir").arg(place.file("store"));
        said(command.output().unwrap())
    };
    let state = place.file("state");
    let update = || run(&["tags", "update", "--state-dir", state.to_str().unwrap()]);
    let serve = |link: &str, list: String| {
        let page = format!("<html><a href=\"{link}\">Download</a></html>");
        place.server.does(move |request, stream| {
            let request = request.to_ascii_lowercase();
            if request.contains("get /en-us/download/details.aspx?id=56519 ") {
                assert!(!request.contains("if-none-match"), "{request}");
                answer(stream, "200 OK", "ETag: \"page\"\r\n", &page);
            } else if request.contains("if-none-match: \"list\"") {
                answer(stream, "304 Not Modified", "", "");
            } else {
                answer(stream, "200 OK", "ETag: \"list\"\r\n", &list);
            }
        });
    };
    let link = "https://download.microsoft.com/download/7/1/d/x/ServiceTags_Public_20261116.json";
    serve(link, one());
    let (code, text) = update();
    assert!(code == Some(0) && text.contains("new list"), "{text}");
    let (_, text) = run(&["tags", "list"]);
    assert!(
        text.contains("of 2026-11-16"),
        "the date is in the link: {text}"
    );
    let (code, text) = update();
    assert!(
        code == Some(0) && text.contains("still the newest"),
        "{text}"
    );

    // Another link is another edition, whatever was known of the former.
    serve(
        &link.replace("1116", "1123"),
        azure(11, &[("A", 9), ("B", 8)]),
    );
    let (code, text) = update();
    assert!(code == Some(0) && text.contains("new list"), "{text}");

    serve(
        &link.replace("download.microsoft.com", "lists.example"),
        one(),
    );
    let (code, text) = update();
    assert!(
        code == Some(3) && text.contains("links to no list"),
        "{text}"
    );
    place.server.does(
        move |request, stream| match request.contains("GET /en-us/") {
            true => answer(
                stream,
                "302 Found",
                "Location: https://lists.example/x\r\n",
                "",
            ),
            false => answer(stream, "200 OK", "", &format!("<a href=\"{link}\">")),
        },
    );
    let (code, text) = update();
    assert!(code == Some(3) && text.contains("another host"), "{text}");
    let moved = link.replace("1116", "1130");
    place.server.does(move |request, stream| {
        if request.contains("GET /en-us/") {
            answer(stream, "200 OK", "", &format!("<a href=\"{moved}\">"));
        } else if request.contains("GET /download/") {
            answer(
                stream,
                "302 Found",
                "Location: https://lists.example/x\r\n",
                "",
            );
        } else {
            answer(stream, "200 OK", "", &azure(12, &[("A", 9), ("B", 8)]));
        }
    });
    let (code, text) = update();
    assert!(code == Some(3) && text.contains("another host"), "{text}");
}
