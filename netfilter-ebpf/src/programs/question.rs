//! A question to a configured resolver: the name decides.

use netfilter_ebpf::{
    abi::{NAME_ID_NONE, QuestionKey, QuestionValue},
    dns::Kind,
    egress::Tables,
    packet::{Fragment, Packet},
    verdict::{Grounds, Question, Reason, Verdict},
};

use crate::{
    maps::{QUESTION_COUNTS, QUESTIONS, count},
    message,
    skb::Skb,
    tables::Generation,
};

#[inline(always)]
pub(crate) fn judge(skb: &Skb, packet: &Packet, generation: &Generation) -> Verdict {
    let (outcome, verdict) = match read(skb, packet, generation) {
        Ok(name) if name != NAME_ID_NONE => (Question::Permitted, Verdict::Pass(Grounds::Rule)),
        Ok(_) => (Question::Denied, Verdict::Drop(Reason::DnsName)),
        Err(Reason::TableFull) => (Question::TableFull, Verdict::Drop(Reason::TableFull)),
        Err(reason) => (Question::Malformed, Verdict::Drop(reason)),
    };
    count(&QUESTION_COUNTS, outcome as u8);
    verdict
}

/// Reads a question, returns the id of its name and remembers it, also one that is denied: our own answer
/// to it is then believed, once, and teaches nothing.
#[inline(always)]
fn read(skb: &Skb, packet: &Packet, generation: &Generation) -> Result<u32, Reason> {
    if !matches!(packet.fragment, Fragment::Whole) {
        return Err(Reason::DnsMalformed);
    }
    let length = message::load(skb, packet).ok_or(Reason::DnsMalformed)?;
    let question = message::question(length, Kind::Query).ok_or(Reason::DnsMalformed)?;
    let name = generation.name(question.name_length);
    let remembered = QuestionKey {
        client: packet.source,
        resolver: packet.destination,
        hash: question.hash,
        client_port: packet.source_port,
        id: question.id,
        padding: 0,
    };
    let value = QuestionValue {
        name,
        asked: generation.now(),
    };
    if QUESTIONS.insert(&remembered, &value, 0).is_err() {
        return Err(Reason::TableFull);
    }
    Ok(name)
}
