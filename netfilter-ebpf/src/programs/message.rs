//! A DNS message, copied out of the packet into this processor's scratch.
//!
//! What walks it are global functions: the verifier checks each once, by
//! itself, instead of once for each path that leads to it.

use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use netfilter_ebpf::{
    abi::MAX_DNS_MESSAGE,
    dns::{self, Kind, Question, Step},
    packet::{Bytes, Packet},
};

use crate::{
    maps::{MESSAGE_SLACK, SCRATCH, Scratch, seed},
    skb::Skb,
    widen::widen,
};

const UDP_HEADER: usize = 8;

/// Copies the payload of a UDP packet, parts of which may lie in pages, and
/// returns its length.
#[inline(always)]
pub(crate) fn load(skb: &Skb, packet: &Packet) -> Option<usize> {
    let [high, low] = skb.read::<2>(packet.transport + 4)?;
    let length = usize::from(u16::from_be_bytes([high, low])).checked_sub(UDP_HEADER)?;
    let mut bounded = length as u64;
    // SAFETY: plain arithmetic; the verifier wants to see the bound.
    unsafe { core::arch::asm!("{0} &= 0xffff", inout(reg) bounded) };
    if bounded == 0 || bounded > MAX_DNS_MESSAGE as u64 {
        return None;
    }
    // Linux 6.1 does not learn from the comparisons that it is not zero.
    // SAFETY: plain arithmetic, which changes nothing from 1 to 0x1000.
    unsafe { core::arch::asm!("{0} += -1", "{0} &= 0xfff", "{0} += 1", inout(reg) bounded) };
    let buffer = scratch()?.message.as_mut_ptr();
    // SAFETY: the buffer holds that many bytes.
    let result = unsafe {
        bpf_skb_load_bytes(
            skb.raw().cast(),
            (packet.transport + UDP_HEADER) as u32,
            buffer.cast(),
            bounded as u32,
        )
    };
    (result == 0).then_some(bounded as usize)
}

/// Reads the question of the loaded message; the key of its name is then in the scratch.
#[inline(always)]
pub(crate) fn question(length: usize, kind: Kind) -> Option<Question> {
    (netfilter_question(length as u64, u64::from(kind == Kind::Response)) != 0)
        .then_some(scratch()?.question)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_question(length: u64, response: u64) -> u64 {
    let Some(Scratch {
        message, question, ..
    }) = scratch()
    else {
        return 0;
    };
    let kind = if response == 0 {
        Kind::Query
    } else {
        Kind::Response
    };
    let label = |at, before| {
        let bytes = netfilter_label(length, at as u64, before as u64);
        (bytes != MALFORMED).then_some(bytes as usize)
    };
    match dns::read_question(
        &Message {
            bytes: message,
            length: length as usize,
        },
        kind,
        seed(),
        label,
    ) {
        Ok(read) => {
            *question = read;
            1
        }
        Err(_) => 0,
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_label(length: u64, at: u64, before: u64) -> u64 {
    let Some(Scratch { message, key, .. }) = scratch() else {
        return MALFORMED;
    };
    let message = Message {
        bytes: message,
        length: length as usize,
    };
    dns::read_label(&message, at as usize, before as usize, key)
        .map_or(MALFORMED, |bytes| bytes as u64)
}

/// Reads the addresses of the loaded message's answer section into the scratch
/// and returns their number.
#[inline(always)]
pub(crate) fn addresses(length: usize, question: &Question) -> Option<usize> {
    let count = netfilter_addresses(
        length as u64,
        question.end as u64,
        u64::from(question.answers),
    );
    (count != MALFORMED).then_some(count as usize)
}

const MALFORMED: u64 = u64::MAX;

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_addresses(length: u64, at: u64, records: u64) -> u64 {
    let step = |at, count| {
        let step = netfilter_step(length, at as u64, count as u64);
        (step != MALFORMED).then_some(Step {
            next: step as u32 as usize,
            record: step & STEP_RECORD != 0,
            address: step & STEP_ADDRESS != 0,
        })
    };
    match dns::read_addresses(at as usize, records as u16, step) {
        Ok(count) => count as u64,
        Err(_) => MALFORMED,
    }
}

const STEP_RECORD: u64 = 1 << 32;
const STEP_ADDRESS: u64 = 1 << 33;

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_step(length: u64, at: u64, count: u64) -> u64 {
    let Some(Scratch {
        message, addresses, ..
    }) = scratch()
    else {
        return MALFORMED;
    };
    let message = Message {
        bytes: message,
        length: length as usize,
    };
    match dns::read_step(&message, at as usize, count as usize, addresses) {
        Some(Step {
            next,
            record,
            address,
        }) => {
            u64::from(next as u32)
                | (u64::from(record) * STEP_RECORD)
                | (u64::from(address) * STEP_ADDRESS)
        }
        None => MALFORMED,
    }
}

#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: this processor's own; no tc program interrupts another, and a
    // function that holds it calls none that takes it.
    SCRATCH
        .get_ptr_mut(0)
        .map(|scratch| unsafe { &mut *scratch })
}

struct Message<'a> {
    bytes: &'a [u8; MAX_DNS_MESSAGE + MESSAGE_SLACK],
    length: usize,
}

impl Bytes for Message<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N <= MESSAGE_SLACK) };
        if offset + N > self.length {
            return None;
        }
        // SAFETY: the buffer is longer than the largest offset and the largest read.
        Some(unsafe { *self.bytes.as_ptr().add(bounded(offset)).cast::<[u8; N]>() })
    }

    #[inline(always)]
    fn word(&self, offset: usize) -> [u8; 8] {
        // SAFETY: as above.
        unsafe { *self.bytes.as_ptr().add(bounded(offset)).cast::<[u8; 8]>() }
    }

    #[inline(always)]
    fn widen(number: usize) -> usize {
        widen(number)
    }
}

/// An offset that is within the message, in a form in which the verifier sees it.
#[inline(always)]
fn bounded(offset: usize) -> usize {
    const { assert!(MAX_DNS_MESSAGE == 0x1000) };
    let mut offset = offset as u64;
    // SAFETY: plain arithmetic.
    unsafe { core::arch::asm!("{0} &= 0xfff", inout(reg) offset) };
    offset as usize
}
