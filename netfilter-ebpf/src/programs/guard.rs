//! Refuses sockets a way past tc. Runs for every setsockopt(2) of the machine, of whatever
//! network namespace, and judges those of one.
//!
//! Unlike the programs of tc it can be interrupted, by them and by itself: nothing in the
//! scratch, and what it counts is counted atomically.

use aya_ebpf::{
    bindings::bpf_sockopt,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        bpf_get_netns_cookie,
    },
};
use netfilter_ebpf::{
    abi::{ATTEMPTS_PER_MINUTE, Attempt, Counter, DropKey, NO_PROCESS},
    gate,
    guard::{self, Answer},
    verdict::{Family, LossStage, ProtocolLabel, Reason, Way},
};

use crate::{
    atomic, clock,
    maps::{ATTEMPT_BUDGET, ATTEMPTS, DROPPED, LOST, NETWORK, USERS},
    tables::Generation,
};

const GRANT: i32 = 1;
/// EPERM
const REFUSE: i32 = 0;

/// What the kernel shows of a value. Before Linux 6.5 longer ones are EFAULT unless the
/// program says that it has not looked at them.
const SHOWN: i32 = 4096;

/// `NAMED`: the kernel tells who asks, which it does since Linux 6.1.
#[inline(always)]
pub(crate) fn run<const NAMED: bool>(asked: *mut bpf_sockopt) -> i32 {
    // SAFETY: the context, whose fields the verifier knows.
    let (level, option, length) = unsafe { ((*asked).level, (*asked).optname, (*asked).optlen) };
    let Some(way) = guard::way(level, option, value(asked, length)) else {
        return untouched(asked, length);
    };
    // SAFETY: a helper that takes the context.
    let network = unsafe { bpf_get_netns_cookie(asked.cast()) };
    if NETWORK.get(0).is_none_or(|ours| *ours != network) {
        return untouched(asked, length);
    }
    let user = bpf_get_current_uid_gid() as u32;
    let answer = match Generation::active() {
        Some((generation, settings)) => match USERS.get(generation.slot()) {
            Some(users) => guard::answer(settings, users, user),
            None => Answer::Refuse,
        },
        None => Answer::Refuse,
    };
    if answer == Answer::Grant {
        return GRANT;
    }
    let audited = answer == Answer::Audit;
    count(audited);
    report::<NAMED>(way, user, audited);
    if audited { GRANT } else { REFUSE }
}

/// What is none of our business.
#[inline(always)]
fn untouched(asked: *mut bpf_sockopt, length: i32) -> i32 {
    if length > SHOWN {
        // SAFETY: the context; zero stands for what the process has given.
        unsafe { (*asked).optlen = 0 };
    }
    GRANT
}

/// Of an option of four bytes.
#[inline(always)]
fn value(asked: *mut bpf_sockopt, length: i32) -> Option<u32> {
    if length != size_of::<u32>() as i32 {
        return None;
    }
    // SAFETY: as the verifier wants it: the end is compared before anything is read.
    unsafe {
        let start = (*asked).__bindgen_anon_2.optval.cast::<u32>();
        let end = (*asked).__bindgen_anon_3.optval_end.cast::<u32>();
        (start.wrapping_add(1) <= end).then(|| start.read_unaligned())
    }
}

#[inline(always)]
fn count(audited: bool) {
    let key = DropKey {
        interface: 0,
        reason: Reason::RawSocket as u8,
        family: Family::Other as u8,
        protocol: ProtocolLabel::Other as u8,
        audited: u8::from(audited),
    };
    if DROPPED.get_ptr_mut(&key).is_none() {
        // Another's insert of the same key serves as well.
        DROPPED
            .insert(
                &key,
                &Counter {
                    packets: 0,
                    bytes: 0,
                },
                u64::from(aya_ebpf::bindings::BPF_NOEXIST),
            )
            .ok();
    }
    if let Some(counter) = DROPPED.get_ptr_mut(&key) {
        // SAFETY: within a map value.
        atomic::increment(unsafe { &raw mut (*counter).packets });
    }
}

#[inline(always)]
fn report<const NAMED: bool>(way: Way, user: u32, audited: bool) {
    if !spend() {
        return lost(LossStage::RateLimit);
    }
    let Some(mut entry) = ATTEMPTS.reserve::<Attempt>(0) else {
        return lost(LossStage::RingFull);
    };
    let (process, program) = if NAMED {
        let process = (bpf_get_current_pid_tgid() >> 32) as u32;
        (process, bpf_get_current_comm().unwrap_or([0; 16]))
    } else {
        (NO_PROCESS, [0; 16])
    };
    entry.write(Attempt {
        time: clock::read(),
        process,
        user,
        way: way as u8,
        audited: u8::from(audited),
        padding: 0,
        program,
    });
    entry.submit(0);
}

/// Takes one report of those that a minute has.
#[inline(always)]
fn spend() -> bool {
    let Some(budget) = ATTEMPT_BUDGET.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a word that is replaced whole.
    let before = unsafe { core::ptr::read_volatile(budget) };
    gate::spend(before, clock::read(), ATTEMPTS_PER_MINUTE)
        .is_some_and(|after| atomic::compare_exchange(budget, before, after))
}

#[inline(always)]
fn lost(stage: LossStage) {
    if let Some(counter) = LOST.get_ptr_mut(stage as u32) {
        atomic::increment(counter);
    }
}
