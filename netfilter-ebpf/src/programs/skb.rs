//! A socket buffer as [`Bytes`].

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes, programs::TcContext};
use netfilter_ebpf::packet::Bytes;

/// Headers lie within this many bytes: Ethernet, tags, IPv6, extensions, TCP.
const HEADERS: u32 = 640;

pub(crate) struct Skb {
    pub(crate) ctx: TcContext,
}

impl Skb {
    /// Makes the headers readable: a socket buffer may hold them in pages.
    #[inline(always)]
    pub(crate) fn new(ctx: TcContext) -> Self {
        let length = ctx.len().min(HEADERS);
        if ctx.data_end() - ctx.data() < length as usize {
            // Where it fails, the reads behind fail, and the packet is malformed.
            _ = ctx.pull_data(length);
        }
        Self { ctx }
    }

    #[inline(always)]
    pub(crate) fn raw(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the context pointer that the kernel passed.
        unsafe { (*self.raw()).ifindex }
    }

    /// What the kernel takes the packet for.
    #[inline(always)]
    pub(crate) fn ethertype(&self) -> u16 {
        // SAFETY: the context pointer that the kernel passed. The low half is in network order.
        u16::from_be(unsafe { (*self.raw()).protocol } as u16)
    }

    /// Packets on the wire that this buffer becomes.
    #[inline(always)]
    pub(crate) fn segments(&self) -> u64 {
        // SAFETY: the context pointer that the kernel passed.
        u64::from(unsafe { (*self.raw()).gso_segs }.max(1))
    }
}

/// Copies arrays of bytes, which may lie in pages. `None` where the packet is shorter.
#[inline(always)]
pub(crate) fn load<T: Copy>(raw: *mut __sk_buff, offset: usize) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the context pointer that the kernel passed, and room for the bytes.
    let result = unsafe {
        bpf_skb_load_bytes(
            raw.cast(),
            offset as u32,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
        )
    };
    // SAFETY: written where the result is zero; arrays of bytes only.
    (result == 0).then(|| unsafe { value.assume_init() })
}

impl Bytes for Skb {
    #[inline(always)]
    fn length(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut offset = offset as u64;
        // SAFETY: plain arithmetic, in a form that the compiler cannot reason
        // away, for the verifier wants to see the bound.
        unsafe { core::arch::asm!("{0} &= 0x3fff", inout(reg) offset) };
        let start = self.ctx.data() + offset as usize;
        if start + N > self.ctx.data_end() {
            return None;
        }
        // SAFETY: within the packet, as just compared; alignment 1.
        Some(unsafe { *(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn widen(number: usize) -> usize {
        crate::widen::widen(number)
    }
}
