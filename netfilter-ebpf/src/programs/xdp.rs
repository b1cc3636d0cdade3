//! A frame that a workload sends, before the host has made a socket buffer of it, as
//! [`Buffer`].
//!
//! It lies in one piece: the kernel does not attach this program where frames could
//! have several. What it does not say is whether a checksum is made, or left to be made
//! (over veth and virtio it mostly is): then its field holds the sum of the addresses,
//! protocol and length, and so it is told.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::{
        bpf_check_mtu, bpf_csum_diff, bpf_xdp_adjust_meta, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
        bpf_xdp_store_bytes,
    },
};
use netfilter_ebpf::{
    abi::{Address, MAX_DNS_MESSAGE},
    checksum,
    packet::{Bytes, Link, UDP},
};

use crate::{
    buffer::Buffer,
    maps::{Scratch, judged_mark},
    message::{self, scratch},
    skb::{self, direct},
};

pub(crate) struct Xdp {
    raw: *mut xdp_md,
}

impl Xdp {
    #[inline(always)]
    pub(crate) fn at(raw: *mut xdp_md) -> Self {
        Self { raw }
    }

    /// Says to `judged` that the frame may pass.
    #[inline(always)]
    pub(crate) fn vouch(&self) {
        const MARK: usize = size_of::<u32>();
        // SAFETY: the context pointer that the kernel passed. Some drivers keep nothing
        // beside a frame; there is no `judged` there.
        if unsafe { bpf_xdp_adjust_meta(self.raw, -(MARK as i32)) } != 0 {
            return;
        }
        // SAFETY: the context pointer that the kernel passed.
        let place = unsafe { (*self.raw).data_meta as usize };
        if place + MARK <= self.data() {
            // SAFETY: within, as just compared; the kernel aligns it.
            unsafe { *(place as *mut u32) = judged_mark() };
        }
    }

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context pointer that the kernel passed.
        unsafe { (*self.raw).data as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.raw).data_end as usize }
    }
}

impl Buffer for Xdp {
    const PASS: i32 = xdp_action::XDP_PASS as i32;
    const DROP: i32 = xdp_action::XDP_DROP as i32;
    const IS_SKB: bool = false;

    #[inline(always)]
    fn raw(&self) -> *mut c_void {
        self.raw.cast()
    }

    #[inline(always)]
    fn skb(&self) -> Option<*mut aya_ebpf::bindings::__sk_buff> {
        None
    }

    #[inline(always)]
    fn came_by(&self) -> u32 {
        self.ifindex()
    }

    #[inline(always)]
    fn gather(&self) {}

    /// Drivers receive into memory of their own, and generic XDP copies what lies in pages.
    #[inline(always)]
    fn own(&self) -> bool {
        true
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context pointer that the kernel passed.
        unsafe { (*self.raw).ingress_ifindex }
    }

    #[inline(always)]
    fn bare(&self) -> Option<Link> {
        None
    }

    #[inline(always)]
    fn segments(&self) -> u64 {
        1
    }

    /// Of the interface that it came by, and its answer will leave by.
    #[inline(always)]
    fn mtu(&self) -> u32 {
        let mut mtu = 0u32;
        // SAFETY: as for `Skb`.
        unsafe { bpf_check_mtu(self.raw(), 0, &raw mut mtu, 0, 0) };
        mtu
    }

    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the context pointer that the kernel passed, and the caller's room.
        unsafe { bpf_xdp_load_bytes(self.raw, offset, to.cast(), length) == 0 }
    }

    #[inline(always)]
    unsafe fn put(&self, offset: u32, from: *const u8, length: u32) -> bool {
        // SAFETY: the context pointer that the kernel passed, and the caller's bytes.
        unsafe { bpf_xdp_store_bytes(self.raw, offset, from.cast_mut().cast(), length) == 0 }
    }

    #[inline(always)]
    fn resize(&self, length: u32) -> Option<()> {
        let by = (length as i32).wrapping_sub(self.length() as i32);
        // SAFETY: the context pointer that the kernel passed.
        let result = unsafe { bpf_xdp_adjust_tail(self.raw, by) };
        (result == 0).then_some(())
    }

    /// A checksum that is left to be made stays as it is.
    #[inline(always)]
    fn mend(&self, transport: usize, from: u16, to: u16, checksum: u64) -> Option<()> {
        let at = transport + checksum as u32 as usize;
        let field: [u8; 2] = self.load(at)?;
        let sum = u16::from_be_bytes(field);
        let is_none = sum == 0 && scratch().is_some_and(|scratch| scratch.packet.protocol == UDP);
        if is_none || sum == fold(addressed()?) {
            return Some(());
        }
        let words = u32::from(!sum) + u32::from(!u16::from_be(from)) + u32::from(u16::from_be(to));
        self.store(at, &made(words))
    }

    #[inline(always)]
    fn can_seal(length: usize) -> bool {
        length <= MAX_DNS_MESSAGE
    }

    #[inline(always)]
    fn seal(&self, transport: usize, end: usize, checksum: u64) -> Option<()> {
        (xdp_seal(
            self.raw,
            transport as u64,
            (end - transport) as u64,
            u64::from(checksum as u32),
        ) != 0)
            .then_some(())
    }

    /// Down the interface that it came by.
    #[inline(always)]
    fn bounce(&self) -> Option<i32> {
        Some(xdp_action::XDP_TX as i32)
    }
}

