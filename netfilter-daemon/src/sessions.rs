//! Connections that are established when the filter starts, and what becomes of them.
//!
//! Those that came in to a permitted port live on. Those that this machine has opened are
//! judged by the policy: addresses that names lend are not known yet, so the exact names
//! are asked for first.

use std::{
    collections::HashMap,
    fmt, fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
};

use netfilter_ebpf::{
    packet::{TCP, UDP},
    verdict::Reason,
};

use crate::{compile::Image, policy::Pattern};

/// A connected socket. Not those that stay on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// IP protocol number: TCP or UDP.
    pub protocol: u8,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    inode: u64,
}

/// An address of an exact name of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lent {
    pub name: Pattern,
    pub address: IpAddr,
    /// Seconds.
    pub ttl: u32,
}

/// What becomes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It came in, and the policy lets such in.
    Inbound,
    Allowed,
    Cut(Reason),
}

/// All of this network namespace.
///
/// # Errors
/// Where the kernel's tables cannot be read.
pub fn established() -> io::Result<Vec<Session>> {
    let mut sessions = Vec::new();
    for (table, protocol) in [("tcp", TCP), ("tcp6", TCP), ("udp", UDP), ("udp6", UDP)] {
        // Of the thread's namespace; a kernel without IPv6 has no such file.
        match fs::read_to_string(format!("/proc/thread-self/net/{table}")) {
            Ok(text) => sessions.extend(text.lines().filter_map(|line| session(line, protocol))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sessions)
}

impl Session {
    /// `lent`: what names would lend at once.
    pub fn fate(&self, image: &Image, lent: &[Lent]) -> Fate {
        if image.lets_in(self.protocol, self.local.port()) {
            return Fate::Inbound;
        }
        let (address, port) = (self.remote.ip(), self.remote.port());
        let Err(reason) = image.judge_address(address, self.protocol, port) else {
            return Fate::Allowed;
        };
        let by_name = |lent: &&Lent| {
            lent.address == address
                && image
                    .judge_learned(address, self.protocol, port, lent.name.wire())
                    .is_ok()
        };
        match lent.iter().find(by_name) {
            Some(_) => Fate::Allowed,
            None => Fate::Cut(reason),
        }
    }
}

/// Which program has each socket, as far as `/proc` shows.
#[derive(Default)]
pub struct Owners(HashMap<u64, String>);

impl Owners {
    pub fn look() -> Self {
        let mut owners = HashMap::new();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        for process in processes {
            let Some(pid) = process
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            for inode in sockets(&process.path()) {
                owners.entry(inode).or_insert_with(|| {
                    let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                    format!("{} (process {pid})", name.trim_end().escape_debug())
                });
            }
        }
        Self(owners)
    }

    pub fn of(&self, session: &Session) -> Option<&str> {
        self.0.get(&session.inode).map(String::as_str)
    }
}

fn sockets(process: &Path) -> impl Iterator<Item = u64> {
    let descriptors = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    descriptors.filter_map(|descriptor| {
        let link = fs::read_link(descriptor.path()).ok()?;
        link.to_str()?
            .strip_prefix("socket:[")?
            .strip_suffix(']')?
            .parse()
            .ok()
    })
}

/// `TCP 10.0.0.5:40212 to 192.0.2.1:443`
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.protocol == TCP { "TCP" } else { "UDP" };
        write!(f, "{protocol} {} to {}", self.local, self.remote)
    }
}

/// A line of `/proc/net/tcp` and its like (Documentation/networking/proc_net_tcp.rst);
/// `None` for what is not connected or stays on this machine.
fn session(line: &str, protocol: u8) -> Option<Session> {
    // ESTABLISHED, as are UDP sockets that are connected; FIN_WAIT1, FIN_WAIT2 and
    // CLOSE_WAIT, which are closed on one side only.
    const CONNECTED: [&str; 4] = ["01", "04", "05", "08"];
    let mut fields = line.split_whitespace();
    let (local, remote, state) = (fields.nth(1)?, fields.next()?, fields.next()?);
    let inode = fields.nth(5)?.parse().ok()?;
    if !CONNECTED.contains(&state) {
        return None;
    }
    let (local, remote) = (endpoint(local)?, endpoint(remote)?);
    let stays = remote.ip().is_loopback() || local.ip() == remote.ip();
    (!stays).then_some(Session {
        protocol,
        local,
        remote,
        inode,
    })
}

/// Address in groups of four bytes, each in the machine's own order, and port.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<u32> = (0..address.len() / 8)
        .map(|word| u32::from_str_radix(address.get(word * 8..word * 8 + 8)?, 16).ok())
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let address: IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "   1: 0200630A:0016 0100630A:D431 01 00000000:00000000 02:000AFD9E 00000000     0        0 8020 4";

    #[test]
    fn an_established_connection_is_read_and_a_listener_is_not() {
        let session = session(LINE, TCP).unwrap();
        assert_eq!(session.to_string(), "TCP 10.99.0.2:22 to 10.99.0.1:54321");
        assert_eq!(session.inode, 8020);
        assert_eq!(super::session(&LINE.replace(" 01 ", " 0A "), TCP), None);
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_has_an_ipv4_address() {
        let line = LINE
            .replace("0200630A", "0000000000000000FFFF00000200630A")
            .replace("0100630A", "0000000000000000FFFF00000100630A");
        let session = session(&line, TCP).unwrap();
        assert_eq!(session.to_string(), "TCP 10.99.0.2:22 to 10.99.0.1:54321");
    }

    #[test]
    fn what_stays_on_this_machine_is_nobodys_loss() {
        assert_eq!(session(&LINE.replace("0100630A", "0100007F"), TCP), None);
        assert_eq!(session(&LINE.replace("0100630A", "0200630A"), TCP), None);
    }

    #[test]
    fn this_machine_has_a_table_of_connections() {
        established().unwrap();
    }
}
