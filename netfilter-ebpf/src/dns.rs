//! DNS messages (RFC 1035), as far as the filter reads them: the one question,
//! and the addresses in the answer section.

use crate::{
    abi::{Address, MAX_ANSWER_ADDRESSES},
    name::{MAX_LABEL, MAX_NAME, read_name},
    packet::Bytes,
};

pub const HEADER: usize = 12;
/// Bytes of the header and the longest question.
pub const MAX_QUESTION: usize = HEADER + MAX_NAME + 1 + 4;
/// Bytes of the length before a message in a stream (RFC 1035 section 4.2.2).
pub const STREAM_PREFIX: usize = 2;
/// The first two bits of a compression pointer (RFC 1035 section 4.1.4).
const POINTER: u8 = 0xc0;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;
const CLASS_IN: u16 = 1;

/// SvcParamKeys (RFC 9460 section 14.3.2).
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;

/// A message that is not well formed, or not of the kind that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Query,
    Response,
}

/// The question of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Question {
    pub id: u16,
    pub qtype: u16,
    /// Bytes of the name in wire form, without the root.
    pub name_length: usize,
    /// Of the question's bytes as they stand in the message.
    pub hash: u64,
    /// RCODE of a response.
    pub rcode: u8,
    /// Records of the answer section.
    pub answers: u16,
    /// Bytes of the header and the question.
    pub length: usize,
}

/// Reads the header and the question of the message at `base` into `question`. `label` is
/// [`crate::name::read_label`], for these bytes and the key that is to be
/// written, or [`skip_label`].
///
/// A query must be nothing but one question of class IN and at most an OPT
/// record (RFC 6891): no other section, no bytes behind, and no bit set that only
/// answers have or nobody.
///
/// # Errors
/// Where the message is not that, or does not end within these bytes.
#[inline(always)]
pub fn read_question<B: Bytes + ?Sized>(
    message: &B,
    base: usize,
    kind: Kind,
    seed: u64,
    label: impl Fn(usize, usize) -> Option<usize>,
    question: &mut Question,
) -> Result<(), Malformed> {
    let [_, _, flags, _, q0, q1]: [u8; 6] = message.read(base).ok_or(Malformed)?;
    let (response, opcode) = (flags & 0x80 != 0, flags >> 3 & 0x0f);
    if response != (kind == Kind::Response) || opcode != 0 || [q0, q1] != [0, 1] {
        return Err(Malformed);
    }
    let name_length = B::widen(read_name(base + HEADER, label).ok_or(Malformed)?);
    let length = HEADER + name_length + 5;
    question.hash = message.hash(base + HEADER, name_length + 5, seed);
    // Read only now: in the kernel, what lives meanwhile takes room on the stack.
    let header: [u8; HEADER] = message.read(base).ok_or(Malformed)?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let tail: [u8; 4] = message.read(base + length - 4).ok_or(Malformed)?;
    *question = Question {
        id: count(0),
        qtype: u16::from_be_bytes([tail[0], tail[1]]),
        name_length,
        hash: question.hash,
        rcode: header[3] & 0x0f,
        answers: count(6),
        length,
    };
    if u16::from_be_bytes([tail[2], tail[3]]) != CLASS_IN {
        return Err(Malformed);
    }
    if kind == Kind::Query {
        // AA, TC; RA, Z, RCODE.
        let plain =
            header[2] & 0x06 == 0 && header[3] & 0xcf == 0 && count(6) == 0 && count(8) == 0;
        if !plain || query_end(message, base + length, count(10))? != message.length() {
            return Err(Malformed);
        }
    }
    Ok(())
}

/// Bytes of an OPT record before its options (RFC 6891 section 6.1.2).
pub const OPT_HEADER: usize = 11;
/// Bytes of options that a query may have. Cookies, the longest in use, take 44.
pub const MAX_OPTIONS: usize = 256;
/// DNSSEC is understood (RFC 6891 section 6.1.4), and compact denials are (RFC 9824).
const EDNS_FLAGS: u8 = 0xc0;

/// Offset behind the additional section of a query: nothing, or one OPT record of
/// version 0.
#[inline(always)]
fn query_end<B: Bytes + ?Sized>(
    message: &B,
    at: usize,
    additional: u16,
) -> Result<usize, Malformed> {
    if additional == 0 {
        return Ok(at);
    }
    let opt: [u8; OPT_HEADER] = message.read(at).ok_or(Malformed)?;
    let plain = [opt[5], opt[6], opt[7] & !EDNS_FLAGS, opt[8]] == [0; 4];
    if additional != 1 || opt[0] != 0 || u16::from_be_bytes([opt[1], opt[2]]) != TYPE_OPT || !plain
    {
        return Err(Malformed);
    }
    let options = u16::from_be_bytes([opt[9], opt[10]]) as usize;
    // None is shorter than its code and length.
    if options > MAX_OPTIONS || matches!(options, 1..4) {
        return Err(Malformed);
    }
    Ok(at + OPT_HEADER + options)
}

