//! Questions that the policy refuses, asked by real programs over both transports:
//! none waits for a time-out.

use std::time::{Duration, Instant};

use super::{Server, fresh, v4};
use crate::world::World;

/// Half of what the most impatient of them waits before it asks again.
const AT_ONCE: Duration = Duration::from_secs(2);

fn world() -> (World, Server) {
    let world = World::new(None);
    let server = Server::unbound(&world, &fresh(1, |name| vec![v4(name)]));
    (world, server)
}

/// The status that dig tells, such as NXDOMAIN, and how long it took.
fn dig(world: &World, arguments: &[&str]) -> (String, Duration) {
    let start = Instant::now();
    let output = world
        .protected()
        .command("dig")
        .args(["+tries=1", "+time=5", "@10.99.0.1"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let status = text
        .split("status: ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    (status.unwrap_or(&text).to_owned(), start.elapsed())
}

#[test]
fn dig_has_the_configured_answer_at_once_for_every_type_over_udp_and_tcp() {
    let (world, _server) = world();
    for (configured, status) in [("nxdomain", "NXDOMAIN"), ("refused", "REFUSED")] {
        let _daemon = world.enforce(&format!(
            "presets: [azure-ml]\ndns: {{ on_deny: {configured} }}"
        ));
        for transport in ["+notcp", "+tcp"] {
            for resolver in ["@10.99.0.1", "@fd99::1"] {
                for kind in ["A", "AAAA", "TXT", "PTR", "SRV", "HTTPS", "NULL"] {
                    let (told, took) =
                        dig(&world, &[resolver, transport, "secret.evil.test", kind]);
                    assert_eq!(told, status, "{configured} {transport} {resolver} {kind}");
                    assert!(took < AT_ONCE, "{configured} {transport} {kind}: {took:?}");
                }
            }
            let (told, took) = dig(&world, &[transport, "-x", "10.1.2.3"]);
            assert_eq!(
                (told.as_str(), took < AT_ONCE),
                (status, true),
                "{transport}: {took:?}"
            );
            // The name may be asked for, this type of it not: there is no data.
            let (told, _) = dig(&world, &[transport, "n0.data.mcr.microsoft.com", "TXT"]);
            let no_data = if configured == "nxdomain" {
                "NOERROR"
            } else {
                status
            };
            assert_eq!(told, no_data, "{transport}");
            let (told, _) = dig(&world, &[transport, "n0.data.mcr.microsoft.com", "A"]);
            assert_eq!(told, "NOERROR", "{transport}");
        }
    }
}

/// What getaddrinfo says of a name, by Python, and how long it took.
fn getaddrinfo(world: &World, options: &str, name: &str) -> (String, Duration) {
    const SCRIPT: &str = "import socket, sys, time
start = time.monotonic()
try:
    socket.getaddrinfo(sys.argv[1], 443)
    told = 'resolved'
except socket.gaierror as error:
    told = {socket.EAI_NONAME: 'no name', socket.EAI_AGAIN: 'again'}.get(error.errno, str(error))
print(told, time.monotonic() - start)
";
    let output = world
        .protected()
        .command("python3")
        .env("RES_OPTIONS", options)
        .env("LOCALDOMAIN", "corp.test lan.test")
        .args(["-c", SCRIPT, name])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (told, seconds) = text.trim().rsplit_once(' ').unwrap();
    (
        told.to_owned(),
        Duration::from_secs_f64(seconds.parse().unwrap()),
    )
}

/// A search list asks for names that nobody approved before the one that somebody did.
#[test]
fn search_lists_cost_no_time() {
    let (world, _server) = world();
    let _daemon = world.enforce("presets: [azure-ml]");
    for options in [
        "",
        "use-vc",
        "single-request",
        "edns0",
        "ndots:15",
        "ndots:15 use-vc",
    ] {
        let (told, took) = getaddrinfo(&world, options, "secret.evil.test");
        assert_eq!(told, "no name", "{options}");
        assert!(took < AT_ONCE, "{options}: {took:?}");
        let (told, took) = getaddrinfo(&world, options, "n0.data.mcr.microsoft.com");
        assert_eq!(told, "resolved", "{options}");
        assert!(took < AT_ONCE, "{options}: {took:?}");
    }
}
