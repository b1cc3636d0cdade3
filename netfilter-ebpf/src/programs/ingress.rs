//! A packet that arrives. It is read for what it teaches; this is no inbound firewall.

use netfilter_ebpf::{
    egress,
    packet::{Packet, TCP},
    verdict::{Answer, Reason, Verdict},
};

use crate::{
    answer, clock,
    conclude::{self, Subject},
    flow,
    frame::{Frame, read},
    maps::{ANSWER_COUNTS, count},
    passage, refuse,
    skb::Skb,
    stream,
    tables::Generation,
};

#[inline(always)]
pub(crate) fn run(skb: &Skb) -> i32 {
    if refuse::is_refusal(skb) || passage::is_admitted(skb) {
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
            return datagram(skb, packet, &generation);
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
fn datagram(skb: &Skb, packet: &Packet, generation: &Generation) -> i32 {
    let outcome = answer::datagram(skb, packet, generation);
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
