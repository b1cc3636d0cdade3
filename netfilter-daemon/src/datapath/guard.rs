//! Keeps sockets from sending past tc, where the programs do not see their packets.
//!
//! A program on the root of cgroup v2 serves the whole machine, and judges the sockets of one
//! network namespace: ours. So daemons in several of them do not disturb each other.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use aya::{Ebpf, programs::CgroupSockopt};
use netfilter_ebpf::abi::{Users, slot};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{
    Cause, Datapath, Error, Hooks, Pathless, State,
    cgroup::{self, Call},
    maps::{self, ArrayOf, Plain},
    pins::{Pins, path},
    tcx,
    test_run::Size,
    who,
};

/// The second where the kernel refuses the first; see `programs/main.rs`.
pub(super) const PROGRAMS: [&str; 2] = ["netfilter_setsockopt", "netfilter_setsockopt_unnamed"];

/// The name of its pin.
const PIN: &str = "guard";

/// Why sockets can send past the filter. Packets of all others are filtered all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unguarded {
    #[error("this kernel has no cgroup v2")]
    NoCgroup,
    #[error(
        "the root of cgroup v2 cannot be seen from here; start the daemon outside of containers"
    )]
    Hidden,
    #[error("the kernel refused it: {0}")]
    Refused(String),
    #[error("no program is attached to the root of cgroup v2")]
    Absent,
}

impl Unguarded {
    /// The whole line.
    pub fn sentence(&self) -> String {
        format!(
            "packets of packet sockets with PACKET_QDISC_BYPASS, and of AF_XDP sockets, are not \
             filtered: {self}"
        )
    }
}

/// The root of cgroup v2, or why it is not at hand.
#[derive(Debug, Clone)]
pub struct Ground(Result<Arc<OwnedFd>, Unguarded>);

impl Ground {
    /// Uses `CAP_SYS_ADMIN`, if it is there, where cgroup v2 is not mounted.
    pub fn find() -> Self {
        Self(cgroup::root().map(Arc::new))
    }

    /// # Errors
    /// Why there is none.
    pub fn is_there(&self) -> Result<(), Unguarded> {
        self.0.as_ref().map(|_| ()).map_err(Clone::clone)
    }
}

/// The programs of this process at the root of cgroup v2, and where they hang.
#[derive(Clone)]
pub(super) struct Guard {
    pins: Pins,
    ground: Ground,
    /// The first refuses ways past tc, the others note who uses a socket.
    programs: Vec<Program>,
    /// Why there are no others.
    nameless: Option<Unguarded>,
}

#[derive(Clone)]
struct Program {
    pin: &'static str,
    call: Call,
    program: Arc<OwnedFd>,
}

impl Datapath {
    /// Refuses sockets of this network namespace a way past tc, and notes who uses them, from
    /// here on.
    ///
    /// # Errors
    /// Why that cannot be done.
    pub fn guard(&mut self, ground: &Ground) -> Result<(), Unguarded> {
        self.guard = Guard::load(&mut self.ebpf, &self.pins, ground)
            .and_then(|guard| guard.attach().map(|_| guard));
        self.guard.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// What events do not tell, in a line each.
    pub fn untold(&self) -> Vec<String> {
        let nameless = match &self.guard {
            Ok(guard) => guard.nameless.as_ref(),
            Err(unguarded) => Some(unguarded),
        };
        let nameless = nameless.map(who::nameless);
        let pathless = self.pathless.map(Pathless::sentence);
        nameless.into_iter().chain(pathless).collect()
    }

    /// The same with the programs of this process, in the place of another's.
    pub(super) fn guard_as(&mut self, former: &Result<Guard, Unguarded>) {
        if let Ok(Guard { ground, .. }) = former
            && let Err(unguarded) = self.guard(&ground.clone())
        {
            tracing::error!("{}", unguarded.sentence());
        }
    }
}

impl Guard {
    fn load(ebpf: &mut Ebpf, pins: &Pins, ground: &Ground) -> Result<Self, Unguarded> {
        let ours = cookie().map_err(refused)?;
        let mut network: ArrayOf<u64> = maps::open(pins, maps::NETWORK).map_err(refused)?;
        network.set(0, Plain(ours), 0).map_err(refused)?;
        let program = match copied(ebpf, PROGRAMS[0]) {
            Err(_) => copied(ebpf, PROGRAMS[1])?,
            program => program?,
        };
        let mut guard = Self {
            pins: pins.clone(),
            ground: ground.clone(),
            programs: vec![Program {
                pin: PIN,
                call: Call::Setsockopt,
                program: Arc::new(program),
            }],
            nameless: None,
        };
        match witnesses(ebpf) {
            Ok(witnesses) => guard.programs.extend(witnesses),
            Err(why) => guard.nameless = Some(why),
        }
        Ok(guard)
    }

