//! A packet that leaves.

use netfilter_ebpf::{
    abi::{FRAGMENT_TIMEOUT, Flow},
    egress::{self, Tables},
    packet::{self, Fragment, Packet},
    verdict::{Grounds, Reason, Verdict},
};

use crate::{
    conclude::{self, Subject},
    frame::{Frame, read},
    maps::{FLOWS, FRAGMENTS, Scratch},
    message::scratch,
    question,
    skb::Skb,
    stream,
    tables::Generation,
};

/// A learned flow is remembered when it begins, or when its grant has less
/// than this many seconds to live: from then on its own life counts.
const NEARLY_EXPIRED: u32 = 10;

#[inline(always)]
pub(crate) fn run(skb: &Skb) -> i32 {
    let Some(generation) = Generation::active() else {
        return conclude::conclude(skb, Verdict::Drop(Reason::Unready), Subject::Unread);
    };
    match read(skb) {
        Ok(Frame::Plumbing) => {
            conclude::conclude(skb, Verdict::Pass(Grounds::Plumbing), Subject::Unread)
        }
        Err(reason) => conclude::conclude(skb, Verdict::Drop(reason), Subject::Unread),
        Ok(Frame::Ip(packet)) => {
            let mut verdict = egress::decide(packet, &generation);
            let mut subject = Subject::Packet;
            if let Verdict::Ask = verdict {
                verdict = if packet.protocol == packet::TCP {
                    stream::outbound(skb, &generation, false)
                } else {
                    question::datagram(skb, packet, &generation)
                };
                subject = Subject::Question;
            }
            if let Verdict::Pass(grounds) = verdict {
                verdict = remember(packet, grounds, &generation);
            }
            conclude::conclude(skb, verdict, subject)
        }
    }
}

/// Remembers what later packets will be judged by.
#[inline(always)]
fn remember(packet: &Packet, grounds: Grounds, generation: &Generation) -> Verdict {
    if let Grounds::Learned(grant) = grounds {
        let now = generation.now();
        let begins = packet.protocol != packet::TCP || packet.kind & packet::SYN != 0;
        if begins || grant.until() < now + NEARLY_EXPIRED {
            let flow = Flow {
                origin: grant.name(),
                until: grant.until() + egress::idle(packet.protocol),
            };
            let Some(Scratch {
                connection: key, ..
            }) = scratch()
            else {
                return Verdict::Drop(Reason::TableFull);
            };
            *key = egress::flow_key(packet);
            // SAFETY: copied at once.
            let known = unsafe { FLOWS.get(&*key) }.is_some_and(|known| *known == flow);
            if !known && FLOWS.insert(&*key, &flow, 0).is_err() {
                return Verdict::Drop(Reason::TableFull);
            }
        }
    }
    if let Fragment::First(id) = packet.fragment {
        let until = generation.now() + FRAGMENT_TIMEOUT;
        let Some(Scratch { datagram: key, .. }) = scratch() else {
            return Verdict::Drop(Reason::TableFull);
        };
        *key = egress::fragment_key(packet, id);
        if FRAGMENTS.insert(&*key, &until, 0).is_err() {
            return Verdict::Drop(Reason::TableFull);
        }
    }
    Verdict::Pass(grounds)
}
