//! DNS messages (RFC 1035), as far as the filter reads them: the one question,
//! and the addresses in the answer section. And the form of a name in the name
//! table.
//!
//! # The key of a name
//!
//! Read from the root down, a domain name is a prefix of the names below it. Its
//! key is the name in wire form, lowercased, the bytes in reverse order:
//! `a.bc` is `c b ²a ¹`, where `²` and `¹` are length bytes. Reversed, a length byte
//! stands behind its label, so a label of another name could hold a byte that
//! looks like it, and `x0<48 letters>.com` would pass for a name below
//! `<48 letters>.com` ("0" is 48). So a length byte has its high bit set
//! in a key, which no byte of a label may have: names are ASCII (an IDN in its
//! A-label form is). An exact name ends with [`KEY_END`], which is no length.
//! Every key begins with the copy of the table that it belongs to.

use crate::{
    abi::{Address, MAX_ANSWER_ADDRESSES},
    packet::Bytes,
};

pub const HEADER: usize = 12;
/// Bytes of a name in wire form, without the root (RFC 1035 section 2.3.4: 255 with it).
pub const MAX_NAME: usize = 254;
const MAX_LABEL: usize = 63;
/// Labels of the longest name, and the root.
const MAX_LABELS: usize = MAX_NAME / 2 + 1;
/// The first two bits of a compression pointer (RFC 1035 section 4.1.4).
const POINTER: u8 = 0xc0;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// Labels and records that are walked in one answer: a hundred records with
/// names of their own, or twice as many with compressed ones.
const MAX_STEPS: usize = 400;

/// Ends the key of an exact name.
pub const KEY_END: u8 = 0xff;
/// Set in the length bytes of a key.
pub const KEY_LENGTH: u8 = 0x80;
/// Bytes of key data: the copy, the name, the end. What an LPM trie takes at most.
pub const KEY_DATA: usize = 1 + MAX_NAME + 1;
/// Bytes of the prefix length that stands before the key data of an LPM trie.
const KEY_PREFIX: usize = 4;

/// Where a key is written from its end backwards, so that the bytes come to
/// stand reversed and in one pass. A key that begins at the index that
/// [`Self::finish`] returns is followed by enough bytes for a whole LPM trie key.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct KeyBuffer {
    pub bytes: [u8; KEY_BUFFER],
}

/// Index of the end marker: before it the longest name, and room for a longest
/// label before that, so that labels are written at fixed distances.
const KEY_AT: usize = KEY_PREFIX + 1 + MAX_NAME + MAX_LABEL;
const KEY_BUFFER: usize = 512 + KEY_PREFIX + KEY_DATA;

impl KeyBuffer {
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; KEY_BUFFER],
        }
    }

    /// Writes the end, the copy and the prefix length around a name of `length`
    /// bytes, and returns the index (below 512) at which its key begins.
    /// `wildcard`: the names below it, otherwise itself.
    #[inline(always)]
    pub fn finish(&mut self, length: usize, copy: u32, wildcard: bool) -> usize {
        let start = (KEY_AT - KEY_PREFIX - 1).saturating_sub(length) & 0x1ff;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most 256 bytes; one bit"
        )]
        let (bits, copy) = ((1 + length as u32 + !wildcard as u32) * 8, copy as u8);
        let [a, b, c, d] = bits.to_ne_bytes();
        self.bytes[start] = a;
        self.bytes[start + 1] = b;
        self.bytes[start + 2] = c;
        self.bytes[start + 3] = d;
        self.bytes[start + 4] = copy;
        self.bytes[KEY_AT] = KEY_END;
        start
    }
}

impl Default for KeyBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// A message that is not well formed, or not of the kind that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Query,
    Response,
}

/// The question of a message. The name's key is in the [`KeyBuffer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Question {
    pub id: u16,
    /// Bytes of the name in wire form, without the root.
    pub name_length: usize,
    /// QTYPE
    pub qtype: u16,
    /// Of the question's bytes as they stand in the message.
    pub hash: u64,
    /// RCODE of a response.
    pub rcode: u8,
    /// Records of the answer section.
    pub answers: u16,
    /// Offset behind the question.
    pub end: usize,
}