/// The length of the label at `at`, `before` bytes into its name, as
/// [`crate::name::read_label`] finds it; what it holds is not looked at.
#[inline(always)]
pub fn skip_label<B: Bytes + ?Sized>(message: &B, at: usize, before: usize) -> Option<usize> {
    let [length] = message.read(at)?;
    let length = length as usize;
    let fits = length <= MAX_LABEL && before + length < MAX_NAME;
    // The root stands behind the longest name too.
    (length == 0 || fits).then_some(length)
}

/// An address of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Found {
    pub address: Address,
    /// Seconds.
    pub ttl: u32,
    pub padding: u32,
}

/// Aliases of one answer that are learned; real chains are shorter.
pub const MAX_ALIASES: usize = 8;

/// The name that a CNAME or SVCB record points to. Resolvers and clients that
/// keep the record ask for that name by itself when only its addresses have expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Alias {
    /// Offset in the window.
    pub at: u32,
    /// Seconds.
    pub ttl: u32,
}

/// The addresses and aliases of an answer.
#[repr(C)]
pub struct Addresses {
    pub found: [Found; MAX_ANSWER_ADDRESSES],
    pub count: usize,
    pub aliases: [Alias; MAX_ALIASES],
    pub alias_count: usize,
}

impl Addresses {
    #[must_use]
    pub const fn new() -> Self {
        Self {
            found: [Found {
                address: Address { high: 0, low: 0 },
                ttl: 0,
                padding: 0,
            }; MAX_ANSWER_ADDRESSES],
            count: 0,
            aliases: [Alias { at: 0, ttl: 0 }; MAX_ALIASES],
            alias_count: 0,
        }
    }

    #[inline(always)]
    pub fn clear(&mut self) {
        self.count = 0;
        self.alias_count = 0;
    }

    /// More than fit are left out: who asks for them by themselves needs a rule.
    #[inline(always)]
    fn push_alias<B: Bytes + ?Sized>(&mut self, at: u32, ttl: u32) {
        if self.alias_count < MAX_ALIASES {
            let place = B::widen(self.alias_count) & (MAX_ALIASES - 1);
            self.aliases[place] = Alias { at, ttl };
            self.alias_count += 1;
        }
    }

    #[inline(always)]
    fn push<B: Bytes + ?Sized>(&mut self, address: Address, ttl: u32) -> Result<(), Malformed> {
        if self.count >= MAX_ANSWER_ADDRESSES {
            return Err(Malformed);
        }
        // Widened, or the compiler drops the mask, and Linux 6.1 forgets the comparison.
        let place = B::widen(self.count) & (MAX_ANSWER_ADDRESSES - 1);
        self.found[place] = Found {
            address,
            ttl,
            padding: 0,
        };
        self.count += 1;
        Ok(())
    }
}

impl Default for Addresses {
    fn default() -> Self {
        Self::new()
    }
}

/// What a reader expects next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// The length before a message in a stream.
    Length,
    /// The header and the question.
    Question,
    /// A label of a record's owner, or the end of that name.
    Owner,
    /// What stands before a record's data, from the type on.
    Fixed,
    /// The data of an A or AAAA record.
    Address,
    /// A label of an SVCB record's target name, or its end (RFC 9460 section 2.2).
    Target,
    /// A parameter of that record, or the record's end.
    Parameter,
    /// An address of a hint, or the hint's end (RFC 9460 section 7.3).
    Hint,
}

/// Where a reader stands in a message, of which it may see only a window: what
/// has come so far of a stream. So that one reader serves both transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Cursor {
    /// Offset in the window; may lie behind its end.
    pub at: u32,
    /// Offset in the message.
    pub read: u32,
    /// Bytes of the message from there on.
    pub left: u32,
    /// Offset in the message of the name that is being read.
    pub name: u32,
    /// Of the record that is being read, in seconds.
    pub ttl: u32,
    /// Records of the answer section that are not yet read.
    pub records: u16,
    /// Bytes of an SVCB record's data that are not yet read.
    pub data: u16,
    /// Bytes of a hint that are not yet read.
    pub hint: u16,
    /// [`Part`]
    pub part: u8,
    /// Bytes of an address.
    pub size: u8,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    More,
    /// The window ends before what must be read at once.
    Short,
    /// The answer section is read.
    End,
}

