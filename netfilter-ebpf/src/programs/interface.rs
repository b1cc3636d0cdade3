//! What user space has said of the interface at hand.

use netfilter_ebpf::abi::{
    INTERFACE_PROBES, INTERFACE_SLOTS, INTERFACE_WORKLOAD, Interface, LOOPBACK_IFINDEX,
    interface_place,
};

use crate::maps::INTERFACES;

/// Its flags; `None` where it has no entry. The loopback interface needs none.
#[inline(always)]
pub(crate) fn flags(ifindex: u32) -> Option<u32> {
    match entry(ifindex) {
        Some(interface) => Some(interface.flags),
        None if ifindex == LOOPBACK_IFINDEX => Some(0),
        None => None,
    }
}

/// Whether it leads to a workload.
#[inline(always)]
pub(crate) fn is_workload(ifindex: u32) -> bool {
    flags(ifindex).is_some_and(|flags| flags & INTERFACE_WORKLOAD != 0)
}

/// Its slot of the counters; zero is that of all that have none.
#[inline(always)]
pub(crate) fn slot(ifindex: u32) -> u32 {
    entry(ifindex).map_or(0, |interface| interface.slot % INTERFACE_SLOTS)
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
