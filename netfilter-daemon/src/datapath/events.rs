//! What the kernel reports: denied packets and questions, and what names resolved to.

use std::{
    fmt, io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{MapData, RingBuf};
use netfilter_ebpf::{
    abi,
    verdict::{Family, Moment, Reason, Way},
};
use tokio::io::unix::AsyncFd;

use super::{Error, attach, fill, maps, pins::Pins};
use crate::{moment, policy::name};

/// More than any ring holds.
const AT_ONCE: usize = 4096;

/// A stream of reports; `next` waits.
pub struct Ring<T> {
    ring: Mutex<RingBuf<MapData>>,
    /// The same, to wait for.
    ready: AsyncFd<OwnedFd>,
    read: fn(&[u8]) -> Option<T>,
}

pub type Events = Ring<Event>;
pub type Resolutions = Ring<Resolution>;
pub type Attempts = Ring<Attempt>;

/// A denied (or audited) packet or question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Seconds since 1970.
    pub time: u64,
    pub interface: String,
    pub reason: Reason,
    pub audited: bool,
    pub source: Option<IpAddr>,
    pub destination: Option<IpAddr>,
    /// IP protocol number.
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
    /// The name asked for, in dotted text with RFC 4343 escapes, for DNS questions.
    pub question: Option<String>,
    /// Length of the frame in bytes.
    pub bytes: u32,
    /// Of the same source, before this one, that were not reported.
    pub untold: u64,
    /// `None` where no socket of this machine sent it.
    pub who: Option<Who>,
}

/// Whose packet it is, as the kernel saw it when the socket was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    pub moment: Moment,
    /// `None` where only the socket's user and cgroup are known.
    pub process: Option<Process>,
    pub user: u32,
    pub cgroup_id: u64,
    /// `None` where the kernel does not let it be read.
    pub cgroup: Option<Written>,
    /// Another process used the socket a moment before.
    pub shared: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// As the first pid namespace numbers it.
    pub id: u32,
    /// The thread's name, as it chose it.
    pub program: String,
    /// `None` where the kernel does not let it be read; threads of the kernel have none.
    pub executable: Option<Written>,
}

/// A path, of which the beginning may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub text: String,
    pub cut: bool,
}

/// A socket that asked for a way past the filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Seconds since 1970.
    pub time: u64,
    pub way: Way,
    pub audited: bool,
    /// `None` where the kernel does not tell.
    pub process: Option<u32>,
    /// The thread's name, as it chose it.
    pub program: String,
    pub user: u32,
}

/// An answer to a question for `name`, also where only audit let the question pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// Seconds since 1970.
    pub time: u64,
    /// DNS wire form without the root, ASCII-lowercased.
    pub name: Vec<u8>,
    pub addresses: Vec<IpAddr>,
    /// The same moment, in seconds of CLOCK_BOOTTIME.
    pub seen: u32,
    /// The kernel's hashes of the names that it is an alias for.
    pub aliases: Vec<u64>,
}

impl Events {
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        Self::of(pins, maps::EVENTS, event)
    }
}

impl Attempts {
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        Self::of(pins, maps::ATTEMPTS, attempt)
    }
}

impl Resolutions {
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        Self::of(pins, maps::RESOLVED, resolution)
    }
}

impl<T> Ring<T> {
    fn of(pins: &Pins, map: &'static str, read: fn(&[u8]) -> Option<T>) -> Result<Self, Error> {
        let ring: RingBuf<MapData> = maps::open(pins, map)?;
        let ready = ring.as_fd().try_clone_to_owned().map_err(system)?;
        // SAFETY: it owns its descriptor, and closes it only when it is dropped.
        let ready = unsafe { AsyncFd::register(ready) }.map_err(|error| system(error.into()))?;
        let ring = Mutex::new(ring);
        Ok(Self { ring, ready, read })
    }

    /// The next report, when the kernel wakes us for it. Nothing is lost where the future
    /// is dropped.
    ///
    /// # Errors
    /// Where the ring buffer cannot be waited for.
    pub async fn next(&self) -> Result<T, Error> {
        loop {
            let mut ready = self.ready.readable().await.map_err(system)?;
            if let Some(report) = take(&mut self.ring(), self.read) {
                return Ok(report);
            }
            ready.clear_ready();
        }
    }

