//! What a packet costs: BPF_PROG_TEST_RUN, every row beside an empty program and one that
//! only reads the frame, in the same run and in interleaved rounds.
//!
//! `cargo xtask bench [--json] [--quick]`; needs root.
//!
//! A test run repeats one frame. So where packets of many flows or to many destinations are
//! measured, a program goes before the one that is, and changes the frame (`bench_walk4` and
//! `bench_walk6`, in `netfilter-ebpf/src/programs/bench.rs`); the empty program and the one
//! that reads go behind the same, so what it costs is in no difference.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "it prints, and what cannot go on fails"
)]

#[path = "../bpffs.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod bpffs;
#[path = "../frame.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod frame;
mod ground;
mod report;
mod run;
mod singles;
mod tables;
mod verdicts;

use run::{FULL, QUICK};

fn main() {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    let (json, quick) = (has("--json"), has("--quick"));
    let effort = if quick { QUICK } else { FULL };
    let mut rows = Vec::new();
    let mut add = |more: Vec<run::Row>| {
        if !json {
            for row in &more {
                println!("{}", report::line(row));
            }
        }
        rows.extend(more);
    };
    if !json {
        println!(
            "ns per packet, median of {} interleaved rounds\n\n{}",
            effort.rounds,
            report::heading()
        );
    }
    tables::measure(effort, quick, &mut add);
    verdicts::measure(effort, quick, &mut add);
    singles::measure(quick, &mut add);
    if json {
        println!("{}", report::json(&rows));
    }
}
