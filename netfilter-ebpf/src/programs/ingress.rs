//! A packet that arrives. It is read for what it teaches; this is no inbound firewall.

use netfilter_ebpf::{
    abi::{FLOW_INBOUND, Flow},
    egress::{self, Tables},
    packet::{Fragment, Packet, TCP},
    verdict::{Answer, Reason, Verdict},
};

use crate::{
    answer,
    conclude::{self, Subject},
    frame::{Frame, read},
    maps::{ANSWER_COUNTS, FLOWS, Scratch, count},
    message::scratch,
    passage, refuse,
    skb::Skb,
    stream,
    tables::Generation,
};

/// Seconds by which a flow's end may lag, to spare most packets the write.
const REFRESH: u32 = 8;

#[inline(always)]
pub(crate) fn run(skb: &Skb) -> i32 {
    if refuse::is_refusal(skb) || passage::is_admitted(skb) {
        return conclude::PASS;
    }
    let (Some(generation), Ok(Frame::Ip(packet))) = (Generation::active(), read(skb)) else {
        return conclude::PASS;
    };
    if egress::is_dns(packet.protocol, packet.source_port) && generation.is_resolver(packet.source)
    {
        if packet.protocol != TCP {
            return datagram(skb, packet, &generation);
        }
        if !stream::inbound(skb, &generation, false) {
            let verdict = Verdict::Drop(Reason::DnsStream);
            return conclude::conclude(skb, verdict, Subject::Incoming);
        }
        passage::admit(skb);
    }
    flow(packet, &generation);
    conclude::PASS
}

/// Remembers a flow that the policy lets in, so that its replies may leave.
#[inline(always)]
fn flow(packet: &Packet, generation: &Generation) {
    if matches!(packet.fragment, Fragment::Later(_)) {
        return;
    }
    let permitted = generation
        .atom(packet.protocol, packet.destination_port)
        .is_some_and(|atom| generation.settings.inbound.contains(atom));
    if !permitted {
        return;
    }
    let Some(Scratch {
        connection: key, ..
    }) = scratch()
    else {
        return;
    };
    *key = egress::inbound_flow_key(packet);
    let until = generation.now() + egress::idle(packet.protocol);
    // SAFETY: copied at once.
    let fresh = unsafe { FLOWS.get(&*key) }
        .is_some_and(|flow| flow.origin == FLOW_INBOUND && flow.until + REFRESH > until);
    if !fresh {
        // An LRU map makes room by itself.
        _ = FLOWS.insert(
            &*key,
            &Flow {
                origin: FLOW_INBOUND,
                until,
            },
            0,
        );
    }
}

/// A datagram from a resolver is believed if it answers a question in flight, once.
#[inline(always)]
fn datagram(skb: &Skb, packet: &Packet, generation: &Generation) -> i32 {
    let outcome = answer::datagram(skb, packet, generation);
    count(&ANSWER_COUNTS, outcome as u8);
    let reason = match outcome {
        Answer::Unsolicited => Reason::DnsUnsolicited,
        Answer::Malformed => Reason::DnsMalformed,
        _ => {
            passage::admit(skb);
            return conclude::PASS;
        }
    };
    conclude::conclude(skb, Verdict::Drop(reason), Subject::Incoming)
}
