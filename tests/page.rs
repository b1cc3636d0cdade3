//! The status page in a real browser: whole without a script, up to date with one, and deaf to
//! whatever the names and processes in it say.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::daemon::Daemon;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::{World, eventually, patience};

mod browser;

use browser::Browser;

const POLICY: &str = "
outbound_rules:
  - { name: used, type: ip, destination: { cidr: 192.0.2.0/24, protocol: TCP, port_ranges: '443' } }
  - { name: never-used, type: ip, destination: { cidr: 198.51.100.0/24, protocol: TCP, port_ranges: '443' } }
";
const PAGE: &str = "http://127.0.0.1:9477/";
const DENIED: &str = "203.0.113.9";
/// Paths and a name that would do something, were they anything but text.
const PATHS: [&str; 3] = [
    "<script>canary=1</script>",
    "\"><img src=http://203.0.113.9/ onerror=canary=1>",
    "cod\u{202e}gpj.exe",
];
const NAME: &str = "\"><svg/onload=canary=1>.example";

/// Has each of [`PATHS`] denied something, and the name asked for.
fn misbehave(world: &World) -> TempDir {
    let directory = TempDir::new().unwrap();
    for path in PATHS {
        let program = directory.path().join(path);
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        // By another process: what this one writes, it cannot run while others are started.
        let copied = Command::new("cp").arg("/bin/bash").arg(&program).status();
        assert!(copied.unwrap().success());
        let script = format!("echo x > /dev/udp/{DENIED}/443");
        world.succeeds(program.to_str().unwrap(), &["-c", &script]);
    }
    world.succeeds("dig", &["+tries=1", "+time=2", "@10.99.0.1", NAME]);
    let told = || String::from_utf8(world.daemon(&["events"]).stdout).unwrap();
    assert!(
        eventually(|| told().contains("onload") && told().contains("gpj.exe")),
        "{}",
        told()
    );
    // The counters are looked at each second.
    assert!(
        eventually(|| world.get("/").contains("<svg")),
        "{}",
        world.get("/")
    );
    directory
}

fn start() -> (World, Daemon, TempDir) {
    let world = World::new(None);
    let daemon = world.enforce(POLICY);
    assert!(world.connects("192.0.2.1", 443));
    let directory = misbehave(&world);
    (world, daemon, directory)
}

