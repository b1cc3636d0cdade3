//! The root of cgroup v2, of which all sockets of the machine are, and links of programs there.

use std::{
    ffi::CStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
};

use nix::errno::Errno;

use super::{
    Unguarded,
    tcx::{LINK_CREATE, OBJ_GET_INFO_BY_FD, descriptor, number},
    test_run::bpf,
};

/// Of the root directory of the hierarchy (kernfs), and of no other: what a cgroup namespace
/// calls the root has another.
const ROOT_INODE: u64 = 1;

/// The root, found where cgroup v2 is mounted. Where it is not, it is mounted for this
/// process alone, at no place.
pub(super) fn root() -> Result<OwnedFd, Unguarded> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounted(&mounts);
    let mut hidden = !mounted.is_empty();
    for directory in mounted {
        match File::open(&directory) {
            Ok(directory) if is_root(&directory) => return Ok(directory.into()),
            _ => {}
        }
    }
    match mount() {
        Ok(directory) if is_root(&directory) => return Ok(directory.into()),
        Ok(_) => hidden = true,
        Err(_) => {}
    }
    Err(if hidden {
        Unguarded::Hidden
    } else {
        Unguarded::NoCgroup
    })
}

/// The places of cgroup v2 in `/proc/self/mountinfo` (proc(5)).
fn mounted(mounts: &str) -> Vec<PathBuf> {
    let mounts = mounts.lines().filter_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        (system.split(' ').next()? == "cgroup2").then_some(())?;
        // A blank in it would be written `\040`; nobody mounts it so.
        Some(PathBuf::from(mount.split(' ').nth(4)?))
    });
    mounts.collect()
}

fn is_root(directory: &File) -> bool {
    let inode = directory.metadata().map(|metadata| metadata.ino());
    inode.is_ok_and(|inode| inode == ROOT_INODE)
}

/// A mount without a place (fsmount(2), Linux 5.2).
fn mount() -> io::Result<File> {
    const CLOSE_ON_EXEC: libc::c_uint = 1; // FSOPEN_, FSMOUNT_CLOEXEC
    const CREATE: libc::c_uint = 6; // FSCONFIG_CMD_CREATE
    const NAME: &CStr = c"cgroup2";
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: the name ends with a zero; the other calls take numbers.
    unsafe {
        let context = owned(libc::syscall(
            libc::SYS_fsopen,
            NAME.as_ptr(),
            CLOSE_ON_EXEC,
        ))?;
        let fd = context.as_raw_fd();
        Errno::result(libc::syscall(
            libc::SYS_fsconfig,
            fd,
            CREATE,
            nothing,
            nothing,
            0,
        ))?;
        let mounted = owned(libc::syscall(libc::SYS_fsmount, fd, CLOSE_ON_EXEC, 0))?;
        // What fsmount gives is a path; a program is attached to a directory.
        let open = libc::O_DIRECTORY | libc::O_CLOEXEC;
        let directory = libc::openat(mounted.as_raw_fd(), c".".as_ptr(), open);
        Ok(owned(directory.into())?.into())
    }
}

fn owned(returned: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = RawFd::try_from(Errno::result(returned)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// What a program is called at (`enum bpf_attach_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Socket = 2,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Setsockopt = 22,
}

/// Attaches a program to a call, beside those of others.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    call: Call,
    cgroup: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let mut attributes = [
        number(program.as_raw_fd()),
        number(cgroup.as_raw_fd()),
        call as u32,
        0,
    ];
    descriptor(bpf(LINK_CREATE, &mut attributes)?)
}

/// Whether the program of a link runs.
pub(super) fn is_attached(link: &OwnedFd) -> io::Result<bool> {
    /// The beginning of `struct bpf_link_info`, of a link to a cgroup.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        /// Zero where it is detached.
        cgroup: u64,
        attach_type: u32,
        more: u32,
    }
    #[repr(C)]
    struct Attributes {
        descriptor: u32,
        length: u32,
        info: u64,
    }
    let mut info = Info::default();
    let mut attributes = Attributes {
        descriptor: number(link.as_raw_fd()),
        length: u32::try_from(size_of::<Info>()).unwrap_or(0),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info.cgroup != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_is_found_wherever_it_is_mounted() {
        let mounts = "\
            24 1 0:22 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n\
            25 24 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate\n\
            26 24 0:24 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,name=systemd\n\
            90 24 0:23 /../.. /run/outer rw - cgroup2 none rw\n";
        let expected = ["/sys/fs/cgroup/unified", "/run/outer"].map(PathBuf::from);
        assert_eq!(mounted(mounts), expected);
        assert_eq!(mounted(""), Vec::<PathBuf>::new());
    }

    #[test]
    #[ignore = "needs root"]
    fn the_root_is_found_with_a_mount_and_without() {
        assert!(is_root(&root().unwrap().into()));
        let unmounted = mount().unwrap();
        assert!(is_root(&unmounted));
        let part = tempfile::tempdir_in(format!("/proc/self/fd/{}", unmounted.as_raw_fd()));
        // Where controllers forbid it, there is no part to look at.
        if let Ok(part) = part {
            assert!(!is_root(&File::open(part.path()).unwrap()));
        }
    }
}