impl Cursor {
    /// At the beginning of a message of `length` bytes, at `at` in the window.
    #[must_use]
    #[inline(always)]
    pub const fn message(at: u32, length: u32) -> Self {
        Self {
            at,
            read: 0,
            left: length,
            name: 0,
            ttl: 0,
            records: 0,
            data: 0,
            hint: 0,
            part: Part::Question as u8,
            size: 0,
        }
    }

    /// At the length of the first message of a stream.
    #[must_use]
    #[inline(always)]
    pub const fn stream() -> Self {
        let mut cursor = Self::message(0, 0);
        cursor.part = Part::Length as u8;
        cursor
    }

    /// Behind the question, of which `length` bytes were read.
    ///
    /// # Errors
    /// Where the message ends before.
    #[inline(always)]
    pub fn answers(&mut self, length: u32, records: u16) -> Result<(), Malformed> {
        self.advance(length)?;
        self.records = records;
        self.owner();
        Ok(())
    }

    /// At the length of the next message in a stream.
    #[inline(always)]
    pub fn next_message(&mut self) {
        self.at += self.left;
        self.left = 0;
        self.part = Part::Length as u8;
    }

    #[inline(always)]
    fn advance(&mut self, bytes: u32) -> Result<(), Malformed> {
        if bytes > self.left {
            return Err(Malformed);
        }
        self.at += bytes;
        self.read += bytes;
        self.left -= bytes;
        Ok(())
    }

    #[inline(always)]
    fn owner(&mut self) {
        self.part = Part::Owner as u8;
        self.name = self.read;
    }

    #[inline(always)]
    fn end_of_record(&mut self) {
        self.records -= 1;
        self.owner();
    }

    /// Takes bytes off an SVCB record's data.
    #[inline(always)]
    fn take(&mut self, bytes: u16) -> Result<(), Malformed> {
        if bytes > self.data {
            return Err(Malformed);
        }
        self.data -= bytes;
        self.advance(bytes as u32)
    }

    /// Whether the name may go on for a label of this length.
    #[inline(always)]
    fn has_room(&self, label: u8) -> bool {
        ((self.read - self.name) as usize + label as usize) < MAX_NAME
    }

    /// The window was too short for `bytes`.
    #[inline(always)]
    fn short(&self, bytes: u32) -> Result<Step, Malformed> {
        if self.left < bytes {
            Err(Malformed)
        } else {
            Ok(Step::Short)
        }
    }
}