/// Polls until the page says so; it looks for news every five seconds.
fn becomes(browser: &mut Browser, expression: &str, expected: &Value) {
    let begun = Instant::now();
    loop {
        let value = browser.value(expression);
        if value == *expected {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30) * patience(),
            "{expression} stays {value}"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_browser_without_scripts_shows_everything() {
    let (world, _daemon, _directory) = start();
    let mut browser = Browser::start(&world);
    browser.run_no_scripts();
    browser.ask("Page.navigate", &json!({ "url": PAGE }));
    let mut page = String::new();
    assert!(
        eventually(|| {
            page = browser.document().unwrap_or_else(|error| error);
            page.contains("</footer>")
        }),
        "{page}"
    );
    for shown in [
        "<strong>Enforcing</strong>",
        "Denied in the last hour",
        "<svg",
        "no_rule",
        "dns_name",
        DENIED,
        "&lt;script&gt;canary=1&lt;/script&gt;",
        "gpj.exe",
        "\\u{202e}",
        "used",
        "never-used",
        "LEASES",
        "http-equiv=\"refresh\"",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    for never in ["<img", "<svg/", "\u{202e}"] {
        assert!(!page.contains(never), "{never}: {page}");
    }
}

#[test]
fn the_page_keeps_itself_up_to_date_and_obeys_nothing_in_it() {
    let (world, daemon, _directory) = start();
    let mut browser = Browser::start(&world);
    browser.ask("Page.navigate", &json!({ "url": PAGE }));
    becomes(&mut browser, "document.readyState", &"complete".into());

    // Without being loaded again, and without closing what somebody has opened.
    browser.value("kept = 1; document.getElementById('recent').open = true");
    assert!(!world.connects("203.0.113.77", 8443));
    let names = "document.getElementById('names').innerText.includes('203.0.113.77')";
    assert_eq!(browser.value(names), false);
    becomes(&mut browser, names, &true.into());
    assert_eq!(browser.value("kept"), 1);
    assert_eq!(
        browser.value("document.getElementById('recent').open"),
        true
    );
    let shown = browser.value("document.body.innerText");
    for hostile in [
        "<script>canary=1</script>",
        "onerror=canary=1>",
        "svg/onload=canary=1>",
    ] {
        assert!(
            shown.as_str().unwrap().contains(hostile),
            "{hostile}: {shown}"
        );
    }

    assert_eq!(browser.value("typeof canary"), "undefined");
    let expected = browser.value("document.title");
    assert!(
        expected.as_str().unwrap().starts_with("enforcing · "),
        "{expected}"
    );
    let asked: Vec<&Value> = browser.told("Network.requestWillBeSent");
    assert!(asked.len() >= 2, "the page, and again");
    for each in asked {
        let url = each["params"]["request"]["url"].as_str().unwrap();
        assert!(url.starts_with(PAGE), "{url}");
    }
    let complaints = browser.told("Log.entryAdded");
    assert!(complaints.is_empty(), "{complaints:?}");

    // Were there a hole, nothing could come through it.
    let written = browser.value("document.body.innerHTML = '<img src=x onerror=canary=1>'");
    assert!(written.to_string().contains("TrustedHTML"), "{written}");
    browser.value(
        "image = new Image(); image.src = 'http://203.0.113.9/'; document.body.append(image)",
    );
    browser.value("button = document.createElement('p'); button.setAttribute('onclick', 'canary=1'); button.click()");
    assert_eq!(browser.value("typeof canary"), "undefined");
    let blocked = |browser: &Browser| {
        let entries = browser.told("Log.entryAdded").into_iter();
        entries
            .filter(|entry| entry.to_string().contains("Content Security Policy"))
            .count()
    };
    assert!(
        eventually(|| {
            browser.value("1");
            blocked(&browser) > 0
        }),
        "what is blocked shows"
    );

    // On a telephone nothing but tables is moved sideways.
    let narrow = json!({ "width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": false });
    browser.ask("Emulation.setDeviceMetricsOverride", &narrow);
    becomes(&mut browser, "innerWidth", &360.into());
    let beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.value(beyond), 0);

    let is_old = "!document.getElementById('stale').hidden";
    assert_eq!(browser.value(is_old), false);
    drop(daemon);
    becomes(&mut browser, is_old, &true.into());
    assert!(
        browser
            .value("document.body.innerText")
            .as_str()
            .unwrap()
            .contains("203.0.113.77")
    );
    let _daemon = world.start();
    becomes(&mut browser, is_old, &false.into());
}

/// The far end of the link is not the machine itself.
#[test]
fn who_asks_from_elsewhere_is_shown_no_names() {
    let world = World::new(None);
    world.write_policy("inbound: [{ protocol: TCP, port_ranges: '9477' }]\noutbound_rules: []");
    let mut command = world.protected().command(crate::world::BINARY);
    command.args([
        "run",
        "--interface",
        "eth0",
        "--listen",
        "0.0.0.0:9477",
        "--policy",
    ]);
    command.arg(netfilter_daemon::lab::mounts::POLICY);
    let _daemon = Daemon::start(command).unwrap();
    assert!(!world.connects(DENIED, 443));
    let mut here = String::new();
    assert!(
        eventually(|| {
            here = world.get("/");
            here.contains(DENIED) && here.contains("<svg")
        }),
        "{here}"
    );
    let mut curl = world.topology.internet.command("curl");
    curl.args(["-s", "-i", "--max-time", "5", "http://10.99.0.2:9477/"]);
    let there = String::from_utf8(curl.output().unwrap().stdout).unwrap();
    assert!(
        there.contains("no_rule") && there.contains("from the machine itself"),
        "{there}"
    );
    assert!(!there.contains(DENIED), "{there}");
}
