//! A packet that arrives, from the network or (at tc egress of an interface that leads to a
//! workload) for that one. It is read for what it teaches; this is no inbound firewall.
//!
//! On its way to a workload a packet may have been read before, at the uplink, and its
//! address translated since. So it is read once more, for the workload's own question
//! and stream, and what answers none was perhaps the answer to the same, used up there.

use netfilter_ebpf::{
    abi::SETTING_LIFTED,
    egress,
    packet::{Packet, TCP},
    verdict::{Answer, Reason, Verdict},
};

use crate::{
    answer,
    buffer::{Buffer, seam},
    clock,
    conclude::{self, Subject},
    flow,
    frame::{self, Frame, read},
    interface::{self, Place},
    maps::{ANSWER_COUNTS, count},
    passage, refuse,
    skb::Skb,
    stream,
    tables::Generation,
};

#[inline(always)]
pub(crate) fn run(skb: &Skb) -> i32 {
    if refuse::is_refusal(skb) {
        return conclude::PASS;
    }
    let interface = interface::find(skb.ifindex());
    let is_delivery = interface.is_some_and(Place::is_workload);
    let admitted = passage::is_admitted(skb, is_delivery);
    if admitted && !is_delivery {
        return conclude::PASS;
    }
    let (Some((generation, settings)), Some(interface)) = (Generation::active(), interface) else {
        return conclude::PASS;
    };
    if settings.has(SETTING_LIFTED) {
        return conclude::PASS;
    }
    let seen = glance(
        skb,
        u64::from(generation.slot()),
        u64::from(interface.flags),
    );
    let packet = match seen {
        NOTHING => return conclude::PASS,
        PARKED => frame::parked(),
        _ => match read(skb) {
            Ok(Frame::Ip(packet)) => Some(packet),
            _ => None,
        },
    };
    let Some(packet) = packet else {
        return conclude::PASS;
    };
    if egress::is_dns(packet.protocol, packet.source_port) && generation.is_resolver(packet.source)
    {
        if packet.protocol != TCP {
            return datagram(skb, packet, &generation, admitted);
        }
        if !stream::inbound(skb, &generation, false) {
            let verdict = Verdict::Drop(Reason::DnsStream);
            return conclude::conclude(skb, verdict, Subject::Incoming, Some(&generation));
        }
        passage::admit(skb);
    }
    flow::arriving(packet, &generation);
    conclude::PASS
}

const NOTHING: u64 = 0;
const PARKED: u64 = 1;
const UNREAD: u64 = 2;

seam! {
    /// Whether a plain packet teaches anything; it is in the scratch then. With a stack of
    /// its own.
    fn glance = (netfilter_glance, xdp_glance)<B>(buffer, copy: u64, flags: u64) {
        let interface = Place { flags: flags as u32, slot: 0 };
        let generation = Generation::of(copy as u32);
        let seen = frame::plain(
            buffer,
            interface,
            #[inline(always)]
            |packet| {
                if !teaches(&packet, &generation) {
                    return Some(NOTHING);
                }
                frame::park(&packet);
                Some(PARKED)
            },
        );
        seen.unwrap_or(UNREAD)
    }
}

/// Whether anything is learned from a packet: of nearly all that arrive, nothing is.
#[inline(always)]
fn teaches(packet: &Packet, generation: &Generation) -> bool {
    egress::is_dns(packet.protocol, packet.source_port)
        || flow::concerns(packet, generation).is_some()
}

/// A datagram from a resolver is believed if it answers a question in flight, once.
#[inline(always)]
fn datagram(skb: &Skb, packet: &Packet, generation: &Generation, admitted: bool) -> i32 {
    let outcome = answer::datagram(skb, packet, generation);
    if admitted && outcome == Answer::Unsolicited {
        return conclude::PASS; // the uplink has used up the question
    }
    count(&ANSWER_COUNTS, outcome as u8);
    let reason = match outcome {
        Answer::Unsolicited
            if generation
                .settings()
                .is_some_and(|settings| clock::now() < settings.opened) =>
        {
            return conclude::PASS;
        }
        Answer::Unsolicited => Reason::DnsUnsolicited,
        Answer::Malformed => Reason::DnsMalformed,
        _ => {
            passage::admit(skb);
            return conclude::PASS;
        }
    };
    conclude::conclude(
        skb,
        Verdict::Drop(reason),
        Subject::Incoming,
        Some(generation),
    )
}