    /// Puts each program into the place of an earlier one, or into a new one.
    fn attach(&self) -> Result<Vec<OwnedFd>, Unguarded> {
        let programs = self.programs.iter();
        programs.map(|program| self.attach_one(program)).collect()
    }

    fn attach_one(&self, one: &Program) -> Result<OwnedFd, Unguarded> {
        let pin = self.pins.root_link(one.pin);
        if let Ok(link) = tcx::open(&pin) {
            // Otherwise somebody has detached it.
            if tcx::update(&link, one.program.as_fd()).is_ok() {
                return Ok(link);
            }
            fs::remove_file(&pin).map_err(refused)?;
        }
        let cgroup = self.ground.0.as_ref().map_err(Clone::clone)?;
        let link =
            cgroup::attach(one.program.as_fd(), one.call, cgroup.as_fd()).map_err(refused)?;
        tcx::pin(&link, &pin).map_err(refused)?;
        Ok(link)
    }
}

fn witnesses(ebpf: &mut Ebpf) -> Result<Vec<Program>, Unguarded> {
    let programs = who::PROGRAMS.into_iter();
    programs
        .map(|(name, pin, call)| {
            let program = Arc::new(who::copied(ebpf, name)?);
            Ok(Program { pin, call, program })
        })
        .collect()
}

/// Keeps the guard in its place.
pub(super) struct Post {
    guard: Guard,
    /// Of each program. Whoever removes its pin does not detach it.
    links: Vec<OwnedFd>,
}

impl Post {
    pub(super) fn of(guard: &Result<Guard, Unguarded>) -> Result<Self, Unguarded> {
        let guard = guard.as_ref().map_err(Clone::clone)?.clone();
        let links = guard.attach()?;
        Ok(Self { guard, links })
    }

    fn check(&self, number: usize) -> io::Result<Option<Cause>> {
        let pin = self.guard.pins.root_link(self.guard.programs[number].pin);
        let attached = cgroup::is_attached(&self.links[number])?;
        Ok(match (attached, pin.exists()) {
            (false, _) => Some(Cause::Detached),
            (true, false) => Some(Cause::Unpinned),
            (true, true) => None,
        })
    }
}

impl Hooks {
    /// Why sockets are not kept from passing by.
    pub fn unguarded(&self) -> Option<&Unguarded> {
        self.guard.as_ref().err()
    }

    /// What another tool did to the guard.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn check_guard(&self) -> Result<Option<Cause>, Error> {
        let Ok(post) = &self.guard else {
            return Ok(None);
        };
        for number in 0..post.links.len() {
            let cause = post.check(number).map_err(|source| Error::System {
                operation: "inspect a link of the root cgroup",
                source,
            })?;
            if cause.is_some() {
                return Ok(cause);
            }
        }
        Ok(None)
    }

