//! What user space has said of the interface at hand.

use netfilter_ebpf::abi::{
    INTERFACE_PROBES, INTERFACE_SLOTS, INTERFACE_WORKLOAD, Interface, LOOPBACK_IFINDEX,
    interface_place,
};

use crate::maps::INTERFACES;

/// An interface as the programs see it.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) flags: u32,
    /// Of the counters; zero is that of all that have none.
    pub(crate) slot: u32,
}

impl Place {
    /// Whether it leads to a workload.
    #[inline(always)]
    pub(crate) fn is_workload(self) -> bool {
        self.flags & INTERFACE_WORKLOAD != 0
    }
}

/// What is known of it; `None` where it has no entry. The loopback interface needs none.
#[inline(always)]
pub(crate) fn find(ifindex: u32) -> Option<Place> {
    match entry(ifindex) {
        Some(interface) => Some(Place {
            flags: interface.flags,
            slot: interface.slot % INTERFACE_SLOTS,
        }),
        None if ifindex == LOOPBACK_IFINDEX => Some(Place { flags: 0, slot: 0 }),
        None => None,
    }
}

/// Its flags.
#[inline(always)]
pub(crate) fn flags(ifindex: u32) -> Option<u32> {
    find(ifindex).map(|place| place.flags)
}

/// Whether it leads to a workload.
#[inline(always)]
pub(crate) fn is_workload(ifindex: u32) -> bool {
    find(ifindex).is_some_and(Place::is_workload)
}

/// Its slot of the counters.
#[inline(always)]
pub(crate) fn slot(ifindex: u32) -> u32 {
    find(ifindex).map_or(0, |place| place.slot)
}

#[inline(always)]
fn entry(ifindex: u32) -> Option<&'static Interface> {
    for probe in 0..INTERFACE_PROBES {
        let interface = INTERFACES.get(interface_place(ifindex, probe))?;
        if interface.ifindex == ifindex {
            return Some(interface);
        }
    }
    None
}
