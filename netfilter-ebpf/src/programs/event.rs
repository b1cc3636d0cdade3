//! Reports a denied packet to user space, at a bounded rate; what is lost is counted.

use core::mem::offset_of;

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ringbuf_output};
use netfilter_ebpf::{
    abi::{Address, EVENT_CUT_CGROUP, EVENT_CUT_EXECUTABLE, Event, Path},
    dns::HEADER,
    packet::Packet,
    source::{self, MEMBER, PARTY, RESERVE, Silence, TOGETHER},
    verdict::{Family, LossStage, Reason},
};

use crate::{
    atomic,
    buffer::{Buffer, seam},
    clock,
    maps::{EVENTS, LOST, SOURCES, Scratch, count, seed},
    message::scratch,
    paths, who,
};

/// `read`: the packet in the scratch is the one. `named`: so is a question's name.
#[inline(always)]
pub(crate) fn report<B: Buffer>(
    buffer: &B,
    reason: Reason,
    audited: bool,
    read: bool,
    named: bool,
) {
    // Audit goes on to remember who sends.
    if !audited && is_silent(buffer) {
        return count(&LOST, LossStage::RateLimit as u8);
    }
    note(
        buffer,
        reason as u64,
        u64::from(audited),
        u64::from(read) | u64::from(named) << 1,
    );
}

seam! {
    /// With a stack of its own.
    fn note = (netfilter_report, xdp_report)<B>(buffer, reason: u64, audited: u64, about: u64) {
        let packet = scratch()
            .filter(|_| about & 1 != 0)
            .map(|scratch| &scratch.packet);
        send(buffer, packet, reason as u8, audited as u8, about & 2 != 0);
        0
    }
}

#[inline(always)]
fn send<B: Buffer>(buffer: &B, packet: Option<&Packet>, reason: u8, audited: u8, named: bool) {
    who::sends(buffer.skb());
    let source = packet.map_or(Address { high: 0, low: 0 }, |packet| packet.source);
    let untold = netfilter_may_tell(
        u64::from(buffer.came_by()),
        source.high,
        source.low,
        socket(buffer),
    );
    if untold == SILENT {
        return count(&LOST, LossStage::RateLimit as u8);
    }
    // Only now, for it takes longer than to be silent.
    who::tells(buffer.skb());
    let Some(Scratch {
        event,
        who,
        paths,
        message,
        question,
        ..
    }) = scratch()
    else {
        return count(&LOST, LossStage::RingFull as u8);
    };
    let nowhere = Address { high: 0, low: 0 };
    event.source = nowhere;
    event.destination = nowhere;
    event.source_port = 0;
    event.destination_port = 0;
    event.family = Family::Other as u8;
    event.protocol = 0;
    if let Some(packet) = packet {
        event.source = packet.source;
        event.destination = packet.destination;
        event.source_port = packet.source_port;
        event.destination_port = packet.destination_port;
        event.family = packet.family() as u8;
        event.protocol = packet.protocol;
    }
    event.ifindex = buffer.ifindex();
    event.bytes = buffer.length() as u32;
    event.reason = reason;
    event.audited = audited;
    event.time = clock::now();
    event.untold = untold;
    event.process = who.process;
    event.cgroup_id = who.cgroup_id;
    event.user = who.user;
    event.shared = who.shared;
    event.program = who.program;
    event.moment = who.moment;
    event.cut =
        (paths.executable.cut * EVENT_CUT_EXECUTABLE) | (paths.cgroup.cut * EVENT_CUT_CGROUP);
    event.name_length = 0;
    event.executable_length = paths.executable.length;
    event.cgroup_length = paths.cgroup.length;
    let text = event.text.as_mut_ptr();
    let mut at = 0;
    if named {
        let asked = (&raw const message[HEADER]).cast::<[u64; 32]>();
        // SAFETY: what is read of a message ends behind the longest name, and there is room.
        unsafe { text.cast::<[u64; 32]>().write(asked.read_unaligned()) };
        event.name_length = question.name_length as u16;
        at = rounded(question.name_length as u64);
    }
    append(text, at, &paths.executable);
    at += rounded(u64::from(paths.executable.length));
    append(text, at, &paths.cgroup);
    let mut length = offset_of!(Event, text) as u64 + at + u64::from(paths.cgroup.length);
    // SAFETY: plain arithmetic: no name and no path is that long, but the verifier cannot know.
    unsafe { core::arch::asm!("{0} &= 0x3ff", inout(reg) length) };
    // SAFETY: the map, and as many bytes of a map value, behind which there are more.
    let told = unsafe {
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            (&raw mut *event).cast(),
            length,
            0,
        )
    };
    if told != 0 {
        count(&LOST, LossStage::RingFull as u8);
    }
}

