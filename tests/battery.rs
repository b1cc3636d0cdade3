//! The lab's battery: everything that data is known to leave by is tried, and nothing does.

use std::{
    collections::BTreeSet,
    io,
    os::unix::process::CommandExt,
    process::{Command, Output},
    time::{Duration, Instant},
};

use netfilter_daemon::lab::{
    namespace::Namespace,
    raw::{
        bpf::{self, Place},
        xsk,
    },
};
use serde_json::Value;

use crate::world::{BINARY, patience};

/// Fewer channels would be a loss.
const CHANNELS: usize = 294;

/// On a machine that does nothing else. Most of it is waiting, but other tests run beside it,
/// with labs of their own: where eight want each processor, it has taken 270 s.
const LONGEST: Duration = Duration::from_secs(120);
const BESIDE_OTHERS: u32 = 3;

/// What only the host can do to itself.
const HOST_ONLY: [&str; 3] = ["dns-forged-inside", "qdisc-deleted", "link-detached"];

/// What root on the host sends past its filter, and a workload's root cannot send past XDP.
const STOPPED_BEHIND: [&str; 3] = ["bpf-redirect-peer", "xdp-redirect", "program-before"];

/// Frames that stop a card for a while: no bridge passes them on.
const KEPT_BY_BRIDGES: &str = "pause";

fn lab(arguments: &[&str]) -> (Output, Value) {
    let mut command = Command::new(BINARY);
    let output = command.args(["lab", "--json"]).args(arguments).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {said}"));
    (output, report)
}

/// The names of the rows with this result.
fn with<'a>(report: &'a Value, result: &str) -> BTreeSet<&'a str> {
    let rows = report["channels"].as_array().unwrap().iter();
    rows.filter(|row| row["result"] == result)
        .map(|row| row["name"].as_str().unwrap())
        .collect()
}

/// The names of the rows with this result on a path.
fn on<'a>(report: &'a Value, path: &str, result: &str) -> BTreeSet<&'a str> {
    let rows = report["channels"].as_array().unwrap().iter();
    let is_so = |row: &&Value| {
        let mut paths = row["paths"].as_array().unwrap().iter();
        paths.any(|it| it["path"] == path && it["result"] == result)
    };
    rows.filter(is_so)
        .map(|row| row["name"].as_str().unwrap())
        .collect()
}

fn has_bridges() -> bool {
    let namespace = Namespace::new().unwrap();
    namespace.ip("link add bridge type bridge").is_ok()
}

/// What a workload has no way to try. Without bridges there is none.
fn lacking_behind(report: &Value) -> BTreeSet<&str> {
    if !has_bridges() {
        let rows = report["channels"].as_array().unwrap().iter();
        return rows.map(|row| row["name"].as_str().unwrap()).collect();
    }
    let mut lacking = lacking();
    lacking.insert(KEPT_BY_BRIDGES);
    lacking.retain(|name| !HOST_ONLY.contains(name));
    lacking
}

/// What this kernel has no way to try.
fn lacking() -> BTreeSet<&'static str> {
    let namespace = Namespace::new().unwrap();
    namespace
        .ip("link add eth0 type veth peer name eth1")
        .unwrap();
    let has_child = |kind: &str| {
        let add = format!("link add link eth0 name child type {kind}");
        namespace.ip(&add).is_ok() && namespace.ip("link del child").is_ok()
    };
    let has = |try_it: fn() -> io::Result<()>| namespace.run(try_it).unwrap().is_ok();
    let has_tcx = has(|| bpf::links(Place::Egress, 1).map(drop));
    let filter = "u32 match u32 0 0 action mirred egress redirect dev eth1";
    let needs: [(bool, &[&str]); 8] = [
        (has_child("macvlan"), &["macvlan"]),
        (has_child("ipvlan"), &["ipvlan"]),
        (
            namespace.ip("link add bridge type bridge").is_ok(),
            &["tap-bridge"],
        ),
        (
            has(|| std::fs::File::open("/dev/net/tun").map(drop)),
            &["tap", "tap-bridge"],
        ),
        (
            has(|| match xsk::open("eth0") {
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Err(error),
                _ => Ok(()),
            }),
            &["af-xdp"],
        ),
        (
            has_tcx,
            &[
                "bpf-redirect",
                "bpf-redirect-neigh",
                "bpf-redirect-peer",
                "program-before",
                "link-detached",
            ],
        ),
        (
            succeeds(&namespace, "tc", "qdisc add dev eth0 clsact")
                && succeeds(
                    &namespace,
                    "tc",
                    &format!("filter add dev eth0 ingress protocol all {filter}"),
                ),
            &["tc-mirred"],
        ),
        (
            // Whoever is nobody must be let.
            Command::new("unshare")
                .args(["--user", "--net", "true"])
                .uid(65534)
                .status()
                .unwrap()
                .success(),
            &["container-network"],
        ),
    ];
    let missing = needs.iter().filter(|(has, _)| !has);
    let missing = missing.flat_map(|(_, names)| names.iter().copied());
    missing.collect()
}

