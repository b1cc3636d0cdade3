//! What a hook hands to a program: a socket buffer (tc), or a frame that has none
//! yet (XDP). What judges is written once, for either.

use core::ffi::c_void;

use netfilter_ebpf::packet::{Bytes, Link};

pub(crate) trait Buffer: Bytes + Sized {
    /// The packet goes on its way.
    const PASS: i32;
    const DROP: i32;
    /// Which of the two it is; see [`seam`].
    const IS_SKB: bool;

    /// The context that the kernel passed.
    fn raw(&self) -> *mut c_void;

    /// The socket buffer, if it is one.
    fn skb(&self) -> Option<*mut aya_ebpf::bindings::__sk_buff>;

    /// The interface that the packet came to this machine by, or zero.
    fn came_by(&self) -> u32;

    /// Makes the headers readable.
    fn gather(&self);

    /// Brings the whole packet to where nobody writes but the kernel. Pages can be a file's
    /// or the sender's own (sendfile, MSG_ZEROCOPY, rings), who may change them after they
    /// were judged. False where there is no memory.
    fn own(&self) -> bool;

    fn ifindex(&self) -> u32;

    /// How a frame begins that has no Ethernet header. `None`: nobody says what it is.
    fn bare(&self) -> Option<Link>;

    /// Packets on the wire that it becomes.
    fn segments(&self) -> u64;

    /// Bytes that the interface takes.
    fn mtu(&self) -> u32;

    /// Copies `length` bytes, which may lie in pages. False where there are fewer.
    ///
    /// # Safety
    /// There is room for them.
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> bool;

    /// Overwrites `length` bytes by others. False where there are fewer.
    ///
    /// # Safety
    /// There are as many at `from`.
    unsafe fn put(&self, offset: u32, from: *const u8, length: u32) -> bool;

    /// Cuts or extends the packet to this length.
    fn resize(&self, length: u32) -> Option<()>;

    /// After a word of what a transport header's checksum covers went from `from` to
    /// `to`. `checksum`: as in `refuse`.
    fn mend(&self, transport: usize, from: u16, to: u16, checksum: u64) -> Option<()>;

    /// Whether [`Self::seal`] can do as many bytes of a transport header and behind.
    fn can_seal(length: usize) -> bool;

    /// Before a packet goes back that was changed and mended: it was to leave, and its
    /// checksum was perhaps left for the card to make.
    fn seal(&self, transport: usize, end: usize, checksum: u64) -> Option<()>;

    /// Sends the packet back to where it came from. Returns the action.
    fn bounce(&self) -> Option<i32>;

    /// Overwrites bytes.
    #[inline(always)]
    fn store<T: Copy>(&self, offset: usize, value: &T) -> Option<()> {
        // SAFETY: the value's own bytes.
        let stored = unsafe {
            self.put(
                offset as u32,
                core::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
            )
        };
        stored.then_some(())
    }

    /// Arrays of bytes. `None` where the packet is shorter.
    #[inline(always)]
    fn load<T: Copy>(&self, offset: usize) -> Option<T> {
        let mut value = core::mem::MaybeUninit::<T>::uninit();
        // SAFETY: room for the bytes.
        let loaded = unsafe {
            self.copy(
                offset as u32,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            )
        };
        // SAFETY: written where the result says so; arrays of bytes only.
        loaded.then(|| unsafe { value.assume_init() })
    }
}

/// A global function, see `message`, for each kind of buffer: the verifier wants to know
/// what a context is, and bounds of a packet are another thing in each.
macro_rules! seam {
    (
        $(#[$about:meta])*
        $visible:vis fn $name:ident = ($of_skb:ident, $of_frame:ident)
        <$B:ident>($buffer:ident $(, $argument:ident: $kind:ty)* $(,)?) $body:block
    ) => {
        $(#[$about])*
        #[inline(always)]
        $visible fn $name<$B: $crate::buffer::Buffer>($buffer: &$B $(, $argument: $kind)*) -> u64 {
            #[inline(always)]
            fn body<$B: $crate::buffer::Buffer>($buffer: &$B $(, $argument: $kind)*) -> u64 $body

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $of_skb(raw: *mut aya_ebpf::bindings::__sk_buff $(, $argument: $kind)*) -> u64 {
                body(&$crate::skb::Skb::at(raw) $(, $argument)*)
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $of_frame(raw: *mut aya_ebpf::bindings::xdp_md $(, $argument: $kind)*) -> u64 {
                body(&$crate::xdp::Xdp::at(raw) $(, $argument)*)
            }

            if <$B as $crate::buffer::Buffer>::IS_SKB {
                $of_skb($buffer.raw().cast() $(, $argument)*)
            } else {
                $of_frame($buffer.raw().cast() $(, $argument)*)
            }
        }
    };
}
pub(crate) use seam;
