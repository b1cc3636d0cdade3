//! What is done through a filter, and how often in a second.
//!
//! The work of both ends and of the way between is done on one processor wherever it can be, so
//! that what is measured is what it costs, and not how fast one processor wakes another.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::namespace::Namespace;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::{TimeVal, TimeValLike},
    },
    unistd::Pid,
};

use crate::prefixes::PORT;

mod connections;
mod datagrams;
mod lookups;
mod stream;

pub use connections::connections;
pub use datagrams::datagrams;
pub use lookups::lookups;
pub use stream::stream;

/// How long a load runs before it counts.
const WARM_UP: Duration = Duration::from_millis(40);

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who sends, who receives, and what of it.
pub struct Ends<'a> {
    pub near: &'a Namespace,
    pub far: &'a Namespace,
    pub destinations: &'a [Ipv4Addr],
}

/// Counts what was done in a time, after the warm-up.
struct Count {
    begins: Instant,
    ends: Instant,
    began: Option<(u64, Instant)>,
}

impl Count {
    fn of(time: Duration) -> Self {
        let begins = Instant::now() + WARM_UP;
        Self {
            begins,
            ends: begins + time,
            began: None,
        }
    }

    /// The rate per second, when the time is over. `done`: since the load began.
    fn rate(&mut self, done: u64) -> Option<f64> {
        let now = Instant::now();
        if self.began.is_none() && now >= self.begins {
            self.began = Some((done, now));
        }
        let (before, began) = self.began?;
        (now >= self.ends).then(|| (done - before) as f64 / (now - began).as_secs_f64())
    }
}

/// Runs both ends, `server` until `client` is done. Both have a namespace and a processor.
fn between<T: Send>(
    server: (
        &Namespace,
        usize,
        impl FnOnce(&AtomicBool) -> io::Result<()> + Send,
    ),
    client: (&Namespace, usize, impl FnOnce() -> io::Result<T> + Send),
) -> io::Result<T> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (far, processor, serve) = server;
        let done = &done;
        let serving = scope.spawn(move || {
            let serve = || on(processor).and_then(|()| serve(done));
            far.run(serve).map_err(io::Error::other)?
        });
        let (near, processor, work) = client;
        let work = || on(processor).and_then(|()| work());
        let result = near
            .run(work)
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        done.store(true, Ordering::Relaxed);
        let served = serving.join().unwrap_or_else(|_| panicked("a server"));
        // What failed first is what the other end's failure comes from.
        result.and_then(|result| served.map(|()| result))
    })
}

fn panicked<T>(who: &str) -> io::Result<T> {
    Err(io::Error::other(format!("{who} panicked")))
}

/// A listener that gives up waiting.
fn listen(namespace: &Namespace) -> io::Result<TcpListener> {
    let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = namespace.run(listen).map_err(io::Error::other)??;
    let patience = TimeVal::milliseconds(i64::try_from(PATIENCE.as_millis()).unwrap_or(0));
    setsockopt(&listener, ReceiveTimeout, &patience)?;
    Ok(listener)
}

fn connect(address: Ipv4Addr) -> io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&(address, PORT).into(), PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// Keeps the calling thread on a processor, before everybody else who wants it: nice values
/// only count within a session, where the kernel groups by those.
pub fn on(processor: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor % processors()?)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the structure outlives the call. Zero is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const lowest) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

pub fn processors() -> io::Result<usize> {
    Ok(thread::available_parallelism()?.get())
}
