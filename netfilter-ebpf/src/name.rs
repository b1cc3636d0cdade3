//! Domain names in wire form (RFC 1035 section 3.1), and their form in the name table.
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

use crate::packet::{Bytes, MAX_HASHED};

/// Bytes of a name in wire form, without the root (RFC 1035 section 2.3.4: 255 with it).
pub const MAX_NAME: usize = 254;
pub const MAX_LABEL: usize = 63;
const _: () = assert!(MAX_NAME + 5 == MAX_HASHED);
/// Labels of the longest name, and the root.
const MAX_LABELS: usize = MAX_NAME / 2 + 1;

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
/// Whatever lies behind an index below 512 (a whole key) or 1024 (a word).
const KEY_BUFFER: usize = 1024 + 8;

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
        let start = (self.start(length) - KEY_PREFIX - 1) & 0x1ff;
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

impl KeyBuffer {
    /// The index (below 1024) at which a name of `length` bytes begins.
    #[must_use]
    #[inline(always)]
    pub const fn start(&self, length: usize) -> usize {
        KEY_AT.saturating_sub(length) & 0x3ff
    }
}

impl Bytes for KeyBuffer {
    fn length(&self) -> usize {
        KEY_BUFFER
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.as_slice().read(offset)
    }

    #[inline(always)]
    fn word(&self, offset: usize) -> [u8; 8] {
        let start = offset & 0x3ff;
        core::array::from_fn(|index| self.bytes[start + index])
    }
}

impl Default for KeyBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// The key of a name in wire form without the root, for copy 0: its length in
/// bits and its bytes, zero behind. `wildcard`: of the names below it.
#[must_use]
pub fn key(wire: &[u8], wildcard: bool) -> (u32, [u8; KEY_DATA]) {
    let mut buffer = KeyBuffer::new();
    let mut at = 0;
    while let Some(length @ 1..) = read_label(wire, at, at, &mut buffer) {
        at += 1 + length;
    }
    let start = buffer.finish(wire.len(), 0, wildcard);
    let mut data = [0; KEY_DATA];
    let bytes = &buffer.bytes[start..];
    let bits = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let used = bits as usize / 8;
    data[..used].copy_from_slice(&bytes[4..4 + used]);
    (bits, data)
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
