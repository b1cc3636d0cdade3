//! Reports a denied packet to user space, at a bounded rate; what is lost is counted.

use netfilter_ebpf::{
    abi::{Address, Event},
    dns::HEADER,
    packet::Packet,
    source::{self, MEMBER, PARTY, RESERVE, TOGETHER},
    verdict::{Family, LossStage, Reason},
};

use crate::{
    atomic,
    buffer::{Buffer, seam},
    clock,
    maps::{EVENTS, LOST, SOURCES, count, seed},
    message::scratch,
    who,
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
    let untold = netfilter_may_tell(u64::from(buffer.came_by()), source.high, source.low);
    if untold == SILENT {
        return count(&LOST, LossStage::RateLimit as u8);
    }
    // Only now, for it takes longer than to be silent.
    who::tells(buffer.skb());
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        return count(&LOST, LossStage::RingFull as u8);
    };
    let event = entry.as_mut_ptr();
    let nowhere = Address { high: 0, low: 0 };
    let (source, destination, source_port, destination_port, family, protocol) = match packet {
        Some(packet) => (
            packet.source,
            packet.destination,
            packet.source_port,
            packet.destination_port,
            packet.family(),
            packet.protocol,
        ),
        None => (nowhere, nowhere, 0, 0, Family::Other, 0),
    };
    // SAFETY: reserved for us; every field is written.
    unsafe {
        (&raw mut (*event).source).write(source);
        (&raw mut (*event).destination).write(destination);
        (&raw mut (*event).ifindex).write(buffer.ifindex());
        (&raw mut (*event).bytes).write(buffer.length() as u32);
        (&raw mut (*event).source_port).write(source_port);
        (&raw mut (*event).destination_port).write(destination_port);
        (&raw mut (*event).reason).write(reason);
        (&raw mut (*event).family).write(family as u8);
        (&raw mut (*event).protocol).write(protocol);
        (&raw mut (*event).audited).write(audited);
        (&raw mut (*event).padding).write(0);
        (&raw mut (*event).time).write(clock::now());
        (&raw mut (*event).untold).write(untold);
        if let Some(scratch) = scratch() {
            who::copy(&raw const scratch.who, &raw mut (*event).who);
        }
        let name = (&raw mut (*event).name).cast::<[u64; 32]>();
        let length = match scratch() {
            Some(scratch) if named => {
                let asked = (&raw const scratch.message)
                    .cast::<u8>()
                    .add(HEADER)
                    .cast::<[u64; 32]>();
                name.write_unaligned(asked.read_unaligned());
                scratch.question.name_length
            }
            _ => {
                name.write_unaligned([0; 32]);
                0
            }
        };
        (&raw mut (*event).name_length).write(length as u16);
    }
    entry.submit(0);
}

/// In place of a number: nothing is reported.
const SILENT: u64 = u64::MAX;

/// Takes what a report of the sender in the scratch costs, and returns how many of the same
/// source were not reported before it, or [`SILENT`]. See [`netfilter_ebpf::source`].
///
/// A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_may_tell(interface: u64, high: u64, low: u64) -> u64 {
    let Some(scratch) = scratch() else {
        return SILENT;
    };
    let from = Address { high, low };
    let (party, member) = source::places(&scratch.who, interface as u32, from, seed());
    let (Some(party), Some(member), Some(all)) = (
        SOURCES.get_ptr_mut(party),
        SOURCES.get_ptr_mut(member),
        SOURCES.get_ptr_mut(source::ALL),
    ) else {
        return SILENT;
    };
    // SAFETY: map values, whose words are replaced whole.
    let (party, member, all) = unsafe { (&mut *party, &mut *member, &raw mut (*all).bucket) };
    let now = clock::now();
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
            atomic::increment(&raw mut member.untold);
            return SILENT;
        };
        let reserve = match PARTY.is_full(of_party, now) {
            true => 0,
            false => RESERVE,
        };
        let (Some(left_party), Some(left_all)) = (
            PARTY.take(of_party, now, 0),
            TOGETHER.take(of_all, now, reserve),
        ) else {
            atomic::increment(&raw mut party.untold);
            return SILENT;
        };
        // One that another processor takes meanwhile is too much for nobody but the last.
        if atomic::compare_exchange(all, of_all, left_all)
            && atomic::compare_exchange(&raw mut party.bucket, of_party, left_party)
            && atomic::compare_exchange(&raw mut member.bucket, of_member, left_member)
        {
            return taken(&raw mut party.untold) + taken(&raw mut member.untold);
        }
    }
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