impl Bytes for Xdp {
    #[inline(always)]
    fn length(&self) -> usize {
        let mut length = self.data_end() as u64;
        // SAFETY: plain arithmetic, of 64 bits: the verifier takes no half of a pointer.
        unsafe { core::arch::asm!("{0} -= {1}", inout(reg) length, in(reg) self.data() as u64) };
        length as usize
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // SAFETY: the bounds are those of the packet.
        unsafe { direct(self.data(), self.data_end(), offset) }
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u64; N]> {
        // SAFETY: the bounds are those of the packet.
        unsafe { skb::words(self.data(), self.data_end(), offset) }
    }

    #[inline(always)]
    fn widen(number: usize) -> usize {
        crate::widen::widen(number)
    }
}

/// The sum of the pseudo header of the packet in the scratch (RFC 9293 section 3.1, RFC
/// 8200 section 8.1): that of addresses is the same when they are exchanged.
#[inline(always)]
fn addressed() -> Option<u32> {
    let packet = &scratch()?.packet;
    let length = (packet.end - packet.transport) as u32;
    Some(
        words(packet.source)
            + words(packet.destination)
            + u32::from(packet.protocol)
            + (length & 0xffff),
    )
}

#[inline(always)]
const fn words(address: Address) -> u32 {
    let Address { high, low } = address;
    // An IPv4 address alone is in the sum.
    let low = if address.is_ipv4() {
        low & 0xffff_ffff
    } else {
        low
    };
    let sum = (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff);
    let sum = (sum >> 16 & 0xffff) + (sum & 0xffff) + (sum >> 32);
    sum as u32
}

#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// The checksum of words with this sum. UDP has no zero (RFC 768), and to TCP both
/// zeros are one.
#[inline(always)]
const fn made(sum: u32) -> [u8; 2] {
    match checksum::finish(sum) {
        [0, 0] => [0xff, 0xff],
        bytes => bytes,
    }
}

/// Makes the checksum of the transport header at hand, from its first to its last byte; where
/// a datagram has none, it stays so. A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn xdp_seal(raw: *mut xdp_md, transport: u64, length: u64, checksum: u64) -> u64 {
    let frame = Xdp::at(raw);
    let at = (transport + checksum) as usize;
    let is_datagram = scratch().is_some_and(|scratch| scratch.packet.protocol == UDP);
    if is_datagram && frame.load(at) == Some([0u8; 2]) {
        return 1;
    }
    let sealed = frame.store(at, &[0u8; 2]).and_then(|()| {
        let Scratch { tail, .. } = scratch()?;
        message::copy(&frame, transport, tail.as_mut_ptr(), 0, length)?;
        let sum = fold(addressed()?);
        // The bytes are summed as they lie.
        let sum = fold(xdp_sum(length, u64::from(sum.to_be())) as u32);
        frame.store(at, &made(u32::from(u16::from_be(sum))))
    });
    u64::from(sealed.is_some())
}

/// Bytes that the kernel sums at once.
const PIECE: u64 = 0x200;

/// The sum of `length` bytes in the scratch, and of `sum`. Those behind are overwritten.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn xdp_sum(length: u64, sum: u64) -> u64 {
    let Some(Scratch { tail, .. }) = scratch() else {
        return 0;
    };
    let mut sum = sum as u32;
    let mut at = length;
    // SAFETY: plain arithmetic; the verifier wants to see the bound.
    unsafe { core::arch::asm!("{0} &= 0x1fff", inout(reg) at) };
    if at > MAX_DNS_MESSAGE as u64 {
        return 0;
    }
    // SAFETY: behind the longest message there is room.
    unsafe {
        tail.as_mut_ptr()
            .add(at as usize)
            .cast::<u32>()
            .write_unaligned(0);
    };
    let padded = (at + 3) & !3;
    for piece in 0..MAX_DNS_MESSAGE as u64 / PIECE {
        let before = piece * PIECE;
        if before >= padded {
            break;
        }
        let mut left = padded - before;
        if left > PIECE {
            left = PIECE;
        }
        // SAFETY: plain arithmetic, which changes nothing.
        unsafe { core::arch::asm!("{0} &= 0x3fc", inout(reg) left) };
        if left > PIECE {
            return 0;
        }
        // SAFETY: as many bytes are there.
        let with = unsafe {
            bpf_csum_diff(
                core::ptr::null_mut(),
                0,
                tail.as_mut_ptr().add(before as usize).cast(),
                left as u32,
                sum,
            )
        };
        sum = with as u32;
    }
    u64::from(sum)
}
