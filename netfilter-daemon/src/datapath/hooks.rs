//! What keeps the programs in their places while the daemon runs.

use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd, OwnedFd},
};

use aya::{
    Ebpf,
    maps::ProgramArray,
    programs::{Link, SchedClassifier},
};

use super::{
    Datapath, Error,
    attach::{self, attach_one, has_tcx, hook, refused},
    load, maps,
    pins::{Pins, Role, path},
    slots::Slots,
    tcx,
};
use crate::interfaces::{self, Interface};

/// An interface to filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub index: u32,
    pub name: String,
    /// As in `abi::Interface`.
    pub flags: u32,
}

/// What another tool did to our place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The program did not hang there any more.
    Detached,
    /// Another program ran before ours.
    Displaced,
    /// The pin was gone, without which the filter would end with the daemon.
    Unpinned,
}

impl Cause {
    /// The label of the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::Displaced => "displaced",
            Self::Unpinned => "unpinned",
        }
    }

    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Detached => "it detached the filter",
            Self::Displaced => "it put another program before the filter",
            Self::Unpinned => "it removed the filter's pin",
        }
    }
}

/// The programs of this process, to be hung on interfaces from any thread.
pub struct Hooks {
    pins: Pins,
    slots: Slots,
    ingress: SchedClassifier,
    egress: SchedClassifier,
    relays: Relays,
    /// The links: whoever removes a pin does not detach the program.
    links: HashMap<(Role, u32), OwnedFd>,
}

/// Programs that do what ours do, by a jump: the kernel does not attach one twice.
/// What they jump to is there while the [`Datapath`] is; without it they drop.
struct Relays {
    ingress: SchedClassifier,
    egress: SchedClassifier,
}

const ROLES: [Role; 2] = [Role::Egress, Role::Ingress];

impl Target {
    /// `filtered`: the indexes of all interfaces that are.
    pub fn of(interface: &Interface, present: &[Interface], filtered: &[u32]) -> Self {
        Self {
            index: interface.index,
            name: interface.name.clone(),
            flags: interfaces::flags(interface, present, filtered),
        }
    }
}

impl Datapath {
    /// The programs in force, for another thread.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn hooks(&mut self) -> Result<Hooks, Error> {
        Hooks::of(&mut self.ebpf, &self.pins)
    }
}

impl Hooks {
    pub(super) fn of(ebpf: &mut Ebpf, pins: &Pins) -> Result<Self, Error> {
        Ok(Self {
            pins: pins.clone(),
            slots: Slots::open(pins)?,
            ingress: copy(ebpf, pins, Role::Ingress.program())?,
            egress: copy(ebpf, pins, Role::Egress.program())?,
            relays: Relays::of(ebpf, pins)?,
            links: HashMap::new(),
        })
    }

    /// The indexes of the interfaces where egress was filtered, also of those that are gone.
    ///
    /// # Errors
    /// As all here: where the kernel refuses.
    pub fn filtered(&self) -> Result<Vec<u32>, Error> {
        self.pins.links(Role::Egress)
    }

    /// Tells the programs of an interface; to be done before it is covered.
    pub fn describe(&mut self, target: &Target) -> Result<(), Error> {
        self.slots
            .describe(target.index, &target.name, target.flags)
    }

    /// Filters an interface.
    pub fn cover(&mut self, target: &Target) -> Result<(), Error> {
        ROLES
            .into_iter()
            .try_for_each(|role| self.attach(role, target))
    }

    /// Forgets interfaces that are gone: pins, and who counts where.
    pub fn retire(&mut self, is_there: impl Fn(u32) -> bool) -> Result<(), Error> {
        self.links.retain(|(_, ifindex), _| is_there(*ifindex));
        for role in ROLES {
            for ifindex in self.pins.links(role)? {
                if !is_there(ifindex) {
                    let pin = self.pins.link(role, ifindex);
                    fs::remove_file(&pin).map_err(path("remove", &pin))?;
                }
            }
        }
        self.slots.retire(is_there)
    }

    /// What is wrong on an interface that was covered.
    pub fn check(&mut self, target: &Target) -> Result<Option<Cause>, Error> {
        for role in ROLES {
            if let Some(cause) = self.check_role(role, target)? {
                return Ok(Some(cause));
            }
        }
        Ok(None)
    }

    /// Puts right what is wrong, without a packet that passes unjudged.
    pub fn repair(&mut self, target: &Target) -> Result<(), Error> {
        for role in ROLES {
            match self.check_role(role, target)? {
                None => {}
                Some(Cause::Detached) => {
                    self.links.remove(&(role, target.index));
                    let pin = self.pins.link(role, target.index);
                    if pin.exists() {
                        fs::remove_file(&pin).map_err(path("remove", &pin))?;
                    }
                    self.attach(role, target)?;
                }
                Some(Cause::Unpinned) => self.pin(role, target)?,
                Some(Cause::Displaced) if has_tcx() => self.move_link(role, target)?,
                Some(Cause::Displaced) => self.move_filter(role, target)?,
            }
        }
        Ok(())
    }

    pub(super) fn attach(&mut self, role: Role, target: &Target) -> Result<(), Error> {
        let program = match role {
            Role::Egress => &mut self.egress,
            _ => &mut self.ingress,
        };
        let link = attach_one(program, &self.pins, role, &target.name, target.index)?;
        if let Some(link) = link {
            self.links.insert((role, target.index), link);
        }
        Ok(())
    }

    fn check_role(&mut self, role: Role, target: &Target) -> Result<Option<Cause>, Error> {
        let pin = self.pins.link(role, target.index);
        let in_place = if has_tcx() {
            self.check_link(role, target)?
        } else {
            self.check_filter(role, target)?
        };
        Ok(match in_place {
            None if pin.exists() => None,
            None => Some(Cause::Unpinned),
            cause => cause,
        })
    }