/// Reads on in the answer section: one label, or all of a record that follows
/// its owner's name, or one part of an SVCB record. A, AAAA and address hints
/// are collected, whoever owns them.
///
/// Names are only stepped over. A compression pointer ends a name and must
/// point before it, so that a chain of them cannot loop.
///
/// # Errors
/// Where the message is malformed or has too many addresses.
#[inline(always)]
pub fn read_step<B: Bytes + ?Sized>(
    window: &B,
    cursor: &mut Cursor,
    addresses: &mut Addresses,
) -> Result<Step, Malformed> {
    const FIXED: u32 = 10;
    if cursor.part == Part::Owner as u8 {
        if cursor.records == 0 {
            return Ok(Step::End);
        }
        let Some([length]) = window.read(cursor.at as usize) else {
            return cursor.short(1);
        };
        if length != 0 && length as usize <= MAX_LABEL {
            if !cursor.has_room(length) {
                return Err(Malformed);
            }
            cursor.advance(length as u32 + 1)?;
            return Ok(Step::More);
        }
        if length == 0 {
            cursor.advance(1)?;
        } else {
            let Some([high, low]) = window.read(cursor.at as usize) else {
                return cursor.short(2);
            };
            let target = u16::from_be_bytes([high & !POINTER, low]);
            if high & POINTER != POINTER
                || (target as usize) < HEADER
                || target as u32 >= cursor.name
            {
                return Err(Malformed);
            }
            cursor.advance(2)?;
        }
        cursor.part = Part::Fixed as u8;
    }
    if cursor.part == Part::Fixed as u8 {
        let Some(fixed) = window.read::<{ FIXED as usize }>(cursor.at as usize) else {
            return cursor.short(FIXED);
        };
        let record = u16::from_be_bytes([fixed[0], fixed[1]]);
        let class = u16::from_be_bytes([fixed[2], fixed[3]]);
        let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let size = u16::from_be_bytes([fixed[8], fixed[9]]);
        cursor.advance(FIXED)?;
        if size as u32 > cursor.left {
            return Err(Malformed);
        }
        // RFC 2181 section 8: a TTL with its highest bit set is zero.
        cursor.ttl = if ttl >> 31 == 0 { ttl } else { 0 };
        match (record, class) {
            (TYPE_A, CLASS_IN) if size == 4 => cursor.size = 4,
            (TYPE_AAAA, CLASS_IN) if size == 16 => cursor.size = 16,
            (TYPE_A | TYPE_AAAA, CLASS_IN) => return Err(Malformed),
            (TYPE_SVCB | TYPE_HTTPS, CLASS_IN) => {
                cursor.data = size;
                cursor.take(2)?; // the priority
                cursor.name = cursor.read;
                cursor.part = Part::Target as u8;
                addresses.push_alias::<B>(cursor.at, cursor.ttl);
                return Ok(Step::More);
            }
            _ => {
                if (record, class) == (TYPE_CNAME, CLASS_IN) {
                    addresses.push_alias::<B>(cursor.at, cursor.ttl);
                }
                cursor.advance(size as u32)?;
                cursor.end_of_record();
                return Ok(Step::More);
            }
        }
        cursor.part = Part::Address as u8;
    }
    if cursor.part == Part::Address as u8 {
        if !read_address(window, cursor, addresses)? {
            return Ok(Step::Short);
        }
        cursor.end_of_record();
        return Ok(Step::More);
    }
    if cursor.part == Part::Target as u8 {
        let Some([length]) = window.read(cursor.at as usize) else {
            return cursor.short(1);
        };
        // Not compressed (RFC 9460 section 2.2).
        if length as usize > MAX_LABEL || (length != 0 && !cursor.has_room(length)) {
            return Err(Malformed);
        }
        cursor.take(length as u16 + 1)?;
        if length == 0 {
            cursor.part = Part::Parameter as u8;
        }
        return Ok(Step::More);
    }
    if cursor.part == Part::Parameter as u8 {
        if cursor.data == 0 {
            cursor.end_of_record();
            return Ok(Step::More);
        }
        let Some([k0, k1, l0, l1]) = window.read(cursor.at as usize) else {
            return cursor.short(4);
        };
        let length = u16::from_be_bytes([l0, l1]);
        cursor.take(4)?;
        cursor.size = match u16::from_be_bytes([k0, k1]) {
            IPV4_HINT => 4,
            IPV6_HINT => 16,
            _ => {
                cursor.take(length)?;
                return Ok(Step::More);
            }
        };
        if length > cursor.data || length == 0 || length & (cursor.size as u16 - 1) != 0 {
            return Err(Malformed);
        }
        cursor.data -= length;
        cursor.hint = length;
        cursor.part = Part::Hint as u8;
        return Ok(Step::More);
    }
    if cursor.hint == 0 {
        cursor.part = Part::Parameter as u8;
        return Ok(Step::More);
    }
    if !read_address(window, cursor, addresses)? {
        return Ok(Step::Short);
    }
    cursor.hint -= cursor.size as u16;
    Ok(Step::More)
}

/// Reads the name at `at`, which may be compressed, of the message that begins
/// at `base`, and returns its length without the root. `label` is
/// [`crate::name::read_label`]. `None` where it is malformed, too long, or
/// not within these bytes; what it is compressed with must stand before it.
#[inline(always)]
pub fn read_alias<B: Bytes + ?Sized>(
    window: &B,
    base: usize,
    mut at: usize,
    label: impl Fn(usize, usize) -> Option<usize>,
) -> Option<usize> {
    let (mut length, mut limit) = (0, at);
    for _ in 0..MAX_ALIAS_STEPS {
        at = B::widen(at);
        limit = B::widen(limit);
        length = B::widen(length);
        let [first] = window.read(at)?;
        if first & POINTER == POINTER {
            let [high, low] = window.read(at)?;
            let target = base + u16::from_be_bytes([high & !POINTER, low]) as usize;
            if target < base + HEADER || target >= limit {
                return None;
            }
            (at, limit) = (target, target);
            continue;
        }
        let bytes = label(at, length)?;
        if bytes == 0 {
            return Some(length);
        }
        length += 1 + bytes;
        at += 1 + bytes;
    }
    None
}

/// Labels of the longest name, and as many pointers as any server would use.
const MAX_ALIAS_STEPS: usize = 160;

/// Collects the address of `cursor.size` bytes. False where the window ends before.
#[inline(always)]
fn read_address<B: Bytes + ?Sized>(
    window: &B,
    cursor: &mut Cursor,
    addresses: &mut Addresses,
) -> Result<bool, Malformed> {
    let at = cursor.at as usize;
    let address = if cursor.size == 4 {
        window
            .read(at)
            .map(|bytes| Address::from_ipv4(u32::from_be_bytes(bytes)))
    } else {
        window.read(at).map(Address::from_ipv6)
    };
    let Some(address) = address else {
        return cursor.short(cursor.size as u32).map(|_| false);
    };
    // An IPv4-mapped address belongs on no wire, and would open the IPv4 one.
    if cursor.size == 4 || !address.is_ipv4() {
        addresses.push::<B>(address, cursor.ttl)?;
    }
    cursor.advance(cursor.size as u32)?;
    Ok(true)
}
