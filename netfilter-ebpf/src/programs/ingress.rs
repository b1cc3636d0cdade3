//! A packet that arrives. It is read for what it teaches; this is no inbound firewall.

use netfilter_ebpf::{
    abi::{CLASS_RESOLVER, FLOW_INBOUND, Flow, NAME_ID_NONE, QuestionKey},
    dns::Kind,
    egress::{self, Tables},
    packet::{DNS_PORT, Fragment, Packet, UDP},
    verdict::{Answer, Grounds, Reason, Verdict},
};

use crate::{
    conclude::{self, Subject},
    frame::{Frame, read},
    lease,
    maps::{ANSWER_COUNTS, FLOWS, QUESTIONS, count},
    message,
    skb::Skb,
    tables::Generation,
};

/// Seconds by which a flow's end may lag, to spare most packets the write.
const REFRESH: u32 = 8;

#[inline(always)]
pub(crate) fn run(skb: &Skb) -> i32 {
    let (Some(generation), Ok(Frame::Ip(packet))) = (Generation::active(), read(skb)) else {
        return conclude::PASS;
    };
    if packet.protocol == UDP && packet.source_port == DNS_PORT {
        let from_resolver = generation
            .class_of(packet.source)
            .is_some_and(|class| class.flags & CLASS_RESOLVER != 0);
        if from_resolver {
            return answer(skb, packet, &generation);
        }
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
    let key = egress::inbound_flow_key(packet);
    let until = generation.now() + egress::idle(packet.protocol);
    // SAFETY: copied at once.
    let fresh = unsafe { FLOWS.get(&key) }
        .is_some_and(|flow| flow.origin == FLOW_INBOUND && flow.until + REFRESH > until);
    if !fresh {
        // An LRU map makes room by itself.
        _ = FLOWS.insert(
            &key,
            &Flow {
                origin: FLOW_INBOUND,
                until,
            },
            0,
        );
    }
}

/// Believes an answer if it answers a question in flight, once, and learns its addresses.
#[inline(always)]
fn answer(skb: &Skb, packet: &Packet, generation: &Generation) -> i32 {
    let outcome = learn(skb, packet, generation);
    count(&ANSWER_COUNTS, outcome as u8);
    let verdict = match outcome {
        Answer::Unsolicited => Verdict::Drop(Reason::DnsUnsolicited),
        Answer::Malformed => Verdict::Drop(Reason::DnsMalformed),
        _ => Verdict::Pass(Grounds::Rule),
    };
    match verdict {
        Verdict::Drop(_) => conclude::conclude(skb, verdict, Subject::Packet),
        _ => conclude::PASS,
    }
}

#[inline(always)]
fn learn(skb: &Skb, packet: &Packet, generation: &Generation) -> Answer {
    if !matches!(packet.fragment, Fragment::Whole) {
        return Answer::Malformed;
    }
    let Some(length) = message::load(skb, packet) else {
        return Answer::Malformed;
    };
    let Some(question) = message::question(length, Kind::Response) else {
        return Answer::Malformed;
    };
    let remembered = QuestionKey {
        client: packet.destination,
        resolver: packet.source,
        hash: question.hash,
        client_port: packet.destination_port,
        id: question.id,
        padding: 0,
    };
    // SAFETY: copied at once.
    let Some(asked) = (unsafe { QUESTIONS.get(&remembered) }).copied() else {
        return Answer::Unsolicited;
    };
    if asked.name == NAME_ID_NONE {
        _ = QUESTIONS.remove(&remembered);
        return Answer::Refusal;
    }
    let count = if question.rcode == 0 {
        let Some(count) = message::addresses(length, &question) else {
            return Answer::Malformed;
        };
        count
    } else {
        0
    };
    let room = lease::learn(count, asked.name, generation.settings);
    // Once: of two answers to one question, the second is unsolicited.
    if QUESTIONS.remove(&remembered).is_err() {
        return Answer::Unsolicited;
    }
    match (room, count) {
        (false, _) => Answer::TableFull,
        (true, 0) => Answer::Empty,
        (true, _) => Answer::Learned,
    }
}
