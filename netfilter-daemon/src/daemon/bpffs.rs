//! The file system that keeps the filter in force while no process runs.

use std::{io, path::Path};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Where the kernel makes room for one, and where systemd mounts it.
const USUAL: &str = "/sys/fs/bpf";

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot mount a BPF file system on {USUAL}: {0}; mount it yourself (`mount -t bpf bpf {USUAL}`), \
     or name a directory on another one with --state-dir"
)]
pub(crate) struct Error(#[from] io::Error);

/// Mounts the usual BPF file system if the state directory is in its place and
/// nobody has mounted it. True if this call did.
pub(crate) fn mount_usual(state_dir: &Path) -> Result<bool, Error> {
    if !is_to_be_mounted(state_dir) {
        return Ok(false);
    }
    let usual = Path::new(USUAL);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), usual, Some("bpf"), flags, Some("mode=0700"))
        .map_err(|errno| Error(errno.into()))?;
    Ok(true)
}

/// Whether [`mount_usual`] has something to do.
pub(crate) fn is_to_be_mounted(state_dir: &Path) -> bool {
    let usual = Path::new(USUAL);
    let mounted = statfs(usual).is_ok_and(|statfs| statfs.filesystem_type() == BPF_FS_MAGIC);
    state_dir.starts_with(usual) && !mounted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_elsewhere_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!mount_usual(&directory.path().join("netfilter")).unwrap());
        assert!(!mount_usual(Path::new("/sys/fs/bpffs/netfilter")).unwrap());
    }
}
