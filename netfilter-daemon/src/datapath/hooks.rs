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
use netfilter_ebpf::abi::{INTERFACE_BARE, INTERFACE_UNREADABLE, INTERFACE_WORKLOAD};

use super::{
    Datapath, Error, Unguarded,
    attach::{self, attach_one, has_tcx, hook, refused},
    guard::Post,
    load, maps,
    pins::{Pins, Role, path},
    slots::Slots,
    tcx, xdp,
};
use crate::{
    interfaces::{self, Interface},
    netlink::XdpMode,
};

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
    judged: SchedClassifier,
    /// Or why the kernel does not take it.
    workload: Result<OwnedFd, String>,
    relays: Relays,
    /// The links: whoever removes a pin does not detach the program.
    links: HashMap<(Role, u32), OwnedFd>,
    pub(super) guard: Result<Post, Unguarded>,
    /// Whether a workload's interface needs `Judged`, for as long as its link lasts.
    proofs: HashMap<u32, bool>,
}

/// Programs that do what ours do, by a jump: the kernel does not attach one twice.
/// What they jump to is there while the [`Datapath`] is; without it they drop.
struct Relays {
    ingress: SchedClassifier,
    egress: SchedClassifier,
}

impl Target {
    /// `filtered`: the indexes of all interfaces that are; `workloads`: of those that
    /// lead to one.
    pub fn of(
        interface: &Interface,
        present: &[Interface],
        filtered: &[u32],
        workloads: &[u32],
    ) -> Self {
        Self {
            index: interface.index,
            name: interface.name.clone(),
            flags: interfaces::flags(interface, present, filtered, workloads),
        }
    }

    const fn is_workload(&self) -> bool {
        self.flags & INTERFACE_WORKLOAD != 0
    }
}

impl Datapath {
    /// The programs in force, for another thread.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn hooks(&mut self) -> Result<Hooks, Error> {
        let mut hooks = Hooks::of(&mut self.ebpf, &self.pins)?;
        hooks.guard = Post::of(&self.guard);
        Ok(hooks)
    }
}

impl Hooks {
    pub(super) fn of(ebpf: &mut Ebpf, pins: &Pins) -> Result<Self, Error> {
        Ok(Self {
            pins: pins.clone(),
            slots: Slots::open(pins)?,
            ingress: copy(ebpf, pins, Role::Ingress.program())?,
            egress: copy(ebpf, pins, Role::Egress.program())?,
            judged: copy(ebpf, pins, Role::Judged.program())?,
            workload: workload(ebpf).map_err(|error| error.to_string()),
            relays: Relays::of(ebpf, pins)?,
            links: HashMap::new(),
            guard: Err(Unguarded::Absent),
            proofs: HashMap::new(),
        })
    }

    /// The indexes of the interfaces where egress was filtered, also of those that are gone.
    ///
    /// # Errors
    /// As all here: where the kernel refuses.
    pub fn filtered(&self) -> Result<Vec<u32>, Error> {
        attach::filtered(&self.pins)
    }

    /// Of them, those that lead to a workload.
    pub fn workloads(&self) -> Result<Vec<u32>, Error> {
        self.pins.links(Role::Workload)
    }

    /// How a workload's frames come to be judged, for the log; nothing of an uplink.
    pub fn told(&self, target: &Target) -> String {
        match xdp::mode(target) {
            Ok(Some(mode)) if target.is_workload() => format!(", judged by {}", mode.words()),
            _ => String::new(),
        }
    }

    /// Tells the programs of an interface; to be done before it is covered.
    pub fn describe(&mut self, target: &Target) -> Result<(), Error> {
        self.slots
            .describe(target.index, &target.name, target.flags)
    }

    /// Filters an interface.
    pub fn cover(&mut self, target: &Target) -> Result<(), Error> {
        self.judge(target)?;
        self.listen(target)
    }

    /// Reads what comes from the network, or is delivered to the workload.
    pub(super) fn listen(&mut self, target: &Target) -> Result<(), Error> {
        let role = match target.is_workload() {
            true => Role::Delivery,
            false => Role::Ingress,
        };
        self.attach(role, target)
    }

    /// Judges what leaves by an uplink, or leaves a workload.
    pub(super) fn judge(&mut self, target: &Target) -> Result<(), Error> {
        if !target.is_workload() {
            self.attach(Role::Egress, target)?;
            return self.lift(&[Role::Judged, Role::Workload, Role::Delivery], target);
        }
        if target.flags & (INTERFACE_BARE | INTERFACE_UNREADABLE) != 0 {
            return Err(Error::NoEthernet {
                interface: target.name.clone(),
            });
        }
        let judges = self.attach(Role::Workload, target);
        // Nothing comes in where nobody judges it.
        if judges.is_err() || self.needs_proof(target)? {
            self.attach(Role::Judged, target)?;
        }
        judges?;
        self.lift(&[Role::Egress, Role::Ingress], target)
    }

