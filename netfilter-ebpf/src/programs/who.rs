//! Who uses a socket: asked when it connects or sends, in the context of the process that
//! does, and kept with the socket. A denied packet tells it; others do not look.
//!
//! These programs run for sockets of the whole machine, and note those of one network
//! namespace. They can be interrupted, by tc's programs and by themselves: they use no
//! scratch, and what they write has a sequence.

use core::{ffi::c_void, mem::offset_of, ptr};

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_addr},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        bpf_get_netns_cookie,
        generated::{
            bpf_get_current_cgroup_id, bpf_get_current_task_btf, bpf_get_socket_uid,
            bpf_sk_fullsock, bpf_sk_storage_get, bpf_skb_cgroup_id,
        },
    },
};
use netfilter_ebpf::{
    abi::{NO_PROCESS, NO_USER, PathsKey, Who},
    packet::{TCP, UDP},
    verdict::Moment,
};

use crate::{
    atomic,
    climb::{self, field32, field64, layout, word},
    clock,
    maps::{NETWORK, Scratch, WHO},
    message::scratch,
    paths,
    skb::Skb,
};

const GO_ON: i32 = 1;

/// At connect(2), and where a datagram is sent without.
#[inline(always)]
pub(crate) fn uses(asked: *mut bpf_sock_addr, moment: Moment) -> i32 {
    if is_ours(asked.cast()) {
        // SAFETY: the context, whose fields the verifier knows.
        note(unsafe { (*asked).__bindgen_anon_1.sk }.cast(), moment);
    }
    GO_ON
}

/// At socket(2). TCP and UDP say more later.
#[inline(always)]
pub(crate) fn makes(socket: *mut bpf_sock) -> i32 {
    // SAFETY: the context, whose fields the verifier knows.
    let protocol = unsafe { (*socket).protocol };
    let later = protocol == u32::from(TCP) || protocol == u32::from(UDP);
    if !later && is_ours(socket.cast()) {
        note(socket.cast(), Moment::Socket);
    }
    GO_ON
}

#[inline(always)]
fn is_ours(context: *mut c_void) -> bool {
    // SAFETY: a helper that takes the context.
    let network = unsafe { bpf_get_netns_cookie(context) };
    NETWORK.get(0).is_some_and(|ours| *ours == network)
}

/// Whom this program serves.
struct Current {
    process: u32,
    user: u32,
    cgroup_id: u64,
    started: u64,
    executions: u64,
    program: [u64; 2],
}

impl Current {
    #[inline(always)]
    fn get() -> Self {
        if layout!(known) == 0 {
            Self::ask()
        } else {
            Self::read()
        }
    }

    /// Where its structures are known: the kernel calls this for each datagram, and a helper
    /// for each word would take longer than all the rest.
    #[inline(always)]
    fn read() -> Self {
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task_btf() } as u64;
        let leader = field64(task, layout!(task_leader));
        let cgroup = field64(field64(task, layout!(task_cgroups)), layout!(css_cgroup));
        let rights = field64(task, layout!(task_rights));
        Self {
            process: field32(task, layout!(task_process)),
            user: field32(rights, layout!(rights_user)),
            cgroup_id: field64(field64(cgroup, layout!(cgroup_node)), layout!(node_id)),
            started: field64(leader, layout!(task_started)),
            executions: u64::from(field32(task, layout!(task_executions))),
            program: [
                field64(task, layout!(task_program)),
                field64(task, layout!(task_program) + 8),
            ],
        }
    }

    #[inline(always)]
    fn ask() -> Self {
        let program: [u8; 16] = bpf_get_current_comm().unwrap_or([0; 16]);
        Self {
            process: (bpf_get_current_pid_tgid() >> 32) as u32,
            user: bpf_get_current_uid_gid() as u32,
            // SAFETY: a helper without arguments.
            cgroup_id: unsafe { bpf_get_current_cgroup_id() },
            started: 0,
            executions: 0,
            // SAFETY: as many bytes.
            program: unsafe { core::mem::transmute::<[u8; 16], [u64; 2]>(program) },
        }
    }

    #[inline(always)]
    fn is_process_of(&self, who: &Who) -> bool {
        self.process == who.process && self.started == who.started
    }

    #[inline(always)]
    fn is(&self, who: &Who) -> bool {
        // SAFETY: as many bytes, in a map value at a multiple of eight.
        let program = unsafe { (&raw const who.program).cast::<[u64; 2]>().read() };
        self.is_process_of(who)
            && self.executions == who.executions
            && self.user == who.user
            && self.cgroup_id == who.cgroup_id
            && self.program[0] == program[0]
            && self.program[1] == program[1]
    }
}