    /// Puts that right.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn repair_guard(&mut self) -> Result<(), Error> {
        let Ok(post) = &mut self.guard else {
            return Ok(());
        };
        for number in 0..post.links.len() {
            let one = &post.guard.programs[number];
            match post.check(number) {
                Ok(None) => {}
                Ok(Some(Cause::Unpinned)) => {
                    let pin = post.guard.pins.root_link(one.pin);
                    tcx::pin(&post.links[number], &pin).map_err(path("pin", &pin))?;
                }
                _ => post.links[number] = post.guard.attach_one(one).map_err(Error::Unguarded)?,
            }
        }
        Ok(())
    }
}

impl State {
    /// Whether sockets are kept from passing by the filter.
    ///
    /// # Errors
    /// Why not.
    pub fn guarded(&self) -> Result<(), Unguarded> {
        self.hangs(PIN)
    }

    /// What events do not tell, in a line each.
    pub fn untold(&self) -> Vec<String> {
        let pins = who::PROGRAMS.iter().map(|(_, pin, _)| self.hangs(pin));
        let nameless = pins.collect::<Result<(), _>>().err();
        let nameless = nameless.as_ref().map(who::nameless);
        let pathless = who::layout().err().map(Pathless::sentence);
        nameless.into_iter().chain(pathless).collect()
    }

    fn hangs(&self, pin: &str) -> Result<(), Unguarded> {
        let link = tcx::open(&self.pins().root_link(pin)).or(Err(Unguarded::Absent))?;
        match cgroup::is_attached(&link) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Unguarded::Absent),
            Err(error) => Err(Unguarded::Refused(error.to_string())),
        }
    }

    /// The cookie of the network namespace that is filtered.
    ///
    /// # Errors
    /// Where the map cannot be read, as before the first start of a daemon that keeps one.
    pub fn network(&self) -> Result<u64, Error> {
        let network: ArrayOf<u64> = maps::open(self.pins(), maps::NETWORK)?;
        let cookie = network.get(&0, 0);
        Ok(cookie.map_err(maps::failed("read", maps::NETWORK))?.0)
    }

    /// Users whose sockets may pass by, of the policy that was put into force last.
    ///
    /// # Errors
    /// Where a map cannot be read.
    pub fn bypass_users(&self) -> Result<Users, Error> {
        let users: ArrayOf<Users> = maps::open(self.pins(), maps::USERS)?;
        let users = users.get(&slot(self.generation()?), 0);
        Ok(users.map_err(maps::failed("read", maps::USERS))?.0)
    }
}

/// Lets go of the machine's sockets.
pub(super) fn detach(pins: &Pins) -> Result<(), Error> {
    let names = who::PROGRAMS.iter().map(|(_, pin, _)| *pin);
    for name in names.chain([PIN]) {
        let pin = pins.root_link(name);
        match fs::remove_file(&pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(path("remove", &pin)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Of the network namespace that this thread is in (SO_NETNS_COOKIE, Linux 5.14).
///
/// # Errors
/// Where the kernel does not tell.
pub fn cookie() -> io::Result<u64> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    cookie_of(&socket)
}

/// Of the network namespace that a socket is in.
///
/// # Errors
/// Where the kernel does not tell.
pub fn cookie_of(socket: &OwnedFd) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(0);
    // SAFETY: as much room as is said.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(got)?;
    Ok(cookie)
}

pub(super) fn size(ebpf: &mut Ebpf, name: &'static str) -> Result<Size, Unguarded> {
    let info = loaded(ebpf, name)?.info().map_err(refused)?;
    Ok(Size::of(name, &info))
}

fn copied(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, Unguarded> {
    let program = loaded(ebpf, name)?;
    let program = program.fd().map_err(refused)?;
    program.as_fd().try_clone_to_owned().map_err(refused)
}

fn loaded<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSockopt, Unguarded> {
    let program = ebpf.program_mut(name).ok_or(Unguarded::Absent)?;
    let program: &mut CgroupSockopt = program.try_into().map_err(refused)?;
    if program.fd().is_err() {
        program.load().map_err(refused)?;
    }
    Ok(program)
}

pub(super) fn refused(error: impl std::error::Error + 'static) -> Unguarded {
    Unguarded::Refused(super::describe(&error))
}
