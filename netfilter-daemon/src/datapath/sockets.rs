//! Connections that came in before the filter: an operator's SSH session must
//! survive its start.

use aya::maps::MapError;
use netfilter_ebpf::{
    abi::{Flow, FlowKey},
    packet::TCP,
};

use super::{
    Error,
    maps::{self, HashOf, Plain},
    pins::Pins,
    remotes,
    state::now,
};
use crate::{
    compile::{Image, address},
    sessions,
};

/// Only where there is none: what the programs know is more.
const BPF_NOEXIST: u64 = 1;

/// Remembers the established connections to permitted local ports as flows.
pub(super) fn remember_inbound(pins: &Pins, image: &Image) -> Result<(), Error> {
    let sessions = sessions::established().map_err(|source| Error::System {
        operation: "read the table of connections",
        source,
    })?;
    remotes::unmarked(pins, || remember(pins, image, sessions))
}

fn remember(pins: &Pins, image: &Image, sessions: Vec<sessions::Session>) -> Result<(), Error> {
    let mut flows: HashOf<FlowKey, Flow> = maps::open(pins, maps::INBOUND)?;
    let flow = Flow::adopted(now()?);
    for session in sessions {
        let port = session.local.port();
        if session.protocol != TCP || !image.lets_in(TCP, port) {
            continue;
        }
        let key = FlowKey {
            local: address(session.local.ip()),
            remote: address(session.remote.ip()),
            local_port: port,
            remote_port: session.remote.port(),
            protocol: TCP,
            padding: 0,
            more_padding: 0,
        };
        match flows.insert(Plain(key), Plain(flow), BPF_NOEXIST) {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::AlreadyExists => {}
            // Full: the remote's next segment makes a flow that can be proven.
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::E2BIG) =>
            {
                return Ok(());
            }
            done => done.map_err(maps::failed("write", maps::INBOUND))?,
        }
    }
    Ok(())
}
