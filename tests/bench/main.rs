//! What a packet costs: BPF_PROG_TEST_RUN, every row beside an empty program in
//! the same run, in interleaved rounds.
//!
//! `cargo xtask bench [-- --json]`; needs root.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "it prints, and what cannot go on fails"
)]

#[path = "bpffs.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod bpffs;
#[path = "frame.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod frame;

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use bpffs::Kernel;
use frame::{ACK, SYN, answer, datagram, query, segment, tcp, to, udp};
use netfilter_daemon::datapath::test_run::{self, Context, Program};

const POLICY: &str = "
presets: [azure-ml]
resolvers: [10.0.0.53]
on_deny: drop
dns: { on_deny: drop }
outbound_rules:
  - { name: net6, type: ip, destination: { cidr: '2001:db8::/32', protocol: TCP, port_ranges: '443' } }
  - { name: net4, type: ip, destination: { cidr: 198.51.100.0/24, protocol: TCP, port_ranges: '443' } }
";
const ROUNDS: usize = 9;
const REPEAT: u32 = 200_000;
const SINGLES: u32 = 2_000;

struct Row {
    name: &'static str,
    program: Option<Program>,
    frame: Vec<u8>,
    rounds: Vec<f64>,
}

fn main() -> io::Result<()> {
    let json = std::env::args().any(|argument| argument == "--json");
    let mut kernel = Kernel::new(POLICY);
    prepare(&mut kernel);
    let row = |name, program, frame: Vec<u8>| Row {
        name,
        program,
        frame,
        rounds: Vec::new(),
    };
    let egress = Some(Program::Egress);
    let mut rows = [
        row("empty program", None, tcp("198.51.100.1", 443).bytes()),
        row("table hit, IPv4", egress, tcp("198.51.100.1", 443).bytes()),
        row("table hit, IPv6", egress, tcp("2001:db8::1", 443).bytes()),
        row(
            "learned address, established",
            egress,
            to("192.0.2.1", frame::TCP, segment(40_000, 443, ACK)).bytes(),
        ),
        row(
            "learned address, first packet",
            egress,
            tcp("192.0.2.1", 443).bytes(),
        ),
        row(
            "flow hit, reply to SSH",
            egress,
            to("8.8.8.8", frame::TCP, segment(22, 5000, SYN | ACK)).bytes(),
        ),
        row("denied", egress, udp("8.8.8.8", 9).bytes()),
        row("question, permitted", egress, asks("mcr.microsoft.com")),
        row("question, denied", egress, asks("secret.evil.test")),
        row(
            "answer, forged, 16 addresses",
            Some(Program::Ingress),
            answers(&query(8, "mcr.microsoft.com", 1), 0),
        ),
        row(
            "ingress, no DNS",
            Some(Program::Ingress),
            to(frame::LOCAL, frame::TCP, segment(443, 40_000, ACK))
                .from("192.0.2.1")
                .bytes(),
        ),
    ];
    let empty = empty_program()?;
    for _ in 0..ROUNDS {
        for row in &mut rows {
            let outcome = match row.program {
                Some(program) => kernel
                    .datapath
                    .test_run(program, &row.frame, Context::default(), REPEAT)
                    .map_err(io::Error::other)?,
                None => test_run::run(empty.as_raw_fd(), &row.frame, Context::default(), REPEAT)?,
            };
            row.rounds.push(outcome.duration.as_secs_f64() * 1e9);
        }
    }
    let single = |name| Row {
        name,
        program: None,
        frame: Vec::new(),
        rounds: Vec::new(),
    };
    let mut singles = [
        single("empty program"),
        single("answer, 16 addresses, known"),
        single("answer, 16 addresses, new"),
        single("SYN of a flood, to SSH"),
    ];
    // Until the table of the half-open is full: from then on each pushes one out.
    for number in 0..70_000 {
        kernel.ingress(&syn_of_flood(number));
    }
    for round in 0..SINGLES {
        let outcome = kernel.ingress(&syn_of_flood(70_000 + round));
        singles[3].rounds.push(outcome.duration.as_secs_f64() * 1e9);
        let frame = &rows[0].frame;
        let outcome = test_run::run(empty.as_raw_fd(), frame, Context::default(), 1)?;
        singles[0].rounds.push(outcome.duration.as_secs_f64() * 1e9);
        for (row, first) in [(1, 0), (2, 1 + round)] {
            kernel.egress(&asks("mcr.microsoft.com"));
            let outcome = kernel.ingress(&answers(&query(7, "mcr.microsoft.com", 1), first));
            singles[row]
                .rounds
                .push(outcome.duration.as_secs_f64() * 1e9);
        }
    }
    report(
        &mut rows,
        &format!("{ROUNDS} interleaved rounds of {REPEAT}"),
        json,
    );
    // What can only be done once: the clock's own cost is in all of them.
    report(
        &mut singles,
        &format!("{SINGLES} interleaved single runs"),
        json,
    );
    Ok(())
}

