//! A socket buffer as [`Buffer`].

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_INVALIDATE_HASH, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::{
        bpf_redirect,
        generated::{
            bpf_check_mtu, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_load_bytes,
            bpf_skb_store_bytes,
        },
    },
    programs::TcContext,
};
use netfilter_ebpf::packet::{Bytes, Link};

use crate::{buffer::Buffer, maps::refusal_mark};

/// Headers lie within this many bytes: Ethernet, tags, IPv6, extensions, TCP.
const HEADERS: u32 = 640;

pub(crate) struct Skb {
    pub(crate) ctx: TcContext,
}

impl Skb {
    #[inline(always)]
    pub(crate) fn at(raw: *mut __sk_buff) -> Self {
        Self {
            ctx: TcContext::new(raw),
        }
    }

    #[inline(always)]
    pub(crate) fn skb(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    /// What the kernel takes the packet for.
    #[inline(always)]
    fn ethertype(&self) -> u16 {
        // SAFETY: the context pointer that the kernel passed. The low half is in network order.
        u16::from_be(unsafe { (*self.skb()).protocol } as u16)
    }
}

impl Buffer for Skb {
    /// Goes on to whatever other program is attached, then on its way.
    const PASS: i32 = TC_ACT_UNSPEC;
    const DROP: i32 = TC_ACT_SHOT;
    const IS_SKB: bool = true;

    #[inline(always)]
    fn raw(&self) -> *mut c_void {
        self.skb().cast()
    }

    #[inline(always)]
    fn skb(&self) -> Option<*mut __sk_buff> {
        Some(Self::skb(self))
    }

    #[inline(always)]
    fn came_by(&self) -> u32 {
        // SAFETY: the context pointer that the kernel passed.
        unsafe { (*Self::skb(self)).ingress_ifindex }
    }

    /// A socket buffer may hold them in pages.
    #[inline(always)]
    fn gather(&self) {
        let length = self.ctx.len().min(HEADERS);
        if self.ctx.data_end() - self.ctx.data() < length as usize {
            // Where it fails, the reads behind fail, and the packet is malformed.
            _ = self.ctx.pull_data(length);
        }
    }

    #[inline(always)]
    fn own(&self) -> bool {
        let length = self.ctx.len();
        self.ctx.data_end() - self.ctx.data() >= length as usize
            || self.ctx.pull_data(length).is_ok()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context pointer that the kernel passed.
        unsafe { (*self.skb()).ifindex }
    }

    #[inline(always)]
    fn bare(&self) -> Option<Link> {
        Some(Link::Bare(self.ethertype()))
    }

    #[inline(always)]
    fn segments(&self) -> u64 {
        // SAFETY: the context pointer that the kernel passed.
        u64::from(unsafe { (*self.skb()).gso_segs }.max(1))
    }

    /// Of the interface that it leaves by.
    #[inline(always)]
    fn mtu(&self) -> u32 {
        let mut mtu = 0u32;
        // SAFETY: the context pointer that the kernel passed; `mtu` is written also
        // where the packet is too long for it.
        unsafe { bpf_check_mtu(self.raw(), 0, &raw mut mtu, 0, 0) };
        mtu
    }

    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the context pointer that the kernel passed, and the caller's room.
        unsafe { bpf_skb_load_bytes(self.raw(), offset, to.cast(), length) == 0 }
    }

    #[inline(always)]
    unsafe fn put(&self, offset: u32, from: *const u8, length: u32) -> bool {
        let flags = u64::from(BPF_F_INVALIDATE_HASH);
        // SAFETY: the context pointer that the kernel passed, and the caller's bytes.
        unsafe { bpf_skb_store_bytes(self.skb(), offset, from.cast(), length, flags) == 0 }
    }

    #[inline(always)]
    fn resize(&self, length: u32) -> Option<()> {
        // SAFETY: the context pointer that the kernel passed.
        let result = unsafe { bpf_skb_change_tail(self.skb(), length, 0) };
        (result == 0).then_some(())
    }

    /// The kernel knows whether the checksum is made already.
    #[inline(always)]
    fn mend(&self, transport: usize, from: u16, to: u16, checksum: u64) -> Option<()> {
        // SAFETY: the context pointer that the kernel passed.
        let result = unsafe {
            bpf_l4_csum_replace(
                self.skb(),
                transport as u32 + checksum as u32,
                u64::from(from),
                u64::from(to),
                2 | checksum >> 32,
            )
        };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn can_seal(_: usize) -> bool {
        true
    }

    #[inline(always)]
    fn seal(&self, _: usize, _: usize, _: u64) -> Option<()> {
        Some(())
    }

    /// Up the interface that it was to leave by, as if it had arrived.
    #[inline(always)]
    fn bounce(&self) -> Option<i32> {
        // SAFETY: the context pointer that the kernel passed.
        unsafe { (*self.skb()).mark = refusal_mark() };
        // SAFETY: a helper without pointers.
        Some(unsafe { bpf_redirect(self.ifindex(), u64::from(BPF_F_INGRESS)) } as i32)
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn length(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // SAFETY: the bounds are those of the packet.
        unsafe { direct(self.ctx.data(), self.ctx.data_end(), offset) }
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u64; N]> {
        // SAFETY: the bounds are those of the packet.
        unsafe { words(self.ctx.data(), self.ctx.data_end(), offset) }
    }

    #[inline(always)]
    fn widen(number: usize) -> usize {
        crate::widen::widen(number)
    }
}

/// Reads from a packet between its two ends.
///
/// # Safety
/// They are what the kernel gave as such.
#[inline(always)]
pub(crate) unsafe fn direct<const N: usize>(
    data: usize,
    data_end: usize,
    offset: usize,
) -> Option<[u8; N]> {
    let mut offset = offset as u64;
    // SAFETY: plain arithmetic, in a form that the compiler cannot reason
    // away, for the verifier wants to see the bound.
    unsafe { core::arch::asm!("{0} &= 0x3fff", inout(reg) offset) };
    let start = data + offset as usize;
    if start + N > data_end {
        return None;
    }
    // SAFETY: within the packet, as just compared; alignment 1.
    Some(unsafe { *(start as *const [u8; N]) })
}

/// The same of whole words. The compiler would put each together from single bytes, for it
/// takes a packet for unaligned; the kernels that this runs on do not mind.
///
/// # Safety
/// As above.
#[inline(always)]
pub(crate) unsafe fn words<const N: usize>(
    data: usize,
    data_end: usize,
    offset: usize,
) -> Option<[u64; N]> {
    let mut offset = offset as u64;
    // SAFETY: as above.
    unsafe { core::arch::asm!("{0} &= 0x3fff", inout(reg) offset) };
    let start = data + offset as usize;
    if start + N * 8 > data_end {
        return None;
    }
    Some(core::array::from_fn(|index| {
        let word: u64;
        // SAFETY: within the packet, as just compared.
        unsafe {
            core::arch::asm!(
                "{word} = *(u64 *)({at} + 0)",
                word = out(reg) word,
                at = in(reg) start + index * 8,
            );
        }
        u64::from_be(word)
    }))
}
