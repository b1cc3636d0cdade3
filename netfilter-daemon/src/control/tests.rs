use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    client::{ask_in, follow_in},
    *,
};
use crate::daemon::{denials::Denials, event::tests::reported, history::KEPT};

const RELOAD: Request = Request::Reload { confirm: None };

const STATE_DIR: &str = "/sys/fs/bpf/netfilter";

fn name(state_dir: &str) -> String {
    let socket = socket(Path::new("/run/netfilter-daemon"), Path::new(state_dir)).unwrap();
    socket.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_state_directory_has_one_socket_however_it_is_written() {
    assert_eq!(name("/sys/fs/bpf/netfilter"), "sys-fs-bpf-netfilter.sock");
    assert_eq!(name("/sys/fs/bpf//netfilter/"), "sys-fs-bpf-netfilter.sock");
    assert_eq!(name("/sys/fs/./bpf/netfilter"), "sys-fs-bpf-netfilter.sock");
}

#[test]
fn two_state_directories_never_share_a_socket() {
    assert_eq!(name("/bpf/a-b"), "bpf-a%2db.sock");
    assert_eq!(name("/bpf/a/b"), "bpf-a-b.sock");
    assert_eq!(name("/bpf/a%2db"), "bpf-a%252db.sock");
}

#[test]
fn a_path_that_no_socket_can_have_is_refused_with_the_reason() {
    let long = format!("/{}", "x".repeat(100));
    let error = socket(Path::new("/run/netfilter-daemon"), Path::new(&long)).unwrap_err();
    assert!(
        error.to_string().contains("must be shorter than 108 bytes"),
        "{error}"
    );
}

#[test]
fn requests_are_one_line_of_json() {
    let written = serde_json::to_string(&RELOAD).unwrap();
    assert_eq!(written, r#"{"request":"reload","confirm":null}"#);
    assert!(serde_json::from_str::<Request>(r#"{"request":"explode"}"#).is_err());
}

#[test]
fn a_second_daemon_is_told_which_process_is_the_first_and_how_to_stop_it() {
    let directory = tempfile::tempdir().unwrap();
    let first = claim_in(directory.path(), Path::new(STATE_DIR)).unwrap();
    let error = claim_in(directory.path(), Path::new(STATE_DIR))
        .unwrap_err()
        .to_string();
    let pid = std::process::id();
    assert_eq!(
        error,
        format!(
            "a daemon already runs with the state directory /sys/fs/bpf/netfilter (process {pid}); \
             stop it with `kill {pid}`, which leaves the filter in force, or with \
             `netfilter-daemon detach --state-dir /sys/fs/bpf/netfilter`, which lifts it"
        )
    );
    claim_in(directory.path(), Path::new("/sys/fs/bpf/other")).unwrap();
    drop(first);
    claim_in(directory.path(), Path::new(STATE_DIR)).unwrap();
}

#[test]
fn nobody_but_the_owner_can_enter_the_directory_or_open_the_files() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("netfilter-daemon");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    let claim = claim_in(&directory, Path::new(STATE_DIR)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&claim.socket.with_extension("lock")), 0o600);
}

#[test]
fn without_a_daemon_there_is_no_answer_and_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let answer = ask_in(directory.path(), Path::new(STATE_DIR), Request::Status);
    assert!(matches!(answer, Ok(None)));
}

/// A daemon whose loop answers every reload and then stops.
fn serve_one(directory: &Path) -> tokio::task::JoinHandle<()> {
    let claim = claim_in(directory, Path::new(STATE_DIR)).unwrap();
    let socket = Socket::bind(claim).unwrap();
    tokio::spawn(async move {
        let (sender, mut asks) = mpsc::channel::<Ask>(1);
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(socket.serve(sender, stopped));
        let ask = asks.recv().await.unwrap();
        assert_eq!(ask.request, RELOAD);
        let answer = Answer::Reloaded {
            rules: 12,
            generation: 3,
            refused: Vec::new(),
        };
        ask.reply.send(answer.into()).unwrap();
        stop.send(()).unwrap();
        server.await.unwrap();
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_reaches_the_asker_even_if_the_daemon_stops_right_after_it() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..50 {
        let daemon = serve_one(directory.path());
        let path = directory.path().to_owned();
        let ask = move || ask_in(&path, Path::new(STATE_DIR), RELOAD);
        let answer = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
        assert_eq!(
            answer,
            Some(Answer::Reloaded {
                rules: 12,
                generation: 3,
                refused: Vec::new(),
            })
        );
        daemon.await.unwrap();
        let path = directory.path().to_owned();
        let ask = move || ask_in(&path, Path::new(STATE_DIR), RELOAD);
        assert_eq!(
            tokio::task::spawn_blocking(ask).await.unwrap().unwrap(),
            None
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_answered_with_an_error() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let directory = tempfile::tempdir().unwrap();
    let daemon = serve_one(directory.path());
    let path = socket(directory.path(), Path::new(STATE_DIR)).unwrap();
    let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with(r#"{"answer":"failed","error":"not a request: "#),
        "{answer}"
    );
    daemon.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_asks_nothing_does_not_keep_the_daemon_from_ending() {
    let directory = tempfile::tempdir().unwrap();
    let claim = claim_in(directory.path(), Path::new(STATE_DIR)).unwrap();
    let (sender, _asks) = mpsc::channel::<Ask>(1);
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(Socket::bind(claim).unwrap().serve(sender, stopped));
    let path = socket(directory.path(), Path::new(STATE_DIR)).unwrap();
    let _silent = tokio::net::UnixStream::connect(path).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.send(()).unwrap();
    timeout(Duration::from_secs(2), server)
        .await
        .unwrap()
        .unwrap();
}

/// A daemon that lets one reader follow, until `stop`.
fn serve_follower(
    directory: &Path,
    denials: &Arc<Denials>,
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let claim = claim_in(directory, Path::new(STATE_DIR)).unwrap();
    let (sender, mut asks) = mpsc::channel::<Ask>(1);
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(Socket::bind(claim).unwrap().serve(sender, stopped));
    let follower = denials.follow().unwrap();
    tokio::spawn(async move {
        let ask = asks.recv().await.unwrap();
        assert_eq!(ask.request, Request::Follow);
        ask.reply.send(Reply::Follow(follower)).unwrap();
    });
    (stop, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_holds_nobody_back_and_is_told_what_it_missed() {
    let directory = tempfile::tempdir().unwrap();
    let denials = Arc::new(Denials::default());
    denials.note(reported());
    let (stop, server) = serve_follower(directory.path(), &denials);
    let path = directory.path().to_owned();
    let follow = move || follow_in(&path, Path::new(STATE_DIR)).unwrap().unwrap();
    let mut answers = tokio::task::spawn_blocking(follow).await.unwrap();
    // Far more than the socket's buffer takes, and than is kept.
    let count = 20_000;
    for _ in 1..count {
        denials.note(reported());
        tokio::task::yield_now().await;
    }
    let read = move || {
        let (mut skipped, mut told) = (0, 0);
        while skipped + told < count {
            let Some(Ok(Answer::Events(events))) = answers.next() else {
                panic!("after {told} events");
            };
            skipped += events.skipped;
            told += events.events.len() as u64;
        }
        (answers, skipped, told)
    };
    let (mut answers, skipped, told) = tokio::task::spawn_blocking(read).await.unwrap();
    assert!(skipped > 0 && told >= KEPT as u64, "{skipped} and {told}");
    stop.send(()).unwrap();
    server.await.unwrap();
    assert!(answers.next().is_none(), "the daemon has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_ends_with_its_reader_and_with_the_daemon_even_if_nobody_reads() {
    let directory = tempfile::tempdir().unwrap();
    let denials = Arc::new(Denials::default());
    let (stop, server) = serve_follower(directory.path(), &denials);
    let path = directory.path().to_owned();
    let follow = move || follow_in(&path, Path::new(STATE_DIR)).unwrap().unwrap();
    let answers = tokio::task::spawn_blocking(follow).await.unwrap();
    drop(answers);
    let gone = async {
        while denials.followers() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(2), gone).await.unwrap();
    stop.send(()).unwrap();
    server.await.unwrap();

    let (stop, server) = serve_follower(directory.path(), &denials);
    let path = directory.path().to_owned();
    let follow = move || follow_in(&path, Path::new(STATE_DIR)).unwrap().unwrap();
    let _unread = tokio::task::spawn_blocking(follow).await.unwrap();
    for _ in 0..5000 {
        denials.note(reported());
        tokio::task::yield_now().await;
    }
    stop.send(()).unwrap();
    timeout(Duration::from_secs(2), server)
        .await
        .unwrap()
        .unwrap();
}
