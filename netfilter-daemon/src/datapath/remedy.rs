//! What to do about what the kernel refuses.

use std::{fs, io};

/// Those that the programs and maps need, with their bits in `CapEff`.
const CAPABILITIES: [(&str, u32); 3] =
    [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
/// Stands for the latter two.
const CAP_SYS_ADMIN: u32 = 21;

/// To follow what the kernel said; empty where that is enough.
pub(super) fn of(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            "; memory is short: the maps need about 60 MB, or more for a large policy, of the \
             machine and of the control group of this process (MemoryMax= of its service)"
                .to_owned()
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            "; too many files are open: raise the limit with `ulimit -n`, or LimitNOFILE= in the \
             service"
                .to_owned()
        }
        Some(libc::EPERM) => format!("; {}", permission(&status(), &lockdown())),
        Some(libc::EROFS) => {
            "; its file system is mounted read-only: `mount -o remount,rw` it".to_owned()
        }
        _ => String::new(),
    }
}

/// To follow what the kernel said of a hook.
pub(super) fn of_hook(error: &io::Error) -> String {
    match error.raw_os_error() {
        // What a kernel from 6.6 on says that was built without.
        Some(libc::EINVAL | libc::EOPNOTSUPP) => {
            "; the kernel lacks tcx (CONFIG_NET_XGRESS, which CONFIG_NET_SCH_INGRESS brings): boot \
             one of a distribution"
                .to_owned()
        }
        _ => of(error),
    }
}

/// The way before Linux 6.6.
pub(super) const WITHOUT_TCX: &str = "before Linux 6.6 that takes `modprobe -a sch_ingress cls_bpf` \
     (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF), which cloud kernels have in the package of \
     their modules";

/// What a process lacks, and what to do.
pub(super) fn of_rights(missing: &[&str]) -> String {
    format!(
        "this process lacks {}: run it as root, or with these capabilities \
         (AmbientCapabilities= of its service)",
        missing.join(" and ")
    )
}

fn status() -> String {
    fs::read_to_string("/proc/self/status").unwrap_or_default()
}

fn lockdown() -> String {
    fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default()
}

/// Those capabilities that this process lacks, by name.
pub(super) fn missing_capabilities() -> Vec<&'static str> {
    missing(&status())
}

/// `integrity`, `confidentiality`; none where the kernel is not locked down.
pub(super) fn lockdown_level() -> Option<String> {
    level(&lockdown()).map(str::to_owned)
}

fn missing(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    CAPABILITIES
        .into_iter()
        .filter(|(name, bit)| !(has(*bit) || has(CAP_SYS_ADMIN) && *name != "CAP_NET_ADMIN"))
        .map(|(name, _)| name)
        .collect()
}

fn level(lockdown: &str) -> Option<&str> {
    let (level, _) = lockdown.split_once('[')?.1.split_once(']')?;
    (level != "none").then_some(level)
}

/// `status` and `lockdown` as the kernel shows them.
fn permission(status: &str, lockdown: &str) -> String {
    let missing = missing(status);
    if !missing.is_empty() {
        return of_rights(&missing);
    }
    match level(lockdown) {
        Some(level) => format!(
            "the kernel is locked down ({level}), which may refuse BPF: boot with \
             lockdown=integrity or less (with Secure Boot, that is the firmware's choice)"
        ),
        None => "this process has the capabilities, so a security module (SELinux, AppArmor) or a \
              container's seccomp profile refuses it: allow it the system call bpf; or it is root \
             in a user namespace only (a rootless container): run it as the machine's root"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(effective: u64, lockdown: &str) -> String {
        permission(&format!("Name:\tx\nCapEff:\t{effective:016x}\n"), lockdown)
    }

    #[test]
    fn capabilities_that_are_missing_are_named() {
        assert!(told(1 << 12, "").contains("lacks CAP_PERFMON and CAP_BPF:"));
        assert!(told(1 << 21, "").contains("lacks CAP_NET_ADMIN:"));
        assert!(told(1 << 38 | 1 << 39, "").contains("lacks CAP_NET_ADMIN:"));
        assert!(!told(1 << 12 | 1 << 21, "").contains("lacks"));
        assert!(!told(1 << 12 | 1 << 38 | 1 << 39, "").contains("lacks"));
    }

    #[test]
    fn a_locked_down_kernel_is_blamed_only_where_it_is_one() {
        let all = u64::MAX;
        let locked = "none integrity [confidentiality]\n";
        assert!(told(all, locked).contains("locked down (confidentiality)"));
        assert!(told(all, "[none] integrity confidentiality\n").contains("a security module"));
        assert!(told(all, "").contains("a security module"));
        assert!(told(0, locked).contains("lacks"));
    }

    #[test]
    fn what_needs_no_remedy_has_none() {
        assert_eq!(of(&io::Error::from_raw_os_error(libc::ENOENT)), "");
        assert!(of(&io::Error::from_raw_os_error(libc::ENOMEM)).contains("memory is short"));
    }
}
