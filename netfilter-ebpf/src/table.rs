//! The prefix table: a path-compressed multibit trie whose ends are short lists of ranges.
//!
//! After poptrie (Asai & Ohara, SIGCOMM 2015): the first 16 bits of an address
//! index a direct table, each node below can first compare a run of up to 56 bits (path
//! compression, so IPv6 costs no more levels than its prefixes have branches), and is of one of
//! two kinds. A *branch* consumes six bits. It holds two 64-bit vectors, one that says
//! which of the 64 slots go on to a child and one that marks where a run of equal leaves begins,
//! so that children and leaves are stored densely and found by counting bits. A *list* ends the
//! search: of the next 16 bits it holds where up to twelve ranges begin, as DXR does (Zec, Rizzo &
//! Mikuc, CCR 2012), and they are compared all at once, without a jump that could be guessed
//! wrong. Most subtrees are so sparse that a list is all of them. A node is a cache line with its
//! leaves in it. One structure serves both families.

/// Bits that the direct table consumes.
pub const ROOT_BITS: u32 = 16;
/// Entries of the direct table of one family.
pub const ROOTS_PER_FAMILY: u32 = 1 << ROOT_BITS;
/// Bits that a branch consumes after its skip.
pub const STRIDE: u32 = 6;
/// Bits after its skip that a list tells apart.
pub const WINDOW: u32 = 16;
/// Places in a list where another range begins.
pub const STARTS: usize = 12;
/// Bits that one node's skip can compare.
pub const MAX_SKIP: u32 = 56;
/// Nodes on the longest path: 112 bits in strides of six.
pub const MAX_DEPTH: u32 = 19;
/// Set in an entry that is a leaf; the rest is its number. Clear: the rest is a node's index.
pub const LEAF: u32 = 1 << 31;
/// Leaves that a node holds itself.
pub const NEAR: usize = 16;
/// In place of one that is no 16-bit number: it is among the far leaves.
pub const FAR: u16 = u16::MAX;
/// Set in the skip of a list.
pub const LIST: u64 = 1 << 7;

/// A node. Its size is a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(64))]
pub struct Node {
    /// High 56 bits: what the skipped bits must be, right-aligned. Low 6 bits: how many. And [`LIST`].
    pub skip: u64,
    /// Of a list: where ranges begin, in lanes of 16 bits; lanes that are not needed hold ones.
    ///
    /// Of a branch: slots that go on to a child; slots at which a run of equal leaves begins; and
    /// the index of the first child, with that of the first far leaf above it.
    pub words: [u64; 3],
    /// The first is for whatever does not match the skip. Behind it those of the ranges, of a list
    /// as many as there can be; or of the runs. A branch for which there is no room here
    /// has all of them among the far leaves instead.
    pub near: [u16; NEAR],
}

const _: () = assert!(core::mem::size_of::<Node>() == 64);

impl Node {
    /// Index of a branch's first child.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    #[inline(always)]
    pub const fn children(&self) -> u32 {
        self.words[2] as u32
    }

    /// Index of its first far leaf.
    #[must_use]
    #[inline(always)]
    pub const fn far(&self) -> u32 {
        (self.words[2] >> 32) as u32
    }

    /// The branch with its children and far leaves there.
    #[must_use]
    pub const fn leading_to(mut self, children: u32, far: u32) -> Self {
        self.words[2] = (far as u64) << 32 | children as u64;
        self
    }

    #[must_use]
    pub const fn is_list(&self) -> bool {
        self.skip & LIST != 0
    }
}

/// Where the table of one family lies: BPF maps, or vectors.
pub trait Memory {
    /// Entry of the direct table.
    fn root(&self, index: u32) -> Option<u32>;
    fn node(&self, index: u32) -> Option<&Node>;
    /// A leaf's number.
    fn leaf(&self, index: u32) -> Option<u32>;
}

/// The leaf of the longest prefix that holds the address, given left-aligned
/// as two words. `None` only where the table contradicts itself.
#[inline(always)]
pub fn lookup<M: Memory>(memory: &M, (mut high, mut low): (u64, u64)) -> Option<u32> {
    let mut entry = memory.root((high >> (64 - ROOT_BITS)) as u32)?;
    high = high << ROOT_BITS | low >> (64 - ROOT_BITS);
    low <<= ROOT_BITS;
    for _ in 0..MAX_DEPTH {
        if entry & LEAF != 0 {
            return Some(entry & !LEAF);
        }
        let node = memory.node(entry)?;
        // Shifted in two steps, for none of 64 bits would be one too far.
        let skip = node.skip & 63;
        let differs = high >> 1 >> (63 - skip) ^ node.skip >> 8;
        high = high << skip | low >> 1 >> (63 - skip);
        low <<= skip;
        if node.is_list() {
            // No jump: whether what is skipped is the same is anybody's guess.
            let is_same = differs.wrapping_sub(1) >> 63;
            let number = (1 + begun(node, high >> (64 - WINDOW))) * is_same as u32;
            return leaf(memory, node, number);
        }
        if differs != 0 {
            return leaf(memory, node, 0);
        }
        let [internal, runs, _] = node.words;
        let bit = 1u64 << (high >> (64 - STRIDE));
        if internal & bit == 0 {
            return leaf(memory, node, ones(runs & (bit | (bit - 1))));
        }
        entry = node.children() + ones(internal & (bit - 1));
        high = high << STRIDE | low >> (64 - STRIDE);
        low <<= STRIDE;
    }
    (entry & LEAF != 0).then_some(entry & !LEAF)
}

/// The one of a node's leaves with this number. Of a node with more than it can hold all are
/// far, so it does not matter which one is looked at.
#[inline(always)]
fn leaf<M: Memory>(memory: &M, node: &Node, number: u32) -> Option<u32> {
    match node.near[number as usize % NEAR] {
        FAR => memory.leaf(node.far() + number),
        near => Some(u32::from(near)),
    }
}

/// How many of a list's ranges, but for the first, begin at `at` or before. Two lanes at a time
/// are subtracted from `at` with a one above it, which stays where nothing is borrowed of it.
#[inline(always)]
fn begun(node: &Node, at: u64) -> u32 {
    const LANES: u64 = 0x0000_ffff_0000_ffff;
    const GUARDS: u64 = 0x0001_0000_0001_0000;
    let at = at | at << 32 | GUARDS;
    let mut begun = 0;
    for starts in node.words {
        begun += (at - (starts & LANES)) & GUARDS;
        begun += (at - (starts >> 16 & LANES)) & GUARDS;
    }
    (begun >> 16 & 0xffff) as u32 + (begun >> 48) as u32
}

/// Set bits. BPF has no instruction for it; this is the usual sum by halves
/// (Hacker's Delight, 5-1).
#[inline(always)]
const fn ones(word: u64) -> u32 {
    if cfg!(target_arch = "bpf") {
        let pairs = word - (word >> 1 & 0x5555_5555_5555_5555);
        let nibbles = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
        let bytes = (nibbles + (nibbles >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
        (bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
    } else {
        word.count_ones()
    }
}
