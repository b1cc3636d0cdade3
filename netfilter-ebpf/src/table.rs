//! The prefix table: a path-compressed multibit trie with compressed leaves.
//!
//! After poptrie (Asai & Ohara, SIGCOMM 2015): the first 16 bits of an address
//! index a direct table, each node below consumes six. A node holds two 64-bit
//! vectors, one that says which of the 64 slots go on to a child and one that
//! marks where a run of equal leaves begins, so that children and leaves are
//! stored densely and found by counting bits. To it comes path compression: a
//! node can first compare a run of up to 56 bits, so IPv6 costs no more levels
//! than its prefixes have branches. One structure serves both families.

/// Bits that the direct table consumes.
pub const ROOT_BITS: u32 = 16;
/// Entries of the direct table of one family.
pub const ROOTS_PER_FAMILY: u32 = 1 << ROOT_BITS;
/// Bits that a node consumes after its skip.
pub const STRIDE: u32 = 6;
/// Bits that one node's skip can compare.
pub const MAX_SKIP: u32 = 56;
/// Nodes on the longest path: 112 bits in strides of six.
pub const MAX_DEPTH: u32 = 19;
/// Set in an entry that is a leaf; the rest is the class. Clear: the rest is a node's index.
pub const LEAF: u32 = 1 << 31;

/// A node. Its size is half a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(32))]
pub struct Node {
    /// Slots that go on to a child.
    pub internal: u64,
    /// Slots at which a run of equal leaves begins.
    pub runs: u64,
    /// High 56 bits: what the skipped bits must be, right-aligned. Low 8 bits: how many.
    pub skip: u64,
    /// Index of the first child.
    pub children: u32,
    /// Index of the first leaf. With a skip, that one is the class of
    /// whatever does not match it, and the runs begin behind.
    pub leaves: u32,
}

const _: () = assert!(core::mem::size_of::<Node>() == 32);

/// Where the table of one family lies: BPF maps, or vectors.
pub trait Memory {
    /// Entry of the direct table.
    fn root(&self, index: u32) -> Option<u32>;
    fn node(&self, index: u32) -> Option<&Node>;
    /// A leaf's class.
    fn leaf(&self, index: u32) -> Option<u32>;
}

/// The class of the longest prefix that holds the address, given left-aligned
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
        let mut leaves = node.leaves;
        if node.skip != 0 {
            let bits = node.skip & 63;
            if high >> ((64 - bits) & 63) != node.skip >> 8 {
                return memory.leaf(leaves);
            }
            high = high << bits | low >> ((64 - bits) & 63);
            low <<= bits;
            leaves += 1;
        }
        let bit = 1u64 << (high >> (64 - STRIDE));
        if node.internal & bit == 0 {
            return memory.leaf(leaves + ones(node.runs & (bit | (bit - 1))) - 1);
        }
        entry = node.children + ones(node.internal & (bit - 1));
        high = high << STRIDE | low >> (64 - STRIDE);
        low <<= STRIDE;
    }
    (entry & LEAF != 0).then_some(entry & !LEAF)
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
