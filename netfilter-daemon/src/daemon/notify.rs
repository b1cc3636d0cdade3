//! Tells the service manager: sd_notify(3), without its library.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Packets are filtered. `status` is what `systemctl status` shows.
pub(super) fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={status}\n"));
}

/// The loop turns. Once a second, which is often enough for any watchdog.
pub(super) fn alive() {
    if env::var_os("WATCHDOG_USEC").is_some() {
        tell("WATCHDOG=1\n");
    }
}

pub(super) fn stopping() {
    tell("STOPPING=1\n");
}

/// A service manager that does not listen is no reason to stop.
fn tell(message: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&socket, message) {
        tracing::warn!(
            "cannot notify the service manager at {}: {error}",
            socket.display()
        );
    }
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(message.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_message_arrives_at_a_socket_with_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1\n").unwrap();
        assert_eq!(receive(&socket), "READY=1\n");
    }

    #[test]
    fn a_message_arrives_at_an_abstract_socket() {
        let name = format!("netfilter-daemon-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "STOPPING=1\n").unwrap();
        assert_eq!(receive(&socket), "STOPPING=1\n");
    }

    #[test]
    fn a_service_manager_that_is_gone_is_an_error_and_no_panic() {
        assert!(send(OsStr::new("/nowhere/notify"), "READY=1\n").is_err());
    }
}
