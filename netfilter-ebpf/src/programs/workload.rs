//! What a workload sends: a container or virtual machine that this host forwards for.

use netfilter_ebpf::{
    abi::{INTERFACE_TAGGED, SETTING_LIFTED},
    verdict::{Reason, Verdict},
};

use crate::{
    buffer::Buffer,
    conclude::{self, Subject},
    egress, interface,
    maps::judged_mark,
    skb::Skb,
    tables::Generation,
    xdp::Xdp,
};

/// Judges a frame before the host sees it.
#[inline(always)]
pub(crate) fn run(frame: &Xdp) -> i32 {
    let action = egress::run(frame);
    if action == Xdp::PASS && interface::is_workload(frame.ifindex()) {
        frame.vouch();
    }
    action
}

/// At tc, behind the generic XDP of the kernel, which lets by unseen what was redirected
/// before (`act_mirred` in the workload does): only what was judged goes on. Nor does it show
/// a tag that the workload's kernel keeps beside the frame, and that is on the wire again.
#[inline(always)]
pub(crate) fn let_in(skb: &Skb) -> i32 {
    if has_unjudged_tag(skb) {
        return refuse(skb, Reason::Ethertype);
    }
    // SAFETY: the context pointer that the kernel passed.
    let (place, data) = unsafe { ((*skb.skb()).data_meta as usize, skb.ctx.data()) };
    if place + size_of::<u32>() <= data {
        let mark = place as *mut u32;
        // SAFETY: within, as just compared.
        unsafe {
            if *mark == judged_mark() {
                *mark = 0;
                return Skb::PASS;
            }
        }
    }
    refuse(skb, Reason::Unjudged)
}

#[inline(always)]
fn has_unjudged_tag(skb: &Skb) -> bool {
    // SAFETY: the context pointer that the kernel passed.
    let is_tagged = unsafe { (*skb.skb()).vlan_present } != 0;
    is_tagged && interface::flags(skb.ifindex()).is_none_or(|flags| flags & INTERFACE_TAGGED == 0)
}

#[inline(always)]
fn refuse(skb: &Skb, reason: Reason) -> i32 {
    match Generation::active() {
        Some((_, settings)) if settings.has(SETTING_LIFTED) => Skb::PASS,
        active => {
            let generation = active.map(|(generation, _)| generation);
            let verdict = Verdict::Drop(reason);
            conclude::conclude(skb, verdict, Subject::Unread, generation.as_ref())
        }
    }
}