    /// What is there already. It ends even if the kernel reports faster than this is read.
    pub fn waiting(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| take(&mut self.ring(), self.read)).take(AT_ONCE)
    }

    fn ring(&self) -> MutexGuard<'_, RingBuf<MapData>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

/// Passes over what is no report of this build.
fn take<T>(ring: &mut RingBuf<MapData>, read: fn(&[u8]) -> Option<T>) -> Option<T> {
    while let Some(item) = ring.next() {
        if let Some(report) = read(&item) {
            return Some(report);
        }
    }
    None
}

/// A second of CLOCK_BOOTTIME as seconds since 1970.
pub(super) fn time(boottime: u32) -> u64 {
    moment::Moment::at_boottime(boottime).unix()
}

fn system(source: io::Error) -> Error {
    Error::System {
        operation: "wait for events",
        source,
    }
}

fn event(bytes: &[u8]) -> Option<Event> {
    if bytes.len() < size_of::<abi::Event>() {
        return None;
    }
    // SAFETY: long enough, and valid for every bit pattern.
    let event: abi::Event = unsafe { bytes.as_ptr().cast::<abi::Event>().read_unaligned() };
    let on_ip = event.family != Family::Other as u8;
    let length = usize::from(event.name_length).min(event.name.len());
    Some(Event {
        time: time(event.time),
        interface: attach::name_of(event.ifindex)
            .unwrap_or_else(|| format!("ifindex {}", event.ifindex)),
        reason: Reason::from_number(event.reason)?,
        audited: event.audited != 0,
        source: on_ip.then(|| fill::ip(event.source)),
        destination: on_ip.then(|| fill::ip(event.destination)),
        protocol: event.protocol,
        source_port: event.source_port,
        destination_port: event.destination_port,
        question: (length > 0).then(|| name::dotted(&event.name[..length])),
        bytes: event.bytes,
        untold: event.untold,
        who: who(&event.who, event.time),
    })
}

/// Seconds in which whoever used a socket before may still have sent a packet.
const SHARED: u32 = 2;

fn who(who: &abi::Who, time: u32) -> Option<Who> {
    let moment = Moment::from_number(who.moment)?;
    let process = (moment != Moment::Owner).then(|| Process {
        id: who.process,
        program: text(&who.program),
        executable: path(&who.executable),
    });
    Some(Who {
        moment,
        process,
        user: who.user,
        cgroup_id: who.cgroup_id,
        cgroup: path(&who.cgroup).or_else(|| root(who)),
        shared: who.shared != 0 && time.saturating_sub(who.shared) <= SHARED,
    })
}

/// The root of cgroups has no name, and the number one.
fn root(who: &abi::Who) -> Option<Written> {
    (who.cgroup_id == 1).then(|| Written {
        text: "/".to_owned(),
        cut: false,
    })
}

/// Up to the first zero.
fn text(bytes: &[u8]) -> String {
    let mut parts = bytes.split(|byte| *byte == 0);
    String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned()
}

fn path(path: &abi::Path) -> Option<Written> {
    let length = usize::from(path.length).min(path.text.len());
    // A zero is behind each name.
    let names = path.text.get(..length.checked_sub(1)?)?;
    let names = names.split(|byte| *byte == 0).rev();
    let names: Vec<_> = names.map(String::from_utf8_lossy).collect();
    let cut = path.cut != 0;
    let mut text = names.join("/");
    if !cut {
        text.insert(0, '/');
    }
    Some(Written { text, cut })
}

fn attempt(bytes: &[u8]) -> Option<Attempt> {
    if bytes.len() < size_of::<abi::Attempt>() {
        return None;
    }
    // SAFETY: long enough, and valid for every bit pattern.
    let attempt: abi::Attempt = unsafe { bytes.as_ptr().cast::<abi::Attempt>().read_unaligned() };
    Some(Attempt {
        time: time(attempt.time),
        way: Way::from_number(attempt.way)?,
        audited: attempt.audited != 0,
        process: (attempt.process != abi::NO_PROCESS).then_some(attempt.process),
        program: text(&attempt.program),
        user: attempt.user,
    })
}

