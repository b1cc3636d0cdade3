//! Notes who uses a socket, for denied packets to tell it; see `programs/who.rs`.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
};

use aya::{Ebpf, programs::Program};
use netfilter_ebpf::abi::Layout;

use super::{
    btf::{self, Types},
    cgroup::Call,
    guard::{self, Unguarded},
    test_run::{Size, bpf},
};

/// Programs, the names of their pins, and what they are called at.
pub(super) const PROGRAMS: [(&str, &str, Call); 5] = [
    ("netfilter_connect4", "connect4", Call::Connect4),
    ("netfilter_connect6", "connect6", Call::Connect6),
    ("netfilter_sendmsg4", "sendmsg4", Call::Sendmsg4),
    ("netfilter_sendmsg6", "sendmsg6", Call::Sendmsg6),
    ("netfilter_socket", "socket", Call::Socket),
];

/// The line where the programs are not there.
pub(super) fn nameless(why: &Unguarded) -> String {
    format!("events tell the user and the cgroup of a socket, and not which process used it: {why}")
}

/// Why programs and cgroups have no paths in events. All else is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Pathless {
    #[error("this kernel does not describe its types (no {})", btf::PATH)]
    NoTypes,
    #[error("this kernel's description of its types has not what it takes")]
    Unknown,
    #[error("this kernel does not let its memory be read (lockdown=confidentiality)")]
    Unreadable,
}

impl Pathless {
    /// The whole line.
    pub fn sentence(self) -> String {
        format!("events do not name the paths of executables and cgroups, nor containers: {self}")
    }
}

/// What the programs must know to find paths. It is read once: a kernel's types stay as they are,
/// and take 14 MB for a moment.
pub(super) fn layout() -> Result<Layout, Pathless> {
    static LAYOUT: OnceLock<Result<Layout, Pathless>> = OnceLock::new();
    match may_read() {
        true => *LAYOUT.get_or_init(read),
        false => Err(Pathless::Unreadable),
    }
}

fn read() -> Result<Layout, Pathless> {
    let bytes = fs::read(btf::PATH).or(Err(Pathless::NoTypes))?;
    let types = Types::parse(&bytes).ok_or(Pathless::Unknown)?;
    within(&types).ok_or(Pathless::Unknown)
}

/// Fields that kernels call differently have several names.
fn within(types: &Types) -> Option<Layout> {
    let at = |structure, names: &[&str]| types.offset(structure, names);
    Some(Layout {
        known: 1,
        task_mm: at("task_struct", &["mm"])?,
        task_leader: at("task_struct", &["group_leader"])?,
        task_started: at("task_struct", &["start_boottime"])?,
        task_executions: at("task_struct", &["self_exec_id"])?,
        task_cgroups: at("task_struct", &["cgroups"])?,
        task_process: at("task_struct", &["tgid"])?,
        task_rights: at("task_struct", &["cred"])?,
        task_program: at("task_struct", &["comm"])?,
        rights_user: at("cred", &["uid"])?,
        mm_file: at("mm_struct", &["exe_file"])?,
        file_path: at("file", &["f_path"])?,
        path_mount: at("path", &["mnt"])?,
        path_dentry: at("path", &["dentry"])?,
        dentry_name: at("dentry", &["d_name"])?.checked_add(at("qstr", &["name"])?)?,
        dentry_parent: at("dentry", &["d_parent"])?,
        mount_root: at("vfsmount", &["mnt_root"])?,
        mount_mnt: at("mount", &["mnt"])?,
        mount_parent: at("mount", &["mnt_parent"])?,
        mount_point: at("mount", &["mnt_mountpoint"])?,
        css_cgroup: at("css_set", &["dfl_cgrp"])?,
        cgroup_node: at("cgroup", &["kn"])?,
        node_name: at("kernfs_node", &["name"])?,
        // `__parent` since Linux 6.15.
        node_parent: at("kernfs_node", &["__parent", "parent"])?,
        node_id: at("kernfs_node", &["id"])?,
        sock_cgroup: at("sock", &["sk_cgrp_data"])?
            .checked_add(at("sock_cgroup_data", &["cgroup", "val"])?)?,
    })
}

/// Whether the kernel takes a program that reads its memory.
fn may_read() -> bool {
    const PROG_LOAD: libc::c_int = 5;
    const SCHED_CLS: u32 = 3;
    const READ: u64 = 113; // bpf_probe_read_kernel
    /// The beginning of what BPF_PROG_LOAD takes.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 4],
    }
    let call = READ << 32 | 0x85;
    let instructions: [u64; 7] = [
        0x0000_0000_fff8_0a7a, // *(u64 *)(r10 - 8) = 0
        0x0000_0000_0000_a1bf, // r1 = r10
        0xffff_fff8_0000_0107, // r1 += -8
        0x0000_0008_0000_02b7, // r2 = 8
        0x0000_0000_0000_03b7, // r3 = 0
        call,
        0x0000_0000_0000_0095, // exit
    ];
    let mut attributes = Attributes {
        kind: SCHED_CLS,
        count: 7,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 4],
    };
    let loaded = bpf(PROG_LOAD, &mut attributes);
    loaded.and_then(super::tcx::descriptor).is_ok()
}

/// The program, which is loaded at the first call.
pub(super) fn copied(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, Unguarded> {
    let fd = loaded(ebpf, name)?.fd().map_err(guard::refused)?;
    fd.as_fd().try_clone_to_owned().map_err(guard::refused)
}

pub(super) fn size(ebpf: &mut Ebpf, name: &'static str) -> Result<Size, Unguarded> {
    let info = loaded(ebpf, name)?.info().map_err(guard::refused)?;
    Ok(Size::of(name, &info))
}

fn loaded<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a Program, Unguarded> {
    let program = ebpf.program_mut(name).ok_or(Unguarded::Absent)?;
    if program.fd().is_err() {
        let loaded = match program {
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            _ => return Err(Unguarded::Absent),
        };
        loaded.map_err(guard::refused)?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_all_that_leads_to_paths() {
        let bytes = fs::read(btf::PATH).unwrap();
        let layout = within(&Types::parse(&bytes).unwrap()).unwrap();
        assert_eq!(layout.known, 1);
        assert!(layout.task_mm > 0 && layout.node_name > 0, "{layout:?}");
    }
}
