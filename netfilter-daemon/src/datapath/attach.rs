//! Hangs the programs on interfaces, as the first of their hook: tcx links where the
//! kernel has them, the clsact qdisc otherwise. Either outlives the daemon.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf,
    programs::{
        Link, ProgramError, SchedClassifier, TcAttachType,
        tc::{
            self, NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcError,
            TcHandle,
        },
    },
    util::KernelVersion,
};
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::{
    Attachment, Error, Hook, Hooks, On, Target, load,
    pins::{Pins, Role, path},
    tcx,
};
use crate::{
    interfaces::{self, Interface},
    netlink::{self, Direction, Filter, XdpMode},
};

/// The highest that a filter of a clsact qdisc can have. Among those that have it, the
/// kernel runs the latest first.
const PRIORITY: u16 = 1;
/// The kernel's own name for it, in every network namespace.
const LOOPBACK: &str = "lo";

/// Attaches to each interface, ingress first so that answers are read before
/// questions are let out; replaces programs that are there already, atomically.
/// `between`: what came in before ingress saw it must be known before egress judges it.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: &Pins,
    on: On<'_>,
    between: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let present = interfaces::present().map_err(|source| Error::Interfaces(Box::new(source)))?;
    let mut hooks = Hooks::of(ebpf, pins)?;
    // Those of an earlier start that were not named this time are filtered on.
    let earlier = hooks.filtered()?;
    let mut wanted: Vec<&Interface> = Vec::new();
    let mut workloads = Vec::new();
    for name in on.uplinks.iter().chain(on.workloads) {
        let named = present.iter().find(|each| each.name == *name);
        let named = named.ok_or_else(|| Error::NoInterface(name.clone()))?;
        if on.workloads.contains(name) {
            workloads.push(named.index);
        }
        if !wanted.contains(&named) {
            wanted.push(named);
        }
    }
    for interface in &present {
        if earlier.contains(&interface.index) && !wanted.contains(&interface) {
            if pins.link(Role::Workload, interface.index).exists() {
                workloads.push(interface.index);
            }
            wanted.push(interface);
        }
    }
    let indexes: Vec<u32> = wanted.iter().map(|interface| interface.index).collect();
    hooks.retire(|ifindex| present.iter().any(|each| each.index == ifindex))?;
    let targets: Vec<Target> = wanted
        .into_iter()
        .map(|interface| Target::of(interface, &present, &indexes, &workloads))
        .collect();
    for target in &targets {
        hooks.describe(target)?;
    }
    for target in &targets {
        hooks.listen(target)?;
    }
    between()?;
    targets.iter().try_for_each(|target| hooks.judge(target))
}

/// Attaches a program or replaces it where it is. On tcx, its link.
pub(super) fn attach_one(
    program: &mut SchedClassifier,
    pins: &Pins,
    role: Role,
    interface: &str,
    ifindex: u32,
) -> Result<Option<OwnedFd>, Error> {
    if has_tcx() {
        attach_link(program, pins, role, interface, ifindex).map(Some)
    } else {
        attach_filter(program, pins, role, interface, ifindex).map(|()| None)
    }
}

fn attach_link(
    program: &SchedClassifier,
    pins: &Pins,
    role: Role,
    interface: &str,
    ifindex: u32,
) -> Result<OwnedFd, Error> {
    let program = program.fd().map_err(refused(interface))?.as_fd();
    let attach = || tcx::attach_first(program, ifindex, role).map_err(hook("attach to", interface));
    link_of(program, &pins.link(role, ifindex), interface, attach)
}

/// The link that is pinned, with this program; else a new one.
pub(super) fn link_of(
    program: BorrowedFd<'_>,
    pin: &Path,
    interface: &str,
    attach: impl FnOnce() -> Result<OwnedFd, Error>,
) -> Result<OwnedFd, Error> {
    if pin.exists() {
        let link = tcx::open(pin).map_err(hook("open the link of", interface))?;
        // Otherwise its interface went away and another has its number now.
        if tcx::update(&link, program).is_ok() {
            return Ok(link);
        }
        fs::remove_file(pin).map_err(path("remove", pin))?;
    }
    let link = attach()?;
    tcx::pin(&link, pin).map_err(hook("pin the link of", interface))?;
    Ok(link)
}

fn attach_filter(
    program: &mut SchedClassifier,
    pins: &Pins,
    role: Role,
    interface: &str,
    ifindex: u32,
) -> Result<(), Error> {
    match tc::qdisc_add_clsact(interface) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(source) => {
            return Err(Error::Qdisc {
                interface: interface.to_owned(),
                source,
            });
        }
    }
    let pin = pins.link(role, ifindex);
    let former = filters(role, interface, ifindex)?
        .into_iter()
        .find(|filter| pin.exists() && is_named(filter, role));
    let attached = match former {
        Some(former) => {
            let former = attached_filter(interface, role, former.handle)?;
            program.attach_to_link(former).map_err(refused(interface))
        }
        None => add_filter(program, role, interface),
    };
    keep(program, attached?, interface)?;
    if pin.exists() {
        return Ok(());
    }
    program
        .pin(&pin)
        .map_err(|source| Error::Pin { path: pin, source })
}

/// Adds a filter, which the kernel then runs first.
pub(super) fn add_filter(
    program: &mut SchedClassifier,
    role: Role,
    interface: &str,
) -> Result<SchedClassifierLinkId, Error> {
    let options = NlOptions {
        priority: PRIORITY,
        handle: TcHandle::AUTO_ASSIGN,
        classid: None,
    };
    let options = TcAttachOptions::Netlink(options);
    program
        .attach_with_options(interface, attach_type(role), options)
        .map_err(refused(interface))
}

