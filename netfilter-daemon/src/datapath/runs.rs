//! How often the programs ran, and for how long, where the kernel counts that
//! (`kernel.bpf_stats_enabled`).

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use super::{Datapath, Error, test_run::bpf};

/// Of one program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Run {
    pub runs: u64,
    pub nanoseconds: u64,
}

/// The programs of this process: those in force, and what those before them had run.
#[derive(Debug, Default)]
pub struct Runs {
    in_force: Vec<Program>,
    before: BTreeMap<&'static str, Run>,
}

#[derive(Debug)]
struct Program {
    label: &'static str,
    id: u32,
    fd: OwnedFd,
}

/// What they are called in the object, and in the metrics.
const LABELS: [(&str, &str); 14] = [
    ("netfilter_egress", "egress"),
    ("netfilter_ingress", "ingress"),
    ("netfilter_workload", "workload"),
    ("netfilter_judged", "judged"),
    ("netfilter_loopback", "loopback"),
    ("netfilter_setsockopt", "setsockopt"),
    ("netfilter_setsockopt_unnamed", "setsockopt"),
    ("netfilter_connect4", "connect4"),
    ("netfilter_connect6", "connect6"),
    ("netfilter_sendmsg4", "sendmsg4"),
    ("netfilter_sendmsg6", "sendmsg6"),
    ("netfilter_socket", "socket"),
    ("netfilter_relay_egress", "relay_egress"),
    ("netfilter_relay_ingress", "relay_ingress"),
];

impl Runs {
    /// Goes over to the programs of `datapath`. What others ran until now is not forgotten.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn follow(&mut self, datapath: &Datapath) -> Result<(), Error> {
        let mut programs = Vec::new();
        for (name, program) in datapath.ebpf.programs() {
            let label = LABELS.iter().find(|(known, _)| *known == name);
            // One that is not needed is not loaded.
            let (Some((_, label)), Ok(fd)) = (label, program.fd()) else {
                continue;
            };
            let fd = fd.as_fd().try_clone_to_owned();
            let fd = fd.map_err(|source| Error::System {
                operation: "keep a program",
                source,
            })?;
            let id = look(&fd)?.id;
            programs.push(Program { label, id, fd });
        }
        for former in std::mem::replace(&mut self.in_force, programs) {
            if !self.in_force.iter().any(|now| now.id == former.id) {
                let run = look(&former.fd)?.run;
                self.before.entry(former.label).or_default().add(run);
            }
        }
        Ok(())
    }

    /// By program; empty where the kernel counts nothing and never did.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn all(&self) -> Result<Vec<(&'static str, Run)>, Error> {
        let mut all = self.before.clone();
        for program in &self.in_force {
            let run = look(&program.fd)?.run;
            all.entry(program.label).or_default().add(run);
        }
        let counted = are_counted() || all.values().any(|run| run.runs > 0);
        Ok(all.into_iter().filter(|_| counted).collect())
    }
}

impl Run {
    const fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.nanoseconds += other.nanoseconds;
    }
}

fn are_counted() -> bool {
    let enabled = fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled");
    enabled.is_ok_and(|enabled| enabled.trim() == "1")
}

struct Look {
    id: u32,
    run: Run,
}

/// The part of `struct bpf_prog_info` up to what is read (include/uapi/linux/bpf.h).
#[repr(C)]
struct Info {
    kind: u32,
    id: u32,
    between: [u64; 23],
    run_time_ns: u64,
    run_cnt: u64,
}

const _: () = assert!(std::mem::offset_of!(Info, run_time_ns) == 192);

/// The part of `union bpf_attr` that the command reads.
#[repr(C)]
struct Attributes {
    program: u32,
    length: u32,
    info: u64,
}

const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

fn look(program: &OwnedFd) -> Result<Look, Error> {
    let mut info = Info {
        kind: 0,
        id: 0,
        between: [0; 23],
        run_time_ns: 0,
        run_cnt: 0,
    };
    let mut attributes = Attributes {
        program: u32::try_from(program.as_raw_fd()).unwrap_or(u32::MAX),
        length: u32::try_from(size_of::<Info>()).unwrap_or(0),
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes).map_err(|source| Error::System {
        operation: "ask how often a program ran",
        source,
    })?;
    Ok(Look {
        id: info.id,
        run: Run {
            runs: info.run_cnt,
            nanoseconds: info.run_time_ns,
        },
    })
}
