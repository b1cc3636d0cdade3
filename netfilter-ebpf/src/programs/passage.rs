//! A packet that arrives through two filtered interfaces, one upon the other: an
//! Ethernet card and its VLAN, a member and its bond, a port and its bridge; or by
//! the uplink and then for a workload.
//!
//! The lower one uses up the question that an answer matches. So what is admitted
//! there carries a mark that nobody else knows, and the upper one believes it.

use netfilter_ebpf::abi::INTERFACE_UNDER;

use crate::{buffer::Buffer, interface, maps::admitted_mark, skb::Skb};

/// Marks what is admitted here and will arrive once more.
#[inline(always)]
pub(crate) fn admit(skb: &Skb) {
    let raw = skb.skb();
    // SAFETY: the context pointer that the kernel passed.
    unsafe {
        if (*raw).mark == 0 && is_under(skb) {
            (*raw).mark = admitted_mark();
        }
    }
}

/// Whether the interface below has admitted it. At the last interface it is like
/// any other from here on.
#[inline(always)]
pub(crate) fn is_admitted(skb: &Skb, is_last: bool) -> bool {
    let raw = skb.skb();
    // SAFETY: the context pointer that the kernel passed.
    unsafe {
        let admitted = (*raw).mark == admitted_mark();
        if admitted && (is_last || !is_under(skb)) {
            (*raw).mark = 0;
        }
        admitted
    }
}

#[inline(always)]
fn is_under(skb: &Skb) -> bool {
    interface::flags(skb.ifindex()).is_some_and(|flags| flags & INTERFACE_UNDER != 0)
}
