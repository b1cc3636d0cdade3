//! DNS messages, copied out of the packet into this processor's scratch: a
//! whole one, or the window of a stream that has come so far.
//!
//! What walks them are global functions: the verifier checks each once, by
//! itself, instead of once for each path that leads to it.

use netfilter_ebpf::{
    abi::MAX_DNS_MESSAGE,
    dns::{self, Kind, Question},
    name,
    packet::{self, Bytes, Packet},
};

use crate::{
    buffer::{Buffer, seam},
    maps::{MESSAGE_SLACK, SCRATCH, Scratch, seed},
    widen::widen,
};

pub(crate) const UDP_HEADER: usize = 8;

/// Copies the payload of a UDP packet into the scratch, and returns its length.
#[inline(always)]
pub(crate) fn load_datagram<B: Buffer>(buffer: &B, packet: &Packet) -> Option<usize> {
    let [high, low] = buffer.read::<2>(packet.transport + 4)?;
    let length = usize::from(u16::from_be_bytes([high, low])).checked_sub(UDP_HEADER)?;
    load(buffer, packet.transport + UDP_HEADER, 0, length)?;
    Some(length)
}

/// Copies bytes of the packet, parts of which may lie in pages, into the
/// scratch at `into`, which is below 512. `None` where there are none, or more
/// than the longest message has.
#[inline(always)]
pub(crate) fn load<B: Buffer>(buffer: &B, from: usize, into: usize, length: usize) -> Option<()> {
    (fetch(buffer, from as u64, into as u64, length as u64) != 0).then_some(())
}

seam! {
    fn fetch = (netfilter_load, xdp_load)<B>(buffer, from: u64, into: u64, length: u64) {
        let Some(Scratch { message, .. }) = scratch() else {
            return 0;
        };
        u64::from(copy(buffer, from, message.as_mut_ptr(), into, length).is_some())
    }
}

/// As [`load`], into any buffer of this size.
#[inline(always)]
pub(crate) fn copy<B: Buffer>(
    buffer: &B,
    from: u64,
    to: *mut u8,
    mut into: u64,
    length: u64,
) -> Option<()> {
    const { assert!(MESSAGE_SLACK == 0x200 && MAX_DNS_MESSAGE == 0x1000) };
    let mut bounded = length;
    // SAFETY: plain arithmetic; the verifier wants to see the bound.
    unsafe { core::arch::asm!("{0} &= 0xffff", inout(reg) bounded) };
    if bounded == 0 || bounded > MAX_DNS_MESSAGE as u64 || bounded != length {
        return None;
    }
    // Linux 6.1 does not learn from the comparisons that it is not zero.
    // SAFETY: plain arithmetic, which changes nothing from 1 to 0x1000.
    unsafe { core::arch::asm!("{0} += -1", "{0} &= 0xfff", "{0} += 1", inout(reg) bounded) };
    // SAFETY: plain arithmetic.
    unsafe { core::arch::asm!("{0} &= 0x1ff", inout(reg) into) };
    // SAFETY: it holds that many bytes behind any such offset.
    let copied = unsafe { buffer.copy(from as u32, to.add(into as usize), bounded as u32) };
    copied.then_some(())
}

/// Reads the question of the loaded query; it and the key of its name are then in the scratch.
#[inline(always)]
pub(crate) fn query(length: usize) -> Option<&'static Question> {
    if netfilter_query(length as u64) == 0 {
        return None;
    }
    scratch().map(|scratch| &scratch.question)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_query(length: u64) -> u64 {
    let Some(Scratch {
        message, question, ..
    }) = scratch()
    else {
        return 0;
    };
    let message = Window::new(message, length);
    let label = |at, before| label(length, at, before);
    u64::from(dns::read_question(&message, 0, Kind::Query, seed(), label, question).is_ok())
}

/// Reads a label of the loaded bytes, which end at `length`, into the key.
#[inline(always)]
pub(crate) fn label(length: u64, at: usize, before: usize) -> Option<usize> {
    let bytes = netfilter_label(length, at as u64, before as u64);
    (bytes != MALFORMED).then_some(bytes as usize)
}

/// A keyed hash of the name of `length` bytes whose key is in the scratch, for
/// which letter case makes no difference. Never zero.
#[inline(always)]
pub(crate) fn name_hash(length: usize) -> u64 {
    netfilter_name_hash(length as u64)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_name_hash(length: u64) -> u64 {
    let Some(Scratch { key, .. }) = scratch() else {
        return 0;
    };
    let length = length as usize;
    key.hash(key.start(length), length, seed()) | 1
}

const MALFORMED: u64 = u64::MAX;

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_label(length: u64, at: u64, before: u64) -> u64 {
    let Some(Scratch { message, key, .. }) = scratch() else {
        return MALFORMED;
    };
    let message = Window::new(message, length);
    name::read_label(&message, at as usize, before as usize, key)
        .map_or(MALFORMED, |bytes| bytes as u64)
}

#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: this processor's own; no tc program interrupts another, and a
    // function that holds it calls none that takes it.
    SCRATCH
        .get_ptr_mut(0)
        .map(|scratch| unsafe { &mut *scratch })
}

/// What was loaded.
pub(crate) struct Window<'a> {
    bytes: &'a [u8; MAX_DNS_MESSAGE + MESSAGE_SLACK],
    length: usize,
}

impl<'a> Window<'a> {
    #[inline(always)]
    pub(crate) fn new(bytes: &'a [u8; MAX_DNS_MESSAGE + MESSAGE_SLACK], length: u64) -> Self {
        Self {
            bytes,
            length: length as usize,
        }
    }
}

impl Bytes for Window<'_> {
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

    /// The seed is always the machine's.
    #[inline(always)]
    fn hash(&self, at: usize, length: usize, _: u64) -> u64 {
        netfilter_hash(at as u64, length as u64)
    }

    #[inline(always)]
    fn widen(number: usize) -> usize {
        widen(number)
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_hash(at: u64, length: u64) -> u64 {
    let Some(Scratch { message, .. }) = scratch() else {
        return 0;
    };
    let all = Window::new(message, MAX_DNS_MESSAGE as u64);
    packet::hash(&all, at as usize, length as usize, seed())
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
