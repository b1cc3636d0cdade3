//! AF_XDP: frames that lie in memory shared with the kernel, and that it hands to the driver
//! (Documentation/networking/af_xdp.rst). In copy mode, which every driver has.

use std::{
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::errno::Errno;

use super::{Shared, bind, index, kick, length, set, socket};

/// Frames, and places in each ring.
const FRAMES: u32 = 8;
const FRAME: u32 = 2048;

/// Sends frames by an AF_XDP socket.
pub struct Sender {
    socket: OwnedFd,
    frames: Shared,
    transmit: Ring<libc::xdp_desc>,
    /// What the kernel has sent.
    completed: Ring<u64>,
}

/// On the first queue of the interface.
///
/// # Errors
/// EAFNOSUPPORT where the kernel has no AF_XDP, EPERM where it is refused.
pub fn open(interface: &str) -> io::Result<Sender> {
    let socket = socket(libc::AF_XDP)?;
    let frames = Shared::map(None, (FRAMES * FRAME) as usize, 0)?;
    let memory = libc::xdp_umem_reg_v1 {
        addr: frames.start.as_ptr() as u64,
        len: (FRAMES * FRAME).into(),
        chunk_size: FRAME,
        headroom: 0,
    };
    option(&socket, libc::XDP_UMEM_REG, &memory)?;
    for ring in [
        libc::XDP_UMEM_FILL_RING,
        libc::XDP_UMEM_COMPLETION_RING,
        libc::XDP_TX_RING,
    ] {
        option(&socket, ring, &FRAMES)?;
    }
    let offsets = offsets(&socket)?;
    let completions = libc::off_t::try_from(libc::XDP_UMEM_PGOFF_COMPLETION_RING);
    let sender = Sender {
        transmit: Ring::map(&socket, &offsets.tx, libc::XDP_PGOFF_TX_RING)?,
        completed: Ring::map(&socket, &offsets.cr, completions.map_err(io::Error::other)?)?,
        socket,
        frames,
    };
    let address = libc::sockaddr_xdp {
        sxdp_family: u16::try_from(libc::AF_XDP).unwrap_or(0),
        sxdp_flags: libc::XDP_COPY,
        sxdp_ifindex: index(interface)?,
        sxdp_queue_id: 0,
        sxdp_shared_umem_fd: 0,
    };
    bind(&sender.socket, &address)?;
    Ok(sender)
}

impl Sender {
    /// # Errors
    /// Where the kernel does not take the frame.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let number = self.transmit.produced() % FRAMES;
        let at = number * FRAME;
        self.frames.write(at as usize, frame);
        self.transmit.produce(libc::xdp_desc {
            addr: at.into(),
            len: u32::try_from(frame.len()).map_err(io::Error::other)?,
            options: 0,
        });
        kick(&self.socket, libc::MSG_DONTWAIT)?;
        self.completed.take_all();
        Ok(())
    }
}

/// A ring with one producer and one consumer, of which one is the kernel.
struct Ring<T> {
    memory: Shared,
    offsets: libc::xdp_ring_offset_v1,
    entry: std::marker::PhantomData<T>,
}

impl<T> Ring<T> {
    fn map(
        socket: &OwnedFd,
        offsets: &libc::xdp_ring_offset_v1,
        page: libc::off_t,
    ) -> io::Result<Self> {
        let length = place(offsets.desc) + FRAMES as usize * size_of::<T>();
        Ok(Self {
            memory: Shared::map(Some(socket), length, page)?,
            offsets: libc::xdp_ring_offset_v1 { ..*offsets },
            entry: std::marker::PhantomData,
        })
    }

    fn word(&self, at: u64) -> &AtomicU32 {
        // SAFETY: a word that the kernel reads and writes, too.
        unsafe { AtomicU32::from_ptr(self.memory.word(place(at))) }
    }

    fn produced(&self) -> u32 {
        self.word(self.offsets.producer).load(Ordering::Acquire)
    }

    fn produce(&mut self, entry: T) {
        let number = self.produced();
        let at = place(self.offsets.desc) + (number % FRAMES) as usize * size_of::<T>();
        // SAFETY: an entry that the kernel has not been told of.
        unsafe { self.memory.word::<T>(at).write(entry) };
        let producer = self.word(self.offsets.producer);
        producer.store(number.wrapping_add(1), Ordering::Release);
    }

    fn take_all(&mut self) {
        let consumer = self.word(self.offsets.consumer);
        consumer.store(self.produced(), Ordering::Release);
    }
}

/// Offsets are within a mapping.
fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX / 2)
}

fn option<T>(socket: &OwnedFd, option: i32, value: &T) -> io::Result<()> {
    set(socket, libc::SOL_XDP, option, value)
}

/// Where in each ring its parts are. Without flags, which no kernel has lacked since Linux 5.4.
fn offsets(socket: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets_v1> {
    // SAFETY: numbers.
    let mut offsets: libc::xdp_mmap_offsets_v1 = unsafe { mem::zeroed() };
    let mut length = length::<libc::xdp_mmap_offsets_v1>();
    // SAFETY: as much room as is said.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            ptr::from_mut(&mut offsets).cast(),
            &raw mut length,
        )
    };
    Errno::result(got)?;
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::super::bypass;
    use crate::lab::{
        namespace::{Namespace, veth},
        tap::Tap,
    };

    type Send = dyn FnMut(&[u8]) -> std::io::Result<()>;

    /// UDP to 192.0.2.1, port `port`.
    fn frame(port: u8) -> Vec<u8> {
        let mut frame = vec![0xff; 12];
        frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([10, 0, 0, 1, 192, 0, 2, 1, 0, 9, 0, port, 0, 8, 0, 0]);
        frame.resize(60, 0);
        frame
    }

    #[test]
    #[ignore = "needs root"]
    fn frames_arrive_by_every_way_and_in_any_number() {
        let (here, there) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        veth(&here, "eth0", &there, "eth0").unwrap();
        let tap = Tap::open(&there).unwrap();
        let to = "192.0.2.1".parse().unwrap();
        let mut senders: Vec<Box<Send>> = Vec::new();
        let opened = here.run(|| {
            let packets = [bypass::ordinary, bypass::open, bypass::ring];
            (
                packets.map(|open| open("eth0").unwrap()),
                super::open("eth0"),
            )
        });
        let (packets, xsk) = opened.unwrap();
        for mut sender in packets {
            senders.push(Box::new(move |frame| sender.send(frame)));
        }
        match xsk {
            Ok(mut sender) => senders.push(Box::new(move |frame| sender.send(frame))),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EAFNOSUPPORT), "{error}"),
        }
        for (way, send) in (1u8..).zip(&mut senders) {
            // More than the rings have places.
            for number in 0..20 {
                send(&frame(way * 20 + number)).unwrap();
            }
        }
        let seen = tap.look().unwrap();
        for port in 20..20 + 20 * senders.len() {
            let port = u16::try_from(port).unwrap();
            assert!(seen.packet(to, 17, Some(port)), "{port}");
        }
    }
}