fn resolution(bytes: &[u8]) -> Option<Resolution> {
    if bytes.len() < size_of::<abi::Resolved>() {
        return None;
    }
    // SAFETY: long enough, and valid for every bit pattern.
    let resolved = unsafe { bytes.as_ptr().cast::<abi::Resolved>().read_unaligned() };
    let length = usize::from(resolved.name_length).min(resolved.name.len());
    let count = usize::from(resolved.count).min(resolved.addresses.len());
    // No length byte is a letter: they end at 63.
    Some(Resolution {
        time: time(resolved.time),
        name: resolved.name[..length].to_ascii_lowercase(),
        addresses: resolved.addresses[..count]
            .iter()
            .map(|&a| fill::ip(a))
            .collect(),
        seen: resolved.time,
        aliases: resolved
            .aliases
            .into_iter()
            .filter(|key| *key != 0)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use netfilter_ebpf::abi::{Address, REPORTED_ADDRESSES, Resolved};

    use super::*;

    fn written(names: &[&[u8]], cut: u8) -> abi::Path {
        let mut path = abi::Path {
            cut,
            ..abi::Path::NONE
        };
        let text = names.iter().flat_map(|name| [name, &b"\0"[..]].concat());
        for (to, byte) in path.text.iter_mut().zip(text) {
            *to = byte;
            path.length += 1;
        }
        path
    }

    #[test]
    fn a_path_is_read_from_its_end() {
        let read = |names: &[&[u8]], cut| path(&written(names, cut)).map(|path| path.text);
        assert_eq!(
            read(&[b"curl", b"bin", b"usr"], 0).unwrap(),
            "/usr/bin/curl"
        );
        assert_eq!(read(&[b"curl", b"bin"], 1).unwrap(), "bin/curl");
        assert_eq!(read(&[b"a\xffb"], 0).unwrap(), "/a\u{fffd}b");
        assert_eq!(read(&[], 0), None);
        let mut hostile = written(&[b"x"], 0);
        hostile.length = u16::MAX;
        assert_eq!(path(&hostile).unwrap().text.len(), 256);
    }

    #[test]
    fn who_is_known_only_by_the_socket_has_no_process() {
        let known = |moment, process, shared| {
            let abi = abi::Who {
                moment,
                process,
                shared,
                cgroup_id: 1,
                user: 7,
                ..abi::Who::NOBODY
            };
            who(&abi, 100)
        };
        assert_eq!(known(0, 5, 0), None);
        let owner = known(Moment::Owner as u8, 5, 0).unwrap();
        assert_eq!((owner.process, owner.user), (None, 7));
        assert_eq!(owner.cgroup.unwrap().text, "/");
        let used = |shared| known(Moment::Send as u8, 5, shared).unwrap();
        assert_eq!(used(0).process.unwrap().id, 5);
        assert!(!used(0).shared && !used(90).shared && used(99).shared);
    }

    fn bytes(resolved: &Resolved) -> &[u8] {
        // SAFETY: no padding that is not written.
        unsafe { std::slice::from_raw_parts((&raw const *resolved).cast(), size_of::<Resolved>()) }
    }

    #[test]
    fn a_resolution_has_its_name_in_lower_case_and_the_addresses_that_count() {
        let mut resolved = Resolved {
            name_length: 8,
            count: 2,
            time: 0,
            name: [7; 256],
            addresses: [Address::from_ipv4(0xc000_0201); REPORTED_ADDRESSES],
            aliases: [0, 5, 0, 6, 0, 0, 0, 0],
        };
        resolved.name[..8].copy_from_slice(b"\x04PyPI\x02oR");
        resolved.addresses[1] = Address::from_ipv6([0x20; 16]);
        let read = resolution(bytes(&resolved)).unwrap();
        assert_eq!(read.name, b"\x04pypi\x02or");
        let expected: [IpAddr; 2] = [[192, 0, 2, 1].into(), [0x20; 16].into()];
        assert_eq!(read.addresses, expected);
        assert_eq!(read.aliases, [5, 6]);

        resolved.count = u16::MAX;
        resolved.name_length = u16::MAX;
        let read = resolution(bytes(&resolved)).unwrap();
        assert_eq!((read.addresses.len(), read.name.len()), (32, 256));
        assert_eq!(resolution(&bytes(&resolved)[1..]), None);
    }
}
