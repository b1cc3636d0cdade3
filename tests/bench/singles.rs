//! What can only be done once with a frame. The clock's own cost is in all of them, and in
//! the empty program's too.

use crate::{
    bpffs::Kernel,
    frame::query,
    ground::Family,
    run::{Cache, Row, Times},
    verdicts::{answers, asks, syn_of_flood},
};
use std::os::fd::AsRawFd;

use netfilter_daemon::datapath::test_run::{self, Context};

const POLICY: &str = "
presets: [azure-ml]
resolvers: [10.0.0.53]
inbound: [{ protocol: TCP, port_ranges: '22' }]
outbound_rules: []
";

pub fn measure(quick: bool, add: &mut impl FnMut(Vec<Row>)) {
    let rounds = if quick { 200 } else { 2_000 };
    let mut kernel = Kernel::new(POLICY);
    kernel.datapath.bench().loopback().unwrap();
    let row = |name| Row {
        name,
        family: Family::Ipv4,
        prefixes: 0,
        flows: 1,
        cache: Cache::Hot,
        times: Vec::new(),
    };
    let mut rows = [row("answer/known"), row("answer/new"), row("ingress/flood")];
    let [empty, parse] =
        ["bench_empty", "bench_parse"].map(|name| kernel.datapath.bench().program(name).unwrap());
    // Until the table of the half-open is full: from then on each pushes one out.
    for number in 0..70_000 {
        kernel.ingress(&syn_of_flood(number));
    }
    for round in 0..rounds {
        let frames = [
            answers(&query(7, "mcr.microsoft.com", 1), 0),
            answers(&query(7, "mcr.microsoft.com", 1), 1 + round),
            syn_of_flood(70_000 + round),
        ];
        for (row, frame) in rows.iter_mut().zip(&frames) {
            let once = |program| {
                let outcome = test_run::run(program, frame, Context::default(), 1);
                outcome.unwrap().duration.as_secs_f64() * 1e9
            };
            let (empty, parse) = (once(empty.as_raw_fd()), once(parse.as_raw_fd()));
            kernel.egress(&asks("mcr.microsoft.com"));
            let outcome = kernel.ingress(frame);
            row.times.push(Times {
                empty,
                parse,
                whole: outcome.duration.as_secs_f64() * 1e9,
            });
        }
    }
    add(rows.to_vec());
}
