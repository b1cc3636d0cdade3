//! The sink: takes in every frame at an interface, and what TCP connections bring.

use std::{
    cell::Cell,
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
        sockopt::RcvBufForce,
    },
};

use crate::lab::{namespace::Namespace, sink::tcp_listener};

use super::{
    Reader, Sink,
    field::TCP_PORTS,
    ledger::{Found, Ledger, Round},
};

/// Room for what arrives while another thread has the processor.
const BUFFER: usize = 256 << 20;

/// More than a packet socket gives at once.
const FRAME: usize = 1 << 17;

/// How often it is looked whether it is over.
const TURN: u8 = 100;

/// For so long nothing more must come before it is counted.
const QUIET: Duration = Duration::from_millis(100);

/// Where other things happen all the time, it is counted then all the same.
const LONG: Duration = Duration::from_secs(5);

/// A connection that brings nothing for so long has brought all.
const IDLE: Duration = Duration::from_secs(3);

/// What a connection may bring: a secret, however it is wrapped. And how many there
/// may be at one time. Strangers can connect, too.
const BROUGHT: usize = 4 << 20;
const CONNECTIONS: usize = 256;

thread_local! {
    static ARRIVAL: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// When the frame arrived that a [`Reader`] reads, by the kernel's clock:
/// it may be read much later.
pub fn arrival() -> Duration {
    ARRIVAL.get()
}

/// Collects what arrives in a namespace. Dropping it ends it.
pub struct Collector {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    ledger: Mutex<Option<Ledger>>,
    /// Of each channel, by its number.
    readers: Vec<Option<Reader>>,
    /// Whether something arrived since it was last asked.
    stirred: AtomicBool,
    over: AtomicBool,
    connections: AtomicUsize,
}

impl Collector {
    /// Beside those of every field, connections are accepted on these ports. There are as
    /// many channels as `readers`.
    pub fn start(
        namespace: &Namespace,
        ports: &[u16],
        readers: Vec<Option<Reader>>,
    ) -> io::Result<Self> {
        let (collector, refused) = Self::beside_others(namespace, None, ports, readers)?;
        match refused.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(collector),
        }
    }

    /// Where others may have taken some of the ports, which it tells. With an
    /// interface, frames of that one only are taken in, whomever they are addressed to.
    pub fn beside_others(
        namespace: &Namespace,
        interface: Option<u32>,
        ports: &[u16],
        readers: Vec<Option<Reader>>,
    ) -> io::Result<(Self, Vec<(u16, io::Error)>)> {
        let shared = Arc::new(Shared {
            readers,
            ledger: Mutex::new(None),
            stirred: AtomicBool::new(false),
            over: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
        });
        let ear = namespace
            .run(|| ear(interface))
            .map_err(io::Error::other)??;
        let mut collector = Self {
            shared: Arc::clone(&shared),
            threads: vec![thread::spawn(move || listen(&ear, &shared))],
        };
        let mut refused = Vec::new();
        let ports: BTreeSet<u16> = TCP_PORTS.iter().chain(ports).copied().collect();
        for port in ports {
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let listener = namespace.run(|| tcp_listener(any));
            match listener.map_err(io::Error::other)? {
                Ok(listener) => {
                    let shared = Arc::clone(&collector.shared);
                    let accept = move || accept(&listener, &shared);
                    collector.threads.push(thread::spawn(accept));
                }
                Err(error) => refused.push((port, error)),
            }
        }
        Ok((collector, refused))
    }
}

impl Sink for Collector {
    fn begin(&self, round: Round) -> io::Result<()> {
        let channels = u16::try_from(self.shared.readers.len()).map_err(io::Error::other)?;
        *self.shared.ledger() = Some(Ledger::new(round, channels));
        Ok(())
    }

    fn arrived(&self) -> io::Result<Vec<usize>> {
        let latest = Instant::now() + LONG;
        self.shared.stirred.store(true, Ordering::Relaxed);
        while self.shared.stirred.swap(false, Ordering::Relaxed) && Instant::now() < latest {
            thread::sleep(QUIET);
        }
        Ok(self
            .shared
            .ledger()
            .as_ref()
            .map_or_else(Vec::new, Ledger::arrived))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            thread.join().ok();
        }
    }
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Option<Ledger>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn read(&self, bytes: &[u8]) {
        if let Some(ledger) = &mut *self.ledger() {
            ledger.read(bytes);
        }
        self.stirred.store(true, Ordering::Relaxed);
    }

    fn frame(&self, frame: &[u8]) {
        self.read(frame);
        let Some(ledger) = &mut *self.ledger() else {
            return;
        };
        for (number, reader) in (0..).zip(&self.readers) {
            match reader.and_then(|read| read(frame)) {
                Some(Found::Pieces(bytes)) => ledger.read(&bytes),
                Some(Found::Part { offset, bytes }) => ledger.note(number, offset, &bytes),
                None => {}
            }
        }
    }
}

