//! What `run` asks of the kernel, asked for and thrown away again: nothing is pinned, and what
//! is attached hangs in a network namespace that ends with it.

use std::{io, os::fd::AsFd, path::Path, thread};

use aya::{
    Ebpf,
    programs::tc::{self, TcError},
};
use nix::sched::{CloneFlags, unshare};

use super::{
    Error, Hook, Target, Unguarded,
    attach::{add_filter, has_tcx, refused},
    guard, load, pins,
    pins::Role,
    remedy, tcx, who, xdp,
};
use crate::compile::Image;

/// Of every network namespace, and the first that is made in one.
const LOOPBACK: (&str, u32) = ("lo", 1);

/// Programs that this kernel took. Dropped, they are gone.
pub struct Rehearsal {
    ebpf: Ebpf,
}

impl Rehearsal {
    /// Makes the maps that a policy needs, and loads every program.
    ///
    /// # Errors
    /// What `run` would say.
    pub fn load(image: &Image) -> Result<Self, Error> {
        load::check_this_process()?;
        let mut ebpf = load::load_unpinned(image, who::layout().as_ref().ok())?;
        load::loaded(&mut ebpf, Role::Loopback.program())?;
        Ok(Self { ebpf })
    }

    /// Hangs the program for what leaves on an interface of its own.
    ///
    /// # Errors
    /// [`Error::System`] where no network namespace can be made, else what `run` would say.
    pub fn attach(&mut self) -> Result<Hook, Error> {
        let (name, index) = LOOPBACK;
        elsewhere(|| {
            let program = load::program(&mut self.ebpf, Role::Egress.program())?;
            if has_tcx() {
                let program = program.fd().map_err(refused(name))?.as_fd();
                let link = tcx::attach_first(program, index, Role::Egress);
                return link
                    .map(|_| Hook::Tcx)
                    .map_err(super::attach::hook("attach to", name));
            }
            match tc::qdisc_add_clsact(name) {
                Ok(()) | Err(TcError::AlreadyAttached) => {}
                Err(source) => {
                    return Err(Error::Qdisc {
                        interface: name.to_owned(),
                        source,
                    });
                }
            }
            add_filter(program, Role::Egress, name).map(|_| Hook::Clsact)
        })?
    }

    /// Hangs the programs for workloads likewise.
    ///
    /// # Errors
    /// As above.
    pub fn attach_to_workload(&mut self) -> Result<(), Error> {
        let (name, index) = LOOPBACK;
        elsewhere(|| {
            load::loaded(&mut self.ebpf, Role::Judged.program())?;
            let program = load::workload(&mut self.ebpf)?;
            let program = program.fd().map_err(refused(name))?.as_fd();
            let target = Target {
                index,
                name: name.to_owned(),
                flags: 0,
            };
            xdp::attach(program, &target).map(drop)
        })?
    }

    /// Loads the program that keeps sockets from passing by.
    ///
    /// # Errors
    /// Why the kernel does not take it.
    pub fn guard(&mut self) -> Result<(), Unguarded> {
        guard::size(&mut self.ebpf, guard::PROGRAMS[0])
            .or_else(|_| guard::size(&mut self.ebpf, guard::PROGRAMS[1]))
            .map(drop)
    }
}

/// In a network namespace that ends with the work.
fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        Ok(work())
    };
    let ended = thread::scope(|scope| scope.spawn(inside).join());
    ended
        .unwrap_or_else(|_| Err(io::Error::other("the trial ended in a panic")))
        .map_err(|source| Error::System {
            operation: "make a network namespace to try it in",
            source,
        })
}

/// Which of the capabilities that `run` needs this process lacks.
pub fn missing_capabilities() -> Vec<&'static str> {
    remedy::missing_capabilities()
}

/// How far the kernel is locked down, if it is.
pub fn lockdown() -> Option<String> {
    remedy::lockdown_level()
}

/// Whether a state directory is on a BPF file system, or would be.
///
/// # Errors
/// Where it is not.
pub fn is_on_bpffs(state_dir: &Path) -> Result<(), Error> {
    pins::check(state_dir)
}

/// The program that runs first on an interface, where there is one: the identity of its link,
/// or on clsact its name.
///
/// # Errors
/// Where the kernel does not tell.
pub fn first_program(interface: &str, ifindex: u32) -> Result<Option<String>, Error> {
    for role in [Role::Egress, Role::Ingress] {
        let first = match has_tcx() {
            true => tcx::first(ifindex, role)
                .map_err(super::attach::hook("inspect", interface))?
                .map(|link| match link {
                    0 => "a program without a link".to_owned(),
                    link => format!("the program of BPF link {link}"),
                }),
            false => super::attach::filters(role, interface, ifindex)?
                .into_iter()
                .next()
                .map(|filter| match filter.program {
                    Some((name, _)) => format!("the program {name}"),
                    None => "a filter".to_owned(),
                }),
        };
        if let Some(first) = first {
            return Ok(Some(format!("{first} ({})", role.label())));
        }
    }
    Ok(None)
}
