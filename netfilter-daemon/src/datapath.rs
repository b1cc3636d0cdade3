//! The programs and tables in the kernel: load, pin, fill, flip, attach, read.
//!
//! The only module that knows aya and bpffs.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, tc::TcError},
};
use netfilter_ebpf::verdict::{Answer, Family, LossStage, ProtocolLabel, Question, Reason};

use crate::compile::Image;
use pins::Role;

mod attach;
mod events;
mod expiry;
mod fill;
mod hooks;
mod keys;
mod load;
mod mapping;
mod maps;
mod pins;
mod slots;
mod sockets;
mod state;
mod tcx;
pub mod test_run;

pub use events::{Event, Events, Resolution, Resolutions};
pub use hooks::{Cause, Hooks, Target};
pub use state::State;

/// A running filter that this process loaded or adopted.
pub struct Datapath {
    ebpf: Ebpf,
    state: State,
    writer: fill::Writer,
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
}

impl Datapath {
    /// Loads the programs, adopts what is pinned under `state_dir`, fills the
    /// idle tables, flips to them, then attaches to `interfaces` or replaces
    /// what is attached there.
    ///
    /// # Errors
    /// Where the kernel refuses or a table is too small. What was in force remains.
    pub fn start(state_dir: &Path, image: &Image, interfaces: &[String]) -> Result<Self, Error> {
        let pins = pins::Pins::create(state_dir)?;
        let ebpf = load::load(&pins, image)?;
        let state = State::of(pins);
        let writer = fill::Writer::open(state.pins())?;
        let mut datapath = Self {
            ebpf,
            state,
            writer,
        };
        datapath.writer.fill_and_flip(image)?;
        sockets::remember_inbound(datapath.state.pins(), image)?;
        datapath.listen(image)?;
        attach::attach(&mut datapath.ebpf, datapath.state.pins(), interfaces)?;
        Ok(datapath)
    }

    /// Reads the answers of local resolvers if the policy names any.
    fn listen(&mut self, image: &Image) -> Result<(), Error> {
        if image.local_resolver {
            attach::listen(&mut self.ebpf, self.state.pins())
        } else {
            attach::detach_role(self.state.pins(), Role::Loopback)
        }
    }

    /// Puts another policy into force, whole. On an error the former one remains.
    /// Returns the new generation.
    ///
    /// # Errors
    /// Where a table is too small or the kernel refuses.
    pub fn replace(&mut self, image: &Image) -> Result<u32, Error> {
        self.listen(image)?;
        self.writer.fill_and_flip(image)
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
        Events::open(self.state.pins())
    }

    /// What names resolve to, as the kernel reads it in answers. Once per process.
    ///
    /// # Errors
    /// Where the ring buffer cannot be opened.
    pub fn take_resolutions(&mut self) -> Result<Resolutions, Error> {
        Resolutions::open(self.state.pins())
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
}

/// Everything the kernel counted, summed over processors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    pub passed: Vec<Passed>,
    pub dropped: Vec<Dropped>,
    pub questions: Vec<(Question, u64)>,
    pub answers: Vec<(Answer, u64)>,
    pub lost_events: Vec<(LossStage, u64)>,
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

/// Lifts the filter: detaches and unpins everything under `state_dir`.
/// Returns what was lifted; empty when nothing was in force.
///
/// # Errors
/// Where a pin cannot be removed; what could be lifted is.
pub fn detach(state_dir: &Path) -> Result<Vec<Attachment>, Error> {
    let Some(pins) = pins::Pins::open(state_dir)? else {
        return Ok(Vec::new());
    };
    let lifted = attach::detach(&pins)?;
    pins.remove()?;
    Ok(lifted)
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} is not on a BPF file system; mount one: mount -t bpf bpf {0}")]
    NotBpffs(PathBuf),
    #[error("cannot {operation} {path}: {source}")]
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
    #[error("interface {0} does not exist here")]
    NoInterface(String),
    #[error("cannot attach to {interface}: {}", describe(.source))]
    Attach {
        interface: String,
        source: Box<ProgramError>,
    },
    #[error("cannot attach to {interface}: {source}")]
    Qdisc { interface: String, source: TcError },
    #[error("cannot pin {path}: {source}")]
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
    #[error("another tool insists on {interface}: {}", cause.sentence())]
    Rival { interface: String, cause: Cause },
    #[error("too many interfaces are filtered")]
    TooManyInterfaces,
    #[error(transparent)]
    Interfaces(Box<crate::interfaces::Error>),
    #[error("cannot {operation} {interface}: {source}")]
    Hook {
        operation: &'static str,
        interface: String,
        source: io::Error,
    },
    #[error("{operation}: {source}")]
    System {
        operation: &'static str,
        source: io::Error,
    },
}

/// The error and its causes: aya keeps the verifier's log in the last of them.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut text = Vec::new();
    for cause in causes.map(ToString::to_string) {
        if text.last() != Some(&cause) {
            text.push(cause);
        }
    }
    text.join(": ")
}