    /// What was redirected before comes by the generic XDP of the kernel unseen.
    fn needs_proof(&mut self, target: &Target) -> Result<bool, Error> {
        if let Some(known) = self.proofs.get(&target.index) {
            return Ok(*known);
        }
        let needed = xdp::mode(target)? != Some(XdpMode::Native);
        self.proofs.insert(target.index, needed);
        Ok(needed)
    }

    /// Of an interface that led elsewhere before.
    fn lift(&mut self, roles: &[Role], target: &Target) -> Result<(), Error> {
        for &role in roles {
            self.links.remove(&(role, target.index));
            attach::detach_role(&self.pins, role, |ifindex| ifindex == target.index)?;
        }
        Ok(())
    }

    /// The roles that an interface needs.
    fn roles(&mut self, target: &Target) -> Result<Vec<Role>, Error> {
        Ok(match target.is_workload() {
            false => vec![Role::Egress, Role::Ingress],
            true if self.needs_proof(target)? => {
                vec![Role::Workload, Role::Judged, Role::Delivery]
            }
            true => vec![Role::Workload, Role::Delivery],
        })
    }

    /// Forgets interfaces that are gone: pins, and who counts where.
    pub fn retire(&mut self, is_there: impl Fn(u32) -> bool) -> Result<(), Error> {
        self.links.retain(|(_, ifindex), _| is_there(*ifindex));
        self.proofs.retain(|ifindex, _| is_there(*ifindex));
        for role in Role::OF_INTERFACES {
            for ifindex in self.pins.links(role)? {
                if !is_there(ifindex) {
                    let pin = self.pins.link(role, ifindex);
                    fs::remove_file(&pin).map_err(path("remove", &pin))?;
                }
            }
        }
        self.slots.retire(is_there)
    }

    /// Lifts the filter from an interface.
    pub fn leave(&mut self, ifindex: u32) -> Result<(), Error> {
        for role in Role::OF_INTERFACES {
            self.links.remove(&(role, ifindex));
            attach::detach_role(&self.pins, role, |each| each == ifindex)?;
        }
        self.proofs.remove(&ifindex);
        self.slots.retire(|each| each != ifindex)
    }

    /// What is wrong on an interface that was covered.
    pub fn check(&mut self, target: &Target) -> Result<Option<Cause>, Error> {
        for role in self.roles(target)? {
            if let Some(cause) = self.check_role(role, target)? {
                return Ok(Some(cause));
            }
        }
        Ok(None)
    }

    /// Puts right what is wrong, without a packet that passes unjudged.
    pub fn repair(&mut self, target: &Target) -> Result<(), Error> {
        for role in self.roles(target)? {
            match self.check_role(role, target)? {
                None => {}
                // XDP judges meanwhile.
                Some(Cause::Displaced) if role == Role::Judged && has_tcx() => {
                    self.lift(&[role], target)?;
                    self.attach(role, target)?;
                }
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
            Role::Workload => return self.attach_workload(target),
            Role::Egress => &mut self.egress,
            Role::Judged => &mut self.judged,
            Role::Ingress | Role::Loopback | Role::Delivery => &mut self.ingress,
        };
        let link = attach_one(program, &self.pins, role, &target.name, target.index)?;
        if let Some(link) = link {
            self.links.insert((role, target.index), link);
        }
        Ok(())
    }

    fn attach_workload(&mut self, target: &Target) -> Result<(), Error> {
        let program = match &self.workload {
            Ok(program) => program.as_fd(),
            Err(why) => return Err(Error::NoWorkloads(why.clone())),
        };
        let pin = self.pins.link(Role::Workload, target.index);
        let attach = || xdp::attach(program, target);
        let link = attach::link_of(program, &pin, &target.name, attach)?;
        self.proofs.remove(&target.index);
        self.links.insert((Role::Workload, target.index), link);
        Ok(())
    }

    fn check_role(&mut self, role: Role, target: &Target) -> Result<Option<Cause>, Error> {
        let pin = self.pins.link(role, target.index);
        let in_place = if has_tcx() || role == Role::Workload {
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
        if role == Role::Workload {
            return Ok(None); // the kernel runs one
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
            Role::Ingress | Role::Loopback | Role::Delivery | Role::Judged | Role::Workload => {
                &self.relays.ingress
            }
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
            Role::Judged => &mut self.judged,
            Role::Ingress | Role::Loopback | Role::Delivery | Role::Workload => &mut self.ingress,
        }
    }

    fn program_id(&self, role: Role, interface: &str) -> Result<u32, Error> {
        let program = match role {
            Role::Egress => &self.egress,
            Role::Judged => &self.judged,
            Role::Ingress | Role::Loopback | Role::Delivery | Role::Workload => &self.ingress,
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

fn workload(ebpf: &mut Ebpf) -> Result<OwnedFd, Error> {
    let name = Role::Workload.program();
    let program = load::workload(ebpf)?
        .fd()
        .map_err(|source| Error::Program {
            program: name,
            source: Box::new(source),
        })?;
    program
        .as_fd()
        .try_clone_to_owned()
        .map_err(hook("copy the program of", Role::Workload.label()))
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
