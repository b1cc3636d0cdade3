//! The far side of every probe: echoes on any address of a namespace.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    cmsg_space,
    libc::in6_pktinfo,
    sys::socket::{
        AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
        SockaddrIn6, SockaddrStorage, bind, listen, recvmsg, sendmsg, setsockopt, socket,
        sockopt::{Ipv6RecvPacketInfo, ReusePort},
    },
};
use tokio::{
    io::Interest,
    runtime::{Builder, Runtime},
};

use super::namespace::Namespace;

/// Running TCP and UDP echoes. Dropping them stops them.
pub struct Sinks {
    _runtime: Runtime,
}

impl Sinks {
    /// Echoes on these ports of every address, IPv4 and IPv6, that the namespace takes as its own.
    pub fn start(namespace: &Namespace, tcp: &[u16], udp: &[u16]) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sinks")
            .enable_all()
            .build()?;
        let inside_runtime = runtime.enter();
        let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        for &port in tcp {
            let listener = namespace
                .run(|| tcp_listener(any(port)))
                .map_err(io::Error::other)??;
            runtime.spawn(echo_connections(tokio::net::TcpListener::from_std(
                listener,
            )?));
        }
        for &port in udp {
            let socket = namespace
                .run(|| udp_socket(any(port)))
                .map_err(io::Error::other)??;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
            runtime.spawn(echo_datagrams(tokio::net::UdpSocket::from_std(socket)?));
        }
        drop(inside_runtime);
        Ok(Self { _runtime: runtime })
    }
}

/// A nonblocking listener that leaves its port to others, too, who bind it more specifically.
pub(super) fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address, SockType::Stream)?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(socket.into())
}

/// A nonblocking socket that leaves its port to others, too, who bind it more specifically.
pub(super) fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    Ok(bound(address, SockType::Datagram)?.into())
}

fn bound(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, kind, flags, None)?;
    setsockopt(&socket, ReusePort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

async fn echo_connections(listener: tokio::net::TcpListener) {
    while let Ok((mut connection, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut from, mut to) = connection.split();
            // A peer that hangs up early is the peer's affair.
            tokio::io::copy(&mut from, &mut to).await.ok();
        });
    }
}

async fn echo_datagrams(socket: tokio::net::UdpSocket) {
    loop {
        // Errors here are echoes that could not be delivered; the next datagram is another matter.
        socket
            .async_io(Interest::READABLE, || echo(socket.as_raw_fd()))
            .await
            .ok();
    }
}

/// Sends one datagram back, from the address that it was sent to.
fn echo(socket: i32) -> io::Result<()> {
    let mut bytes = [0; 2048];
    let mut control = cmsg_space!(in6_pktinfo);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let received =
        recvmsg::<SockaddrIn6>(socket, &mut buffers, Some(&mut control), MsgFlags::empty())?;
    let destination = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(in6_pktinfo {
            ipi6_ifindex: 0,
            ..info
        }),
        _ => None,
    });
    let (length, sender) = (received.bytes, received.address);
    let source = destination.as_ref().map(ControlMessage::Ipv6PacketInfo);
    sendmsg(
        socket,
        &[IoSlice::new(&bytes[..length])],
        source.as_slice(),
        MsgFlags::empty(),
        sender.as_ref(),
    )?;
    Ok(())
}
