use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::bail;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{connections::Bounds, *};
use crate::daemon::overview::tests::some;

/// A filter that is ill when told so.
#[derive(Default)]
struct Filter {
    ill: AtomicBool,
    slow: bool,
    read: AtomicUsize,
}

impl Source for Filter {
    fn snapshot(&self) -> anyhow::Result<Snapshot> {
        self.read.fetch_add(1, Ordering::Relaxed);
        if self.slow {
            std::thread::sleep(Duration::from_millis(200));
        }
        if self.ill.load(Ordering::Relaxed) {
            bail!("cannot read COUNTERS");
        }
        Ok(Snapshot {
            generation: 7,
            ..Snapshot::default()
        })
    }

    fn overview(&self) -> anyhow::Result<Overview> {
        if self.ill.load(Ordering::Relaxed) {
            bail!("cannot read COUNTERS");
        }
        Ok(some())
    }

    fn health(&self) -> Result<(), String> {
        if self.ill.load(Ordering::Relaxed) {
            return Err("eth0 is not filtered".to_owned());
        }
        Ok(())
    }
}

/// Whoever reaches it may read.
fn open() -> Arc<Guard> {
    Arc::new(Guard::of(None).unwrap())
}

fn start(filter: Filter) -> SocketAddr {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Arc::new(filter), open()));
    address
}

/// Sends the request and reads until the server closes, which it must.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(5), stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

