//! The programs and tables in the kernel: load, pin, fill, flip, attach, read.
//!
//! The only module that knows aya and bpffs.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Ebpf, EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, tc::TcError},
};
use netfilter_ebpf::{
    abi::Layout,
    verdict::{Answer, Family, LossStage, LostFlow, ProtocolLabel, Question, Reason},
};

use crate::{compile::Image, netlink::XdpMode};
use fill::{Times, Writer};
use pins::{Pins, Role};

mod attach;
pub mod bench;
mod btf;
mod cgroup;
mod events;
mod expiry;
mod fill;
pub mod guard;
mod hits;
mod hooks;
mod keys;
mod lend;
mod load;
mod mapping;
mod maps;
mod names;
mod pins;
pub mod rehearsal;
mod remedy;
mod remotes;
mod runs;
mod slots;
mod sockets;
mod state;
mod tcx;
pub mod test_run;
mod totals;
pub mod wanted;
mod who;
mod xdp;

pub use events::{
    Attempt, Attempts, Event, Events, Process, Resolution, Resolutions, Who, Written,
};
pub use guard::{Ground, Unguarded};
pub use hits::RuleHits;
pub use hooks::{Cause, Hooks, Target};
pub use runs::{Run, Runs};
pub use state::State;
pub use totals::Totals;
pub use wanted::{Audit, Notebook};
pub use who::Pathless;

/// How a policy comes into force.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// The state before comes back after this time unless [`Datapath::confirm`] is
    /// called, also if this process is dead by then.
    pub confirm_within: Option<Duration>,
    /// Nothing was filtered before: answers to earlier questions are on their way.
    pub opening: bool,
}

impl Terms {
    pub const fn to_confirm(within: Duration) -> Self {
        Self {
            confirm_within: Some(within),
            opening: false,
        }
    }
}

/// As long as resolvers and clients wait for an answer.
const LATE: Duration = Duration::from_secs(10);

/// A running filter that this process loaded or adopted.
pub struct Datapath {
    ebpf: Ebpf,
    state: State,
    pins: Pins,
    writer: Writer,
    guard: Result<guard::Guard, Unguarded>,
    /// Why the programs find no paths.
    pathless: Option<Pathless>,
}

/// Where the filter is attached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Attachment {
    pub interface: String,
    pub ifindex: u32,
    pub hook: Hook,
}

/// What the programs hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// A link of the kernel's own, since Linux 6.6.
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
    /// A workload's frames, handed over by the driver.
    #[serde(rename = "xdp-native")]
    XdpNative,
    /// As above, handed over by the kernel.
    #[serde(rename = "xdp-generic")]
    XdpGeneric,
}

impl Hook {
    /// Who hands over what a workload sends.
    pub const fn of_workload(self) -> Option<&'static str> {
        match self {
            Self::Tcx | Self::Clsact => None,
            Self::XdpNative => Some(XdpMode::Native.words()),
            Self::XdpGeneric => Some(XdpMode::Generic.words()),
        }
    }
}

/// The interfaces to filter, by name.
#[derive(Debug, Clone, Copy, Default)]
pub struct On<'a> {
    pub uplinks: &'a [String],
    /// Those that lead to a workload.
    pub workloads: &'a [String],
}

impl<'a> On<'a> {
    pub const fn uplinks(uplinks: &'a [String]) -> Self {
        Self {
            uplinks,
            workloads: &[],
        }
    }
}

impl Datapath {
    /// Loads the programs, fills the idle copy of the tables that are pinned under
    /// `state_dir` (or new ones), flips to it, then attaches to `interfaces` or
    /// replaces what is attached there.
    ///
    /// # Errors
    /// Where the kernel refuses. What was in force remains.
    pub fn start(state_dir: &Path, image: &Image, interfaces: &[String]) -> Result<Self, Error> {
        let mut datapath = Self::load(state_dir, image)?;
        datapath.enforce(image, Terms::default())?;
        datapath.attach(image, On::uplinks(interfaces), Terms::default())?;
        Ok(datapath)
    }

