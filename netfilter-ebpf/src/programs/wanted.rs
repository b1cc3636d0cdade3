//! Remembers what audit lets pass and no rule allows: each destination and each name, whole,
//! however fast they come. `suggest` makes a policy of them.

use aya_ebpf::bindings::BPF_NOEXIST;
use netfilter_ebpf::{
    abi::{Asked, Wanted},
    dns::{HEADER, Question},
    packet::{ACK, SYN, TCP},
    verdict::{LossStage, Reason},
    wanted::{self, Direction},
};

use crate::{
    atomic, clock,
    maps::{ASKED, LOST, Scratch, WANTED, count},
    message::scratch,
};

/// The packet in the scratch, whose sender is there too.
#[inline(always)]
pub(crate) fn packet(reason: Reason) {
    if matches!(reason, Reason::NoRule | Reason::DeniedByRule) {
        netfilter_wanted();
    }
}

/// The question of the loaded message. `name`: the keyed hash of its name; `inside`: it does
/// not leave.
#[inline(always)]
pub(crate) fn question(question: &Question, name: u64, reason: u64, inside: u64) {
    netfilter_asked(name, u64::from(question.qtype), reason, inside);
}

/// A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_wanted() -> u64 {
    let Some(Scratch {
        packet,
        who,
        wanted_key: key,
        wanted: fresh,
        ..
    }) = scratch()
    else {
        return 0;
    };
    *key = match wanted::direction(packet) {
        Direction::Out => wanted::destination(packet),
        Direction::Answer(port) => wanted::answer(packet.protocol, port),
        Direction::Underway => {
            *key = wanted::answer(packet.protocol, packet.source_port);
            match WANTED.get_ptr(&*key).is_some() {
                true => wanted::answer(packet.protocol, packet.source_port),
                false => wanted::destination(packet),
            }
        }
    };
    let now = clock::now();
    let begins = u64::from(packet.protocol == TCP && packet.kind & (SYN | ACK) == SYN);
    for _ in 0..2 {
        if let Some(known) = WANTED.get_ptr_mut(&*key) {
            // SAFETY: a map value.
            unsafe {
                atomic::increment(&raw mut (*known).packets);
                if begins != 0 {
                    atomic::increment(&raw mut (*known).begun);
                }
                (&raw mut (*known).last).write_volatile(now);
            }
            return 1;
        }
        *fresh = Wanted {
            packets: 1,
            begun: begins,
            cgroup_id: who.cgroup_id,
            address: packet.destination,
            first: now,
            last: now,
            process: who.process,
            user: who.user,
            program: who.program,
        };
        if WANTED
            .insert(&*key, &*fresh, u64::from(BPF_NOEXIST))
            .is_ok()
        {
            return 1;
        }
        // There is no room, unless another processor was first.
    }
    count(&LOST, LossStage::AuditFull as u8);
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_asked(name: u64, qtype: u64, reason: u64, inside: u64) -> u64 {
    let Some(Scratch {
        message,
        question,
        asked_key: key,
        asked_for: fresh,
        ..
    }) = scratch()
    else {
        return 0;
    };
    key.name = name;
    key.qtype = qtype as u16;
    key.inside = inside as u16;
    key.padding = 0;
    let now = clock::now();
    for _ in 0..2 {
        if let Some(known) = ASKED.get_ptr_mut(&*key) {
            // SAFETY: a map value.
            unsafe {
                atomic::increment(&raw mut (*known).questions);
                (&raw mut (*known).last).write_volatile(now);
            }
            return 1;
        }
        let fresh: *mut Asked = fresh;
        // SAFETY: the scratch, of which every field is written; the buffer of the message is
        // longer than its header and a name.
        unsafe {
            (&raw mut (*fresh).questions).write(1);
            (&raw mut (*fresh).first).write(now);
            (&raw mut (*fresh).last).write(now);
            (&raw mut (*fresh).name_length).write(question.name_length as u16);
            (&raw mut (*fresh).reason).write(reason as u8);
            (&raw mut (*fresh).padding).write([0; 5]);
            let asked = message.as_ptr().add(HEADER).cast::<[u64; 32]>();
            (&raw mut (*fresh).name)
                .cast::<[u64; 32]>()
                .write_unaligned(asked.read_unaligned());
        }
        // SAFETY: as above.
        let fresh = unsafe { &*fresh };
        if ASKED.insert(&*key, fresh, u64::from(BPF_NOEXIST)).is_ok() {
            return 1;
        }
    }
    count(&LOST, LossStage::AuditFull as u8);
    0
}