fn succeeds(namespace: &Namespace, program: &str, arguments: &str) -> bool {
    let mut command = namespace.command(program);
    let output = command.args(arguments.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

/// The machine's own namespaces and interfaces have no part in it.
#[test]
fn nothing_leaks_by_any_channel_that_this_kernel_has() {
    let begun = Instant::now();
    let (output, report) = lab(&[]);
    let took = begun.elapsed();
    assert_eq!(with(&report, "leaked"), BTreeSet::new());
    assert_eq!(output.status.code(), Some(0), "{}", report["policy"]);
    assert_eq!(report["as_expected"], true);
    let all = report["channels"].as_array().unwrap();
    let paths = all.iter().flat_map(|row| row["paths"].as_array().unwrap());
    let why: Vec<_> = paths
        .map(|path| &path["why"])
        .filter(|why| why.is_string())
        .collect();
    let unavailable = |path| on(&report, path, "unavailable");
    assert_eq!(unavailable("host"), lacking(), "{why:?}");
    assert_eq!(unavailable("workload"), lacking_behind(&report), "{why:?}");
    assert!(all.len() >= CHANNELS, "{}", all.len());
    assert_eq!(on(&report, "host", "host_only"), BTreeSet::new());
    if has_bridges() {
        assert_eq!(
            on(&report, "workload", "host_only"),
            BTreeSet::from(HOST_ONLY)
        );
        let blocked = on(&report, "workload", "blocked");
        let stopped = |name: &&str| blocked.contains(name) || lacking().contains(name);
        assert!(STOPPED_BEHIND.iter().all(stopped), "{blocked:?}");
    }
    // What could not make its network the second time would be called blocked, too.
    for row in all.iter().filter(|row| row["group"] == "around") {
        let paths = row["paths"].as_array().unwrap().iter();
        for path in paths.filter(|path| path["result"] == "blocked") {
            assert!(!path["reasons"].as_object().unwrap().is_empty(), "{row}");
        }
    }
    // What cannot be stopped is shown, with what to do about it.
    for row in all.iter().filter(|row| row["result"] == "out_of_scope") {
        assert!(!row["remedy"].as_str().unwrap().is_empty(), "{row}");
    }
    println!("{} channels in {took:?}", all.len());
    assert!(took < LONGEST * BESIDE_OTHERS * patience(), "{took:?}");
}

/// Runs these channels with a policy through which something leaks.
fn leaking(policy: &str, only: &str) -> Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), policy).unwrap();
    let path = file.path().to_str().unwrap();
    let (output, report) = lab(&["--only", only, "--policy", path]);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    assert_eq!(report["as_expected"], false);
    report
}

#[test]
fn what_a_policy_lets_out_is_called_a_leak() {
    let everything = "outbound_rules:
  - { name: a, type: ip, destination: { cidr: 0.0.0.0/0, protocol: '*', port_ranges: '*' } }
  - { name: b, type: ip, destination: { cidr: '::/0', protocol: '*', port_ranges: '*' } }
";
    let report = leaking(everything, "plain,around");
    let (leaked, lacking) = (on(&report, "host", "leaked"), lacking());
    let behind = on(&report, "workload", "leaked");
    for name in [
        "tcp",
        "tcp6",
        "udp",
        "ping6",
        "sctp",
        "multicast",
        "packet-socket",
        "namespace",
        "namespace-bypass",
        "container",
        "container-network",
        "macvlan",
        "ipvlan",
        "tap",
        "tap-bridge",
        "tc-mirred",
        "bpf-redirect",
        "bpf-redirect-neigh",
    ] {
        assert!(
            leaked.contains(name) || lacking.contains(name),
            "{name}: {report:#}"
        );
        // Redirected frames are not let in, whatever the policy: XDP has not seen them.
        let unjudged = ["tc-mirred", "bpf-redirect"].contains(&name);
        assert!(
            behind.contains(name) != unjudged || lacking.contains(name) || !has_bridges(),
            "{name} of a workload: {report:#}"
        );
    }
    // No policy speaks of what is past tc. To XDP it is like any other.
    let blocked = on(&report, "host", "blocked");
    for name in ["packet-bypass", "packet-ring", "af-xdp"] {
        assert!(
            blocked.contains(name) || lacking.contains(name),
            "{name}: {report:#}"
        );
        assert!(
            behind.contains(name) || lacking.contains(name) || !has_bridges(),
            "{name} of a workload: {report:#}"
        );
    }
}

#[test]
fn whoever_may_pass_by_the_filter_leaks() {
    let policy = "bypass_users: [root]\nresolvers: [10.99.0.1]\noutbound_rules: []";
    let ways = ["packet-bypass", "packet-ring", "af-xdp"];
    let report = leaking(policy, "packet-*,af-xdp");
    let mut expected: BTreeSet<_> = ways.into_iter().collect();
    expected.retain(|name| !lacking().contains(name));
    assert_eq!(on(&report, "host", "leaked"), expected);
    assert_eq!(
        on(&report, "host", "blocked"),
        BTreeSet::from(["packet-socket"])
    );
    // Users are the host's.
    assert_eq!(on(&report, "workload", "leaked"), BTreeSet::new());
}
