//! The command line as a person meets it: exit codes and first words.

use std::process::{Command, Output};

use netfilter_daemon::lab::{dns::Zone, mounts, namespace::Namespace};

use crate::world::{BINARY, World};

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn check(policy: &str) -> (Option<i32>, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), policy).unwrap();
    let output = run(&["check", file.path().to_str().unwrap()]);
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn a_warning_is_an_error_where_it_is_asked_to_be() {
    let check = |policy: &str, strict: bool| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), policy).unwrap();
        let path = file.path().to_str().unwrap();
        let output = if strict {
            run(&["check", "--strict", path])
        } else {
            run(&["check", path])
        };
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let risky = rule("{ name: files, type: fqdn, destination: \"*.blob.core.windows.net\" }");
    let place = ":3:5: rule `files`: *.blob.core.windows.net is also what others rent";
    let (code, said) = check(&risky, false);
    assert!(code == Some(0) && said.contains(place), "{said}");
    let (code, said) = check(&risky, true);
    assert!(code == Some(2) && said.contains(place), "{said}");
    assert!(said.contains("error: --strict"), "{said}");
    let own = rule("{ name: files, type: fqdn, destination: mine.blob.core.windows.net }");
    assert_eq!(check(&own, true).0, Some(0));
}

fn rule(body: &str) -> String {
    format!("resolvers: [10.0.0.53]\noutbound_rules:\n  - {body}\n")
}

#[test]
fn a_policy_mistake_exits_2_with_its_place_and_a_remedy() {
    let long = format!(
        "{{ name: a, type: fqdn, destination: {}.example }}",
        "a".repeat(300)
    );
    let cases = [
        ("bad YAML", "outbound_rules: [".to_owned(), ""),
        (
            "unknown key",
            "outbound_rulez: []".to_owned(),
            "outbound_rules",
        ),
        (
            "unknown tag",
            rule(
                "{ name: a, type: service_tag, destination: { service_tag: AzureActivDirectory, protocol: TCP, port_ranges: '443' } }",
            ),
            "AzureActiveDirectory",
        ),
        (
            "bad CIDR",
            rule(
                "{ name: a, type: ip, destination: { cidr: 10.0.0/8, protocol: TCP, port_ranges: '443' } }",
            ),
            "",
        ),
        (
            "host bits",
            rule(
                "{ name: a, type: ip, destination: { cidr: 10.20.1.1/16, protocol: TCP, port_ranges: '443' } }",
            ),
            "10.20.0.0/16",
        ),
        (
            "empty range",
            rule(
                "{ name: a, type: ip, destination: { cidr: 10.0.0.0/8, protocol: TCP, port_ranges: '9-8' } }",
            ),
            "8-9",
        ),
        (
            "port 70000",
            rule(
                "{ name: a, type: ip, destination: { cidr: 10.0.0.0/8, protocol: TCP, port_ranges: '70000' } }",
            ),
            "65535",
        ),
        (
            "wildcard in the middle",
            rule("{ name: a, type: fqdn, destination: a.*.example }"),
            "*.",
        ),
        (
            "two of one name",
            rule(
                "{ name: a, type: fqdn, destination: a.example }\n  - { name: a, type: fqdn, destination: b.example }",
            ),
            "line 3",
        ),
        ("300 characters", rule(&long), "253"),
    ];
    for (what, policy, remedy) in cases {
        let (code, said) = check(&policy);
        assert_eq!(code, Some(2), "{what}: {said}");
        let place = said.split_whitespace().next().unwrap();
        assert_eq!(
            place.matches(':').count(),
            3,
            "{what}: file:line:column: {said}"
        );
        assert!(said.contains(remedy), "{what}: {said}");
    }
}

#[test]
fn explain_exits_0_for_allowed_and_1_for_denied() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "presets: [azure-ml]\nresolvers: [10.0.0.53]\n").unwrap();
    let explain = |destination: &str| {
        run(&[
            "explain",
            "--policy",
            file.path().to_str().unwrap(),
            destination,
        ])
        .status
        .code()
    };
    assert_eq!(explain("mcr.microsoft.com:443"), Some(0));
    assert_eq!(explain("x.data.mcr.microsoft.com:443"), Some(0));
    assert_eq!(explain("data.mcr.microsoft.com:443"), Some(1));
    assert_eq!(explain("mcr.microsoft.com:22"), Some(1));
    assert_eq!(explain("8.8.8.8:443"), Some(1));
    assert_eq!(run(&["explain", "8.8.8.8"]).status.code(), Some(2));
}

