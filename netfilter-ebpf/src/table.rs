//! The prefix table: a path-compressed multibit trie whose ends are short lists of ranges.
//!
//! The first 16 bits of an address index a direct table. Each node below can first compare a run
//! of up to 56 bits (path compression, so IPv6 costs no more levels than its prefixes have
//! branches), and is of one of three kinds. A *branch* consumes as many bits as make about a child
//! for each prefix below (level compression: Nilsson & Karlsson, JSAC 1999); its children stand
//! side by side, and the bits are the number of one. A *list* ends the search: it holds where
//! ranges begin, as DXR does (Zec, Rizzo & Mikuc, CCR 2012), and they are compared all at once,
//! without a jump that could be guessed wrong. A *narrow* one tells apart thirteen in the next 15
//! bits, and is for what ends there, as IPv4 does; others seven in 31. Most subtrees are so
//! sparse that a list is all of them. A node is a cache line. One structure serves both families.

/// Bits that the direct table consumes.
pub const ROOT_BITS: u32 = 16;
/// Entries of the direct table of one family.
pub const ROOTS_PER_FAMILY: u32 = 1 << ROOT_BITS;
/// Bits that a branch consumes after its skip, at least and at most.
pub const STRIDES: core::ops::RangeInclusive<u32> = 1..=16;
/// How places where another range begins stand in the words of a list: each in a lane, with a
/// bit above it that is clear.
#[derive(Debug, Clone, Copy)]
pub struct Lanes {
    /// Bits after its skip that the list tells apart: those of a place.
    pub bits: u32,
}

/// Of a list that is not narrow.
pub const WIDE: Lanes = Lanes { bits: 31 };
/// Of a narrow list.
pub const NARROW: Lanes = Lanes { bits: 15 };
/// Of a node.
const WORDS: usize = 3;

/// Bits that one node's skip can compare.
pub const MAX_SKIP: u32 = 56;
/// Nodes on the longest path, at most: of 112 bits a branch takes two, but one where fewer than four
/// prefixes are below it, or twelve that end near, of which there are no more than six in a row;
/// and a list.
pub const MAX_DEPTH: u32 = 60;
/// Set in an entry of the direct table that is a leaf; the rest is its number. Clear: the rest is
/// a node's index.
pub const LEAF: u32 = 1 << 31;
/// Set in the skip of a list.
pub const LIST: u64 = 1 << 7;
/// And in that of a narrow one.
pub const IS_NARROW: u64 = 1 << 6;

/// A node. Its size is a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(64))]
pub struct Node {
    /// High 56 bits: what the skipped bits must be, right-aligned. Low 6 bits: how many. And
    /// [`LIST`] and [`IS_NARROW`].
    pub skip: u64,
    /// Of a list: where ranges begin, in lanes, the lowest first; ones where there are no more.
    /// Of a branch: the index of its first child, and above it its stride.
    pub words: [u64; WORDS],
    /// What holds for whatever does not match the skip; of a list then for each of the ranges.
    /// Each is two of these, the lower first; of a narrow list, one.
    pub leaves: [u16; 16],
}

const _: () = assert!(core::mem::size_of::<Node>() == 64);

impl Node {
    #[must_use]
    pub const fn is_list(&self) -> bool {
        self.skip & LIST != 0
    }

    /// Index of a branch's first child.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    #[inline(always)]
    pub const fn children(&self) -> u32 {
        self.words[0] as u32
    }

    /// Bits that tell its children apart.
    #[must_use]
    #[inline(always)]
    pub const fn stride(&self) -> u64 {
        self.words[0] >> 32
    }

    /// The branch with its children there.
    #[must_use]
    pub const fn leading_to(mut self, children: u32, stride: u64) -> Self {
        self.words[0] = stride << 32 | children as u64;
        self
    }

    /// The leaf with this number, of any node but a narrow list.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "below 16")]
    #[inline(always)]
    pub const fn leaf(&self, number: u64) -> u32 {
        let place = (number % 8 * 2) as usize;
        self.leaves[place] as u32 | (self.leaves[place + 1] as u32) << 16
    }
}

