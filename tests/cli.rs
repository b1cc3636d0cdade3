//! The command line as a person meets it: exit codes and first words.

use std::process::{Command, Output};

use netfilter_daemon::lab::{mounts, namespace::Namespace};

use crate::world::BINARY;

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
