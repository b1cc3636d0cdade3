//! Hangs the programs on interfaces: tcx links where the kernel has them, the
//! clsact qdisc otherwise. Either outlives the daemon.

use std::{fs, path::Path};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
    util::KernelVersion,
};
use netfilter_ebpf::abi::{INTERFACE_INDEXES, INTERFACE_SLOTS, Interface};
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::{
    Attachment, Error, Hook, load,
    mapping::Mapping,
    maps,
    pins::{Pins, Role, path},
};

/// Our place among the filters of a clsact qdisc: the first.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 1);
/// The kernel's own name for it, in every network namespace.
const LOOPBACK: &str = "lo";

/// Attaches to each interface, ingress first so that answers are read before
/// questions are let out; replaces programs that are there already, atomically.
/// `between`: what came in before ingress saw it must be known before egress judges it.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interfaces: &[String],
    between: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let indexed: Vec<(String, u32)> = interfaces
        .iter()
        .map(|name| Ok((name.clone(), index_of(name)?)))
        .collect::<Result<_, Error>>()?;
    give_slots(pins, &indexed)?;
    for role in [Role::Ingress, Role::Egress] {
        if role == Role::Egress {
            between()?;
        }
        let program = load::program(ebpf, role.program())?;
        for (name, ifindex) in &indexed {
            attach_one(program, pins, role, name, *ifindex)?;
        }
        // Those of an earlier start that were not named this time are filtered on.
        for ifindex in pins.links(role)? {
            if !indexed.iter().any(|(_, index)| *index == ifindex)
                && let Some(name) = name_of(ifindex)
            {
                attach_one(program, pins, role, &name, ifindex)?;
            }
        }
    }
    Ok(())
}

fn attach_one(
    program: &mut SchedClassifier,
    pins: &Pins,
    role: Role,
    interface: &str,
    ifindex: u32,
) -> Result<(), Error> {
    let pin = pins.link(role, ifindex);
    let refused = |source| Error::Attach {
        interface: interface.to_owned(),
        source: Box::new(source),
    };
    if has_tcx() {
        if pin.exists() && replace_link(program, &pin)? {
            return Ok(());
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program
            .attach_with_options(interface, attach_type(role), options)
            .map_err(refused)?;
        let link: FdLink = program
            .take_link(id)
            .map_err(refused)?
            .try_into()
            .map_err(link_error(&pin))?;
        link.pin(&pin)
            .map_err(|source| Error::Pin { path: pin, source })?;
        return Ok(());
    }
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
    let attached = if pin.exists() {
        let former =
            SchedClassifierLink::attached(interface, attach_type(role), PRIORITY, HANDLE, None)
                .map_err(|source| Error::System {
                    operation: "find the attached filter",
                    source,
                })?;
        program.attach_to_link(former)
    } else {
        let options = NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        };
        program.attach_with_options(
            interface,
            attach_type(role),
            TcAttachOptions::Netlink(options),
        )
    };
    let link = program
        .take_link(attached.map_err(refused)?)
        .map_err(refused)?;
    // Dropped, it would detach.
    std::mem::forget(link);
    if !pin.exists() {
        program
            .pin(&pin)
            .map_err(|source| Error::Pin { path: pin, source })?;
    }
    Ok(())
}

/// Replaces the program of a pinned link. False where the link is dead, for its
/// interface went away and another has its index now; the pin is removed then.
fn replace_link(program: &mut SchedClassifier, pin: &Path) -> Result<bool, Error> {
    let pinned = PinnedLink::from_pin(pin).map_err(link_error(pin))?;
    let link: SchedClassifierLink = FdLink::from(pinned).try_into().map_err(link_error(pin))?;
    match program.attach_to_link(link) {
        Ok(id) => {
            // The pin holds the link; ours may close.
            let link = program.take_link(id).map_err(|source| Error::Program {
                program: "link",
                source: Box::new(source),
            })?;
            drop(link);
            Ok(true)
        }
        Err(_) => {
            fs::remove_file(pin).map_err(path("remove", pin))?;
            Ok(false)
        }
    }
}

/// Attaches the reader of local resolvers' answers to the loopback interface,
/// or replaces it there.
pub(super) fn listen(ebpf: &mut Ebpf, pins: &Pins) -> Result<(), Error> {
    let program = load::loaded(ebpf, Role::Loopback.program())?;
    attach_one(program, pins, Role::Loopback, LOOPBACK, index_of(LOOPBACK)?)
}

/// Detaches everything that is pinned.
pub(super) fn detach(pins: &Pins) -> Result<Vec<Attachment>, Error> {
    let lifted = attachments(pins)?;
    for role in [Role::Egress, Role::Ingress, Role::Loopback] {
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
            && let Some(interface) = name_of(ifindex)
        {
            match tc::qdisc_detach_program(&interface, attach_type(role), role.program()) {
                Ok(()) => {}
                Err(TcError::IoError(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Qdisc { interface, source }),
            }
        }
        // The last reference to a link: the kernel detaches it.
        fs::remove_file(&pin).map_err(path("remove", &pin))?;
    }
    Ok(())
}

/// Where egress is filtered. An interface that is gone has no name any more.
pub(super) fn attachments(pins: &Pins) -> Result<Vec<Attachment>, Error> {
    let hook = if has_tcx() { Hook::Tcx } else { Hook::Clsact };
    let links = pins.links(Role::Egress)?.into_iter();
    Ok(links
        .filter_map(|ifindex| {
            Some(Attachment {
                interface: name_of(ifindex)?,
                ifindex,
                hook,
            })
        })
        .collect())
}

/// Gives each interface a slot of the counters and keeps those that have one.
fn give_slots(pins: &Pins, interfaces: &[(String, u32)]) -> Result<(), Error> {
    let mut map: Mapping<Interface> = Mapping::open(pins, maps::INTERFACES, 1)?;
    let mut taken: Vec<Interface> = (0..map.len())
        .filter_map(|index| map.load(index))
        .filter(|interface| interface.slot != 0)
        .collect();
    for (_, ifindex) in interfaces {
        if taken.iter().any(|interface| interface.ifindex == *ifindex) {
            continue;
        }
        let place = ifindex % INTERFACE_INDEXES;
        // Two that share a place are rare: the second is counted as "other".
        if taken.iter().any(|interface| {
            interface.ifindex % INTERFACE_INDEXES == place && name_of(interface.ifindex).is_some()
        }) {
            continue;
        }
        let free =
            (1..INTERFACE_SLOTS).find(|slot| taken.iter().all(|interface| interface.slot != *slot));
        let slot = free.ok_or(Error::TooManyInterfaces(INTERFACE_SLOTS - 1))?;
        let interface = Interface {
            ifindex: *ifindex,
            slot,
        };
        map.store(place as usize, std::iter::once(interface))?;
        taken.push(interface);
    }
    Ok(())
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
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

const fn attach_type(role: Role) -> TcAttachType {
    match role {
        Role::Ingress | Role::Loopback => TcAttachType::Ingress,
        Role::Egress => TcAttachType::Egress,
    }
}

fn link_error(path: &Path) -> impl FnOnce(aya::programs::links::LinkError) -> Error {
    let path = path.to_owned();
    move |source| Error::Link { path, source }
}