/// A packet socket for all that arrives at every interface, or all that passes at one.
fn ear(interface: Option<u32>) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        flags,
        SockProtocol::EthAll,
    )?;
    setsockopt(&socket, RcvBufForce, &BUFFER)?;
    let yes: libc::c_int = 1;
    // SAFETY: a number and its length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const yes).cast(),
            4,
        )
    };
    Errno::result(result)?;
    if let Some(index) = interface {
        turn_to(&socket, index)?;
    }
    Ok(socket)
}

/// To one interface, which is made to take in what is addressed to others.
fn turn_to(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: zero is a value of every field of both.
    let (mut address, mut membership): (libc::sockaddr_ll, libc::packet_mreq) =
        unsafe { std::mem::zeroed() };
    let of = |number: i32| u16::try_from(number).map_err(io::Error::other);
    address.sll_family = of(libc::AF_PACKET)?;
    address.sll_protocol = of(libc::ETH_P_ALL)?.to_be();
    address.sll_ifindex = index;
    membership.mr_ifindex = index;
    membership.mr_type = of(libc::PACKET_MR_PROMISC)?;
    let length = |size: usize| libc::socklen_t::try_from(size).map_err(io::Error::other);
    let [to, of] = [
        length(size_of_val(&address))?,
        length(size_of_val(&membership))?,
    ];
    let socket = socket.as_raw_fd();
    // SAFETY: the address and its length.
    Errno::result(unsafe { libc::bind(socket, (&raw const address).cast(), to) })?;
    // SAFETY: the membership and its length.
    let result = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const membership).cast(),
            of,
        )
    };
    Errno::result(result)?;
    Ok(())
}

fn listen(ear: &OwnedFd, shared: &Shared) {
    let mut frame = vec![0; FRAME];
    while !shared.is_over() {
        match recv(ear.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => {
                ARRIVAL.set(stamp(ear));
                shared.frame(&frame[..length]);
            }
            Err(_) => wait(ear),
        }
    }
}

/// When what was received last arrived.
fn stamp(ear: &OwnedFd) -> Duration {
    /// `SIOCGSTAMPNS`
    const LAST: libc::Ioctl = 0x8907;
    let mut stamp = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes the time there, or nothing.
    unsafe { libc::ioctl(ear.as_raw_fd(), LAST, &raw mut stamp) };
    Duration::new(
        u64::try_from(stamp.tv_sec).unwrap_or_default(),
        u32::try_from(stamp.tv_nsec).unwrap_or_default(),
    )
}

fn accept(listener: &std::net::TcpListener, shared: &Arc<Shared>) {
    while !shared.is_over() {
        match listener.accept() {
            Ok(_) if shared.connections.load(Ordering::Relaxed) >= CONNECTIONS => {}
            Ok((connection, _)) => {
                let shared = Arc::clone(shared);
                shared.connections.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || {
                    take(connection, &shared);
                    shared.connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Err(_) => wait(listener),
        }
    }
}

/// Takes what a connection brings, and gives it back as an echo does.
fn take(mut connection: TcpStream, shared: &Shared) {
    let mut brought = Vec::new();
    let mut bytes = vec![0; FRAME];
    connection.set_nonblocking(false).ok();
    connection.set_read_timeout(Some(IDLE)).ok();
    connection.set_write_timeout(Some(IDLE)).ok();
    while brought.len() < BROUGHT
        && let Ok(length @ 1..) = connection.read(&mut bytes)
    {
        brought.extend(&bytes[..length]);
        shared.stirred.store(true, Ordering::Relaxed);
        if connection.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    shared.read(&brought);
}

fn wait(socket: &impl std::os::fd::AsFd) {
    let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    // Whatever comes of it: it is looked again.
    poll(&mut sockets, PollTimeout::from(TURN)).ok();
}