#[test]
fn a_state_directory_that_is_no_bpffs_exits_3_and_attaches_nothing() {
    let inside = Namespace::new()
        .unwrap()
        .with_private_mounts(mounts::prepare)
        .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "resolvers: [10.0.0.53]\noutbound_rules: []\n").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let output = inside
        .command(BINARY)
        .args(["run", "--interface", "lo", "--policy"])
        .arg(file.path())
        .arg("--state-dir")
        .arg(elsewhere.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("mount -t bpf"), "{said}");
}

/// What a newcomer meets, and the words that say what to do.
#[test]
fn what_a_newcomer_does_wrong_is_told_with_what_to_do() {
    let world = World::new(None);
    world.write_policy("outbound_rules: []\n");
    let meets = |arguments: &[&str], code: i32, words: &[&str]| {
        let output = world.daemon(arguments);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        for words in words {
            assert!(said.contains(words), "{arguments:?}: {said}");
        }
        let lines = said.lines().filter(|line| !line.contains(" INFO "));
        assert!(lines.count() <= 2, "{arguments:?}: {said}");
    };
    let run = |more: &[&'static str]| {
        let run = ["run", "--policy", mounts::POLICY, "--interface", "eth0"];
        [&run[..], more].concat()
    };
    let missing = "; name another file, or write one: `isolation_mode: allow_internet_outbound`";
    meets(
        &["run", "--policy", "/nowhere.yaml"],
        2,
        &["/nowhere.yaml: ", missing],
    );
    meets(&["check", "/run"], 2, &["; name the file in it"]);
    meets(
        &run(&["--interface", "eth9"]),
        2,
        &["`eth9`", "eth0: name one of those"],
    );
    let elsewhere = ["leave --state-dir out", "mount -t bpf bpf /run/nowhere"];
    meets(&run(&["--state-dir", "/run/nowhere"]), 3, &elsewhere);
    let taken = world
        .protected()
        .run(|| std::net::TcpListener::bind("127.0.0.1:9477"));
    let taken = taken.unwrap().unwrap();
    meets(&run(&[]), 3, &["`ss -ltnp 'sport = :9477'`", "--listen"]);
    drop(taken);
    // A start that was refused leaves nothing that could be taken for a filter.
    meets(
        &["status"],
        1,
        &["nothing is in force", "`netfilter-daemon run"],
    );
    for asked in ["reload", "confirm", "events"] {
        meets(&[asked], 1, &["`netfilter-daemon run`"]);
    }
    meets(
        &["tags", "show", "Storag"],
        1,
        &["did you mean Storage", "tags list"],
    );
    let daemon = world.start();
    let other = format!("`kill {}`", daemon.id());
    meets(&run(&[]), 3, &[&other, "detach --state-dir"]);
}

/// Aliases without rules, an address that a rule denies, and a name whose answer is
/// too long for UDP.
fn zone() -> Zone {
    let mut zone = Zone::new();
    zone.alias("mcr.microsoft.com", 300, "global_frontend.example.net")
        .unwrap();
    zone.alias("global_frontend.example.net", 0, "edge.example.net")
        .unwrap();
    for address in ["192.0.2.10", "192.0.2.66", "2001:db8::10"] {
        zone.address("edge.example.net", 30, address.parse().unwrap())
            .unwrap();
    }
    for last in 1..=120 {
        let address = [198, 18, 0, last].into();
        zone.address("many.data.mcr.microsoft.com", 60, address)
            .unwrap();
    }
    zone.address("evil.example.net", 60, [192, 0, 2, 67].into())
        .unwrap();
    zone
}

