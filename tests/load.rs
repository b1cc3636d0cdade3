//! What large answers, large policies and an idle daemon cost; beside `bench.rs`, which
//! has what a packet costs.
//!
//! `cargo xtask load`; needs root.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "it prints, and what cannot go on fails"
)]

#[path = "load/answers.rs"]
mod answers;
#[path = "bpffs.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod bpffs;
#[path = "load/daemon.rs"]
mod daemon;
#[path = "frame.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod frame;
#[path = "load/large.rs"]
mod large;
#[path = "load/policy.rs"]
mod policy;
#[path = "load/report.rs"]
mod report;
#[path = "world.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod world;

use report::Report;

/// Seconds in which the idle daemon is watched.
const WATCHED: u64 = 60;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let named = |group: &str| arguments.iter().any(|argument| argument == group);
    let all = !["answers", "policy", "daemon"].into_iter().any(named);
    let mut report = Report { json };
    if all || named("answers") {
        answers::measure(json)?;
    }
    if all || named("policy") {
        policy::measure(&mut report);
    }
    if all || named("daemon") {
        daemon::measure(&mut report, WATCHED);
    }
    Ok(())
}
