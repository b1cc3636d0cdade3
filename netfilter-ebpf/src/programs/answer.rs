//! Reads answers and learns from them: one reader for datagrams and streams.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_ringbuf_output,
};
use netfilter_ebpf::{
    abi::{
        ALIAS_GRANTS, Address, Grant, NAME_ID_NONE, NAME_WORDS, QuestionKey, REPORTED_ADDRESSES,
        Resolved,
    },
    dns::{self, Cursor, HEADER, Kind, MAX_ALIASES, MAX_QUESTION, Malformed, Part, Step},
    packet::{Bytes, Fragment, Packet},
    verdict::{Answer, Forgetful, LossStage},
};

use crate::{
    clock, forgetful, lease,
    maps::{
        ALIASES, LOST, QUESTIONS, RECORD_HEADER, RESOLVED, RESOLVED_STEP, RESOLVED_UNREAD, Scratch,
        count, seed,
    },
    message::{self, Window, scratch},
    skb::Skb,
    tables::Generation,
    widen::opaque,
};

/// No window takes more: each step takes two bytes or follows one that took more.
const MAX_STEPS: usize = 2048;

/// Where no question was read in this window.
const NO_QUESTION: u32 = u32::MAX;

/// What reading a window came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The window is used up, and the message goes on.
    Short,
    /// The answer section is read.
    End,
    Malformed,
    /// It answers no question in flight.
    Unsolicited,
}

const MORE: u64 = 0;
const SHORT: u64 = 1;
const END: u64 = 2;
const MALFORMED: u64 = 3;
const UNSOLICITED: u64 = 4;

/// Reads a datagram and learns what it says.
#[inline(always)]
pub(crate) fn datagram(skb: &Skb, packet: &Packet, generation: &Generation) -> Answer {
    if !matches!(packet.fragment, Fragment::Whole) {
        return Answer::Malformed;
    }
    let Some(length) = message::load_datagram(skb, packet) else {
        return Answer::Malformed;
    };
    begin(Cursor::message(0, length as u32));
    match read(length) {
        Reading::End => learn(length, generation.slot()),
        Reading::Unsolicited => Answer::Unsolicited,
        Reading::Short | Reading::Malformed => Answer::Malformed,
    }
}

/// Puts the reader where the window goes on.
#[inline(always)]
pub(crate) fn begin(at: Cursor) {
    if let Some(Scratch {
        cursor,
        addresses,
        question_at,
        ..
    }) = scratch()
    {
        *cursor = at;
        *question_at = NO_QUESTION;
        addresses.clear();
    }
}

