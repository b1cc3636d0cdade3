//! What the kernel reports: denied packets and questions, and what names resolved to.

use std::{
    fmt, io,
    mem::{MaybeUninit, offset_of},
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Pod,
    maps::{MapData, RingBuf},
};
use netfilter_ebpf::{
    abi::{self, Address},
    verdict::{Family, Moment, Reason, Way},
};
use tokio::io::unix::AsyncFd;

use super::{
    Error, attach, fill,
    maps::{self, Plain},
    pins::Pins,
};
use crate::{moment, policy::name};

/// More than any ring holds.
const AT_ONCE: usize = 16_384;

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

/// A record that may end early, but not in its first `head` bytes. What is missing is zero.
fn begun<T: Pod>(bytes: &[u8], head: usize) -> Option<T> {
    if bytes.len() < head {
        return None;
    }
    let mut whole = MaybeUninit::<T>::zeroed();
    let length = bytes.len().min(size_of::<T>());
    // SAFETY: so many bytes of each, which are apart; and all bit patterns are valid.
    unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), whole.as_mut_ptr().cast(), length);
        Some(whole.assume_init())
    }
}

fn event(bytes: &[u8]) -> Option<Event> {
    // What is missing of the text does not count.
    let event: Plain<abi::Event> = begun(bytes, offset_of!(abi::Event, text))?;
    let event = event.0;
    let on_ip = event.family != Family::Other as u8;
    let mut text = event.text.as_slice();
    let [name, executable, cgroup] = [
        event.name_length,
        event.executable_length,
        event.cgroup_length,
    ]
    .map(|length| {
        let (part, _) = text.split_at(usize::from(length).min(text.len()));
        text = text
            .get(part.len().next_multiple_of(8)..)
            .unwrap_or_default();
        part
    });
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
        question: (!name.is_empty()).then(|| name::dotted(name)),
        bytes: event.bytes,
        untold: event.untold,
        who: who(&event, executable, cgroup),
    })
}

/// Seconds in which whoever used a socket before may still have sent a packet.
const SHARED: u32 = 2;

fn who(event: &abi::Event, executable: &[u8], cgroup: &[u8]) -> Option<Who> {
    let moment = Moment::from_number(event.moment)?;
    let is_cut = |path| event.cut & path != 0;
    let process = (moment != Moment::Owner).then(|| Process {
        id: event.process,
        program: text(&event.program),
        executable: path(executable, is_cut(abi::EVENT_CUT_EXECUTABLE)),
    });
    let cgroup = path(cgroup, is_cut(abi::EVENT_CUT_CGROUP));
    Some(Who {
        moment,
        process,
        user: event.user,
        cgroup_id: event.cgroup_id,
        cgroup: cgroup.or_else(|| root(event.cgroup_id)),
        shared: event.shared != 0 && event.time.saturating_sub(event.shared) <= SHARED,
    })
}

/// The root of cgroups has no name, and the number one.
fn root(cgroup_id: u64) -> Option<Written> {
    (cgroup_id == 1).then(|| Written {
        text: "/".to_owned(),
        cut: false,
    })
}

/// Up to the first zero.
fn text(bytes: &[u8]) -> String {
    let mut parts = bytes.split(|byte| *byte == 0);
    String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned()
}

