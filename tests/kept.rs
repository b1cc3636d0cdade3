//! What the programs take is recorded, and may not grow unseen.
//!
//! `cargo xtask bench --keep` records it anew; whoever does says in the commit what it is for.

use std::{env, fmt::Write as _, fs, path::Path};

use netfilter_daemon::datapath::test_run::{Program, Size};

use crate::bpffs::Kernel;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/kept/programs.txt");

/// Set, the record is written rather than compared.
const KEEP: &str = "NETFILTER_KEEP";

/// How much more of each there may be than was recorded, in per cent. Both numbers are the same in
/// each build and at each load, so this is for changes of the code: those that are worth a
/// word are larger. The verifier forgets and remembers by rules of thumb, so a small change may
/// send it on a longer way.
const MORE_VERIFIED: u64 = 5;
const MORE_TRANSLATED: u64 = 2;
/// Another kernel puts other instructions in the place of calls, and another compiler writes
/// other ones; how long the verifier walks is not compared then, but bound elsewhere
/// (`the_verifier_has_room_to_spare`).
const MORE_ELSEWHERE: u64 = 30;

const POLICY: &str = "presets: [azure-ml]";

/// What was recorded, and by whom.
struct Record {
    kernel: String,
    compiler: String,
    sizes: Vec<(String, u32, u32)>,
}

impl Record {
    /// Of this kernel and this build.
    fn here() -> Self {
        let mut kernel = Kernel::new(POLICY);
        let mut sizes: Vec<Size> = [
            Program::Egress,
            Program::Ingress,
            Program::Loopback,
            Program::Workload,
            Program::Judged,
        ]
        .map(|program| kernel.datapath.size(program).unwrap())
        .into();
        sizes.extend(kernel.datapath.sizes_of_witnesses().unwrap());
        // The second is for kernels that refuse the first.
        sizes.push(kernel.datapath.sizes_of_guards().unwrap()[0]);
        let named = |size: Size| {
            let verified = size.verified.unwrap_or(0);
            (size.program.to_owned(), verified, size.translated.unwrap())
        };
        Self {
            kernel: release(),
            compiler: env!("NETFILTER_EBPF_COMPILER").to_owned(),
            sizes: sizes.into_iter().map(named).collect(),
        }
    }

    fn parse(text: &str) -> Self {
        let mut record = Self {
            kernel: String::new(),
            compiler: String::new(),
            sizes: Vec::new(),
        };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(kernel) = line.strip_prefix("kernel ") {
                record.kernel = kernel.trim().to_owned();
            } else if let Some(compiler) = line.strip_prefix("compiler ") {
                record.compiler = compiler.trim().to_owned();
            } else {
                let words: Vec<&str> = line.split_whitespace().collect();
                let [program, verified, translated] = words[..] else {
                    panic!("{line}");
                };
                let number = |text: &str| text.parse().unwrap();
                let size = (program.to_owned(), number(verified), number(translated));
                record.sizes.push(size);
            }
        }
        record
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "# Of each program: instructions that the verifier walks through, and bytes of what it leaves.\n\
             # `cargo xtask bench --keep` writes this, tests/kept.rs compares.\n",
        );
        let (kernel, compiler) = (&self.kernel, &self.compiler);
        write!(text, "kernel {kernel}\ncompiler {compiler}\n").unwrap();
        for (program, verified, translated) in &self.sizes {
            writeln!(text, "{program:<32}{verified:>10}{translated:>10}").unwrap();
        }
        text
    }

    /// What of `now` is more than may be, one line each.
    fn complaints(&self, now: &Self) -> Vec<String> {
        let alike = (&self.kernel, &self.compiler) == (&now.kernel, &now.compiler);
        let mut complaints = Vec::new();
        let mut compare = |program: &str, what, then: u32, now: u32, more: u64| {
            if u64::from(now) * 100 > u64::from(then) * (100 + more) {
                complaints.push(format!(
                    "{program}: {now} {what}, and {then} were recorded ({more} % more may be)"
                ));
            }
        };
        for (program, verified, translated) in &now.sizes {
            let mut recorded = self.sizes.iter();
            let Some((_, then_verified, then_translated)) =
                recorded.find(|(recorded, ..)| recorded == program)
            else {
                compare(program, "bytes", 0, *translated, 0);
                continue;
            };
            let more = match alike {
                true => MORE_TRANSLATED,
                false => MORE_ELSEWHERE,
            };
            compare(program, "bytes", *then_translated, *translated, more);
            if alike {
                let what = "verified instructions";
                compare(program, what, *then_verified, *verified, MORE_VERIFIED);
            }
        }
        complaints
    }
}

/// The kernel's, without what changes with each correction.
fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let parts: Vec<&str> = release.split(['.', '-']).take(2).collect();
    parts.join(".")
}

#[test]
fn the_programs_are_no_larger_than_was_recorded() {
    let now = Record::here();
    if env::var_os(KEEP).is_some() {
        fs::write(RECORD, now.text()).unwrap();
        return;
    }
    assert!(Path::new(RECORD).is_file(), "{RECORD}");
    let then = Record::parse(&fs::read_to_string(RECORD).unwrap());
    let complaints = then.complaints(&now);
    assert!(
        complaints.is_empty(),
        "{}\nIf that is what it takes: cargo xtask bench --keep",
        complaints.join("\n")
    );
}

#[test]
fn what_is_larger_than_was_recorded_is_named_and_what_is_within_the_margin_is_not() {
    let record = |compiler: &str, verified, translated| Record {
        kernel: "6.18".to_owned(),
        compiler: compiler.to_owned(),
        sizes: vec![("egress".to_owned(), verified, translated)],
    };
    let then = Record::parse(&record("one", 100_000, 10_000).text());
    let complaints =
        |compiler, verified, translated| then.complaints(&record(compiler, verified, translated));
    assert!(complaints("one", 105_000, 10_200).is_empty());
    assert!(complaints("one", 50_000, 5_000).is_empty());
    assert_eq!(
        complaints("one", 105_001, 10_201),
        [
            "egress: 10201 bytes, and 10000 were recorded (2 % more may be)",
            "egress: 105001 verified instructions, and 100000 were recorded (5 % more may be)",
        ]
    );
    assert!(complaints("another", 900_000, 13_000).is_empty());
    assert_eq!(complaints("another", 1, 13_001).len(), 1);
    let mut new = record("one", 1, 1);
    new.sizes[0].0 = "new".to_owned();
    assert_eq!(then.complaints(&new).len(), 1);
}
