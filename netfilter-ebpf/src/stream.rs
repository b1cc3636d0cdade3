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

/// How far the questions of a segment are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Walk {
    /// Offset in the frame of the next one.
    pub at: u32,
    /// And of the segment's end.
    pub end: u32,
    pub sequence: u32,
    /// Questions that are judged.
    pub count: u32,
    pub permitted: u32,
    /// The reason of one that is denied.
    pub denied: u32,
    /// All that is denied begins with its length, so that it can be answered where it stands.
    pub in_place: u32,
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

/// It outlives programs: another size is another ABI.
const _: () = assert!(size_of::<Stream>() == 432 && size_of::<Cursor>() == 28);

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    /// Where the stream begins; it wraps soon.
    const START: u32 = u32::MAX - 40;

    /// A segment that is offered.
    #[derive(Debug, Clone)]
    struct Offer {
        place: Place,
        bytes: Vec<u8>,
    }

    #[derive(Debug, Clone)]
    enum Place {
        Next,
        /// Where a piece began or ended, and bytes from there.
        Edge(Index, i32),
    }

    /// Messages of a few bytes, which themselves could be lengths.
    fn offers() -> impl Strategy<Value = Offer> {
        let place = prop_oneof![
            3 => Just(Place::Next),
            3 => any::<Index>().prop_map(|edge| Place::Edge(edge, 0)),
            1 => (any::<Index>(), -3..4_i32).prop_map(|(edge, by)| Place::Edge(edge, by)),
        ];
        let byte = || prop_oneof![1 => Just(0_u8), 2 => 0..5_u8];
        let message = vec(byte(), 1..6).prop_map(|body| {
            let length = u8::try_from(body.len()).expect("short");
            [&[0, length][..], &body].concat()
        });
        let bare = (1..6_u8).prop_map(|length| vec![0, length]);
        let bytes = prop_oneof![
            3 => vec(message, 1..4).prop_map(|messages| messages.concat()),
            2 => bare,
            2 => vec(byte(), 1..6),
        ];
        (place, bytes).prop_map(|(place, bytes)| Offer { place, bytes })
    }

    /// A piece that was let out, at offsets from the start.
    #[derive(Debug, Clone, PartialEq)]
    struct Sent {
        from: usize,
        to: usize,
        kind: Kind,
        bytes: Vec<u8>,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Kind {
        Length,
        Body,
        Whole,
    }

    /// Offers a segment as `programs/stream.rs` does: all of its pieces go out or none.
    fn offer(outbound: &mut Outbound, from: u32, segment: &[u8]) -> Option<Vec<Sent>> {
        let mut judged = *outbound;
        let mut sent = Vec::new();
        let (mut at, mut sequence) = (0, from);
        while at < segment.len() {
            let (kind, length) = match (judged.body_at(sequence), &segment[at..]) {
                (Some(length), _) => (Kind::Body, length),
                (None, [a, b]) => (Kind::Length, u16::from_be_bytes([*a, *b])),
                (None, [a, b, ..]) => (Kind::Whole, u16::from_be_bytes([*a, *b])),
                (None, _) => return None,
            };
            let size = match kind {
                Kind::Length => 2,
                Kind::Body => usize::from(length),
                Kind::Whole => 2 + usize::from(length),
            };
            let bytes = segment.get(at..at + size)?;
            let to = sequence.wrapping_add(u32::try_from(size).ok()?);
            let piece = Piece {
                from: sequence,
                to,
                length,
                bare: kind == Kind::Length,
            };
            // A message without bytes is no question.
            if !judged.admit(piece) || kind != Kind::Length && length == 0 {
                return None;
            }
            let offset = |sequence: u32| sequence.wrapping_sub(START) as usize;
            sent.push(Sent {
                from: offset(piece.from),
                to: offset(to),
                kind,
                bytes: bytes.to_vec(),
            });
            (at, sequence) = (at + size, to);
        }
        *outbound = judged;
        Some(sent)
    }

    /// Values that a receiver can have for the byte at `at`.
    fn values(sent: &[Sent], at: usize) -> BTreeSet<u8> {
        let here = sent
            .iter()
            .filter(|piece| (piece.from..piece.to).contains(&at));
        here.map(|piece| piece.bytes[at - piece.from]).collect()
    }

    /// Every message that a receiver can find, whichever of the pieces reach it,
    /// in whatever order, and whichever of two bytes at one place it takes.
    fn messages(sent: &[Sent]) -> BTreeSet<(usize, usize)> {
        let mut found = BTreeSet::new();
        let mut starts = vec![0];
        while let Some(start) = starts.pop() {
            for high in values(sent, start) {
                for low in values(sent, start + 1) {
                    let end = start + 2 + usize::from(u16::from_be_bytes([high, low]));
                    let whole = (start..end).all(|at| !values(sent, at).is_empty());
                    if whole && found.insert((start, end)) {
                        starts.push(end);
                    }
                }
            }
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn a_receiver_finds_messages_only_where_they_were_judged(offers in vec(offers(), 1..60)) {
            let mut outbound = Outbound::new(START.wrapping_sub(1));
            let mut sent: Vec<Sent> = Vec::new();
            for Offer { place, bytes } in offers {
                let from = match place {
                    Place::Next => outbound.next,
                    Place::Edge(..) if sent.is_empty() => START,
                    Place::Edge(edge, by) => {
                        let piece = &sent[edge.index(sent.len())];
                        let at = u32::try_from(piece.from).expect("short");
                        START.wrapping_add(at).wrapping_add_signed(by)
                    }
                };
                sent.extend(offer(&mut outbound, from, &bytes).unwrap_or_default());
            }
            for (start, end) in messages(&sent) {
                // All that a receiver can put there is this message's own.
                let within = sent.iter().filter(|piece| piece.from < end && start < piece.to);
                for piece in within {
                    let (from, to) = match piece.kind {
                        Kind::Length => (start, start + 2),
                        Kind::Body => (start + 2, end),
                        Kind::Whole => (start, end),
                    };
                    prop_assert_eq!((piece.from, piece.to), (from, to), "{}..{}", start, end);
                }
            }
        }
    }
}