    fn check_link(&mut self, role: Role, target: &Target) -> Result<Option<Cause>, Error> {
        let failed = |operation| hook(operation, &target.name);
        let key = (role, target.index);
        if !self.links.contains_key(&key) {
            let pin = self.pins.link(role, target.index);
            if !pin.exists() {
                return Ok(Some(Cause::Detached));
            }
            let link = tcx::open(&pin).map_err(failed("open the link of"))?;
            self.links.insert(key, link);
        }
        let Some(link) = self.links.get(&key) else {
            return Ok(Some(Cause::Detached));
        };
        let standing = tcx::standing(link).map_err(failed("inspect the link of"))?;
        if standing.ifindex != target.index {
            return Ok(Some(Cause::Detached));
        }
        let first = tcx::first(target.index, role).map_err(failed("list the programs of"))?;
        Ok((first != Some(standing.id)).then_some(Cause::Displaced))
    }

    fn check_filter(&self, role: Role, target: &Target) -> Result<Option<Cause>, Error> {
        let id = self.program_id(role, &target.name)?;
        let filters = attach::filters(role, &target.name, target.index)?;
        let ours = |filter: &crate::netlink::Filter| {
            attach::is_named(filter, role)
                && filter.program.as_ref().is_some_and(|(_, its)| *its == id)
        };
        Ok(match filters.iter().position(ours) {
            None => Some(Cause::Detached),
            Some(0) => None,
            Some(_) => Some(Cause::Displaced),
        })
    }

    fn pin(&mut self, role: Role, target: &Target) -> Result<(), Error> {
        let pin = self.pins.link(role, target.index);
        if let Some(link) = self.links.get(&(role, target.index)) {
            return tcx::pin(link, &pin).map_err(hook("pin the link of", &target.name));
        }
        self.program(role)
            .pin(&pin)
            .map_err(|source| Error::Pin { path: pin, source })
    }

    /// A relay goes first, then our link is made anew before it.
    fn move_link(&mut self, role: Role, target: &Target) -> Result<(), Error> {
        let failed = |operation| hook(operation, &target.name);
        let relay = match role {
            Role::Egress => &self.relays.egress,
            _ => &self.relays.ingress,
        };
        let relay = relay.fd().map_err(refused(&target.name))?.as_fd();
        let stand_in = tcx::attach_first(relay, target.index, role).map_err(failed("attach to"))?;
        if let Some(former) = self.links.remove(&(role, target.index)) {
            tcx::detach(&former).map_err(failed("detach the former link of"))?;
        }
        let pin = self.pins.link(role, target.index);
        if pin.exists() {
            fs::remove_file(&pin).map_err(path("remove", &pin))?;
        }
        self.attach(role, target)?;
        tcx::detach(&stand_in).map_err(failed("detach the stand-in of"))
    }

    /// A second filter goes first, then the former one goes.
    fn move_filter(&mut self, role: Role, target: &Target) -> Result<(), Error> {
        let former = attach::filters(role, &target.name, target.index)?;
        let id = attach::add_filter(self.program(role), role, &target.name)?;
        attach::keep(self.program(role), id, &target.name)?;
        for filter in former
            .iter()
            .filter(|filter| attach::is_named(filter, role))
        {
            attach::attached_filter(&target.name, role, filter.handle)?
                .detach()
                .map_err(refused(&target.name))?;
        }
        Ok(())
    }

    fn program(&mut self, role: Role) -> &mut SchedClassifier {
        match role {
            Role::Egress => &mut self.egress,
            _ => &mut self.ingress,
        }
    }

    fn program_id(&self, role: Role, interface: &str) -> Result<u32, Error> {
        let program = match role {
            Role::Egress => &self.egress,
            _ => &self.ingress,
        };
        Ok(program.info().map_err(refused(interface))?.id())
    }
}

impl Relays {
    fn of(ebpf: &mut Ebpf, pins: &Pins) -> Result<Self, Error> {
        for (index, role) in [(0, Role::Egress), (1, Role::Ingress)] {
            let refused = |source| Error::Program {
                program: role.program(),
                source: Box::new(source),
            };
            let program = load::loaded(ebpf, role.program())?.fd().map_err(refused)?;
            let program = program
                .try_clone()
                .map_err(hook("copy the program of", role.label()))?;
            let targets = ebpf
                .map_mut(maps::RELAYED)
                .ok_or(Error::MissingMap(maps::RELAYED))?;
            ProgramArray::try_from(targets)
                .and_then(|mut targets| targets.set(index, &program, 0))
                .map_err(maps::failed("write", maps::RELAYED))?;
        }
        Ok(Self {
            ingress: copy(ebpf, pins, "netfilter_relay_ingress")?,
            egress: copy(ebpf, pins, "netfilter_relay_egress")?,
        })
    }
}

/// The same program, with its own descriptor: by way of a pin, for to open it by its
/// number needs CAP_SYS_ADMIN.
fn copy(ebpf: &mut Ebpf, pins: &Pins, name: &'static str) -> Result<SchedClassifier, Error> {
    let refused = |source| Error::Program {
        program: name,
        source: Box::new(source),
    };
    let pin = pins.passing();
    // What a start that was killed has left.
    fs::remove_file(&pin).ok();
    load::loaded(ebpf, name)?
        .pin(&pin)
        .map_err(|source| Error::Pin {
            path: pin.clone(),
            source,
        })?;
    let copy = SchedClassifier::from_pin(&pin).map_err(refused);
    fs::remove_file(&pin).map_err(path("remove", &pin))?;
    copy
}
