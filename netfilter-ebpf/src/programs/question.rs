//! A question to a configured resolver: the name decides.

use netfilter_ebpf::{
    abi::{
        MAX_DNS_MESSAGE, NAME_ID_NONE, NAME_IDS, NAME_WILDCARD, QuestionKey, QuestionValue,
        SETTING_REPORT,
    },
    egress::Tables,
    gate,
    packet::{Fragment, Packet},
    verdict::{Forgetful, Grounds, Question, Reason, Verdict},
};

use crate::{
    atomic::compare_exchange,
    buffer::{Buffer, seam},
    clock, forgetful, lease,
    maps::{QUESTION_COUNTS, QUESTIONS, RATES, SEEN, Scratch, count},
    message::{self, UDP_HEADER, scratch},
    options, refuse,
    tables::Generation,
    wanted,
};

/// Judges a datagram to a resolver.
#[inline(always)]
pub(crate) fn datagram<B: Buffer>(buffer: &B, packet: &Packet, generation: &Generation) -> Verdict {
    let bare = packet.fragment == Fragment::Whole && gate::is_bare(packet, buffer.length());
    // Nor anything behind the datagram in its packet (RFC 9868).
    let length = if bare {
        message::load_datagram(buffer, packet)
            .filter(|length| packet.transport + UDP_HEADER + length == packet.end)
    } else {
        None
    };
    let reason = match length {
        Some(length) => ask(length, generation, false),
        None => Some(Reason::DnsMalformed),
    };
    tally(reason);
    if let (None, Some(length)) = (reason, length) {
        let message = (packet.transport + UDP_HEADER) as u64;
        limit_answer(buffer, message, length as u64);
        if !options::blank(buffer, message, length as u64, generation) {
            return Verdict::Drop(Reason::DnsMalformed);
        }
    }
    reason.map_or(Verdict::Pass(Grounds::Rule), Verdict::Drop)
}

seam! {
    /// Where a fragmented answer is possible, asks for one that is not: a forged
    /// fragment is easier to slip in than a forged answer, so fragments are not read
    /// (RFC 9715). What does not fit comes truncated, and then over TCP.
    fn limit_answer = (netfilter_limit_answer, xdp_limit_answer)
    <B>(buffer, message: u64, length: u64) {
        let Some(question) = scratch().map(|scratch| scratch.question.length as u64) else {
            return 0;
        };
        // Without EDNS no more than 512 bytes come.
        if length <= question || buffer.mtu() as usize >= MAX_DNS_MESSAGE + HEADERS {
            return 0;
        }
        // Behind the root and the type.
        let at = message + question + 3;
        let transport = message as usize - UDP_HEADER;
        u64::from(refuse::lower(buffer, transport, at as usize, UNFRAGMENTED).is_some())
    }
}

/// Bytes of a UDP payload that no path fragments (DNS flag day 2020; RFC 9715
/// section 3.2 says 1400).
const UNFRAGMENTED: u16 = 1232;
/// IPv6 and UDP.
const HEADERS: usize = 48;

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
    let generation = Generation::of(slot as u32);
    let (Some(settings), Some(question)) = (generation.settings(), message::query(length as usize))
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
    let name = entry.unwrap_or(NAME_ID_NONE) & (NAME_IDS - 1);
    let hash = message::name_hash(question.name_length);
    // A name that a rule denies is denied whoever points to it.
    let by_alias = (name != NAME_ID_NONE || entry.is_none())
        && lease::allows_alias(hash, generation.now(), slot as u32);
    let is_wildcard = entry.is_some_and(|entry| entry & NAME_WILDCARD != 0);
    let mut reason = 0;
    if name == NAME_ID_NONE && !by_alias {
        reason = Reason::DnsName as u64;
    } else if seen == 0 {
        if !gate::allows_type(settings, question.qtype) {
            reason = Reason::DnsType as u64;
        } else if is_wildcard
            && !by_alias
            && (question.name_length as u64 > u64::from(settings.wildcard_length)
                || netfilter_is_too_new(name, hash, settings.wildcard_rate) != 0)
        {
            reason = Reason::DnsLimit as u64;
        }
    }
    if reason != 0 && !settings.has(SETTING_REPORT) {
        return reason;
    }
    if reason != 0 {
        wanted::question(question, hash, reason, seen);
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
        alias: if reason == 0 && by_alias { hash } else { 0 },
    };
    if forgetful::put(&QUESTIONS, Forgetful::Questions, &*key, &value).is_err() {
        return Reason::TableFull as u64;
    }
    reason
}

/// Whether a wildcard was asked for too many names lately for one more, with this hash.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_is_too_new(id: u32, name: u64, per_minute: u32) -> u64 {
    if per_minute == u32::MAX {
        return 0;
    }
    let now = clock::now();
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
            _ = forgetful::put(&SEEN, Forgetful::Seen, &name, &now);
            return 0;
        }
    }
    1
}
