//! The prefix table: a path-compressed multibit trie whose ends are short lists of ranges.
//!
//! The first 16 bits of an address index a direct table. Each node below can first compare a run
//! of up to 56 bits (path compression, so IPv6 costs no more levels than its prefixes have
//! branches), and is of one of three kinds. A *branch* consumes as many bits as make about a child
//! for each prefix below (level compression: Nilsson & Karlsson, JSAC 1999); its children stand
//! side by side, and the bits are the number of one. A *list* ends the search: it holds where
//! ranges begin, as DXR does (Zec, Rizzo & Mikuc, CCR 2012), and they are compared all at once,
//! without a jump that could be guessed wrong. A *narrow* one tells apart twelve in the next 16
//! bits, and is for what ends there, as IPv4 does; others six in 32. Most subtrees are so
//! sparse that a list is all of them. A node is a cache line. One structure serves both families.

/// Bits that the direct table consumes.
pub const ROOT_BITS: u32 = 16;
/// Entries of the direct table of one family.
pub const ROOTS_PER_FAMILY: u32 = 1 << ROOT_BITS;
/// Bits that a branch consumes after its skip, at least and at most.
pub const STRIDES: core::ops::RangeInclusive<u32> = 1..=16;
/// Bits after its skip that a list tells apart, and places in it where another range begins.
pub const WIDE: (u32, usize) = (32, 6);
/// Of a narrow list.
pub const NARROW: (u32, usize) = (16, 12);
/// Bits that one node's skip can compare.
pub const MAX_SKIP: u32 = 56;
/// Nodes on the longest path, at most: of 112 bits a branch takes two, but one where fewer than four
/// prefixes are below it, of which there are no more than six in a row; and a list.
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
    pub words: [u64; 3],
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
    #[inline(always)]
    pub fn leaf(&self, number: u32) -> u32 {
        let place = number as usize % 8 * 2;
        u32::from(self.leaves[place]) | u32::from(self.leaves[place + 1]) << 16
    }

    /// How many of a list's ranges, but for the first, begin at `at` or before. Each place is
    /// subtracted from `at` with a one above it, which stays where nothing is borrowed of it.
    #[inline(always)]
    fn begun(&self, at: u64) -> u32 {
        const GUARD: u64 = 1 << 32;
        const LANE: u64 = GUARD - 1;
        let at = at | GUARD;
        let mut begun = 0;
        for starts in self.words {
            begun += (at - (starts & LANE)) & GUARD;
            begun += (at - (starts >> 32)) & GUARD;
        }
        (begun >> 32) as u32
    }

    /// Of a narrow list; two lanes at a time.
    #[inline(always)]
    fn begun_narrow(&self, at: u64) -> u32 {
        const GUARDS: u64 = 0x0001_0000_0001_0000;
        const LANES: u64 = 0x0000_ffff_0000_ffff;
        let at = at | at << 32 | GUARDS;
        let mut begun = 0;
        for starts in self.words {
            begun += (at - (starts & LANES)) & GUARDS;
            begun += (at - (starts >> 16 & LANES)) & GUARDS;
        }
        (begun >> 16 & 0xffff) as u32 + (begun >> 48) as u32
    }
}

/// Where the table of one family lies: BPF maps, or vectors.
pub trait Memory {
    /// Entry of the direct table.
    fn root(&self, index: u32) -> Option<u32>;
    fn node(&self, index: u32) -> Option<&Node>;
}

/// The leaf of the longest prefix that holds the address, given left-aligned
/// as two words. `None` only where the table contradicts itself.
#[expect(clippy::cast_possible_truncation, reason = "strides are short")]
#[inline(always)]
pub fn lookup<M: Memory>(memory: &M, (mut high, mut low): (u64, u64)) -> Option<u32> {
    let mut index = memory.root((high >> (64 - ROOT_BITS)) as u32)?;
    if index & LEAF != 0 {
        return Some(index & !LEAF);
    }
    high = high << ROOT_BITS | low >> (64 - ROOT_BITS);
    low <<= ROOT_BITS;
    for _ in 0..MAX_DEPTH {
        let node = memory.node(index)?;
        // Shifted in two steps, for none of 64 bits would be one too far.
        let skip = node.skip & 63;
        let differs = high >> 1 >> (63 - skip) ^ node.skip >> 8;
        high = high << skip | low >> 1 >> (63 - skip);
        low <<= skip;
        if node.skip & LIST | differs != 0 {
            // No jump: whether what is skipped is the same is anybody's guess.
            let is_same = (differs.wrapping_sub(1) >> 63) as u32;
            return Some(if node.skip & IS_NARROW == 0 {
                node.leaf((1 + node.begun(high >> 32)) * is_same)
            } else {
                let number = (1 + node.begun_narrow(high >> 48)) * is_same;
                u32::from(node.leaves[number as usize % 16])
            });
        }
        let stride = node.stride();
        index = node.children() + (high >> (64 - stride)) as u32;
        high = high << stride | low >> (64 - stride);
        low <<= stride;
    }
    None
}
