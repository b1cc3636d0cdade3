//! What the programs do with an answer (`programs/answer.rs`,
//! `programs/stream.rs`), on the host. The fuzzers read with it too.

use std::cell::RefCell;

use netfilter_ebpf::{
    abi::{Address, MAX_DNS_MESSAGE},
    dns::{self, Addresses, Cursor, HEADER, Kind, MAX_QUESTION, Malformed, Part, Question, Step},
    name::{self, KEY_LENGTH, KeyBuffer},
    packet::Bytes as _,
    stream::PENDING,
};

/// As in `programs/answer.rs`.
const MAX_STEPS: usize = 2048;
/// As in `programs/stream.rs`.
const MAX_MESSAGES: usize = 128;
/// Bytes of a segment that are read at once, as there.
pub const WINDOW: usize = 0x800;

/// Addresses with their TTLs.
pub type Found = Vec<(Address, u32)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Short,
    End,
    Malformed,
}

/// What a datagram teaches; `None` where it is malformed.
pub fn datagram(message: &[u8]) -> Option<Found> {
    if message.is_empty() || message.len() > MAX_DNS_MESSAGE {
        return None;
    }
    let mut cursor = Cursor::message(0, u32::try_from(message.len()).ok()?);
    let mut addresses = Addresses::new();
    (read(message, &mut cursor, &mut addresses) == Reading::End).then(|| drain(&mut addresses))
}

/// Reads a message of any length at once: what it finds before its end, or before a fault.
pub fn whole(message: &[u8]) -> (Found, Reading) {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut cursor = Cursor::message(0, length);
    let mut addresses = Addresses::new();
    let mut found = Found::new();
    for _ in 0..=message.len() + HEADER {
        let reading = step(message, &mut cursor, &mut addresses);
        found.append(&mut drain(&mut addresses));
        match reading {
            None => {}
            // There is no more to come.
            Some(Reading::Short | Reading::Malformed) => return (found, Reading::Malformed),
            Some(Reading::End) => return (found, Reading::End),
        }
    }
    panic!("a step that takes nothing");
}

/// The targets of a datagram's aliases, in wire form, lowercased; empty where
/// there is none to be asked for. None if the datagram is malformed.
pub fn aliases(message: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut cursor = Cursor::message(0, u32::try_from(message.len()).ok()?);
    let mut addresses = Addresses::new();
    if read(message, &mut cursor, &mut addresses) != Reading::End {
        return None;
    }
    let target = |alias: &dns::Alias| {
        let key = RefCell::new(KeyBuffer::new());
        let label = |at, before| name::read_label(message, at, before, &mut key.borrow_mut());
        let Some(length) = dns::read_alias(message, 0, alias.at as usize, label) else {
            return Vec::new();
        };
        let key = key.into_inner();
        let start = key.start(length);
        let reversed = key.bytes[start..start + length].iter().rev();
        reversed.map(|byte| byte & !KEY_LENGTH).collect()
    };
    Some(
        addresses.aliases[..addresses.alias_count]
            .iter()
            .map(target)
            .collect(),
    )
}

/// The resolver's half of a connection.
pub struct Stream {
    cursor: Cursor,
    pending: Vec<u8>,
    found: Found,
    /// What was learned of each message that has ended, and how it did.
    pub read: Vec<(Found, Reading)>,
}

impl Stream {
    pub fn new() -> Self {
        Self {
            cursor: Cursor::stream(),
            pending: Vec::new(),
            found: Found::new(),
            read: Vec::new(),
        }
    }

    /// Reads messages that come in pieces of these lengths. None may be longer than [`WINDOW`].
    pub fn of<'a>(messages: &[&[u8]], mut pieces: impl Iterator<Item = &'a usize>) -> Self {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend(u16::try_from(message.len()).unwrap_or(0).to_be_bytes());
            bytes.extend_from_slice(message);
        }
        let mut stream = Self::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = pieces.next().copied().unwrap_or(WINDOW).min(rest.len());
            let (piece, behind) = rest.split_at(length);
            assert!(stream.window(piece), "refused");
            rest = behind;
        }
        stream
    }

    /// `netfilter_window`: false where the connection is refused.
    pub fn window(&mut self, bytes: &[u8]) -> bool {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if self.cursor.at >= length && self.pending.is_empty() {
            self.cursor.at -= length;
            return true;
        }
        let pending = self.pending.len();
        let mut window = std::mem::take(&mut self.pending);
        window.extend_from_slice(bytes);
        let mut addresses = Addresses::new();
        for _ in 0..MAX_MESSAGES {
            let reading = read(&window, &mut self.cursor, &mut addresses);
            let mut found = drain(&mut addresses);
            if reading != Reading::Malformed {
                self.found.append(&mut found);
            }
            if reading == Reading::Short {
                self.keep(&window, pending);
                return true;
            }
            self.read.push((std::mem::take(&mut self.found), reading));
            self.cursor.next_message();
        }
        false
    }

    /// `netfilter_keep`, which has room for one unread question, and copies
    /// what it keeps out of one place.
    fn keep(&mut self, window: &[u8], pending: usize) {
        let at = self.cursor.at as usize;
        if let Some(kept) = window.get(at..).filter(|kept| !kept.is_empty()) {
            assert!(kept.len() <= PENDING, "{} bytes to keep", kept.len());
            assert!(at == 0 || at >= pending, "{at} of {pending} bytes read");
            self.pending = kept.to_vec();
            self.cursor.at = 0;
        } else {
            self.cursor.at = u32::try_from(at - window.len()).unwrap_or(u32::MAX);
        }
    }
}

/// `netfilter_read`.
fn read(window: &[u8], cursor: &mut Cursor, addresses: &mut Addresses) -> Reading {
    (0..MAX_STEPS)
        .find_map(|_| step(window, cursor, addresses))
        .expect("no window takes more steps")
}

/// `netfilter_step`, with `netfilter_match` for every question: `None` for more.
fn step(window: &[u8], cursor: &mut Cursor, addresses: &mut Addresses) -> Option<Reading> {
    if cursor.part == Part::Length as u8 {
        let Some(bytes) = window.read(cursor.at as usize) else {
            return Some(Reading::Short);
        };
        *cursor = Cursor::message(cursor.at + 2, u32::from(u16::from_be_bytes(bytes)));
        return None;
    }
    if cursor.part == Part::Question as u8 {
        return question(window, cursor);
    }
    match dns::read_step(window, cursor, addresses) {
        Ok(Step::More) => None,
        Ok(Step::Short) => Some(Reading::Short),
        Ok(Step::End) => Some(Reading::End),
        Err(Malformed) => Some(Reading::Malformed),
    }
}

fn question(window: &[u8], cursor: &mut Cursor) -> Option<Reading> {
    let base = cursor.at as usize;
    let label = |at, before| dns::skip_label(window, at, before);
    let mut question = Question::default();
    if dns::read_question(window, base, Kind::Response, 0, label, &mut question).is_err() {
        let needed = (cursor.left as usize).min(MAX_QUESTION);
        return Some(if window.len() < base + needed {
            Reading::Short
        } else {
            Reading::Malformed
        });
    }
    let records = if question.rcode == 0 {
        question.answers
    } else {
        0
    };
    let length = u32::try_from(question.length).unwrap_or(u32::MAX);
    match cursor.answers(length, records) {
        Ok(()) => None,
        Err(Malformed) => Some(Reading::Malformed),
    }
}

fn drain(addresses: &mut Addresses) -> Found {
    let found = addresses.found[..addresses.count].iter();
    let found = found.map(|found| (found.address, found.ttl)).collect();
    addresses.clear();
    found
}
