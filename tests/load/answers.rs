//! Answers of 16 and 100 addresses, of which all are known or none.
//!
//! A question is used up by its answer, so each run of the program stands alone
//! (BPF_PROG_TEST_RUN with one repetition), behind the run that asks the question and a
//! reader that empties the ring of what names resolved to, as the daemon does. What two
//! readings of the clock and a start cost is taken off: it is the median of as many runs
//! of an empty program, which stand between.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use netfilter_daemon::datapath::test_run::{self, Context};
use netfilter_ebpf::verdict::Answer;

use crate::{
    bpffs::Kernel,
    frame::{self, answer, datagram, query, to},
};

const POLICY: &str = "
presets: [azure-ml]
resolvers: [10.0.0.53]
";
const NAME: &str = "mcr.microsoft.com";
const ROUNDS: u16 = 500;

struct Row {
    addresses: u16,
    known: bool,
    nanoseconds: Vec<f64>,
}

pub fn measure(json: bool) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _inside = runtime.enter();
    let mut kernel = Kernel::new(POLICY);
    let resolutions = kernel.datapath.take_resolutions().unwrap();
    let empty = empty_program()?;
    let row = |addresses, known| Row {
        addresses,
        known,
        nanoseconds: Vec::new(),
    };
    let mut nothing = row(0, true);
    let mut rows = [
        row(0, true),
        row(16, true),
        row(16, false),
        row(100, true),
        row(100, false),
    ];
    let mut next = 0;
    // 16 and 100 that stay known.
    run(&mut kernel, 0, 0, 100);
    let before = kernel.answers(Answer::Learned);
    for round in 0..ROUNDS {
        for row in &mut rows {
            let first = match row.known {
                true => 0,
                false => {
                    next += u32::from(row.addresses);
                    1_000_000 + next - u32::from(row.addresses)
                }
            };
            let took = run(&mut kernel, round, first, row.addresses);
            row.nanoseconds.push(took);
            assert!(resolutions.waiting().count() <= 1);
        }
        let frame = answers(round, 0, 16);
        let outcome = test_run::run(empty.as_raw_fd(), &frame, Context::default(), 1)?;
        nothing
            .nanoseconds
            .push(outcome.duration.as_secs_f64() * 1e9);
    }
    let learned = kernel.answers(Answer::Learned) - before;
    assert_eq!(
        learned,
        u64::from(ROUNDS) * (rows.len() as u64 - 1),
        "an answer was not learned"
    );
    report(&mut rows, &mut nothing, json);
    Ok(())
}

/// Nanoseconds in which an answer of so many addresses is read, from the `first` on.
fn run(kernel: &mut Kernel, id: u16, first: u32, count: u16) -> f64 {
    let question = datagram(40_000, 53, &query(id, NAME, 1));
    kernel.egress(&to("10.0.0.53", frame::UDP, question).bytes());
    let outcome = kernel.ingress(&answers(id, first, count));
    outcome.duration.as_secs_f64() * 1e9
}

fn answers(id: u16, first: u32, count: u16) -> Vec<u8> {
    let address = |number| Ipv4Addr::from_bits(0x1400_0000 + first + number).to_string();
    let addresses: Vec<String> = (0..u32::from(count)).map(address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let message = answer(&query(id, NAME, 1), 3600, &addresses);
    to(frame::LOCAL, frame::UDP, datagram(53, 40_000, &message))
        .from("10.0.0.53")
        .bytes()
}

fn report(rows: &mut [Row], nothing: &mut Row, json: bool) {
    let quantile = |row: &mut Row, share: f64| {
        row.nanoseconds.sort_by(f64::total_cmp);
        row.nanoseconds[(row.nanoseconds.len() as f64 * share) as usize]
    };
    let empty = quantile(nothing, 0.5);
    if !json {
        println!(
            "\nns to read an answer, median of {ROUNDS} single runs less {empty:.0} of an empty program (10 % to 90 %)\n"
        );
    }
    for row in rows {
        let [low, median, high] = [0.1, 0.5, 0.9].map(|share| quantile(row, share) - empty);
        let what = if row.known { "known" } else { "new" };
        match json {
            true => println!(
                "{}",
                serde_json::json!({
                    "name": format!("answer/{what}"), "addresses": row.addresses, "ns_over_empty": median,
                    "ns_low": low, "ns_high": high,
                })
            ),
            false => println!(
                "{:>4} addresses, {what:<6} {median:>8.0}   ({low:.0} to {high:.0})",
                row.addresses
            ),
        }
    }
}

/// `r0 = TC_ACT_UNSPEC; exit`, which only costs what running a program costs.
fn empty_program() -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
    let instructions: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
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
        license: c"GPL".as_ptr() as u64,
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
