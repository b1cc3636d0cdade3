//! DNS over TCP (RFC 7766), segment by segment: sequence numbers only, what the
//! bytes say is read by [`crate::dns`].
//!
//! A filter that reads a stream must read it as the far end will. So segments
//! are let out only in order, and each message within one segment (its length
//! may come before, alone). A segment that repeats bytes may differ from what was sent
//! before, so its messages are judged anew and must begin and end where former
//! ones did: however the far end pieces segments together, it finds
//! messages only where they were judged.
//!
//! Answers may be cut anywhere. They are let in in order, so that a message is
//! read before its last byte arrives.

use crate::dns::Cursor;

/// Beginnings of messages that are remembered: as many can be repeated.
const MARKS: u32 = 16;

/// The client's half of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Outbound {
    /// Sequence number of the first byte that was never sent.
    pub next: u32,
    /// Where the last messages began; the newest replaces the oldest.
    marks: [u32; MARKS as usize],
    newest: u32,
    /// Behind the last length that came alone.
    body: u32,
    /// That length, or more than 16 bits where there was none.
    length: u32,
}

const NO_LENGTH: u32 = 1 << 16;

/// A piece of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Sequence numbers.
    pub from: u32,
    pub to: u32,
    /// Of the message.
    pub length: u16,
    /// It is the length alone.
    pub bare: bool,
}

impl Outbound {
    /// Behind a SYN with this sequence number.
    #[must_use]
    #[inline(always)]
    pub const fn new(syn: u32) -> Self {
        let next = syn.wrapping_add(1);
        Self {
            next,
            marks: [next; MARKS as usize],
            newest: 0,
            body: next,
            length: NO_LENGTH,
        }
    }

    /// The length of the message whose bytes begin here without it.
    #[must_use]
    #[inline(always)]
    pub const fn body_at(&self, from: u32) -> Option<u16> {
        if self.length != NO_LENGTH && self.body == from {
            #[expect(clippy::cast_possible_truncation, reason = "NO_LENGTH is ruled out")]
            return Some(self.length as u16);
        }
        None
    }

    /// Whether the piece goes on, or repeats, the stream as it was; takes it in if so.
    #[inline(always)]
    pub fn admit(&mut self, piece: Piece) -> bool {
        let Piece {
            from,
            to,
            length,
            bare,
        } = piece;
        let is_body = self.body_at(from).is_some();
        if from == self.next {
            if !is_body {
                self.newest = (self.newest + 1) % MARKS;
                self.marks[(self.newest % MARKS) as usize] = from;
            }
            if bare {
                self.body = to;
                self.length = length as u32;
            }
            self.next = to;
            return true;
        }
        if !is_body && !self.began(from) {
            return false;
        }
        if let Some(known) = self.body_at(from.wrapping_add(2)) {
            if length != known {
                return false;
            }
            if bare {
                return true;
            }
            if self.next == self.body {
                // The length again, and for the first time what it is of.
                self.next = to;
                return true;
            }
        }
        !bare && (to == self.next || self.began(to)) && self.is_one(from, to)
    }

    #[inline(always)]
    fn began(&self, at: u32) -> bool {
        let mut found = false;
        for &mark in &self.marks {
            found |= mark == at;
        }
        found
    }

    /// Whether no message began strictly between.
    #[inline(always)]
    fn is_one(&self, from: u32, to: u32) -> bool {
        let mut one = true;
        for &mark in &self.marks {
            one &= !(is_before(from, mark) && is_before(mark, to));
        }
        one
    }
}

/// Sequence numbers wrap (RFC 9293 section 3.4).
#[must_use]
#[inline(always)]
pub const fn is_before(one: u32, other: u32) -> bool {
    other.wrapping_sub(one).wrapping_sub(1) < 1 << 31
}

/// Bytes of a message that could not be read before more came: the
/// longest is a header with its question.
pub const PENDING: usize = 272;

/// The resolver's half of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Inbound {
    pub cursor: Cursor,
    /// Sequence number of the first byte that has not come.
    pub next: u32,
    /// The name that the message under way lends for.
    pub name: u32,
    /// Bytes of `pending` that count.
    pub pending_length: u32,
    /// Not zero: that message has lent addresses.
    pub lent: u32,
    pub padding: u32,
    /// The key of the alias that it answers for, or zero.
    pub alias: u64,
    pub pending: [u8; PENDING],
}

/// Bytes at the beginning of a segment that came before. `None`: bytes before it are missing.
#[must_use]
#[inline(always)]
pub const fn repeated(next: u32, sequence: u32) -> Option<u32> {
    if is_before(next, sequence) {
        None
    } else {
        Some(next.wrapping_sub(sequence))
    }
}

/// A TCP connection to a resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Stream {
    /// One processor at a time reads a half; zero when none does.
    pub outbound_lock: u64,
    pub inbound_lock: u64,
    pub outbound: Outbound,
    /// [`Phase`]
    pub phase: u32,
    pub inbound: Inbound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// The SYN is out.
    Opening = 0,
    /// The resolver has acknowledged it.
    Open = 1,
    /// A question was refused in the resolver's stead: the two ends no longer agree.
    Refused = 2,
}

impl Stream {
    /// Behind a SYN with this sequence number.
    #[must_use]
    #[inline(always)]
    pub const fn opening(syn: u32) -> Self {
        Self {
            outbound_lock: 0,
            inbound_lock: 0,
            outbound: Outbound::new(syn),
            phase: Phase::Opening as u32,
            inbound: Inbound {
                cursor: Cursor::stream(),
                next: 0,
                name: 0,
                pending_length: 0,
                lent: 0,
                padding: 0,
                alias: 0,
                pending: [0; PENDING],
            },
        }
    }
}