/// Reads the header and the question of a message. `label` is [`read_label`], for
/// this message and the key that is to be written.
///
/// A query must be nothing but one question of class IN and at most an OPT
/// record (RFC 6891): no other section, no bytes behind.
///
/// # Errors
/// Where the message is not that.
#[inline(always)]
pub fn read_question<B: Bytes + ?Sized>(
    message: &B,
    kind: Kind,
    seed: u64,
    label: impl Fn(usize, usize) -> Option<usize>,
) -> Result<Question, Malformed> {
    let header: [u8; HEADER] = message.read(0).ok_or(Malformed)?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let response = header[2] & 0x80 != 0;
    let opcode = header[2] >> 3 & 0x0f;
    if response != (kind == Kind::Response) || opcode != 0 || count(4) != 1 {
        return Err(Malformed);
    }
    let name_length = read_name(HEADER, label).ok_or(Malformed)?;
    let at = HEADER + name_length + 1;
    let tail: [u8; 4] = message.read(at).ok_or(Malformed)?;
    let question = Question {
        id: count(0),
        name_length,
        qtype: u16::from_be_bytes([tail[0], tail[1]]),
        hash: hash(message, HEADER, name_length + 5, seed),
        rcode: header[3] & 0x0f,
        answers: count(6),
        end: at + 4,
    };
    if u16::from_be_bytes([tail[2], tail[3]]) != CLASS_IN {
        return Err(Malformed);
    }
    if kind == Kind::Query {
        let plain = header[2] & 0x06 == 0 && question.rcode == 0 && count(6) == 0 && count(8) == 0;
        if !plain || query_end(message, question.end, count(10))? != message.length() {
            return Err(Malformed);
        }
    }
    Ok(question)
}

/// Offset behind the additional section of a query: nothing, or one OPT record.
#[inline(always)]
fn query_end<B: Bytes + ?Sized>(
    message: &B,
    at: usize,
    additional: u16,
) -> Result<usize, Malformed> {
    if additional == 0 {
        return Ok(at);
    }
    let opt: [u8; 11] = message.read(at).ok_or(Malformed)?;
    if additional != 1 || opt[0] != 0 || u16::from_be_bytes([opt[1], opt[2]]) != TYPE_OPT {
        return Err(Malformed);
    }
    Ok(at + 11 + u16::from_be_bytes([opt[9], opt[10]]) as usize)
}

/// Reads the uncompressed name at `at` and returns its length without the root.
/// `None` where it is malformed or too long.
///
/// The loops of this module take steps that are functions of their own: in the
/// kernel each is a global function, which the verifier checks once, whatever
/// the loops around it.
#[inline(always)]
pub fn read_name(at: usize, label: impl Fn(usize, usize) -> Option<usize>) -> Option<usize> {
    let mut length = 0;
    for _ in 0..MAX_LABELS {
        let bytes = label(at + length, length)?;
        if bytes == 0 {
            return Some(length);
        }
        length += 1 + bytes;
    }
    None
}

/// Reads the label at `at`, `before` bytes into its name, writes it into the key,
/// and returns its length; zero is the root. `None` where it is too long, or
/// makes the name too long, is compressed, or not ASCII.
#[inline(always)]
pub fn read_label<B: Bytes + ?Sized>(
    message: &B,
    at: usize,
    before: usize,
    key: &mut KeyBuffer,
) -> Option<usize> {
    let [marker] = message.read(at)?;
    let length = marker as usize;
    if length == 0 {
        return Some(0);
    }
    if length > MAX_LABEL || before + 1 + length > MAX_NAME || message.length() < at + 1 + length {
        return None;
    }
    let window = B::widen(KEY_AT - 1 - MAX_LABEL - before) & 0x1ff;
    key.bytes[window + MAX_LABEL] = marker | KEY_LENGTH;
    let mut wrong = 0;
    for index in 0..MAX_LABEL {
        if index >= length {
            break;
        }
        let [byte, ..] = message.word(at + 1 + index);
        wrong |= byte;
        key.bytes[window + MAX_LABEL - 1 - index] = byte.to_ascii_lowercase();
    }
    (wrong & KEY_LENGTH == 0).then_some(length)
}

