//! What a large policy takes of the daemon's memory and of the kernel's; `load.rs` has the
//! times, which only a release build tells.

use std::{collections::BTreeMap, fs};

use crate::world::{World, eventually, number};

#[path = "load/large.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest of it")]
mod large;

const SMALL: &str = "presets: [azure-ml]\n";
/// Kilobytes of the daemon's own that stay: a start takes 20,000, a large policy many more.
const STAY: u64 = 10_000;
/// Bytes of all maps, as the kernel tells them. In truth it gives each node of the name
/// table 512, and each name two nodes a copy.
const ALL: u64 = 64_000_000;

fn own(daemon: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
    number(&status, "RssAnon:").unwrap()
}

/// Of all maps that the process has open, each once.
fn maps(process: u32) -> u64 {
    let mut seen = BTreeMap::new();
    for descriptor in fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap() {
        // Some are closed again meanwhile.
        let text = fs::read_to_string(descriptor.unwrap().path()).unwrap_or_default();
        if let (Some(id), Some(bytes)) = (number(&text, "map_id:"), number(&text, "memlock:")) {
            seen.insert(id, bytes);
        }
    }
    seen.values().sum()
}

#[test]
fn what_a_start_or_a_large_policy_took_goes_back_to_the_system() {
    let world = World::new(None);
    let daemon = world.enforce(SMALL);
    let id = daemon.id();
    assert!(eventually(|| own(id) < STAY), "{}", own(id));
    let small = maps(id);
    // Nor does what is asked for stay, which walks all maps.
    for path in ["/metrics", "/", "/metrics", "/"] {
        assert!(world.get(path).contains("200 OK"));
    }
    assert!(eventually(|| own(id) < STAY), "{}", own(id));
    let large = large::list(&large::prefixes());
    world.write_policy(large.split_once('\n').unwrap().1);
    assert!(world.daemon(&["reload"]).status.success());
    // The other copy, too.
    assert!(world.daemon(&["reload"]).status.success());
    let bytes = maps(id);
    eprintln!("{bytes} bytes of maps, {small} before");
    assert!(bytes < ALL, "{bytes} bytes of maps, {small} before");
    world.write_policy(SMALL);
    assert!(world.daemon(&["reload"]).status.success());
    assert!(eventually(|| own(id) < STAY), "{}", own(id));
}