async fn get_page(address: SocketAddr, path: &str) -> String {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

fn bound() -> tokio::net::TcpListener {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listener.set_nonblocking(true).unwrap();
    tokio::net::TcpListener::from_std(listener).unwrap()
}

#[tokio::test]
async fn metrics_come_in_the_format_that_was_asked_for() {
    let address = start(Filter::default());
    let plain = get_page(address, "/metrics").await;
    assert!(plain.starts_with("HTTP/1.1 200 OK\r\n"), "{plain}");
    assert!(plain.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(plain.contains("\nnetfilter_policy_generation 7\n"));
    assert!(!plain.contains("# EOF"));

    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\
        Accept: application/openmetrics-text;version=1.0.0\r\n\r\n";
    let open = exchange(address, request).await;
    assert!(
        open.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(open.ends_with("# EOF\n"));
}

#[tokio::test]
async fn health_is_200_while_filtering_and_503_with_the_reason_otherwise() {
    let well = get_page(start(Filter::default()), "/healthz").await;
    assert!(well.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(well.ends_with("\r\n\r\nok\n"));

    let ill = get_page(
        start(Filter {
            ill: AtomicBool::new(true),
            ..Filter::default()
        }),
        "/healthz",
    )
    .await;
    assert!(ill.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    assert!(ill.ends_with("\r\n\r\neth0 is not filtered\n"));
}

#[tokio::test]
async fn metrics_that_cannot_be_read_are_an_error_and_not_zeros() {
    let address = start(Filter {
        ill: AtomicBool::new(true),
        ..Filter::default()
    });
    let page = get_page(address, "/metrics").await;
    assert!(page.starts_with("HTTP/1.1 500 "));
    assert!(page.ends_with("cannot read COUNTERS\n"));
}

#[tokio::test]
async fn nothing_but_reading_is_possible() {
    let address = start(Filter::default());
    for method in ["POST", "PUT", "DELETE"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let answer = exchange(address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }
    assert!(
        get_page(address, "/nowhere")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
}

#[tokio::test]
async fn the_page_is_for_people_and_nothing_in_it_runs_but_its_own() {
    let address = start(Filter::default());
    let request = "GET / HTTP/1.1\r\nHost: 127.0.0.1:9477\r\n\r\n";
    let answer = exchange(address, request).await;
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for header in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-store",
        "referrer-policy: no-referrer",
        "x-content-type-options: nosniff",
        "x-frame-options: DENY",
        "cross-origin-resource-policy: same-origin",
        "cross-origin-opener-policy: same-origin",
    ] {
        assert!(head.contains(&format!("\r\n{header}")), "{header}: {head}");
    }
    let policy = head
        .lines()
        .find(|line| line.starts_with("content-security-policy: "));
    let policy = policy.unwrap();
    for never in ["unsafe", "http", "data:", "*", "nonce"] {
        assert!(!policy.contains(never), "{never}: {policy}");
    }
    for always in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ] {
        assert!(policy.contains(always), "{always}: {policy}");
    }
    assert!(!head.contains("set-cookie"), "{head}");
    assert!(
        page.contains("href=\"metrics\"") && page.contains("/usr/bin/pip3"),
        "from loopback"
    );
    for path in ["/metrics", "/healthz", "/nowhere"] {
        assert!(
            get_page(address, path)
                .await
                .contains("\r\nx-content-type-options: nosniff")
        );
    }
}

#[tokio::test]
async fn a_website_that_leads_its_own_name_here_gets_no_page_and_scrapers_get_metrics() {
    let address = start(Filter::default());
    for host in [
        "evil.example",
        "evil.example:9477",
        "127.0.0.1.evil.example",
    ] {
        let asked = async |path| {
            exchange(
                address,
                &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            )
            .await
        };
        let refused = asked("/").await;
        assert!(refused.starts_with("HTTP/1.1 421 "), "{refused}");
        assert!(!refused.contains("pip3"));
        assert!(asked("/metrics").await.starts_with("HTTP/1.1 200 "));
    }
    let local = exchange(address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(local.starts_with("HTTP/1.1 200 "));
}

#[test]
fn who_asks_from_elsewhere_sees_less() {
    let from =
        |address: &str, standing| Client(SocketAddr::new(address.parse().unwrap(), 1), standing);
    let detail = |address: &str| super::detail(from(address, Standing::Encrypted), None);
    for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(detail(here), Detail::Told, "{here}");
    }
    for elsewhere in ["10.0.0.5", "192.0.2.1", "fe80::1", "::ffff:10.0.0.5", "::"] {
        assert_eq!(detail(elsewhere), Detail::Withheld, "{elsewhere}");
        let certified = from(elsewhere, Standing::Certified);
        assert_eq!(super::detail(certified, None), Detail::Told, "{elsewhere}");
        let plain = from(elsewhere, Standing::Plain);
        assert_eq!(
            super::detail(plain, Some(auth::Proven)),
            Detail::Told,
            "{elsewhere}"
        );
    }
}

#[tokio::test]
async fn a_page_that_cannot_be_read_is_an_error() {
    let address = start(Filter {
        ill: AtomicBool::new(true),
        ..Filter::default()
    });
    let page = exchange(address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(page.starts_with("HTTP/1.1 500 "), "{page}");
}

#[tokio::test]
async fn clients_that_say_nothing_are_cut_off_and_make_room() {
    let listener = bound();
    let address = listener.local_addr().unwrap();
    let life = Duration::from_millis(300);
    let bounds = Bounds {
        at_once: 2,
        life,
        grace: Duration::from_secs(9),
        ..Bounds::default()
    };
    let connections = Connections::bounded(listener, bounds);
    let server = axum::serve(connections, router(Arc::new(Filter::default())));
    tokio::spawn(server.into_future());

    let begun = Instant::now();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        .await
        .unwrap();
    let page = get_page(address, "/healthz").await;
    assert!(page.ends_with("ok\n"));
    assert!(begun.elapsed() >= life, "there was no room before");
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(slow.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn silent_clients_give_way_to_those_that_ask() {
    let listener = bound();
    let address = listener.local_addr().unwrap();
    let bounds = Bounds {
        at_once: 2,
        grace: Duration::from_millis(20),
        ..Bounds::default()
    };
    let connections = Connections::bounded(listener, bounds);
    let server = axum::serve(connections, router(Arc::new(Filter::default())));
    tokio::spawn(server.into_future());

    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let begun = Instant::now();
    assert!(get_page(address, "/healthz").await.ends_with("ok\n"));
    assert!(begun.elapsed() < bounds.life / 2);
    assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn who_has_asked_does_not_give_way() {
    let listener = bound();
    let address = listener.local_addr().unwrap();
    let bounds = Bounds {
        at_once: 1,
        grace: Duration::from_millis(20),
        ..Bounds::default()
    };
    let connections = Connections::bounded(listener, bounds);
    let filter = Filter {
        slow: true,
        ..Filter::default()
    };
    tokio::spawn(axum::serve(connections, router(Arc::new(filter))).into_future());
    let asked = tokio::spawn(get_page(address, "/metrics"));
    sleep(Duration::from_millis(50)).await;
    let other = get_page(address, "/healthz").await;
    assert!(other.ends_with("ok\n"));
    assert!(
        asked
            .await
            .unwrap()
            .contains("netfilter_policy_generation 7")
    );
}

#[tokio::test]
async fn a_request_without_an_end_is_cut_off() {
    let address = start(Filter::default());
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nX: ")
        .await
        .unwrap();
    let written = async { while stream.write_all(&[b'x'; 1024]).await.is_ok() {} };
    timeout(Duration::from_secs(5), written).await.unwrap();
}

#[tokio::test]
async fn those_who_ask_at_once_are_answered_by_one_reading() {
    let filter = Arc::new(Filter {
        slow: true,
        ..Filter::default()
    });
    let listener = bound();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(
        listener.into_std().unwrap(),
        Arc::clone(&filter),
        open(),
    ));
    let asked: Vec<_> = (0..20)
        .map(|_| tokio::spawn(get_page(address, "/metrics")))
        .collect();
    for page in asked {
        assert!(
            page.await
                .unwrap()
                .contains("netfilter_policy_generation 7")
        );
    }
    let read = filter.read.load(Ordering::Relaxed);
    assert!((1..=4).contains(&read), "read {read} times");
    get_page(address, "/metrics").await;
    assert_eq!(
        filter.read.load(Ordering::Relaxed),
        read + 1,
        "what is old is not shown"
    );
}

#[test]
fn an_address_in_use_is_named_with_the_way_out() {
    let taken = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let error = bind(taken.local_addr().unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("cannot listen on 127.0.0.1:"));
    assert!(error.ends_with("choose another address with --listen"));
}
