//! How many files this process may have open.

use std::io;

use anyhow::bail;

/// 51 for the filter and the sockets, 256 for the HTTP listener, 16 for the control
/// socket, 32 to ask for names, the rest for policies and those who read the maps.
const NEEDED: libc::rlim_t = 512;

/// Raises the limit where it is too low: without room, a policy could not be reloaded
/// once clients have taken what is there.
pub(super) fn make_room() -> anyhow::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is valid for the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        bail!(
            "cannot read the limit of open files: {}",
            io::Error::last_os_error()
        );
    }
    let given = limit.rlim_cur;
    if given >= NEEDED {
        return Ok(());
    }
    limit.rlim_cur = NEEDED;
    limit.rlim_max = limit.rlim_max.max(NEEDED);
    // SAFETY: the pointer is valid for the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        bail!(
            "this process may have {given} files open, and needs {NEEDED}; raise the limit with \
             `ulimit -n {NEEDED}`, or LimitNOFILE={NEEDED} in the service"
        );
    }
    tracing::info!("raised the limit of open files from {given} to {NEEDED}");
    Ok(())
}
