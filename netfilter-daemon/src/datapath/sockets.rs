//! Connections that came in before the filter: an operator's SSH session must
//! survive its start.

use std::{fs, io, net::Ipv6Addr};

use aya::maps::MapError;
use netfilter_ebpf::{
    abi::{Address, Flow, FlowKey},
    packet::TCP,
};

use super::{
    Error,
    maps::{self, HashOf, Plain},
    pins::Pins,
    state::now,
};
use crate::compile::Image;

/// Only where there is none: what the programs know is more.
const BPF_NOEXIST: u64 = 1;

/// Remembers the established connections to permitted local ports as flows.
pub(super) fn remember_inbound(pins: &Pins, image: &Image) -> Result<(), Error> {
    let mut flows: HashOf<FlowKey, Flow> = maps::open(pins, maps::INBOUND)?;
    let flow = Flow::adopted(now()?);
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        let text = match fs::read_to_string(table) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // no IPv6
            Err(source) => {
                return Err(Error::System {
                    operation: "read the table of connections",
                    source,
                });
            }
        };
        for key in text.lines().skip(1).filter_map(connection) {
            let atom = image.atoms.tcp[usize::from(key.local_port)];
            if !image.settings.inbound.contains(atom) {
                continue;
            }
            match flows.insert(Plain(key), Plain(flow), BPF_NOEXIST) {
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == io::ErrorKind::AlreadyExists => {}
                done => done.map_err(maps::failed("write", maps::INBOUND))?,
            }
        }
    }
    Ok(())
}

/// A line of `/proc/net/tcp` or `tcp6` (Documentation/networking/proc_net_tcp.rst);
/// `None` for what is not an open connection.
fn connection(line: &str) -> Option<FlowKey> {
    const ESTABLISHED: &str = "01";
    const FIN_WAIT: [&str; 2] = ["04", "05"];
    const CLOSE_WAIT: &str = "08";
    let mut fields = line.split_whitespace();
    let (local, remote, state) = (fields.nth(1)?, fields.next()?, fields.next()?);
    if state != ESTABLISHED && state != CLOSE_WAIT && !FIN_WAIT.contains(&state) {
        return None;
    }
    let (local, local_port) = endpoint(local)?;
    let (remote, remote_port) = endpoint(remote)?;
    Some(FlowKey {
        local,
        remote,
        local_port,
        remote_port,
        protocol: TCP,
        padding: [0; 3],
    })
}

/// Address in groups of four bytes, each in the machine's own order, and port.
fn endpoint(text: &str) -> Option<(Address, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<u32> = (0..address.len() / 8)
        .map(|word| u32::from_str_radix(address.get(word * 8..word * 8 + 8)?, 16).ok())
        .collect::<Option<_>>()?;
    let address = match words[..] {
        [word] => Address::from_ipv4(u32::from_be_bytes(word.to_ne_bytes())),
        [_, _, _, _] => {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            Address::from_ipv6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).octets())
        }
        _ => return None,
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_established_connection_is_read_and_a_listener_is_not() {
        let line = "   1: 0200630A:0016 0100630A:D431 01 00000000:00000000 02:000AFD9E 00000000     0        0 20 4";
        let key = connection(line).unwrap();
        assert_eq!(
            (key.local, key.local_port),
            (Address::from_ipv4(0x0a63_0002), 22)
        );
        assert_eq!(
            (key.remote, key.remote_port),
            (Address::from_ipv4(0x0a63_0001), 0xd431)
        );
        for (state, open) in [("03", false), ("06", false), ("08", true), ("0A", false)] {
            let line = line.replace(" 01 ", &format!(" {state} "));
            assert_eq!(connection(&line).is_some(), open, "{state}");
        }
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_address() {
        let line =
            "1: 0000000000000000FFFF00000200630A:0016 0000000000000000FFFF00000100630A:D431 01 x";
        assert_eq!(
            connection(line).unwrap().local,
            Address::from_ipv4(0x0a63_0002)
        );
    }
}
