//! Packet sockets: as tcpdump has them, whose frames tc sees, and with PACKET_QDISC_BYPASS,
//! whose frames go to the driver at once (packet(7)).

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering},
};

use nix::errno::Errno;

use super::{Shared, bind, index, kick, set, socket};

/// Of frames, in a ring of one block.
const FRAME: usize = 2048;
const BLOCK: usize = 4096;
/// Where a frame's bytes begin behind its `struct tpacket_hdr`.
const HEADER: usize = 32;
/// `tp_len` in it.
const LENGTH: usize = 8;

/// Sends frames by a packet socket.
pub struct Sender {
    socket: OwnedFd,
    ring: Option<Ring>,
}

/// Its socket, to be handed on.
impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// PACKET_TX_RING: frames are handed over in shared memory.
struct Ring {
    memory: Shared,
    /// Where the kernel looks for the next frame.
    next: usize,
}

/// Past tc.
///
/// # Errors
/// EPERM where the option is refused.
pub fn open(interface: &str) -> io::Result<Sender> {
    let sender = ordinary(interface)?;
    sender.bypass(true)?;
    Ok(sender)
}

/// Past tc, by a ring.
///
/// # Errors
/// As [`open`].
pub fn ring(interface: &str) -> io::Result<Sender> {
    let mut sender = open(interface)?;
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(0);
    let request = libc::tpacket_req {
        tp_block_size: size(BLOCK),
        tp_block_nr: 1,
        tp_frame_size: size(FRAME),
        tp_frame_nr: size(BLOCK / FRAME),
    };
    set(
        &sender.socket,
        libc::SOL_PACKET,
        libc::PACKET_TX_RING,
        &request,
    )?;
    sender.ring = Some(Ring {
        memory: Shared::map(Some(&sender.socket), BLOCK, 0)?,
        next: 0,
    });
    Ok(sender)
}

/// By way of tc, as every packet socket does that does not ask for more.
///
/// # Errors
/// Where the kernel refuses.
pub fn ordinary(interface: &str) -> io::Result<Sender> {
    let socket = socket(libc::AF_PACKET)?;
    // SAFETY: zero is a value of each field. No protocol: nothing is received.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_ifindex = index(interface)?.cast_signed();
    bind(&socket, &address)?;
    Ok(Sender { socket, ring: None })
}

impl Sender {
    /// Asks for the way past tc, or gives it up.
    ///
    /// # Errors
    /// EPERM where it is refused.
    pub fn bypass(&self, on: bool) -> io::Result<()> {
        let on = libc::c_int::from(on);
        set(
            &self.socket,
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            &on,
        )
    }

    /// # Errors
    /// Where the kernel does not take the frame.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        if let Some(ring) = &mut self.ring {
            return ring.send(&self.socket, frame);
        }
        // SAFETY: the frame is as long as is said.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        Errno::result(sent)?;
        Ok(())
    }
}

impl Ring {
    /// Hands over one frame, and waits until the kernel has sent it.
    fn send(&mut self, socket: &OwnedFd, frame: &[u8]) -> io::Result<()> {
        const AVAILABLE: usize = 0;
        const SEND_REQUEST: usize = 1;
        let place = self.next;
        self.next = (place + FRAME) % BLOCK;
        self.memory.write(place + HEADER, frame);
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        self.memory.write(place + LENGTH, &length.to_ne_bytes());
        // SAFETY: `tp_status`, a long that the kernel reads and writes, too.
        let status = unsafe { AtomicUsize::from_ptr(self.memory.word(place)) };
        status.store(SEND_REQUEST, Ordering::Release);
        kick(socket, 0)?;
        match status.load(Ordering::Acquire) {
            AVAILABLE => Ok(()),
            other => Err(io::Error::other(format!(
                "the kernel left the frame: {other}"
            ))),
        }
    }
}
