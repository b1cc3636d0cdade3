//! Connections that cannot be held: bounded in number, in life and in what they say.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, Sleep, sleep, sleep_until},
};

/// With [`Bounds::grace`], five thousand silent ones give way within a second.
const AT_ONCE: usize = 256;

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections; others wait in the kernel's backlog.
    pub(super) at_once: usize,
    /// From accepting a connection until its answer has gone.
    pub(super) life: Duration,
    /// Who has not asked within this time gives way to others. Clients ask at once.
    pub(super) grace: Duration,
    /// Bytes that a client may say.
    pub(super) request: usize,
    /// The same where that is encrypted, and begins with certificates.
    pub(super) sealed: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            at_once: AT_ONCE,
            life: Duration::from_secs(10),
            grace: Duration::from_millis(50),
            request: 16 << 10,
            sealed: 64 << 10,
        }
    }
}

#[derive(Debug)]
pub(super) struct Connections {
    listener: TcpListener,
    free: Arc<Semaphore>,
    bounds: Bounds,
    /// Oldest first; some may have asked meanwhile.
    silent: VecDeque<Silent>,
}

/// A connection whose request has not come.
#[derive(Debug)]
struct Silent {
    since: Instant,
    /// Closed once it has asked, or is gone.
    cut: oneshot::Sender<()>,
}

impl Connections {
    pub(super) fn on(listener: TcpListener) -> Self {
        Self::bounded(listener, Bounds::default())
    }

    pub(super) fn bounded(listener: TcpListener, bounds: Bounds) -> Self {
        Self {
            listener,
            free: Arc::new(Semaphore::new(bounds.at_once)),
            bounds,
            silent: VecDeque::new(),
        }
    }

    /// Cuts the oldest silent connection off, if there is no place and none comes free.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.free).acquire_owned();
        tokio::pin!(free);
        loop {
            self.silent.retain(|silent| !silent.cut.is_closed());
            let Some(oldest) = self.silent.front() else {
                return free.await.ok();
            };
            tokio::select! {
                biased;
                place = &mut free => return place.ok(),
                () = sleep_until(oldest.since + self.bounds.grace) => {}
            }
            // It may have asked at this very moment: then the next one is looked at.
            if let Some(oldest) = self.silent.pop_front()
                && oldest.cut.send(()).is_ok()
            {
                return free.await.ok();
            }
        }
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = self.place().await;
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let (cut, silent) = oneshot::channel();
        self.silent.push_back(Silent {
            since: Instant::now(),
            cut,
        });
        let connection = Connection {
            stream,
            end: Box::pin(sleep(self.bounds.life)),
            silent: Some(silent),
            said: Said::default(),
            bounds: self.bounds,
            sealed: false,
            _place: place,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Fails once its time is over, whatever the client does or does not do.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    /// Until it has asked: told that it must give way.
    silent: Option<oneshot::Receiver<()>>,
    said: Said,
    bounds: Bounds,
    /// Somebody else sees what is said.
    sealed: bool,
    _place: Option<OwnedSemaphorePermit>,
}

/// What a client has said so far.
#[derive(Debug, Default)]
pub(super) struct Said {
    bytes: usize,
    line_is_empty: bool,
    /// An empty line ends a request.
    whole: bool,
}

impl Said {
    pub(super) const fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        for byte in bytes {
            match byte {
                b'\n' if self.line_is_empty => self.whole = true,
                b'\n' => self.line_is_empty = true,
                b'\r' => {}
                _ => self.line_is_empty = false,
            }
        }
    }
}

impl Connection {
    /// What comes is encrypted; who decrypts it says when the client [has
    /// asked](Self::has_asked).
    pub(super) const fn seal(&mut self) {
        self.sealed = true;
    }

    pub(super) fn has_asked(&mut self) {
        self.silent = None;
    }

    /// Polled before each operation, so that the end wakes whoever waits.
    fn alive(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(silent) = &mut self.silent
            && Pin::new(silent).poll(context).is_ready()
        {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match self.end.as_mut().poll(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.alive(context)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.said.add(&buffer.filled()[before..]);
        let may_say = match self.sealed {
            true => self.bounds.sealed,
            false => self.bounds.request,
        };
        if self.said.bytes > may_say {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if self.said.whole && !self.sealed {
            self.has_asked();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.alive(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}
