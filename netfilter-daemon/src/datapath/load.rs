//! Loads the BPF object that is embedded in this binary.

use aya::{
    EbpfLoader, VerifierLogLevel,
    programs::{SchedClassifier, Xdp},
    util::KernelVersion,
};

use netfilter_ebpf::abi::Layout;

use super::{
    Error,
    maps::{self, Plain},
    pins::{Pins, Role},
    remedy,
};
use crate::compile::Image;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("NETFILTER_EBPF_OBJECT"));

/// Nodes, what leaves number, classes and deciders that each copy of a table holds at
/// least, so that a policy can grow without the tables being made anew.
const MIN_NODES: usize = 8_192;
const MIN_HELD: usize = 1_024;
const MIN_CLASSES: usize = 1_024;
const MIN_DECIDERS: usize = 1_024;
/// One part in so many stays free where a table needs more: the kernel keeps two copies of it.
const ROOM: usize = 8;

/// What the programs ask for came step by step, and older verifiers say of what is missing
/// what nobody understands.
const OLDEST: KernelVersion = KernelVersion::new(5, 15, 0);

/// What makes the verifier say of a right that is missing what nobody understands, too.
///
/// # Errors
/// [`Error::Unprivileged`], [`Error::OldKernel`]
pub(super) fn check_this_process() -> Result<(), Error> {
    let missing = remedy::missing_capabilities();
    if !missing.is_empty() {
        return Err(Error::Unprivileged(missing));
    }
    KernelVersion::current().map_or(Ok(()), check)
}

fn check(kernel: KernelVersion) -> Result<(), Error> {
    match kernel >= OLDEST {
        true => Ok(()),
        false => Err(Error::OldKernel),
    }
}

/// Maps that are pinned are used as they are; others are made.
pub(super) fn load(
    pins: &Pins,
    image: &Image,
    layout: Option<&Layout>,
) -> Result<aya::Ebpf, Error> {
    read(image, layout, Some(pins))
}

/// All maps are made, and end with this process.
pub(super) fn load_unpinned(image: &Image, layout: Option<&Layout>) -> Result<aya::Ebpf, Error> {
    read(image, layout, None)
}

fn read(image: &Image, layout: Option<&Layout>, pins: Option<&Pins>) -> Result<aya::Ebpf, Error> {
    // A policy grows by steps; and who outgrows the tables gets others, see `grow`.
    let capacity = |needed: usize, least: usize| {
        let ample = (needed + needed / ROOM).next_multiple_of(1024);
        u32::try_from(ample.max(least)).unwrap_or(u32::MAX / 2)
    };
    let layout = layout.map(|layout| Plain(*layout));
    let mut loader = EbpfLoader::new();
    loader
        // Asked for only when a program is refused. A more verbose log overflows
        // aya's buffer before it comes to the point.
        .verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS)
        .map_max_entries(
            maps::NODES,
            2 * capacity(image.ipv4.nodes.len() + image.ipv6.nodes.len(), MIN_NODES),
        )
        .map_max_entries(maps::HELD, capacity(image.held.len(), MIN_HELD))
        .map_max_entries(
            maps::CLASSES,
            2 * capacity(image.classes.len(), MIN_CLASSES),
        )
        .map_max_entries(
            maps::DECIDERS,
            2 * capacity(image.deciders.len(), MIN_DECIDERS),
        );
    if let Some(layout) = &layout {
        loader.override_global("LAYOUT", layout, true);
    }
    if let Some(pins) = pins {
        for name in maps::pinned() {
            loader.map_pin_path(name, pins.map(name)?);
        }
    }
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|error| Error::Load(Box::new(error)))?;
    for role in [Role::Ingress, Role::Egress] {
        loaded(&mut ebpf, role.program())?;
    }
    Ok(ebpf)
}

/// The program, which is loaded at the first call.
pub(super) fn loaded<'a>(
    ebpf: &'a mut aya::Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, Error> {
    let program = program(ebpf, name)?;
    if program.fd().is_err() {
        program.load().map_err(|source| Error::Program {
            program: name,
            source: Box::new(source),
        })?;
    }
    Ok(program)
}

pub(super) fn program<'a>(
    ebpf: &'a mut aya::Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, Error> {
    let program = ebpf.program_mut(name).ok_or(Error::MissingMap(name))?;
    program.try_into().map_err(|source| Error::Program {
        program: name,
        source: Box::new(source),
    })
}

/// The program for what workloads send, which is loaded at the first call.
pub(super) fn workload(ebpf: &mut aya::Ebpf) -> Result<&mut Xdp, Error> {
    let name = Role::Workload.program();
    let refused = |source| Error::Program {
        program: name,
        source: Box::new(source),
    };
    let program = ebpf.program_mut(name).ok_or(Error::MissingMap(name))?;
    let program: &mut Xdp = program.try_into().map_err(refused)?;
    if program.fd().is_err() {
        program.load().map_err(refused)?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests;