/// A keyed hash of `length` bytes at `at`. Not cryptographic: it only has to tell
/// apart the questions that one port asks at one time.
#[inline(always)]
fn hash<B: Bytes + ?Sized>(message: &B, at: usize, length: usize, seed: u64) -> u64 {
    let mut hash = seed;
    for index in 0..=(MAX_NAME + 5) / 8 {
        let before = index * 8;
        if before >= length {
            break;
        }
        let unused = 64usize.saturating_sub((length - before) * 8);
        let word = u64::from_le_bytes(message.word(at + before)) << unused;
        let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = product ^ product >> 29;
    }
    hash
}

/// An address record of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Found {
    pub address: Address,
    /// Seconds.
    pub ttl: u32,
    pub padding: u32,
}

/// The address records of an answer.
#[repr(C)]
pub struct Addresses {
    pub found: [Found; MAX_ANSWER_ADDRESSES],
}

/// Collects the A and AAAA records of an answer section of `records` records
/// that begins at `at`, whoever owns them. Returns how many there were.
///
/// `step` is [`read_step`], for this message and these addresses.
///
/// # Errors
/// Where a record is cut short or there are too many. What was found
/// before is lost with it.
#[inline(always)]
pub fn read_addresses(
    at: usize,
    records: u16,
    step: impl Fn(usize, usize) -> Option<Step>,
) -> Result<usize, Malformed> {
    let (mut at, mut left, mut count) = (at, records, 0);
    for _ in 0..MAX_STEPS {
        if left == 0 {
            return Ok(count);
        }
        let Step {
            next,
            record,
            address,
        } = step(at, count).ok_or(Malformed)?;
        at = next;
        left -= record as u16;
        count += address as usize;
    }
    Err(Malformed)
}

/// What one step through a section came upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Offset behind it.
    pub next: usize,
    /// It ended a record.
    pub record: bool,
    /// It stored an address.
    pub address: bool,
}

/// Steps over a label of a record's name, or over the end of the name and the
/// rest of the record, whose address goes to `addresses[count]`.
///
/// Names are only stepped over: a compression pointer ends a name, so no
/// pointer is followed and none can loop. `None` where the record is malformed
/// or there are too many addresses.
#[inline(always)]
pub fn read_step<B: Bytes + ?Sized>(
    message: &B,
    at: usize,
    count: usize,
    addresses: &mut Addresses,
) -> Option<Step> {
    const FIXED: usize = 10;
    let [length] = message.read(at)?;
    if length != 0 && length as usize <= MAX_LABEL {
        return Some(Step {
            next: at + 1 + length as usize,
            record: false,
            address: false,
        });
    }
    if length != 0 && length & POINTER != POINTER {
        return None;
    }
    let at = at + 1 + (length != 0) as usize;
    let fixed: [u8; FIXED] = message.read(at)?;
    let at = at + FIXED;
    let record = u16::from_be_bytes([fixed[0], fixed[1]]);
    let class = u16::from_be_bytes([fixed[2], fixed[3]]);
    let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let size = u16::from_be_bytes([fixed[8], fixed[9]]) as usize;
    let next = at + size;
    if next > message.length() {
        return None;
    }
    let address = match (record, class, size) {
        (TYPE_A, CLASS_IN, 4) => Some(Address::from_ipv4(u32::from_be_bytes(message.read(at)?))),
        (TYPE_AAAA, CLASS_IN, 16) => Some(Address::from_ipv6(message.read(at)?)),
        (TYPE_A | TYPE_AAAA, CLASS_IN, _) => return None,
        _ => None,
    };
    // An IPv4-mapped address belongs on no wire, and would open the IPv4 one.
    let Some(address) = address.filter(|address| record == TYPE_A || !address.is_ipv4()) else {
        return Some(Step {
            next,
            record: true,
            address: false,
        });
    };
    if count >= MAX_ANSWER_ADDRESSES {
        return None;
    }
    // RFC 2181 section 8: a TTL with its highest bit set is zero.
    let ttl = if ttl >> 31 == 0 { ttl } else { 0 };
    // Widened, or the compiler drops the mask, and Linux 6.1 forgets the comparison.
    let place = B::widen(count) & (MAX_ANSWER_ADDRESSES - 1);
    addresses.found[place] = Found {
        address,
        ttl,
        padding: 0,
    };
    Some(Step {
        next,
        record: true,
        address: true,
    })
}