#[inline(always)]
const fn rounded(length: u64) -> u64 {
    (length + 7) & !7
}

#[inline(always)]
fn append(text: *mut u8, at: u64, path: &Path) {
    let mut at = at;
    // SAFETY: as above. It is a multiple of eight.
    unsafe { core::arch::asm!("{0} &= 0x3f8", inout(reg) at) };
    // SAFETY: within the scratch, which goes on behind the text; at multiples of eight bytes.
    unsafe { paths::copy_text(path.text.as_ptr(), text.add(at as usize), path.length) };
}

/// Whether nothing is told of the packet's socket now, see [`Silence`]. Then it is counted.
#[inline(always)]
fn is_silent<B: Buffer>(buffer: &B) -> bool {
    let Some(Scratch { silence, .. }) = scratch() else {
        return false;
    };
    if !silence.covers(socket(buffer), clock::now()) {
        return false;
    }
    if let Some(source) = SOURCES.get_ptr_mut(silence.place) {
        // SAFETY: a word of a map value.
        atomic::increment(unsafe { &raw mut (*source).untold });
    }
    true
}

/// The cookie of the packet's socket; zero without one.
#[inline(always)]
fn socket<B: Buffer>(buffer: &B) -> u64 {
    // SAFETY: a helper that takes the context.
    buffer
        .skb()
        .map_or(0, |skb| unsafe { bpf_get_socket_cookie(skb.cast()) })
}

/// In place of a number: nothing is reported.
const SILENT: u64 = u64::MAX;

/// Takes what a report of the sender in the scratch costs, and returns how many of the same
/// source were not reported before it, or [`SILENT`]. See [`netfilter_ebpf::source`]. `socket`:
/// its cookie, which then is silent while there can be no token.
///
/// A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_may_tell(interface: u64, high: u64, low: u64, socket: u64) -> u64 {
    let Some(scratch) = scratch() else {
        return SILENT;
    };
    let from = Address { high, low };
    let (party_place, member_place) = source::places(&scratch.who, interface as u32, from, seed());
    let (Some(party), Some(member), Some(all)) = (
        SOURCES.get_ptr_mut(party_place),
        SOURCES.get_ptr_mut(member_place),
        SOURCES.get_ptr_mut(source::ALL),
    ) else {
        return SILENT;
    };
    // SAFETY: map values, whose words are replaced whole.
    let (party, member, all) = unsafe { (&mut *party, &mut *member, &raw mut (*all).bucket) };
    let now = clock::now();
    let mut fall_silent = |place, untold| {
        scratch.silence = Silence {
            socket,
            second: now,
            place,
        };
        atomic::increment(untold);
        SILENT
    };
    for _ in 0..4 {
        // SAFETY: as above.
        let (of_member, of_party, of_all) = unsafe {
            (
                (&raw const member.bucket).read_volatile(),
                (&raw const party.bucket).read_volatile(),
                all.read_volatile(),
            )
        };
        let Some(left_member) = MEMBER.take(of_member, now, 0) else {
            return fall_silent(member_place, &raw mut member.untold);
        };
        let reserve = match PARTY.is_full(of_party, now) {
            true => 0,
            false => RESERVE,
        };
        let (Some(left_party), Some(left_all)) = (
            PARTY.take(of_party, now, 0),
            TOGETHER.take(of_all, now, reserve),
        ) else {
            return fall_silent(party_place, &raw mut party.untold);
        };
        // One that another processor takes meanwhile is too much for nobody but the last.
        if atomic::compare_exchange(all, of_all, left_all)
            && atomic::compare_exchange(&raw mut party.bucket, of_party, left_party)
            && atomic::compare_exchange(&raw mut member.bucket, of_member, left_member)
        {
            return taken(&raw mut party.untold) + taken(&raw mut member.untold);
        }
    }
    // Others took their tokens; there may be one for the next.
    atomic::increment(&raw mut member.untold);
    SILENT
}

/// What a counter was, which begins anew.
#[inline(always)]
fn taken(counter: *mut u64) -> u64 {
    // SAFETY: a word of a map value.
    let count = unsafe { counter.read_volatile() };
    match count == 0 || atomic::compare_exchange(counter, count, 0) {
        true => count,
        false => 0,
    }
}
