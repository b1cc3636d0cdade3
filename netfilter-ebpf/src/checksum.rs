//! The Internet checksum (RFC 1071).

/// The ones' complement sum of 16-bit words in network order; an odd last byte
/// counts as the high half of a word.
#[must_use]
#[inline(always)]
pub const fn sum(bytes: &[u8]) -> u32 {
    let mut sum = 0;
    let mut index = 0;
    while index < bytes.len() {
        let shift = if index & 1 == 0 { 8 } else { 0 };
        sum += (bytes[index] as u32) << shift;
        index += 1;
    }
    sum
}

/// The checksum of a sum.
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
pub const fn finish(sum: u32) -> [u8; 2] {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!(folded as u16)).to_be_bytes()
}
