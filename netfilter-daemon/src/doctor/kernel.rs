//! What the kernel is, and what it lets this process do.

use std::fs;

use super::{Finding, Verdict, exists};
use crate::{
    bypass,
    compile::Image,
    datapath::{
        Error, Ground,
        rehearsal::{self, Rehearsal},
    },
};

/// What the maps take, and as much again.
const ROOM: u64 = 120 << 20;

pub(super) fn look(image: &Image) -> Vec<Finding> {
    let mut findings = vec![version(), types(), capabilities(), lockdown(), translator()];
    findings.extend(memory(&read("/proc/meminfo")));
    findings.extend(programs(image));
    findings.push(ways_past());
    findings.extend(
        bypass::rdma_cards().map(|cards| Finding::warning("rdma", cards, bypass::RDMA_REMEDY)),
    );
    findings
}

fn version() -> Finding {
    let release = read("/proc/sys/kernel/osrelease");
    // Whether it is new enough is said where the programs are loaded.
    Finding::ok("kernel", format!("Linux {}", release.trim()))
}

fn types() -> Finding {
    match exists("/sys/kernel/btf/vmlinux") {
        true => Finding::ok(
            "btf",
            "the kernel tells its types (/sys/kernel/btf/vmlinux)",
        ),
        false => Finding::warning(
            "btf",
            "there is no /sys/kernel/btf/vmlinux: a kernel without CONFIG_DEBUG_INFO_BTF, or /sys \
             is not mounted; the programs were never tried on one",
            "nothing if `programs` is ok; else mount sysfs on /sys, or boot a distribution's kernel",
        ),
    }
}

fn capabilities() -> Finding {
    let missing = rehearsal::missing_capabilities();
    if missing.is_empty() {
        return Finding::ok(
            "capabilities",
            "this process has CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF",
        );
    }
    Finding::failed(
        "capabilities",
        format!("this process lacks {}", missing.join(" and ")),
        "run it as root (`sudo`), or with these capabilities (AmbientCapabilities= of a service, \
         `capabilities: add` of a container)",
    )
}

fn lockdown() -> Finding {
    match rehearsal::lockdown() {
        None => Finding::ok("lockdown", "the kernel is not locked down"),
        Some(level) => Finding::ok(
            "lockdown",
            format!("the kernel is locked down ({level}), which these programs do not mind"),
        ),
    }
}

/// Only the first network namespace shows it.
fn translator() -> Finding {
    match read("/proc/sys/net/core/bpf_jit_enable").trim() {
        "0" => Finding::warning(
            "jit",
            "the kernel interprets BPF programs, which makes each packet several times slower",
            "`sysctl -w net.core.bpf_jit_enable=1`, and the same in a file of /etc/sysctl.d",
        ),
        "" => Finding::ok("jit", "not shown in this network namespace"),
        _ => Finding::ok("jit", "BPF programs are compiled"),
    }
}

fn memory(meminfo: &str) -> Option<Finding> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    let available = kilobytes << 10;
    let told = format!("{} MB are available", available >> 20);
    Some(match available >= ROOM {
        true => Finding::ok("memory", told),
        false => Finding::warning(
            "memory",
            format!("{told}, and the maps take about 60 MB, or more for a large policy"),
            "end something, or give the machine more",
        ),
    })
}

/// Really loads them, and really attaches them, where nothing passes.
fn programs(image: &Image) -> Vec<Finding> {
    let mut rehearsal = match Rehearsal::load(image) {
        Ok(rehearsal) => rehearsal,
        Err(error) => {
            let refused = Finding::refused("programs", error);
            return vec![
                refused.or("boot a kernel that takes them: Linux 5.15 or newer with \
                 CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF, as distributions build it"),
            ];
        }
    };
    let mut findings = vec![Finding::ok(
        "programs",
        "the kernel took every program and map; they are gone again",
    )];
    findings.push(match rehearsal.attach() {
        Ok(hook) => Finding::ok(
            "hook",
            format!("{hook:?} works (tried in a network namespace that is gone)").to_lowercase(),
        ),
        Err(error) => untried("hook", error, Verdict::Failed),
    });
    findings.push(match rehearsal.attach_to_workload() {
        Ok(()) => Finding::ok(
            "xdp",
            "xdp works, which only interfaces with `side: workload` need",
        ),
        Err(error) => untried("xdp", error, Verdict::Warning),
    });
    if let Err(unguarded) = rehearsal.guard() {
        findings.push(Finding::warning("sockets", unguarded.sentence(), SOCKETS));
    }
    findings
}

const SOCKETS: &str = "nothing if nobody here is root or has CAP_NET_RAW but you; else start the \
                       daemon on the host, not in a container";

/// A network namespace takes CAP_SYS_ADMIN, which `run` does not need.
fn untried(check: &'static str, error: Error, verdict: Verdict) -> Finding {
    match error {
        Error::System { .. } => Finding::warning(
            check,
            "not tried, for that takes a network namespace, and CAP_SYS_ADMIN to make it",
            "ask again as root",
        ),
        error => Finding::refused(check, error).but(verdict).or(
            "boot a kernel that has it: Linux 6.6 has tcx built in; older ones need the modules \
             sch_ingress and cls_bpf, which Debian's cloud kernels have",
        ),
    }
}

fn ways_past() -> Finding {
    match Ground::find().is_there() {
        Ok(()) => Finding::ok("cgroup", "the root of cgroup v2 is at hand"),
        Err(unguarded) => Finding::warning("cgroup", unguarded.sentence(), SOCKETS),
    }
}

pub(super) fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_below_twice_what_the_maps_take() {
        let verdict = |kilobytes: u64| {
            let text = format!("MemFree: 1 kB\nMemAvailable:   {kilobytes} kB\n");
            memory(&text).unwrap().verdict
        };
        assert_eq!(verdict(ROOM >> 10), Verdict::Ok);
        assert_eq!(verdict((ROOM >> 10) - 1), Verdict::Warning);
        assert!(memory("").is_none());
    }
}
