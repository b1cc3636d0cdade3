//! Blanks the EDNS options of questions: they are for the resolver only, which
//! answers without, and whoever watches the way there could read in them.

use aya_ebpf::helpers::generated::bpf_csum_diff;
use netfilter_ebpf::{
    dns::{MAX_OPTIONS, OPT_HEADER},
    packet::UDP,
};

use crate::{
    buffer::{Buffer, seam},
    maps::Scratch,
    message::{self, scratch},
    refuse::{TCP_CHECKSUM, UDP_CHECKSUM},
    tables::Generation,
};

/// RFC 7830. Resolvers pass over it where it has no use.
const PADDING: [u8; 2] = [0, 12];

/// Makes the options of a question that was just judged one of padding, as long as they
/// were. The message is at `message` in the frame and has `length` bytes. False where
/// that fails.
#[inline(always)]
pub(crate) fn blank<B: Buffer>(
    buffer: &B,
    message: u64,
    length: u64,
    generation: &Generation,
) -> bool {
    let Some(question) = scratch().map(|scratch| scratch.question.length) else {
        return false;
    };
    let before = (question + OPT_HEADER) as u64;
    length <= before
        || generation.only_reports()
        || overwrite(buffer, message + before, length - before) != 0
}

seam! {
    /// Zero where it fails.
    fn overwrite = (netfilter_blank, xdp_blank)<B>(buffer, from: u64, length: u64) {
    let Some(Scratch { packet, tail, .. }) = scratch() else {
        return 0;
    };
    let options = tail.as_mut_ptr();
    clear(options);
    if length > MAX_OPTIONS as u64 || message::copy(buffer, from, options, 0, length).is_none() {
        return 0;
    }
    let [high, low] = (length as u16 - 4).to_be_bytes();
    let mut padding = [PADDING[0], PADDING[1], high, low];
    // SAFETY: both have that many bytes, multiples of four.
    let difference = unsafe {
        bpf_csum_diff(
            options.cast(),
            MAX_OPTIONS as u32,
            padding.as_mut_ptr().cast(),
            size_of_val(&padding) as u32,
            0,
        )
    };
    if difference < 0 {
        return 0;
    }
    clear(options);
    // SAFETY: the buffer is longer.
    unsafe { options.cast::<[u8; 4]>().write(padding) };
    let mut bounded = length;
    // SAFETY: plain arithmetic, which changes nothing from 1 to 0x100.
    unsafe { core::arch::asm!("{0} += -1", "{0} &= 0xff", "{0} += 1", inout(reg) bounded) };
    let transport = packet.transport as u64;
    // SAFETY: as many bytes of the buffer.
    let stored = unsafe { buffer.put(from as u32, options.cast_const(), bounded as u32) };
    let checksum = if packet.protocol == UDP {
        UDP_CHECKSUM
    } else {
        TCP_CHECKSUM
    };
    let difference = fold(difference as u64);
    // At an odd distance each byte is the other half of a word of the sum.
    let difference = if (from - transport) & 1 == 0 {
        difference
    } else {
        difference.swap_bytes()
    };
    let summed = buffer.mend(transport as usize, 0, difference, checksum);
    u64::from(stored && summed.is_some())
    }
}

#[inline(always)]
fn clear(options: *mut u8) {
    const { assert!(MAX_OPTIONS == 0x100) };
    for word in 0..MAX_OPTIONS / 8 {
        // SAFETY: the buffer is longer, and aligned to words.
        unsafe { options.cast::<u64>().add(word).write_volatile(0) };
    }
}

/// To 16 bits, by their carries.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
