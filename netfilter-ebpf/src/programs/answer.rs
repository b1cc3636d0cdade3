//! Reads answers and learns from them: one reader for datagrams and streams.

use netfilter_ebpf::{
    abi::{NAME_ID_NONE, QuestionKey, REPORTED_ADDRESSES, Resolved},
    dns::{self, Cursor, HEADER, Kind, MAX_QUESTION, Malformed, Part, Step},
    packet::{Bytes, Fragment, Packet},
    verdict::{Answer, LossStage},
};

use crate::{
    lease,
    maps::{LOST, QUESTIONS, RESOLVED, Scratch, count, seed},
    message::{self, Window, scratch},
    skb::Skb,
    tables::Generation,
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
        Reading::End => learn(generation.slot()),
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
        addresses.count = 0;
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
        ..
    }) = scratch()
    else {
        return MALFORMED;
    };
    let window = Window::new(message, length);
    let base = cursor.at as usize;
    let label = |at, before| dns::skip_label(&window, at, before);
    let Ok(read) = dns::read_question(&window, base, Kind::Response, seed(), label) else {
        let needed = (cursor.left as u64).min(MAX_QUESTION as u64);
        return if length < base as u64 + needed {
            SHORT
        } else {
            MALFORMED
        };
    };
    *key = QuestionKey {
        client: packet.destination,
        resolver: packet.source,
        hash: read.hash,
        client_port: packet.destination_port,
        id: read.id,
        protocol: u32::from(packet.protocol),
    };
    // SAFETY: copied at once.
    let Some(asked) = (unsafe { QUESTIONS.get(&*key) }).copied() else {
        return UNSOLICITED;
    };
    if QUESTIONS.remove(&*key).is_err() {
        return UNSOLICITED;
    }
    *name = asked.name;
    *question_at = base as u32;
    question.name_length = read.name_length;
    let records = if read.rcode == 0 { read.answers } else { 0 };
    match cursor.answers(read.length as u32, records) {
        Ok(()) => MORE,
        Err(Malformed) => MALFORMED,
    }
}

/// Lends what was collected, reports it, and forgets it.
#[inline(always)]
pub(crate) fn learn(slot: u32) -> Answer {
    Answer::from_number(netfilter_learn(slot) as u8).unwrap_or(Answer::TableFull)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_learn(slot: u32) -> u64 {
    let Some((found, name)) = scratch().map(|scratch| (scratch.addresses.count, scratch.name))
    else {
        return Answer::TableFull as u64;
    };
    if found == 0 {
        return Answer::Empty as u64;
    }
    netfilter_resolved();
    if let Some(Scratch { addresses, .. }) = scratch() {
        addresses.count = 0;
    }
    let Some(generation) = Generation::of(slot) else {
        return Answer::TableFull as u64;
    };
    if name == NAME_ID_NONE {
        return Answer::Audited as u64;
    }
    if lease::learn(found, name, generation.settings) {
        Answer::Learned as u64
    } else {
        Answer::TableFull as u64
    }
}

/// Tells user space what the name resolved to, if it stands in this window.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_resolved() -> u64 {
    let Some(Scratch {
        message,
        addresses,
        question,
        question_at,
        ..
    }) = scratch()
    else {
        return 0;
    };
    if *question_at == NO_QUESTION {
        return 0;
    }
    let Some(mut entry) = RESOLVED.reserve::<Resolved>(0) else {
        count(&LOST, LossStage::NamesFull as u8);
        return 0;
    };
    let mut at = u64::from(*question_at) + HEADER as u64;
    // SAFETY: plain arithmetic; the verifier wants to see the bound.
    unsafe { core::arch::asm!("{0} &= 0xfff", inout(reg) at) };
    let resolved = entry.as_mut_ptr();
    // SAFETY: reserved for us, and every field is written; the buffer of the
    // message is longer than the largest offset and a name.
    unsafe {
        (&raw mut (*resolved).name_length).write(question.name_length as u16);
        (&raw mut (*resolved).count).write(addresses.count.min(REPORTED_ADDRESSES) as u16);
        (&raw mut (*resolved).padding).write(0);
        let asked = message.as_ptr().add(at as usize).cast::<[u64; 32]>();
        (&raw mut (*resolved).name)
            .cast::<[u64; 32]>()
            .write_unaligned(asked.read_unaligned());
        for index in 0..REPORTED_ADDRESSES {
            (&raw mut (*resolved).addresses[index]).write(addresses.found[index].address);
        }
    }
    entry.submit(0);
    1
}
