//! A question to a configured resolver: the name decides.

use netfilter_ebpf::{
    abi::{NAME_ID_NONE, NAME_IDS, NAME_WILDCARD, QuestionKey, QuestionValue, SETTING_REPORT},
    dns,
    egress::Tables,
    gate,
    packet::{Fragment, Packet},
    verdict::{Grounds, Question, Reason, Verdict},
};

use crate::{
    atomic::compare_exchange,
    maps::{QUESTION_COUNTS, QUESTIONS, RATES, SEEN, Scratch, count, seed},
    message::{self, scratch},
    skb::Skb,
    tables::Generation,
};

/// Judges a datagram to a resolver.
#[inline(always)]
pub(crate) fn datagram(skb: &Skb, packet: &Packet, generation: &Generation) -> Verdict {
    let length = match packet.fragment {
        Fragment::Whole => message::load_datagram(skb, packet),
        _ => None,
    };
    let reason = match length {
        Some(length) => ask(length, generation, false),
        None => Some(Reason::DnsMalformed),
    };
    tally(reason);
    reason.map_or(Verdict::Pass(Grounds::Rule), Verdict::Drop)
}

/// Counts what became of a question.
#[inline(always)]
pub(crate) fn tally(reason: Option<Reason>) {
    let outcome = match reason {
        None => Question::Permitted,
        Some(Reason::DnsName) => Question::Denied,
        Some(Reason::DnsType) => Question::DeniedType,
        Some(Reason::DnsLimit) => Question::Limited,
        Some(Reason::TableFull) => Question::TableFull,
        Some(_) => Question::Malformed,
    };
    count(&QUESTION_COUNTS, outcome as u8);
}

/// Judges the loaded message and remembers the question if it goes out. `seen`:
/// it does not leave the machine, and is only read for the sake of its answer.
#[inline(always)]
pub(crate) fn ask(length: usize, generation: &Generation, seen: bool) -> Option<Reason> {
    let code = netfilter_ask(length as u64, u64::from(generation.slot()), u64::from(seen));
    if code == 0 {
        return None;
    }
    Some(Reason::from_number(code as u8).unwrap_or(Reason::DnsMalformed))
}

/// A global function, see `message`. Returns zero or the reason to drop it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_ask(length: u64, slot: u64, seen: u64) -> u64 {
    let (Some(generation), Some(question)) =
        (Generation::of(slot as u32), message::query(length as usize))
    else {
        return Reason::DnsMalformed as u64;
    };
    let Some(Scratch {
        packet, asked: key, ..
    }) = scratch()
    else {
        return Reason::TableFull as u64;
    };
    let entry = generation.name(question.name_length);
    let name = entry & (NAME_IDS - 1);
    let settings = generation.settings;
    let mut reason = 0;
    if name == NAME_ID_NONE {
        reason = Reason::DnsName as u64;
    } else if seen == 0 {
        if !gate::allows_type(settings, question.qtype) {
            reason = Reason::DnsType as u64;
        } else if entry & NAME_WILDCARD != 0
            && netfilter_is_too_new(
                name,
                question.name_length as u64,
                settings.wildcard_length,
                settings.wildcard_rate,
            ) != 0
        {
            reason = Reason::DnsLimit as u64;
        }
    }
    if reason != 0 && settings.flags & SETTING_REPORT == 0 {
        return reason;
    }
    *key = QuestionKey {
        client: packet.source,
        resolver: packet.destination,
        hash: question.hash,
        client_port: packet.source_port,
        id: question.id,
        protocol: u32::from(packet.protocol),
    };
    let value = QuestionValue {
        name: if reason == 0 { name } else { NAME_ID_NONE },
        asked: generation.now(),
    };
    if QUESTIONS.insert(&*key, &value, 0).is_err() {
        return Reason::TableFull as u64;
    }
    reason
}

/// Whether a wildcard's limits forbid the name whose key is in the scratch.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_is_too_new(id: u32, length: u64, longest: u32, per_minute: u32) -> u64 {
    if length > u64::from(longest) {
        return 1;
    }
    if per_minute == u32::MAX {
        return 0;
    }
    let Some(Scratch { key, .. }) = scratch() else {
        return 1;
    };
    // The key and not the message: it knows no upper case.
    let name = dns::hash(&*key, key.start(length as usize), length as usize, seed());
    let now = crate::clock::now();
    // SAFETY: copied at once.
    if unsafe { SEEN.get(name) }.is_some() {
        return 0;
    }
    let Some(bucket) = RATES.get_ptr_mut(id) else {
        return 1;
    };
    for _ in 0..4 {
        // SAFETY: a map value, replaced as a whole word.
        let old = unsafe { bucket.read_volatile() };
        let Some(left) = gate::spend(old, now, per_minute) else {
            return 1;
        };
        if compare_exchange(bucket, old, left) {
            // An LRU map makes room by itself.
            _ = SEEN.insert(name, now, 0);
            return 0;
        }
    }
    1
}
