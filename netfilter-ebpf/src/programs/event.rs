//! Reports a denied packet to user space, at a bounded rate; what is lost is counted.

use netfilter_ebpf::{
    abi::{Address, EVENTS_PER_SECOND, Event},
    dns::HEADER,
    packet::Packet,
    verdict::{Family, LossStage, Reason},
};

use crate::{
    buffer::{Buffer, seam},
    clock,
    maps::{BUDGETS, EVENTS, LOST, count},
    message::scratch,
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
    if !spend() {
        return count(&LOST, LossStage::RateLimit as u8);
    }
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

/// Takes one token of this processor's budget.
#[inline(always)]
fn spend() -> bool {
    let Some(budget) = BUDGETS.get_ptr_mut(0) else {
        return false;
    };
    let second = clock::now();
    // SAFETY: a map value of this processor.
    unsafe {
        if (*budget).second != second {
            (*budget).second = second;
            (*budget).left = EVENTS_PER_SECOND;
        }
        if (*budget).left == 0 {
            return false;
        }
        (*budget).left -= 1;
    }
    true
}
