//! What is believed of a server, and how long it is borne.

use super::*;

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
