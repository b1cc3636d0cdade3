//! What the daemon takes: with a small policy and nothing to do, and with a large one.

use std::{fs, thread, time::Duration};

use netfilter_daemon::lab::{daemon::Daemon, dns::Zone};

use crate::{large, report::Report, world::World};

/// Of a small policy, each for so long that nothing happens often.
const NAMES: [&str; 4] = [
    "mcr.microsoft.com",
    "ml.azure.com",
    "automlresources-prod.azureedge.net",
    "pypi.org",
];
const SMALL: &str =
    "presets: [azure-ml]\noutbound_rules:\n  - { name: pypi, type: fqdn, destination: pypi.org }\n";
/// Where the daemon finds the large list, in its mount namespace.
const LIST: &str = "/run/netfilter-daemon/published.json";
const RELOADS: usize = 5;

pub fn measure(report: &mut Report, seconds: u64) {
    let mut zone = Zone::new();
    for name in NAMES {
        zone.address(name, 3600, [198, 18, 0, 1].into()).unwrap();
    }
    let world = World::new(Some(zone));
    let daemon = world.enforce(SMALL);
    thread::sleep(Duration::from_secs(5));
    let before = processor_time(&daemon);
    thread::sleep(Duration::from_secs(seconds));
    let spent = processor_time(&daemon) - before;
    report.number("daemon/idle/processor", "%", spent / seconds as f64 * 100.0);
    resident(report, "idle", &daemon);
    report.number("daemon/idle/maps", "MB", maps(&daemon));
    drop(daemon);

    let published = large::published(&large::prefixes());
    let write = || fs::write(LIST, &published);
    world.protected().run(write).unwrap().unwrap();
    let daemon = world.enforce(&large::tagged(LIST));
    thread::sleep(Duration::from_secs(2));
    resident(report, "large", &daemon);
    for _ in 0..RELOADS {
        assert!(world.daemon(&["reload"]).status.success());
    }
    thread::sleep(Duration::from_secs(2));
    resident(report, "large, reloaded", &daemon);
    report.number("daemon/large/maps", "MB", maps(&daemon));
}

/// Seconds, of all threads that there are.
fn processor_time(daemon: &Daemon) -> f64 {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
    let spent = threads.map(|thread| {
        let schedstat = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        let nanoseconds = schedstat.split(' ').next().unwrap();
        nanoseconds.parse::<f64>().unwrap() / 1e9
    });
    spent.sum()
}

fn resident(report: &mut Report, when: &str, daemon: &Daemon) {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    for (field, name) in [
        ("VmRSS:", "resident"),
        ("RssAnon:", "resident, of its own"),
        ("VmHWM:", "resident at most"),
    ] {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .unwrap();
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        report.number(
            &format!("daemon/{when}/{name}"),
            "MB",
            kilobytes * 1024.0 / 1e6,
        );
    }
}

/// Megabytes of all maps that it has open, each once.
fn maps(daemon: &Daemon) -> f64 {
    let mut seen = std::collections::BTreeMap::new();
    for descriptor in fs::read_dir(format!("/proc/{}/fdinfo", daemon.id())).unwrap() {
        let text = fs::read_to_string(descriptor.unwrap().path()).unwrap_or_default();
        let field = |name: &str| -> Option<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            seen.insert(id as u64, bytes);
        }
    }
    seen.values().sum::<f64>() / 1e6
}