/// Reads on in the window, which ends at `length`, until it or the answer section ends.
#[inline(always)]
pub(crate) fn read(length: usize) -> Reading {
    match netfilter_read(length as u64) {
        SHORT => Reading::Short,
        END => Reading::End,
        UNSOLICITED => Reading::Unsolicited,
        _ => Reading::Malformed,
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_read(length: u64) -> u64 {
    for _ in 0..MAX_STEPS {
        let step = netfilter_step(length);
        if step != MORE {
            return step;
        }
    }
    MALFORMED
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_step(length: u64) -> u64 {
    let Some(Scratch {
        message,
        cursor,
        addresses,
        ..
    }) = scratch()
    else {
        return MALFORMED;
    };
    let window = Window::new(message, length);
    if cursor.part == Part::Length as u8 {
        let Some(bytes) = window.read(cursor.at as usize) else {
            return SHORT;
        };
        *cursor = Cursor::message(cursor.at + 2, u32::from(u16::from_be_bytes(bytes)));
        return MORE;
    }
    if cursor.part == Part::Question as u8 {
        return netfilter_match(length);
    }
    match dns::read_step(&window, cursor, addresses) {
        Ok(Step::More) => MORE,
        Ok(Step::Short) => SHORT,
        Ok(Step::End) => END,
        Err(Malformed) => MALFORMED,
    }
}

/// Finds the question that is answered, and takes it: of two answers to one
/// question, the second is unsolicited.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_match(length: u64) -> u64 {
    let Some(Scratch {
        message,
        packet,
        cursor,
        question_at,
        question,
        asked: key,
        name,
        alias,
        ..
    }) = scratch()
    else {
        return MALFORMED;
    };
    let window = Window::new(message, length);
    let base = cursor.at as usize;
    let label = |at, before| dns::skip_label(&window, at, before);
    if dns::read_question(&window, base, Kind::Response, seed(), label, question).is_err() {
        let needed = (cursor.left as u64).min(MAX_QUESTION as u64);
        return if length < base as u64 + needed {
            SHORT
        } else {
            MALFORMED
        };
    }
    *key = QuestionKey {
        client: packet.destination,
        resolver: packet.source,
        hash: question.hash,
        client_port: packet.destination_port,
        id: question.id,
        protocol: u32::from(packet.protocol),
    };
    // SAFETY: copied at once.
    let Some(asked) = (unsafe { QUESTIONS.get(&*key) }).copied() else {
        return UNSOLICITED;
    };
    if forgetful::remove(&QUESTIONS, Forgetful::Questions, &*key).is_err() {
        return UNSOLICITED;
    }
    (*name, *alias) = (asked.name, asked.alias);
    *question_at = base as u32;
    let records = if question.rcode == 0 {
        question.answers
    } else {
        0
    };
    match cursor.answers(question.length as u32, records) {
        Ok(()) => MORE,
        Err(Malformed) => MALFORMED,
    }
}

/// Lends what was collected in the window, which ends at `length`; reports it,
/// and forgets it.
#[inline(always)]
pub(crate) fn learn(length: usize, slot: u32) -> Answer {
    Answer::from_number(netfilter_learn(length as u64, slot) as u8).unwrap_or(Answer::TableFull)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_learn(length: u64, slot: u32) -> u64 {
    let Some((found, name)) = scratch().map(|scratch| {
        if scratch.alias != 0 {
            scratch.lenders.grants = [Grant(0); ALIAS_GRANTS];
            // SAFETY: copied at once, and perhaps another's by now: see `abi::Lease`.
            if let Some(alias) = unsafe { ALIASES.get(&scratch.alias) } {
                scratch.lenders = *alias;
                if scratch.lenders.key != scratch.alias {
                    scratch.lenders.grants = [Grant(0); ALIAS_GRANTS];
                }
            }
        }
        (scratch.addresses.count, scratch.name)
    }) else {
        return Answer::TableFull as u64;
    };
    if alias_keys(length) == 0 && found == 0 {
        return Answer::Empty as u64;
    }
    netfilter_resolved();
    let now = clock::now();
    let (mut lent, mut room) = (false, true);
    if name != NAME_ID_NONE {
        lent = true;
        room &= netfilter_lend_all(name, now, slot) != 0;
    }
    for index in 0..ALIAS_GRANTS {
        let Some(grant) = scratch()
            .filter(|scratch| scratch.alias != 0)
            .map(|scratch| scratch.lenders.grants[index])
        else {
            break;
        };
        if grant.until() > now && grant.name() != name {
            lent = true;
            room &= netfilter_lend_all(grant.name(), now, slot) != 0;
        }
    }
    if let Some(Scratch { addresses, .. }) = scratch() {
        addresses.clear();
    }
    match (lent, room) {
        (false, _) => Answer::Audited as u64,
        (true, true) if found == 0 => Answer::Empty as u64,
        (true, true) => Answer::Learned as u64,
        (true, false) => Answer::TableFull as u64,
    }
}

/// Lends all that was collected on behalf of one name. Zero: there was no room for a part of it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_lend_all(name: u32, now: u32, slot: u32) -> u64 {
    let (Some(settings), Some(found)) = (
        Generation::of(slot).settings(),
        scratch().map(|scratch| scratch.addresses.count),
    ) else {
        return 0;
    };
    let aliases = netfilter_lend_aliases(name, now, settings.minimum_ttl, settings.grace);
    u64::from(lease::learn(found, name, now, settings) && aliases != 0)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_lend_aliases(name: u32, now: u32, minimum_ttl: u32, grace: u32) -> u64 {
    let Some(Scratch {
        addresses,
        alias_keys,
        fresh_alias,
        ..
    }) = scratch()
    else {
        return 0;
    };
    let (mut room, mut inserted) = (true, 0);
    for (index, (&key, alias)) in alias_keys.iter().zip(&addresses.aliases).enumerate() {
        if index >= opaque(addresses.alias_count) {
            break;
        }
        if key == 0 {
            continue;
        }
        let grant = netfilter_ebpf::lease::grant(name, alias.ttl, now, minimum_ttl, grace);
        room &= lease::lend_alias(key, grant, fresh_alias, now, &mut inserted);
    }
    forgetful::note(Forgetful::Aliases, inserted, 0);
    u64::from(room)
}

/// Makes the keys of the aliases in the window, and returns how many there are.
#[inline(always)]
fn alias_keys(length: u64) -> usize {
    let Some(count) = scratch().map(|scratch| scratch.addresses.alias_count) else {
        return 0;
    };
    for index in 0..MAX_ALIASES {
        if index >= opaque(count) {
            break;
        }
        let key = netfilter_alias_key(length, index as u64);
        if let Some(Scratch { alias_keys, .. }) = scratch() {
            alias_keys[index] = key;
        }
    }
    count
}

/// Zero where the name does not stand in this window.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_alias_key(length: u64, index: u64) -> u64 {
    let Some(Scratch {
        message,
        addresses,
        cursor,
        ..
    }) = scratch()
    else {
        return 0;
    };
    let Some(base) = cursor.at.checked_sub(cursor.read) else {
        return 0;
    };
    let at = addresses.aliases[index as usize & (MAX_ALIASES - 1)].at;
    let window = Window::new(message, length);
    let label = |at, before| message::label(length, at, before);
    match dns::read_alias(&window, base as usize, at as usize, label) {
        Some(length @ 1..) => message::name_hash(length),
        Some(0) | None => 0,
    }
}

/// Tells user space what the name resolved to, if it stands in this window.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_resolved() -> u64 {
    let Some(Scratch {
        addresses,
        alias_keys,
        question,
        question_at,
        resolved,
        ..
    }) = scratch()
    else {
        return 0;
    };
    if *question_at == NO_QUESTION {
        return 0;
    }
    let shown = addresses.count.min(REPORTED_ADDRESSES);
    resolved.name_length = question.name_length as u16;
    resolved.count = shown as u16;
    resolved.time = clock::now();
    for (index, key) in alias_keys.iter().enumerate() {
        resolved.aliases[index] = match index < addresses.alias_count {
            true => *key,
            false => 0,
        };
    }
    for index in 0..REPORTED_ADDRESSES {
        if index >= opaque(shown) {
            break;
        }
        let Address { high, low } = addresses.found[index].address;
        resolved.rest[2 * index] = high;
        resolved.rest[2 * index + 1] = low;
    }
    netfilter_resolved_name()
}

/// Puts the name behind the addresses in the scratch, and tells.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_resolved_name() -> u64 {
    let Some(Scratch {
        message,
        question_at,
        resolved,
        ..
    }) = scratch()
    else {
        return 0;
    };
    let name_length = usize::from(resolved.name_length);
    let mut at = u64::from(*question_at) + HEADER as u64;
    let mut behind = 2 * u64::from(resolved.count);
    let mut length = offset_of!(Resolved, rest) as u64 + behind * 8 + name_length as u64;
    // SAFETY: plain arithmetic; the verifier wants to see the bounds.
    unsafe {
        core::arch::asm!("{0} &= 0xfff", inout(reg) at);
        core::arch::asm!("{0} &= 0x7f", inout(reg) behind);
        core::arch::asm!("{0} &= 0x3ff", inout(reg) length);
    }
    // SAFETY: both buffers go on for longer than the largest place and a name.
    unsafe {
        let asked = message.as_ptr().add(at as usize).cast::<u64>();
        let name = resolved.rest.as_mut_ptr().add(behind as usize);
        for word in 0..NAME_WORDS {
            if word * size_of::<u64>() >= opaque(name_length) {
                break;
            }
            name.add(word).write(asked.add(word).read_unaligned());
        }
    }
    // To wake the daemon takes longer than all of the above, and nobody needs a name before
    // something is denied, when who is told of that looks here. One that is awake already and
    // finds no processor is not woken by each answer.
    let takes = ((length + 7) & !7) + RECORD_HEADER;
    let waits = RESOLVED.query(u64::from(BPF_RB_AVAIL_DATA)) + takes;
    let is_next_step = waits % RESOLVED_STEP < takes;
    let wake = match waits >= RESOLVED_UNREAD && is_next_step {
        true => BPF_RB_FORCE_WAKEUP,
        false => BPF_RB_NO_WAKEUP,
    };
    // SAFETY: the map, and as many bytes of a map value, behind which there are more.
    let told = unsafe {
        bpf_ringbuf_output(
            (&raw const RESOLVED).cast_mut().cast(),
            (&raw mut *resolved).cast(),
            length,
            u64::from(wake),
        )
    };
    if told != 0 {
        count(&LOST, LossStage::NamesFull as u8);
    }
    1
}