/// Of an [`abi::Path`], what counts.
fn path(names: &[u8], cut: bool) -> Option<Written> {
    // A zero is behind each name.
    let (_, names) = names.split_last()?;
    let names = names.split(|byte| *byte == 0).rev();
    let names: Vec<_> = names.map(String::from_utf8_lossy).collect();
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
    const HEAD: usize = offset_of!(abi::Resolved, rest);
    let resolved: Plain<abi::Resolved> = begun(bytes, HEAD)?;
    let resolved = resolved.0;
    let words = 2 * usize::from(resolved.count);
    let name = bytes.get(HEAD + words * size_of::<u64>()..)?;
    Some(Resolution {
        time: time(resolved.time),
        // No length byte is a letter: they end at 63.
        name: name
            .get(..usize::from(resolved.name_length))?
            .to_ascii_lowercase(),
        addresses: resolved
            .rest
            .get(..words)?
            .chunks_exact(2)
            .map(|words| {
                fill::ip(Address {
                    high: words[0],
                    low: words[1],
                })
            })
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
    use super::*;

    #[test]
    fn a_path_is_read_from_its_end() {
        let read = |names: &[u8], cut| path(names, cut).map(|path| path.text);
        assert_eq!(read(b"curl\0bin\0usr\0", false).unwrap(), "/usr/bin/curl");
        assert_eq!(read(b"curl\0bin\0", true).unwrap(), "bin/curl");
        assert_eq!(read(b"a\xffb\0", false).unwrap(), "/a\u{fffd}b");
        assert_eq!(read(b"", false), None);
    }

    const NOTHING: abi::Event = abi::Event {
        source: Address { high: 0, low: 0 },
        destination: Address { high: 0, low: 0 },
        ifindex: 0,
        bytes: 60,
        source_port: 0,
        destination_port: 0,
        reason: Reason::NoRule as u8,
        family: 0,
        protocol: 0,
        audited: 0,
        time: 100,
        process: 5,
        untold: 0,
        cgroup_id: 1,
        user: 7,
        shared: 0,
        program: [0; 16],
        moment: 0,
        cut: 0,
        name_length: 0,
        executable_length: 0,
        cgroup_length: 0,
        text: [0; abi::EVENT_TEXT],
    };

    #[test]
    fn an_event_has_the_text_that_its_lengths_say_and_no_more() {
        let mut told = abi::Event {
            moment: Moment::Send as u8,
            name_length: 5,
            executable_length: 9,
            cgroup_length: 4,
            cut: abi::EVENT_CUT_CGROUP,
            ..NOTHING
        };
        told.text[..5].copy_from_slice(b"\x04PyPI");
        told.text[8..17].copy_from_slice(b"curl\0bin\0");
        told.text[24..28].copy_from_slice(b"box\0");
        let read = |told: &abi::Event, length: usize| {
            // SAFETY: no padding that is not written.
            let bytes = unsafe {
                std::slice::from_raw_parts((&raw const *told).cast(), size_of::<abi::Event>())
            };
            event(&bytes[..length])
        };
        let head = offset_of!(abi::Event, text);
        let whole = read(&told, head + 28).unwrap();
        assert_eq!(whole.question.as_deref(), Some("PyPI"));
        let who = whole.who.unwrap();
        let executable = who.process.unwrap().executable.unwrap();
        assert_eq!(
            (executable.text.as_str(), executable.cut),
            ("/bin/curl", false)
        );
        let cgroup = who.cgroup.unwrap();
        assert_eq!((cgroup.text.as_str(), cgroup.cut), ("box", true));
        assert_eq!(read(&told, head - 1), None);
        // What cannot be is read all the same.
        (told.name_length, told.executable_length) = (u16::MAX, u16::MAX);
        for length in [head, head + 1, size_of::<abi::Event>()] {
            assert!(read(&told, length).is_some(), "{length}");
        }
    }

    #[test]
    fn who_is_known_only_by_the_socket_has_no_process() {
        let known = |moment, process, shared| {
            let event = abi::Event {
                moment,
                process,
                shared,
                ..NOTHING
            };
            who(&event, &[], &[])
        };
        assert_eq!(known(0, 5, 0), None);
        let owner = known(Moment::Owner as u8, 5, 0).unwrap();
        assert_eq!((owner.process, owner.user), (None, 7));
        assert_eq!(owner.cgroup.unwrap().text, "/");
        let used = |shared| known(Moment::Send as u8, 5, shared).unwrap();
        assert_eq!(used(0).process.unwrap().id, 5);
        assert!(!used(0).shared && !used(90).shared && used(99).shared);
    }

    #[test]
    fn a_resolution_has_its_name_in_lower_case_and_the_addresses_that_are_there() {
        let (first, second) = (
            Address::from_ipv4(0xc000_0201),
            Address::from_ipv6([0x20; 16]),
        );
        let head = |name_length: u16, count: u16| {
            let mut bytes = [
                name_length.to_ne_bytes(),
                count.to_ne_bytes(),
                [0; 2],
                [0; 2],
            ]
            .concat();
            for alias in [0u64, 5, 0, 6, 0, 0, 0, 0] {
                bytes.extend(alias.to_ne_bytes());
            }
            for Address { high, low } in [first, second] {
                bytes.extend([high.to_ne_bytes(), low.to_ne_bytes()].concat());
            }
            bytes.extend(b"\x04PyPI\x02oR");
            bytes
        };
        let read = resolution(&head(8, 2)).unwrap();
        assert_eq!(read.name, b"\x04pypi\x02or");
        let expected: [IpAddr; 2] = [[192, 0, 2, 1].into(), [0x20; 16].into()];
        assert_eq!(read.addresses, expected);
        assert_eq!(read.aliases, [5, 6]);
        assert_eq!(
            resolution(&head(0, 0)).unwrap().addresses,
            Vec::<IpAddr>::new()
        );
        for (name_length, count) in [(9, 2), (u16::MAX, 2), (8, 3), (8, u16::MAX)] {
            assert_eq!(
                resolution(&head(name_length, count)),
                None,
                "{name_length} {count}"
            );
        }
        assert_eq!(resolution(&head(8, 2)[..71]), None);
    }
}
