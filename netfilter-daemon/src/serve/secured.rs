//! Connections that are encrypted if the web configuration says so.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};

use super::{
    connections::{Connection, Connections, Said},
    web::Guard,
};

/// Where connections come from.
#[derive(Debug)]
pub(super) struct Guarded {
    connections: Connections,
    guard: Arc<Guard>,
}

impl Guarded {
    pub(super) const fn new(connections: Connections, guard: Arc<Guard>) -> Self {
        Self { connections, guard }
    }
}

impl Listener for Guarded {
    type Io = Channel;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Channel, SocketAddr) {
        let (connection, address) = self.connections.accept().await;
        let web = self.guard.in_force();
        let standing = match web.proves {
            true => Standing::Certified,
            false => Standing::Encrypted,
        };
        let channel = match &web.tls {
            None => Channel::Plain(connection),
            Some(config) => Channel::Secured(Box::new(Secured::new(connection, config, standing))),
        };
        (channel, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.connections.local_addr()
    }
}

/// Who has connected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client(pub(super) SocketAddr, pub(super) Standing);

/// What a connection says of who is at its other end, once it carries a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Plain,
    Encrypted,
    /// By a certificate, without which nobody gets so far.
    Certified,
}

impl Connected<IncomingStream<'_, Guarded>> for Client {
    fn connect_info(stream: IncomingStream<'_, Guarded>) -> Self {
        let standing = match stream.io() {
            Channel::Plain(_) => Standing::Plain,
            Channel::Secured(secured) => secured.standing,
        };
        Self(*stream.remote_addr(), standing)
    }
}

/// What requests come by.
pub(super) enum Channel {
    Plain(Connection),
    Secured(Box<Secured>),
}

/// A connection that speaks TLS. Its handshake goes on while somebody reads or writes, so that
/// who accepts connections waits for nobody, and it ends as any other does.
pub(super) struct Secured {
    standing: Standing,
    state: State,
    said: Said,
}

enum State {
    Greeting(Accept<Connection>),
    Open(TlsStream<Connection>),
    Over,
}

impl Secured {
    fn new(mut connection: Connection, config: &Arc<ServerConfig>, standing: Standing) -> Self {
        connection.seal();
        let acceptor = TlsAcceptor::from(Arc::clone(config));
        Self {
            standing,
            state: State::Greeting(acceptor.accept(connection)),
            said: Said::default(),
        }
    }

    fn open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut TlsStream<Connection>>> {
        if let State::Greeting(accept) = &mut self.state {
            match ready!(Pin::new(accept).poll(context)) {
                Ok(stream) => self.state = State::Open(stream),
                Err(error) => {
                    self.state = State::Over;
                    tracing::debug!("no TLS with a client: {error}");
                    return Poll::Ready(Err(error));
                }
            }
        }
        match &mut self.state {
            State::Open(stream) => Poll::Ready(Ok(stream)),
            State::Greeting(_) | State::Over => {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
        }
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let stream = ready!(self.open(context))?;
        ready!(Pin::new(stream).poll_read(context, buffer))?;
        self.said.add(&buffer.filled()[before..]);
        if self.said.is_whole()
            && let State::Open(stream) = &mut self.state
        {
            stream.get_mut().0.has_asked();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_read(context, buffer),
            Self::Secured(secured) => secured.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_write(context, bytes),
            Self::Secured(secured) => {
                Pin::new(ready!(secured.open(context))?).poll_write(context, bytes)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_flush(context),
            Self::Secured(secured) => match &mut secured.state {
                State::Open(stream) => Pin::new(stream).poll_flush(context),
                // There is nothing yet, or nothing any more.
                State::Greeting(_) | State::Over => Poll::Ready(Ok(())),
            },
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_shutdown(context),
            Self::Secured(secured) => match &mut secured.state {
                State::Open(stream) => Pin::new(stream).poll_shutdown(context),
                State::Greeting(_) | State::Over => Poll::Ready(Ok(())),
            },
        }
    }
}