impl Lanes {
    /// Bits from one lane to the next.
    const fn apart(self) -> u32 {
        self.bits + 1
    }

    /// Lanes of a word.
    #[must_use]
    pub const fn of_word(self) -> u32 {
        u64::BITS / self.apart()
    }

    /// Lanes of a list.
    #[must_use]
    pub const fn count(self) -> usize {
        WORDS * self.of_word() as usize
    }

    /// The word whose lanes are all this number.
    #[must_use]
    #[inline(always)]
    const fn all(self, number: u64) -> u64 {
        let mut ones = 0;
        let mut lane = 0;
        while lane < self.of_word() {
            ones |= 1 << (lane * self.apart());
            lane += 1;
        }
        number.wrapping_mul(ones)
    }

    /// A word with a place in a lane that was not used.
    #[must_use]
    pub const fn with(self, word: u64, lane: u32, place: u64) -> u64 {
        word ^ (self.last() ^ place) << (lane * self.apart())
    }

    /// A word of lanes behind all others.
    #[must_use]
    pub const fn unused(self) -> u64 {
        self.all(self.last())
    }

    const fn last(self) -> u64 {
        (1 << self.bits) - 1
    }

    /// How many places are at `at` or before. Each is subtracted from `at` with a one above it,
    /// which stays where nothing is borrowed of it.
    #[inline(always)]
    fn begun(self, words: [u64; WORDS], at: u64) -> u64 {
        let at = self.all(at) | self.all(1 << self.bits);
        let mut begun = 0;
        for word in words {
            begun += (at - word) >> self.bits & self.all(1);
        }
        // The last lane of the product is the sum of all.
        self.all(begun) >> (self.apart() * (self.of_word() - 1)) & 0xf
    }
}

/// Where the nodes of a table lie: a BPF map, or a vector.
pub trait Nodes {
    fn node(&self, index: u32) -> Option<&Node>;
    /// The same number, of which the compiler knows nothing: or it would jump by it.
    #[must_use]
    #[inline(always)]
    fn opaque(number: u64) -> u64 {
        number
    }
}

/// A look-up that has begun.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// The address, left-aligned as two words.
    pub high: u64,
    pub low: u64,
    /// What the direct table of its family says at [`Search::root`].
    pub entry: u32,
}

impl Search {
    /// The place in the direct table of an address with these high bits.
    #[must_use]
    #[inline(always)]
    pub const fn root(high: u64) -> usize {
        (high >> (64 - ROOT_BITS)) as usize
    }

    /// The leaf of the longest prefix that holds the address. `None` only where the table
    /// contradicts itself.
    #[expect(clippy::cast_possible_truncation, reason = "strides are short")]
    #[inline(always)]
    pub fn leaf<N: Nodes>(self, nodes: &N) -> Option<u32> {
        let mut index = self.entry;
        if index & LEAF != 0 {
            return Some(index & !LEAF);
        }
        let mut high = self.high << ROOT_BITS | self.low >> (64 - ROOT_BITS);
        let mut low = self.low << ROOT_BITS;
        for _ in 0..MAX_DEPTH {
            let node = nodes.node(index)?;
            // Shifted in two steps, for none of 64 bits would be one too far.
            let skip = node.skip & 63;
            let differs = high >> 1 >> (63 - skip) ^ node.skip >> 8;
            high = high << skip | low >> 1 >> (63 - skip);
            low <<= skip;
            if node.skip & LIST | differs != 0 {
                // No jump: whether what is skipped is the same is anybody's guess, and a wrong one
                // holds up the next packet until the node has come.
                let is_same = N::opaque(differs.wrapping_sub(1) >> 63);
                return Some(if node.skip & IS_NARROW == 0 {
                    let begun = WIDE.begun(node.words, high >> (64 - WIDE.bits));
                    node.leaf((1 + begun) * is_same)
                } else {
                    let begun = NARROW.begun(node.words, high >> (64 - NARROW.bits));
                    u32::from(node.leaves[((1 + begun) * is_same) as usize % 16])
                });
            }
            let stride = node.stride();
            index = node.children() + (high >> (64 - stride)) as u32;
            high = high << stride | low >> (64 - stride);
            low <<= stride;
        }
        None
    }
}
