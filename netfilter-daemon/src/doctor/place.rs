//! Where the filter's things would be: its pins, its socket, its port, its time.

use std::{io, path::Path, thread, time::SystemTime};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{Finding, Plan, Verdict};
use crate::{
    control,
    daemon::bpffs,
    datapath::{self, State, rehearsal},
    moment, serve,
};

/// Before this program was written.
const TOO_EARLY: &str = "2026-01-01";

pub(super) fn look(plan: &Plan) -> Vec<Finding> {
    let (daemon, runs) = daemon(&plan.state_dir);
    vec![pins(&plan.state_dir), daemon, listen(plan, runs), clock()]
}

fn pins(state_dir: &Path) -> Finding {
    let check = "bpffs";
    if bpffs::is_to_be_mounted(state_dir) {
        return match mountable(state_dir) {
            Ok(()) => Finding::ok(
                check,
                "no BPF file system is mounted on /sys/fs/bpf; `run` mounts it (tried)",
            ),
            Err(error) => Finding::refused(check, error),
        };
    }
    match rehearsal::is_on_bpffs(state_dir) {
        Ok(()) => Finding::ok(check, format!("{} is on one", state_dir.display())),
        Err(error) => Finding::refused(check, error),
    }
}

/// In a mount namespace that ends with the trial.
fn mountable(state_dir: &Path) -> Result<(), String> {
    let private = || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount::<str, str, str, str>(None, "/", None, flags, None)?;
        Ok(())
    };
    let inside = || match private() {
        Ok(()) => bpffs::mount_usual(state_dir).map(drop),
        Err(error) => Err(bpffs::Error::from(error)),
    };
    let tried = thread::scope(|scope| scope.spawn(inside).join());
    match tried {
        Ok(tried) => tried.map_err(|error| error.to_string()),
        Err(_) => Err("the trial ended in a panic".to_owned()),
    }
}

/// And whether one runs.
fn daemon(state_dir: &Path) -> (Finding, bool) {
    let check = "daemon";
    let shown = state_dir.display();
    match control::holder(state_dir) {
        Ok(Some(process)) => {
            let finding = Finding::warning(
                check,
                format!("one runs already with the state directory {shown} (process {process})"),
                "nothing if it is the one you want: see `netfilter-daemon status`; a second one \
                 needs a --state-dir and a network namespace of its own",
            );
            (finding, true)
        }
        Ok(None) => (in_force(state_dir), false),
        Err(error) => (
            Finding::refused(check, error)
                .but(Verdict::Warning)
                .or("ask again as root"),
            false,
        ),
    }
}

fn in_force(state_dir: &Path) -> Finding {
    match State::at(state_dir).attachments() {
        Ok(places) if places.is_empty() => Finding::ok("daemon", "none runs, nothing is in force"),
        Ok(places) => {
            let names: Vec<&str> = places.iter().map(|each| each.interface.as_str()).collect();
            Finding::ok(
                "daemon",
                format!(
                    "none runs; the filter that an earlier one left is in force on {}, and `run` \
                     takes it over",
                    names.join(", ")
                ),
            )
        }
        Err(datapath::Error::Path { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Finding::warning(
                "daemon",
                format!("{} cannot be looked at", state_dir.display()),
                "ask again as root",
            )
        }
        Err(error) => Finding::refused("daemon", error),
    }
}

fn listen(plan: &Plan, runs: bool) -> Finding {
    match serve::bind(plan.listen) {
        Ok(_) => Finding::ok("listen", format!("{} is free", plan.listen)),
        Err(error) if runs => Finding::refused("listen", error).but(Verdict::Warning),
        Err(error) => Finding::refused("listen", error),
    }
}

/// Names and their addresses expire by a clock that nobody sets; certificates and the log do not.
fn clock() -> Finding {
    judge(moment::unix_seconds(SystemTime::now()))
}

fn judge(now: u64) -> Finding {
    let shown = moment::utc(now);
    let sane = moment::start_of_day(TOO_EARLY).is_none_or(|early| now >= early);
    match sane {
        true => Finding::ok("clock", shown),
        false => Finding::warning(
            "clock",
            format!(
                "it is {shown}, says the clock: lists of service tags would be refused, for \
                     their servers' certificates are not valid yet"
            ),
            "set it: `timedatectl set-ntp true`, or `date -s`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_set_is_told() {
        assert_eq!(judge(0).verdict, Verdict::Warning);
        let early = moment::start_of_day(TOO_EARLY).unwrap();
        assert_eq!(judge(early - 1).verdict, Verdict::Warning);
        assert_eq!(judge(early).verdict, Verdict::Ok);
    }
}
