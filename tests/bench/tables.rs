//! What a policy's ranges let out, beside the kernel's own table of prefixes: by the number
//! of prefixes, of flows, and of destinations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netfilter_daemon::datapath::bench::Walk;

use crate::{
    bpffs::Kernel,
    frame::{self, ACK, segment, to},
    ground::{self, Family, Random},
    run::{self, Cache, Effort, Row, Task},
};

const BASE: &str = "
resolvers: [10.0.0.53]
on_deny: drop
inbound: [{ protocol: TCP, port_ranges: '22' }]
outbound_rules: []
";

const FEW: u32 = 16;
const MANY: u32 = 1 << 20;
/// What a table of flows holds.
const FLOWS: u32 = 65_536;

pub fn measure(effort: Effort, quick: bool, add: &mut impl FnMut(Vec<Row>)) {
    const FAMILIES: [(Family, &[usize]); 2] = [
        (Family::Ipv4, &[100, 1_000, 10_000, 100_000]),
        (Family::Ipv6, &[100, 1_000, 11_000, 100_000]),
    ];
    for (family, sizes) in FAMILIES {
        for &size in sizes {
            let usual = size == 10_000 || size == 11_000;
            if !quick || usual {
                let flows: &[u32] = match usual && !quick {
                    true => &[1, 1 << 10, 1 << 16, 1 << 20],
                    false => &[1],
                };
                add(of_size(family, size, flows, effort));
            }
        }
    }
}

fn of_size(family: Family, size: usize, flows: &[u32], effort: Effort) -> Vec<Row> {
    let mut random = Random::new();
    let prefixes = ground::prefixes(family, size, &mut random);
    let destinations = ground::destinations(&prefixes, MANY as usize, &mut random);
    let image = ground::image(BASE, &prefixes, true);
    let mut kernel = Kernel::of(&image);
    let mut bench = kernel.datapath.bench();
    bench.loopback().unwrap();
    bench.trie(&prefixes).unwrap();
    bench.destinations(&destinations).unwrap();
    let mut rows = Vec::new();
    for &flows in flows {
        // What is full is not looked at, as long as the tables say yes.
        kernel.datapath.bench().flows(live(family, flows)).unwrap();
        let tasks = [Cache::Hot, Cache::Cold].into_iter().flat_map(|cache| {
            let task = |name, program| Task {
                row: Row {
                    name,
                    family,
                    prefixes: size,
                    flows,
                    cache,
                    times: Vec::new(),
                },
                program,
                frame: established(family),
                walk: Some(Walk {
                    destinations: if cache == Cache::Hot { FEW } else { MANY },
                    sources: flows,
                }),
                repeat: if cache == Cache::Hot {
                    effort.hot
                } else {
                    effort.cold
                },
                before: |_| {},
            };
            [
                task("verdict/static", "netfilter_egress"),
                task("lpm_trie", "bench_trie"),
            ]
        });
        rows.extend(run::measure(&mut kernel, tasks.collect(), effort));
    }
    rows
}

/// A segment in the middle of a connection.
pub fn established(family: Family) -> Vec<u8> {
    let anywhere = match family {
        Family::Ipv4 => "198.51.100.1",
        Family::Ipv6 => "2001:db8::1",
    };
    to(anywhere, frame::TCP, segment(40_000, 443, ACK)).bytes()
}

/// Connections that came in, as many as there is room for.
fn live(family: Family, count: u32) -> impl Iterator<Item = (IpAddr, u16, IpAddr, u16)> {
    (0..count.min(FLOWS)).map(move |number| match family {
        Family::Ipv4 => (
            frame::LOCAL.parse().unwrap(),
            22,
            Ipv4Addr::from(0x0a80_0000 | number).into(),
            5000,
        ),
        Family::Ipv6 => (
            frame::LOCAL_V6.parse().unwrap(),
            22,
            Ipv6Addr::from(0xfd01 << 112 | u128::from(number)).into(),
            5000,
        ),
    })
}
