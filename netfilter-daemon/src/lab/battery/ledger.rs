//! The secret that channels try to carry out, and how much of it arrived.

use ring::digest::{Context, SHA256};

/// The length of a secret, in bytes.
pub const SECRET: usize = 64 << 10;

/// What stands before the bytes of a piece: the round's mark, the channel, the
/// offset and the length, in network order.
pub const HEADER: usize = 10;

const MARK: usize = 4;

/// One time that all channels are tried. Its secrets are in no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Of the whole run; to be drawn at random.
    pub seed: u64,
    pub number: u8,
}

/// What a channel has to carry out.
pub struct Pieces {
    mark: [u8; MARK],
    channel: u16,
    secret: Vec<u8>,
}

/// What a decoder found in a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Bytes among which pieces are.
    Pieces(Vec<u8>),
    /// Bytes of the secret, where the carrier has no room for a piece's header.
    Part { offset: usize, bytes: Vec<u8> },
}

/// What arrived of each channel's secret in a round.
pub struct Ledger {
    mark: [u8; MARK],
    entries: Vec<Entry>,
}

struct Entry {
    secret: Vec<u8>,
    arrived: Vec<bool>,
}

impl Round {
    fn mark(self) -> [u8; MARK] {
        let digest = self.digest(&[b"mark"]);
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// The secret of a channel.
    fn secret(self, channel: u16) -> Vec<u8> {
        let mut secret = Vec::with_capacity(SECRET);
        let mut block: u32 = 0;
        while secret.len() < SECRET {
            secret.extend(self.digest(&[&channel.to_be_bytes(), &block.to_be_bytes()]));
            block += 1;
        }
        secret
    }

    fn digest(self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        context.update(&self.seed.to_be_bytes());
        context.update(&[self.number]);
        for part in parts {
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

impl Pieces {
    pub fn new(round: Round, channel: u16) -> Self {
        Self {
            mark: round.mark(),
            channel,
            secret: round.secret(channel),
        }
    }

    /// The secret in pieces with headers, each of `size` bytes at most, header included.
    pub fn of(&self, size: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.parts(size - HEADER).map(|(offset, bytes)| {
            // Below 64 KiB, both of them.
            let short = |number: usize| u16::try_from(number).unwrap_or_default().to_be_bytes();
            [
                &self.mark[..],
                &self.channel.to_be_bytes(),
                &short(offset),
                &short(bytes.len()),
                bytes,
            ]
            .concat()
        })
    }

    /// The bare secret, `size` bytes at a time, with their offsets.
    pub fn parts(&self, size: usize) -> impl Iterator<Item = (usize, &[u8])> {
        self.secret
            .chunks(size)
            .enumerate()
            .map(move |(index, bytes)| (index * size, bytes))
    }
}

impl Ledger {
    pub fn new(round: Round, channels: u16) -> Self {
        let entry = |channel| Entry {
            secret: round.secret(channel),
            arrived: vec![false; SECRET],
        };
        Self {
            mark: round.mark(),
            entries: (0..channels).map(entry).collect(),
        }
    }

    /// Notes the pieces that are anywhere among the bytes.
    pub fn read(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(at) = rest.windows(MARK).position(|window| window == self.mark) {
            rest = &rest[at + MARK..];
            let Some((header, behind)) = rest.split_at_checked(HEADER - MARK) else {
                return;
            };
            let [channel, offset, length] =
                [0, 2, 4].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
            if let Some(piece) = behind.get(..length.into()) {
                self.note(channel, offset.into(), piece);
            }
        }
    }

    /// Notes bytes of a channel's secret, if that is what they are, to the last bit.
    pub fn note(&mut self, channel: u16, offset: usize, bytes: &[u8]) {
        let Some(entry) = self.entries.get_mut(usize::from(channel)) else {
            return;
        };
        let place = offset..offset.saturating_add(bytes.len());
        if entry.secret.get(place.clone()) == Some(bytes) {
            entry.arrived[place].fill(true);
        }
    }

    /// How many bytes of each channel's secret arrived.
    pub fn arrived(&self) -> Vec<usize> {
        let count = |entry: &Entry| entry.arrived.iter().filter(|arrived| **arrived).count();
        self.entries.iter().map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Round = Round { seed: 7, number: 1 };

    #[test]
    fn all_pieces_make_the_secret_in_any_order_amid_anything() {
        let mut ledger = Ledger::new(ROUND, 2);
        let mut pieces: Vec<_> = Pieces::new(ROUND, 1).of(1000).collect();
        pieces.reverse();
        for piece in pieces {
            ledger.read(&[&[1, 2, 3][..], &piece, &[4]].concat());
        }
        assert_eq!(ledger.arrived(), [0, SECRET]);
    }

    #[test]
    fn parts_count_where_they_belong_and_once() {
        let mut ledger = Ledger::new(ROUND, 1);
        let pieces = Pieces::new(ROUND, 0);
        let (offset, bytes) = pieces.parts(4).nth(9).unwrap();
        ledger.note(0, offset, bytes);
        ledger.note(0, offset, bytes);
        ledger.note(0, offset + 4, bytes);
        ledger.note(0, SECRET - 2, bytes);
        ledger.note(1, offset, bytes);
        assert_eq!(ledger.arrived(), [4]);
    }

    #[test]
    fn what_is_altered_cut_or_of_another_round_has_not_arrived() {
        let mut ledger = Ledger::new(ROUND, 1);
        let piece = Pieces::new(ROUND, 0).of(100).next().unwrap();
        for at in 0..piece.len() {
            let mut altered = piece.clone();
            altered[at] ^= 1;
            ledger.read(&altered);
            ledger.read(&piece[..at]);
        }
        let other = Round { number: 2, ..ROUND };
        for piece in Pieces::new(other, 0).of(1000) {
            ledger.read(&piece);
        }
        assert_eq!(ledger.arrived(), [0]);
    }
}
