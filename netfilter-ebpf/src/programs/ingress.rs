//! A packet that arrives, from the network or (at tc egress of an interface that leads to a
//! workload) for that one. It is read for what it teaches; this is no inbound firewall.
//!
//! On its way to a workload a packet may have been read before, at the uplink, and its
//! address translated since. So it is read once more, for the workload's own question
//! and stream, and what answers none was perhaps the answer to the same, used up there.

use netfilter_ebpf::{
    egress,
    packet::{Packet, TCP},
    verdict::{Answer, Reason, Verdict},
};

use crate::{
    answer,
    buffer::Buffer,
    clock,
    conclude::{self, Subject},
    flow,
    frame::{Frame, read},
    interface,
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
    let is_delivery = interface::is_workload(skb.ifindex());
    let admitted = passage::is_admitted(skb, is_delivery);
    if admitted && !is_delivery {
        return conclude::PASS;
    }
    let (Some(generation), Ok(Frame::Ip(packet))) = (Generation::active(), read(skb)) else {
        return conclude::PASS;
    };
    if generation.is_lifted() {
        return conclude::PASS;
    }
    if egress::is_dns(packet.protocol, packet.source_port) && generation.is_resolver(packet.source)
    {
        if packet.protocol != TCP {
            return datagram(skb, packet, &generation, admitted);
        }
        if !stream::inbound(skb, &generation, false) {
            let verdict = Verdict::Drop(Reason::DnsStream);
            return conclude::conclude(skb, verdict, Subject::Incoming);
        }
        passage::admit(skb);
    }
    flow::arriving(packet, &generation);
    conclude::PASS
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
        Answer::Unsolicited if clock::now() < generation.settings.opened => {
            return conclude::PASS;
        }
        Answer::Unsolicited => Reason::DnsUnsolicited,
        Answer::Malformed => Reason::DnsMalformed,
        _ => {
            passage::admit(skb);
            return conclude::PASS;
        }
    };
    conclude::conclude(skb, Verdict::Drop(reason), Subject::Incoming)
}