    /// Loads the programs. Nothing is judged by them yet.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn load(state_dir: &Path, image: &Image) -> Result<Self, Error> {
        Self::load_with(state_dir, image, who::layout())
    }

    fn load_with(
        state_dir: &Path,
        image: &Image,
        layout: Result<Layout, Pathless>,
    ) -> Result<Self, Error> {
        load::check_this_process()?;
        let pins = Pins::create(state_dir)?;
        let in_force = match pins.knows_tables()? {
            true => Writer::open(&pins, 0).ok(),
            false => None,
        };
        let after = in_force.as_ref().map_or(0, Writer::generation);
        let pins = match in_force.map(|writer| writer.check(image)) {
            Some(Ok(())) => pins,
            _ => pins.next()?,
        };
        let loaded = load::load(&pins, image, layout.as_ref().ok())
            .and_then(|ebpf| Ok((ebpf, Writer::open(&pins, after)?)))
            .inspect_err(|_| pins.give_up());
        let (ebpf, writer) = loaded?;
        Ok(Self {
            ebpf,
            state: State::at(state_dir),
            pins,
            writer,
            guard: Err(Unguarded::Absent),
            pathless: layout.err(),
        })
    }

    /// Fills and flips.
    ///
    /// # Errors
    /// Where the kernel refuses. What was in force remains.
    pub fn enforce(&mut self, image: &Image, terms: Terms) -> Result<u32, Error> {
        self.fill(image, terms).inspect_err(|_| self.pins.give_up())
    }

    fn fill(&mut self, image: &Image, terms: Terms) -> Result<u32, Error> {
        let in_force = Pins::at(self.state.directory());
        let is_first = !in_force.has_tables()? && attach::filtered(&in_force)?.is_empty();
        // Else the policy in force is in the other copy of the same tables.
        if terms.confirm_within.is_some() && self.pins.is_filling() {
            if is_first {
                self.writer.precede_by_nothing()?;
            } else if in_force.knows_tables()? {
                self.writer.precede_by(&Writer::open(&in_force, 0)?)?;
            } else {
                return Err(Error::NoWayBack);
            }
        }
        let times = Times {
            expires: terms.confirm_within.map_or(Ok(0), moment_after)?,
            opened: if terms.opening {
                moment_after(LATE)?
            } else {
                0
            },
        };
        self.writer.fill_and_flip(image, times)
    }

    /// Attaches to `interfaces` or replaces what is attached there, and everywhere else.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn attach(&mut self, image: &Image, interfaces: On<'_>, terms: Terms) -> Result<(), Error> {
        self.pins.show()?;
        self.listen(image, terms)?;
        attach::attach(&mut self.ebpf, &self.pins, interfaces, || {
            sockets::remember_inbound(&self.pins, image)
        })?;
        self.pins.commit()
    }

    /// Reads the answers of local resolvers if the policy names any. A policy that may come
    /// back finds the reader where it was.
    fn listen(&mut self, image: &Image, terms: Terms) -> Result<(), Error> {
        if image.local_resolver {
            attach::listen(&mut self.ebpf, &self.pins)
        } else if terms.confirm_within.is_some() {
            Ok(())
        } else {
            attach::detach_role(&self.pins, Role::Loopback, |_| true)
        }
    }

    /// Whether a policy fits the tables, and needs no others.
    pub fn fits(&self, image: &Image) -> bool {
        self.writer.check(image).is_ok()
    }

    /// Puts another policy into force, whole. On an error the former one remains.
    /// Returns the new generation.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn replace(&mut self, image: &Image) -> Result<u32, Error> {
        self.replace_on(image, Terms::default())
    }

    /// [`Self::replace`], on terms.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn replace_on(&mut self, image: &Image, terms: Terms) -> Result<u32, Error> {
        match self.writer.check(image) {
            Ok(()) => {
                self.listen(image, terms)?;
                self.enforce(image, terms)
            }
            Err(Error::TooSmall { .. }) => self.grow(image, terms),
            Err(error) => Err(error),
        }
    }

    /// Larger tables come with programs that read them, which take the places of those
    /// in force. Each packet is judged by the one or the other.
    fn grow(&mut self, image: &Image, terms: Terms) -> Result<u32, Error> {
        let mut larger = Self::load(self.state.directory(), image)?;
        let generation = larger.enforce(image, terms)?;
        if let Err(error) = larger.attach(image, On::default(), terms) {
            // Some of the places may have been taken.
            attach::attach(&mut self.ebpf, &self.pins, On::default(), || Ok(()))?;
            return Err(error);
        }
        larger.guard_as(&self.guard);
        *self = larger;
        Ok(generation)
    }

    /// The policy in force stays, whatever time it was given.
    ///
    /// # Errors
    /// [`Error::TooLate`] where its time is over.
    pub fn confirm(&mut self) -> Result<(), Error> {
        // A second earlier, for the programs' clock may be about to turn.
        match self.writer.expires()? {
            0 => Ok(()),
            expires if expires <= state::now()? + 1 => Err(Error::TooLate),
            _ => self.writer.confirm(),
        }
    }

    /// The state before an unconfirmed policy comes back. Returns its new generation.
    ///
    /// # Errors
    /// Where a map cannot be written.
    pub fn revert(&mut self) -> Result<u32, Error> {
        self.writer.revert()
    }

    /// Detaches from all interfaces but these.
    ///
    /// # Errors
    /// Where a pin cannot be removed.
    pub fn withdraw(&self, but: &[Attachment]) -> Result<(), Error> {
        let stays = |ifindex| but.iter().any(|place| place.ifindex == ifindex);
        for role in Role::OF_INTERFACES {
            attach::detach_role(&self.pins, role, |ifindex| !stays(ifindex))?;
        }
        Ok(())
    }

    pub fn generation(&self) -> u32 {
        self.writer.generation()
    }

    /// The read side; cheap, may be used from another thread.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Denied packets and questions as the kernel reports them. Once per process.
    ///
    /// # Errors
    /// Where the ring buffer cannot be opened.
    pub fn take_events(&mut self) -> Result<Events, Error> {
        Events::open(&self.pins)
    }

    /// Sockets that are refused a way past the filter. Once per process.
    ///
    /// # Errors
    /// Where the ring buffer cannot be opened.
    pub fn take_attempts(&mut self) -> Result<Attempts, Error> {
        Attempts::open(&self.pins)
    }

    /// What names resolve to, as the kernel reads it in answers. Once per process.
    ///
    /// # Errors
    /// Where the ring buffer cannot be opened.
    pub fn take_resolutions(&mut self) -> Result<Resolutions, Error> {
        Resolutions::open(&self.pins)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Learned {
    pub address: IpAddr,
    /// The policy's pattern that admitted it: `mcr.microsoft.com` or `*.data.mcr.microsoft.com`.
    pub pattern: String,
    /// Seconds from now.
    pub expires_in: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Occupancy {
    pub map: &'static str,
    pub entries: u64,
    pub max_entries: u64,
    /// What it forgot to make room; `None` for a map that refuses instead.
    pub evictions: Option<u64>,
}

/// Everything the kernel counted, summed over processors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    pub passed: Vec<Passed>,
    pub dropped: Vec<Dropped>,
    pub questions: Vec<(Question, u64)>,
    pub answers: Vec<(Answer, u64)>,
    pub lost_events: Vec<(LossStage, u64)>,
    pub lost_flows: Vec<(LostFlow, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    pub interface: String,
    pub family: Family,
    pub protocol: ProtocolLabel,
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    pub interface: String,
    pub reason: Reason,
    pub family: Family,
    pub protocol: ProtocolLabel,
    /// True where audit let it pass: `netfilter_would_drop_packets_total`.
    pub audited: bool,
    pub packets: u64,
    pub bytes: u64,
}

/// The second of CLOCK_BOOTTIME at which this time is over, rounded up.
fn moment_after(time: Duration) -> Result<u32, Error> {
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    Ok(state::now()?.saturating_add(seconds).saturating_add(1))
}

/// Lifts the filter: detaches and unpins everything under `state_dir`.
/// Returns what was lifted; empty when nothing was in force.
///
/// # Errors
/// Where a pin cannot be removed; what could be lifted is.
pub fn detach(state_dir: &Path) -> Result<Vec<Attachment>, Error> {
    let Some(pins) = Pins::open(state_dir)? else {
        return Ok(Vec::new());
    };
    // First by one word, for all interfaces: without this, whoever is between the
    // removal of one program and of the other would lose answers.
    if pins.knows_tables().is_ok_and(|known| known)
        && let Ok(mut writer) = Writer::open(&pins, 0)
    {
        writer.lift()?;
    }
    guard::detach(&pins)?;
    let lifted = attach::detach(&pins)?;
    pins.remove()?;
    Ok(lifted)
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{0} is not on a BPF file system; leave --state-dir out, or mount one: mkdir -p {0} && mount -t bpf bpf {0}"
    )]
    NotBpffs(PathBuf),
    #[error("cannot {operation} {path}: {source}{}", remedy::of(source))]
    Path {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the kernel refused the programs or their maps: {}", describe(.0))]
    Load(#[source] Box<EbpfError>),
    #[error("the kernel refused program {program}: {}", describe(.source))]
    Program {
        program: &'static str,
        source: Box<ProgramError>,
    },
    #[error("{operation} map {map}: {}", describe(.source))]
    Map {
        operation: &'static str,
        map: &'static str,
        source: Box<MapError>,
    },
    #[error(
        "map {0} is missing under the state directory; run `netfilter-daemon detach`, then `run`"
    )]
    MissingMap(&'static str),
    #[error("interface {0} does not exist here; `ip link` shows those that do")]
    NoInterface(String),
    #[error("cannot attach to {interface}: {}", describe(.source))]
    Attach {
        interface: String,
        source: Box<ProgramError>,
    },
    #[error("cannot attach to {interface}: {source}; {}", remedy::WITHOUT_TCX)]
    Qdisc { interface: String, source: TcError },
    #[error("cannot pin {}: {}", path.display(), describe(source))]
    Pin { path: PathBuf, source: PinError },
    #[error(
        "the policy needs {needed} entries in map {map}, which was made for {available} by an earlier policy; \
         run `netfilter-daemon detach`, then `run`"
    )]
    TooSmall {
        map: &'static str,
        needed: usize,
        available: usize,
    },
    #[error("the policy was not confirmed in time; the state before it is in force again")]
    TooLate,
    #[error(
        "another build has put the policy in force into tables that this one cannot read, and so \
         could not put back; run without --confirm"
    )]
    NoWayBack,
    #[error("another tool insists on {interface}: {}", cause.sentence())]
    Rival { interface: String, cause: Cause },
    #[error("{}", .0.sentence())]
    Unguarded(Unguarded),
    #[error("cannot attach XDP to {interface} ({refusals})")]
    Xdp { interface: String, refusals: String },
    #[error(
        "{interface} carries frames without an Ethernet header, which are not read on their way from \
         a workload; name it without `side: workload`"
    )]
    NoEthernet { interface: String },
    #[error("this kernel refuses the program for workloads: {0}")]
    NoWorkloads(String),
    #[error("too many interfaces are filtered; name fewer with `interfaces:` in the policy")]
    TooManyInterfaces,
    #[error(transparent)]
    Interfaces(Box<crate::interfaces::Error>),
    #[error("cannot {operation} {interface}: {source}{}", remedy::of_hook(source))]
    Hook {
        operation: &'static str,
        interface: String,
        source: io::Error,
    },
    #[error("{}; nothing was changed", remedy::of_rights(.0))]
    Unprivileged(Vec<&'static str>),
    #[error(
        "this kernel is too old: the programs need Linux 5.15 or newer, 6.1 is the oldest that was tried; nothing was changed"
    )]
    OldKernel,
    #[error("{operation}: {source}{}", remedy::of(source))]
    System {
        operation: &'static str,
        source: io::Error,
    },
}

/// The error and its causes: aya keeps the verifier's log in the last of them. Then what
/// to do about it.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut text = Vec::new();
    for cause in causes.map(ToString::to_string) {
        if text.last() != Some(&cause) {
            text.push(cause);
        }
    }
    let causes = std::iter::successors(Some(error), |error| error.source());
    let system = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    let remedy = system.last().map(remedy::of).unwrap_or_default();
    text.join(": ") + &remedy
}