#[inline(always)]
fn note(socket: *mut c_void, moment: Moment) {
    // SAFETY: the socket that the kernel passed. The map makes room filled with zeros.
    let place = unsafe {
        bpf_sk_storage_get(
            (&raw const WHO).cast_mut().cast(),
            socket,
            ptr::null_mut(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    }
    .cast::<Who>();
    // SAFETY: null or a value of the map.
    let Some(who) = (unsafe { place.as_mut() }) else {
        return;
    };
    let current = Current::get();
    let sequence = &raw mut who.sequence;
    // SAFETY: a word of a map value.
    let before = unsafe { sequence.read_volatile() };
    if before & 1 == 0 && who.moment == moment as u8 && current.is(who) {
        return;
    }
    // Who only made the socket, for a child of his, has sent nothing.
    let used = who.moment == Moment::Connect as u8 || who.moment == Moment::Send as u8;
    if used && !current.is_process_of(who) {
        who.shared = clock::read();
    }
    if before & 1 != 0 || !atomic::compare_exchange(sequence, before, before + 1) {
        // Another process is writing itself down.
        who.shared = clock::read();
        return;
    }
    who.process = current.process;
    who.user = current.user;
    who.cgroup_id = current.cgroup_id;
    who.started = current.started;
    who.executions = current.executions;
    who.moment = moment as u8;
    // SAFETY: as many bytes, in a map value at a multiple of eight.
    unsafe {
        (&raw mut who.program)
            .cast::<[u64; 2]>()
            .write(current.program);
    }
    atomic::compare_exchange(sequence, before + 1, before + 2);
    // By what is known of this program's own process: the socket may be another's by now.
    let Current {
        process,
        started,
        executions,
        cgroup_id,
        ..
    } = current;
    paths::note(&PathsKey::new(process, started, executions, cgroup_id));
}

/// Writes into the scratch who sends this packet, as far as its socket tells. `whole` is zero
/// where that is to be told from others only: then the paths stay as they were.
///
/// A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_who(raw: *mut aya_ebpf::bindings::__sk_buff, whole: u64) -> u64 {
    let Some(Scratch { who, paths, .. }) = scratch() else {
        return 0;
    };
    let skb = Skb::at(raw).skb();
    // SAFETY: the context, whose fields the verifier knows.
    let socket = unsafe { (*skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return 0;
    }
    // SAFETY: not null, as just seen. One that is only half there has no owner.
    let socket = unsafe { bpf_sk_fullsock(socket) };
    if socket.is_null() {
        return 0;
    }
    // SAFETY: not null, as just seen.
    let place = unsafe {
        bpf_sk_storage_get(
            (&raw const WHO).cast_mut().cast(),
            socket.cast(),
            ptr::null_mut(),
            0,
        )
    };
    let mut is_noted = false;
    if !place.is_null() {
        let noted = place.cast::<Who>().cast_const();
        // SAFETY: a word of a value of the map.
        let before = unsafe { (&raw const (*noted).sequence).read_volatile() };
        let sequence = place.cast::<u64>();
        const { assert!(offset_of!(Who, sequence) == 0) };
        // Twice the barrier that is in it.
        let unchanged = || atomic::compare_exchange(sequence, before, before);
        if before & 1 == 0 && before != 0 && unchanged() {
            copy(noted, who);
            is_noted = unchanged();
        }
        // Else it changes hands at this moment.
    }
    let key = PathsKey::new(who.process, who.started, who.executions, who.cgroup_id);
    if is_noted && (whole == 0 || paths::recall(&key, paths)) {
        return 1;
    }
    // SAFETY: a helper that takes the context.
    let cgroup_id = unsafe { bpf_skb_cgroup_id(skb) };
    if !is_noted {
        who.process = NO_PROCESS;
        who.moment = Moment::Owner as u8;
        who.shared = 0;
        who.started = 0;
        who.cgroup_id = cgroup_id;
        // SAFETY: a helper that takes the context.
        who.user = unsafe { bpf_get_socket_uid(skb) };
    }
    paths.forget();
    // The socket's own cgroup is told by the socket.
    if whole != 0 && layout!(known) != 0 && who.cgroup_id == cgroup_id {
        // The verifier computes with numbers, not with sockets: so it is read back as one.
        let socket = word((&raw const socket) as u64);
        let cgroup = word(socket + layout!(sock_cgroup));
        climb::cgroups(&mut paths.cgroup, word(cgroup + layout!(cgroup_node)));
    }
    1
}

/// Who sends the packet: in the scratch, as far as it tells senders apart.
#[inline(always)]
pub(crate) fn sends(skb: Option<*mut aya_ebpf::bindings::__sk_buff>) {
    let known = skb.is_some_and(|skb| netfilter_who(skb, 0) != 0);
    if !known && let Some(Scratch { who, paths, .. }) = scratch() {
        who.process = NO_PROCESS;
        who.user = NO_USER;
        who.cgroup_id = 0;
        who.started = 0;
        who.shared = 0;
        who.moment = 0;
        paths.forget();
    }
}

/// The same, and by which paths it is known.
#[inline(always)]
pub(crate) fn tells(skb: Option<*mut aya_ebpf::bindings::__sk_buff>) {
    if let Some(skb) = skb {
        netfilter_who(skb, 1);
    }
}

#[inline(always)]
fn copy(from: *const Who, to: *mut Who) {
    const WORDS: usize = size_of::<Who>() / 8;
    // SAFETY: as many words, at multiples of eight bytes. What is read may be changing; whoever
    // asked looks again.
    unsafe { ptr::copy_nonoverlapping(from.cast::<u64>(), to.cast(), WORDS) };
}