fn asks(name: &str) -> Vec<u8> {
    to(
        "10.0.0.53",
        frame::UDP,
        datagram(40_000, 53, &query(7, name, 1)),
    )
    .bytes()
}

/// Sixteen addresses, which follow the `set`-th sixteen.
fn answers(question: &[u8], set: u32) -> Vec<u8> {
    let addresses: Vec<String> = (0..16)
        .map(|host| std::net::Ipv4Addr::from_bits(0xc612_0000 + set * 16 + host).to_string())
        .collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let message = answer(question, 3600, &addresses);
    to(frame::LOCAL, frame::UDP, datagram(53, 40_000, &message))
        .from("10.0.0.53")
        .bytes()
}

/// From another address each.
fn syn_of_flood(number: u32) -> Vec<u8> {
    let source = std::net::Ipv4Addr::from_bits(0x1e00_0000 + number).to_string();
    to(frame::LOCAL, frame::TCP, segment(5000, 22, SYN))
        .from(&source)
        .bytes()
}

/// Learns an address and a flow.
fn prepare(kernel: &mut Kernel) {
    let question = query(7, "mcr.microsoft.com", 1);
    kernel.egress(&to("10.0.0.53", frame::UDP, datagram(40_000, 53, &question)).bytes());
    let reply = datagram(53, 40_000, &answer(&question, 3600, &["192.0.2.1"]));
    kernel.ingress(
        &to(frame::LOCAL, frame::UDP, reply)
            .from("10.0.0.53")
            .bytes(),
    );
    kernel.ingress(
        &to(frame::LOCAL, frame::TCP, segment(5000, 22, SYN))
            .from("8.8.8.8")
            .bytes(),
    );
}

fn report(rows: &mut [Row], runs: &str, json: bool) {
    for row in rows.iter_mut() {
        row.rounds.sort_by(f64::total_cmp);
    }
    let median = |row: &Row| row.rounds[row.rounds.len() / 2];
    let empty = median(&rows[0]);
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                serde_json::json!({
                    "name": row.name, "ns": median(row), "ns_over_empty": median(row) - empty,
                    "ns_min": row.rounds[0], "ns_max": row.rounds[row.rounds.len() - 1],
                })
            })
            .collect();
        println!("{}", serde_json::json!({ "rows": rows }));
        return;
    }
    println!("\nns per packet, median of {runs}\n");
    println!(
        "{:<32} {:>8} {:>12} {:>16}",
        "", "median", "over empty", "min to max"
    );
    for row in rows.iter() {
        let spread = format!(
            "{:.0} to {:.0}",
            row.rounds[0],
            row.rounds[row.rounds.len() - 1]
        );
        println!(
            "{:<32} {:>8.0} {:>12.0} {:>16}",
            row.name,
            median(row),
            median(row) - empty,
            spread
        );
    }
}

/// `r0 = TC_ACT_UNSPEC; exit`, which only costs what running a program costs.
fn empty_program() -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
    let instructions: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
    let license = c"GPL";
    // The beginning of `union bpf_attr` (include/uapi/linux/bpf.h).
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        program: u64,
        license: u64,
        rest: [u64; 16],
    }
    let load = Load {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        instructions: 2,
        program: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        rest: [0; 16],
    };
    // SAFETY: the attributes are those of the command, and their pointers are valid.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const load,
            size_of::<Load>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}