#[test]
fn explain_resolves_a_name_and_judges_what_its_addresses_may() {
    let world = World::new(Some(zone()));
    let deny = "{ name: hole, type: ip, action: deny, destination: { cidr: 192.0.2.64/26, protocol: '*', port_ranges: '*' } }";
    let policy = format!("presets: [azure-ml]\noutbound_rules:\n  - {deny}");
    world.write_policy(&policy);
    let explain = |arguments: &[&str]| {
        let fixed = ["explain", "--policy", mounts::POLICY, "--resolve"];
        let output = world.daemon(&[&fixed, arguments].concat());
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let of_mcr = "  asked: 10.99.0.1, fd99::1
      mcr.microsoft.com -> global_frontend.example.net, TTL 300
      global_frontend.example.net -> edge.example.net, TTL 0
      192.0.2.10, TTL 30: allowed by rule `azure-ml/mcr.microsoft.com`
      192.0.2.66, TTL 30: denied by rule `hole` (denied_by_rule)
      2001:db8::10, TTL 30: allowed by rule `azure-ml/mcr.microsoft.com`
";

    let (code, said) = explain(&["mcr.microsoft.com:443"]);
    assert!(code == Some(0) && said.contains(of_mcr), "{said}");
    let (code, said) = explain(&["many.data.mcr.microsoft.com:443"]);
    let told = said.matches("TTL 60: allowed").count();
    assert_eq!((code, told), (Some(0), 120), "over TCP: {said}");
    let (code, said) = explain(&["evil.example.net:443"]);
    let told = "192.0.2.67, TTL 60: denied by rule `hole`";
    assert!(code == Some(1) && said.contains(told), "{said}");
    let (code, said) = explain(&["absent.data.mcr.microsoft.com"]);
    assert!(
        code == Some(0) && said.contains("resolved: there is no such name\n"),
        "{said}"
    );
    let (code, said) = explain(&["192.0.2.10:443"]);
    assert!(code == Some(2) && said.contains("is an address"), "{said}");

    let (_, json) = explain(&["mcr.microsoft.com:443", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["resolution"]["chain"][1]["data"], "edge.example.net");
    assert_eq!(json["resolution"]["addresses"][1]["by"][0]["rule"], "hole");

    let _daemon = world.start();
    let (code, said) = explain(&["mcr.microsoft.com:443"]);
    assert!(code == Some(0) && said.contains(of_mcr), "{said}");
    assert!(world.connects("192.0.2.10", 443) && !world.connects("192.0.2.66", 443));
    let (code, said) = explain(&["evil.example.net:443"]);
    assert!(
        code == Some(1) && said.contains("no such name (with the filter in force"),
        "{said}"
    );
}

#[test]
fn the_lab_lists_its_channels_and_proposes_the_nearest_name() {
    let list = run(&["lab", "--list", "--json"]);
    assert_eq!(list.status.code(), Some(0));
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let keys = ["name", "group", "how", "seen_in", "aim"];
    for channel in list.as_array().unwrap() {
        assert!(keys.iter().all(|key| channel[key].is_string()), "{channel}");
    }
    let list = run(&["lab", "--list", "--only", "udp*"]);
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(
        text.starts_with("plain\n  udp") && !text.contains("\n  tcp "),
        "{text}"
    );

    for (arguments, why) in [
        (&["--only", "polisy"][..], "did you mean `policy`?"),
        (&["--only", "plain,nothing"], "no such channel or group"),
        (&["--json", "--junit"], "cannot be used with"),
        (&["--list", "--markdown"], "cannot be used with"),
        (&["--sink", "192.0.2.1"], "--policy <FILE>"),
        (&["--yes"], "--sink"),
    ] {
        let output = run(&[&["lab"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
}

#[test]
fn the_lab_runs_what_is_chosen_and_says_it_in_the_form_that_is_asked_for() {
    let lab = |arguments: &[&str]| {
        let output = run(&[&["lab"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        let stages: Vec<_> = said.lines().collect();
        let without = stages.contains(&"lab: without the filter");
        assert!(without && !said.contains("channel 1 of"), "{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let probed: serde_json::Value =
        serde_json::from_str(&lab(&["--only", "policy", "--json"])).unwrap();
    assert_eq!(probed["channels"], serde_json::json!([]));
    assert_eq!(probed["policy"]["probes"][0]["expected"], "passed");
    let junit = lab(&["--only", "udp6", "--junit"]);
    let suite =
        "<testsuite name=\"lab.plain\" tests=\"2\" failures=\"0\" errors=\"0\" skipped=\"0\">";
    assert!(
        junit.contains(suite) && !junit.contains("lab.policy"),
        "{junit}"
    );
    let markdown = lab(&["--only", "udp6", "--markdown"]);
    assert!(
        markdown.contains("| plain | `udp6 (workload)` | "),
        "{markdown}"
    );
    let table = lab(&["--only", "policy", "--only", "udp6"]);
    let [.., probes, host, workload] = table.lines().collect::<Vec<_>>()[..] else {
        panic!("{table}")
    };
    assert!(
        probes.contains(" probes came out as the policy says: "),
        "{table}"
    );
    let all_blocked = "1 channels: 1 blocked, 0 leaked, 0 out of scope, 0 unavailable";
    assert_eq!(host, format!("host:     {all_blocked}"));
    assert_eq!(workload, format!("workload: {all_blocked}"));
}
