//! The kernel's trees of files and of cgroups, climbed from a leaf to the root.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use netfilter_ebpf::abi::{Layout, PATH, Path};

/// Set when the programs are loaded. Where nothing is known, what reads the kernel's memory
/// is not in the program at all: the verifier removes it.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Layout = Layout {
    known: 0,
    task_mm: 0,
    task_leader: 0,
    task_started: 0,
    task_executions: 0,
    task_cgroups: 0,
    task_process: 0,
    task_rights: 0,
    task_program: 0,
    rights_user: 0,
    mm_file: 0,
    file_path: 0,
    path_mount: 0,
    path_dentry: 0,
    dentry_name: 0,
    dentry_parent: 0,
    mount_root: 0,
    mount_mnt: 0,
    mount_parent: 0,
    mount_point: 0,
    css_cgroup: 0,
    cgroup_node: 0,
    node_name: 0,
    node_parent: 0,
    node_id: 0,
    sock_cgroup: 0,
};

macro_rules! layout {
    ($field:ident) => {
        // SAFETY: a word of a constant, which the compiler must not take for zero.
        u64::from(unsafe { (&raw const $crate::climb::LAYOUT.$field).read_volatile() })
    };
}
pub(crate) use layout;

/// A word of the kernel's memory, or zero.
#[inline(always)]
pub(crate) fn word(at: u64) -> u64 {
    let mut word = 0u64;
    // SAFETY: room for a word; the helper reads from anywhere, or fails.
    unsafe { bpf_probe_read_kernel((&raw mut word).cast(), 8, at as *const c_void) };
    word
}

macro_rules! field {
    ($name:ident, $of:ty, $kind:literal) => {
        /// The same of a structure whose type the verifier knows, at a place in [`LAYOUT`]:
        /// without a helper. `of` came from one, or from here.
        #[inline(always)]
        pub(crate) fn $name(of: u64, place: u64) -> $of {
            let found: u64;
            // SAFETY: the verifier has seen that the structure has such a field.
            unsafe {
                core::arch::asm!(
                    concat!("{found} = *(", $kind, " *)({at} + 0)"),
                    found = out(reg) found,
                    at = in(reg) of + place,
                    options(pure, readonly, nostack),
                );
            }
            found as $of
        }
    };
}

field!(field64, u64, "u64");
field!(field32, u32, "u32");

/// Names and mounts that are climbed over.
const STEPS: u32 = 24;
/// The longest piece of a name, with its zero.
const PIECE: usize = PATH / 2;

/// Writes the names from a file's `dentry` to the root of all that is mounted.
#[inline(always)]
pub(crate) fn files(path: &mut Path, dentry: u64, mount: u64) {
    let (mut node, mut mount) = (dentry, mount);
    let mut root = word(mount + layout!(mount_root));
    let (mut at, mut cut) = (0, 1);
    for _ in 0..STEPS {
        if node == root {
            // Goes on where this is mounted, unless it is the root of all.
            let this = mount - layout!(mount_mnt);
            let upper = word(this + layout!(mount_parent));
            if upper == this {
                cut = 0;
                break;
            }
            node = word(this + layout!(mount_point));
            mount = upper + layout!(mount_mnt);
            root = word(mount + layout!(mount_root));
            continue;
        }
        if !append(path, &mut at, word(node + layout!(dentry_name))) {
            break;
        }
        let above = word(node + layout!(dentry_parent));
        if above == node || above == 0 {
            // Of a tree that is mounted nowhere.
            break;
        }
        node = above;
    }
    path.length = at as u16;
    path.cut = cut;
}

/// Writes the names from a cgroup's `node` to the root of cgroups, which has none.
#[inline(always)]
pub(crate) fn cgroups(path: &mut Path, node: u64) {
    let mut node = node;
    let (mut at, mut cut) = (0, 1);
    for _ in 0..STEPS {
        let above = word(node + layout!(node_parent));
        if above == 0 {
            cut = 0;
            break;
        }
        if !append(path, &mut at, word(node + layout!(node_name))) {
            break;
        }
        node = above;
    }
    path.length = at as u16;
    path.cut = cut;
}

/// Writes a name behind the others. False: it is not there whole.
#[inline(always)]
fn append(path: &mut Path, at: &mut u64, name: u64) -> bool {
    const { assert!(PIECE == 0x80) };
    if *at >= PIECE as u64 {
        return false;
    }
    let mut place = *at;
    // SAFETY: plain arithmetic, which changes nothing. What the verifier knows of the place
    // is the same in each step, so that it does not look at each anew.
    unsafe { core::arch::asm!("{0} &= 0x7f", inout(reg) place) };
    let text = path.text.as_mut_ptr();
    // SAFETY: a piece fits behind the place.
    let read = unsafe {
        bpf_probe_read_kernel_str(
            text.add(place as usize).cast(),
            PIECE as u32,
            name as *const c_void,
        )
    };
    let mut length = read as u64;
    // SAFETY: as above.
    unsafe { core::arch::asm!("{0} &= 0xff", inout(reg) length) };
    if read <= 0 {
        return false;
    }
    *at = place + length;
    length < PIECE as u64
}
