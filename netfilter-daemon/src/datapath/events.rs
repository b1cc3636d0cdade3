//! Denied packets and questions, as the kernel reports them.

use std::{io, net::IpAddr};

use aya::maps::{MapData, RingBuf};
use netfilter_ebpf::{
    abi,
    verdict::{Family, Reason},
};
use tokio::io::unix::AsyncFd;

use super::{Error, attach, fill, maps, pins::Pins};
use crate::policy::name;

/// The stream of events; `next` waits.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

/// A denied (or audited) packet or question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub interface: String,
    pub reason: Reason,
    pub audited: bool,
    pub source: Option<IpAddr>,
    pub destination: Option<IpAddr>,
    /// IP protocol number.
    pub protocol: u8,
    pub destination_port: u16,
    /// The name asked for, in dotted text with RFC 4343 escapes, for DNS questions.
    pub question: Option<String>,
    /// Length of the frame in bytes.
    pub bytes: u32,
}

impl Events {
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        let ring: RingBuf<MapData> = maps::open(pins, maps::EVENTS)?;
        // SAFETY: the ring buffer owns its descriptor, and closes it only when it is dropped.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(|error| system(error.into()))?;
        Ok(Self { ring })
    }

    /// The next event.
    ///
    /// # Errors
    /// Where the ring buffer cannot be waited for.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let mut ready = self.ring.readable_mut().await.map_err(system)?;
            if let Some(item) = ready.get_inner_mut().next() {
                if let Some(event) = read(&item) {
                    return Ok(event);
                }
                continue;
            }
            ready.clear_ready();
        }
    }
}

fn system(source: io::Error) -> Error {
    Error::System {
        operation: "wait for events",
        source,
    }
}

/// `None` for what is no event of this build.
fn read(bytes: &[u8]) -> Option<Event> {
    if bytes.len() < size_of::<abi::Event>() {
        return None;
    }
    // SAFETY: long enough, and valid for every bit pattern.
    let event: abi::Event = unsafe { bytes.as_ptr().cast::<abi::Event>().read_unaligned() };
    let on_ip = event.family != Family::Other as u8;
    let length = usize::from(event.name_length).min(event.name.len());
    Some(Event {
        interface: attach::name_of(event.ifindex)
            .unwrap_or_else(|| format!("ifindex {}", event.ifindex)),
        reason: Reason::from_number(event.reason)?,
        audited: event.audited != 0,
        source: on_ip.then(|| fill::ip(event.source)),
        destination: on_ip.then(|| fill::ip(event.destination)),
        protocol: event.protocol,
        destination_port: event.destination_port,
        question: (length > 0).then(|| name::dotted(&event.name[..length])),
        bytes: event.bytes,
    })
}