/// Dropped, the link would detach.
pub(super) fn keep(
    program: &mut SchedClassifier,
    id: SchedClassifierLinkId,
    interface: &str,
) -> Result<(), Error> {
    std::mem::forget(program.take_link(id).map_err(refused(interface))?);
    Ok(())
}

pub(super) fn attached_filter(
    interface: &str,
    role: Role,
    handle: u32,
) -> Result<SchedClassifierLink, Error> {
    let handle = TcHandle::from(handle);
    SchedClassifierLink::attached(interface, attach_type(role), PRIORITY, handle, None)
        .map_err(hook("find the filter of", interface))
}

/// In the order in which they run.
pub(super) fn filters(role: Role, interface: &str, ifindex: u32) -> Result<Vec<Filter>, Error> {
    let direction = match role {
        Role::Egress | Role::Delivery => Direction::Egress,
        Role::Ingress | Role::Loopback | Role::Judged | Role::Workload => Direction::Ingress,
    };
    netlink::filters(ifindex, direction).map_err(hook("list the filters of", interface))
}

/// Whether a filter is ours: a program that was opened again has as much of its name as
/// the kernel keeps.
pub(super) fn is_named(filter: &Filter, role: Role) -> bool {
    const KEPT: usize = 15;
    let program = filter.program.as_ref();
    program.is_some_and(|(name, _)| name.get(..KEPT) == role.program().get(..KEPT))
}

/// Attaches the reader of local resolvers' answers to the loopback interface,
/// or replaces it there.
pub(super) fn listen(ebpf: &mut Ebpf, pins: &Pins) -> Result<(), Error> {
    let program = load::loaded(ebpf, Role::Loopback.program())?;
    attach_one(program, pins, Role::Loopback, LOOPBACK, index_of(LOOPBACK)?)?;
    Ok(())
}

/// Detaches everything that is pinned.
pub(super) fn detach(pins: &Pins) -> Result<Vec<Attachment>, Error> {
    let lifted = attachments(pins)?;
    for role in Role::OF_INTERFACES.into_iter().chain([Role::Loopback]) {
        detach_role(pins, role, |_| true)?;
    }
    Ok(lifted)
}

pub(super) fn detach_role(
    pins: &Pins,
    role: Role,
    from: impl Fn(u32) -> bool,
) -> Result<(), Error> {
    for ifindex in pins
        .links(role)?
        .into_iter()
        .filter(|ifindex| from(*ifindex))
    {
        let pin = pins.link(role, ifindex);
        if !has_tcx()
            && role != Role::Workload
            && let Some(interface) = name_of(ifindex)
        {
            for filter in filters(role, &interface, ifindex)? {
                if is_named(&filter, role) {
                    match attached_filter(&interface, role, filter.handle)?.detach() {
                        // Somebody else took it away meanwhile.
                        Err(ProgramError::TcError(TcError::NetlinkError(error)))
                            if error.raw_os_error() == Some(libc::ENOENT) => {}
                        detached => detached.map_err(refused(&interface))?,
                    }
                }
            }
        }
        // The last reference to a link: the kernel detaches it.
        fs::remove_file(&pin).map_err(path("remove", &pin))?;
    }
    Ok(())
}

/// Where egress is filtered. An interface that is gone has no name any more.
pub(super) fn attachments(pins: &Pins) -> Result<Vec<Attachment>, Error> {
    let of_uplinks = if has_tcx() { Hook::Tcx } else { Hook::Clsact };
    let workloads = pins.links(Role::Workload)?;
    let present = match workloads.is_empty() {
        true => Vec::new(),
        false => netlink::links().map_err(|source| Error::System {
            operation: "list the network interfaces",
            source,
        })?,
    };
    let hook = |ifindex| {
        if !workloads.contains(&ifindex) {
            return of_uplinks;
        }
        match present.iter().find(|link| link.index == ifindex) {
            Some(link) if link.xdp == Some(XdpMode::Native) => Hook::XdpNative,
            _ => Hook::XdpGeneric,
        }
    };
    Ok(filtered(pins)?
        .into_iter()
        .filter_map(|ifindex| {
            Some(Attachment {
                interface: name_of(ifindex)?,
                ifindex,
                hook: hook(ifindex),
            })
        })
        .collect())
}

/// The indexes of the interfaces by which nothing leaves unjudged, also of those that are gone.
pub(super) fn filtered(pins: &Pins) -> Result<Vec<u32>, Error> {
    pins.links_of(&[Role::Egress, Role::Workload])
}

pub(super) fn name_of(ifindex: u32) -> Option<String> {
    // nix 0.31 makes an empty name of an index that is gone.
    if_indextoname(ifindex)
        .ok()?
        .into_string()
        .ok()
        .filter(|name| !name.is_empty())
}

fn index_of(name: &str) -> Result<u32, Error> {
    if_nametoindex(name).or(Err(Error::NoInterface(name.to_owned())))
}

/// The multi-program interface of tc came with Linux 6.6.
pub(super) fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

const fn attach_type(role: Role) -> TcAttachType {
    match role {
        Role::Egress | Role::Delivery => TcAttachType::Egress,
        Role::Ingress | Role::Loopback | Role::Judged | Role::Workload => TcAttachType::Ingress,
    }
}

pub(super) fn refused(
    interface: &str,
) -> impl FnOnce(aya::programs::ProgramError) -> Error + use<> {
    let interface = interface.to_owned();
    move |source| Error::Attach {
        interface,
        source: Box::new(source),
    }
}

pub(super) fn hook(
    operation: &'static str,
    interface: &str,
) -> impl FnOnce(io::Error) -> Error + use<> {
    let interface = interface.to_owned();
    move |source| Error::Hook {
        operation,
        interface,
        source,
    }
}
