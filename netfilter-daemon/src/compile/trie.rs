//! Builds the prefix table that `netfilter_ebpf::table` looks up.

use std::collections::HashMap;

use netfilter_ebpf::table::{LEAF, MAX_SKIP, Memory, Node, ROOT_BITS, ROOTS_PER_FAMILY, STRIDE};

use super::prefixes::{Held, Prefix};

/// The table of one family.
#[derive(Debug, Default)]
pub struct Trie {
    pub roots: Vec<u32>,
    pub nodes: Vec<Node>,
    pub leaves: Vec<u32>,
    /// Beside the roots and the leaves: where the chain of deciders begins.
    pub root_deciders: Vec<u32>,
    pub leaf_deciders: Vec<u32>,
}

/// The same table, asked for who decides.
#[derive(Debug, Clone, Copy)]
pub struct ByDecider<'a>(pub &'a Trie);

impl Memory for ByDecider<'_> {
    fn root(&self, index: u32) -> Option<u32> {
        match self.0.root(index)? {
            class if class & LEAF != 0 => {
                let first = self.0.root_deciders.get(index as usize)?;
                Some(LEAF | first)
            }
            node => Some(node),
        }
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.0.node(index)
    }

    fn leaf(&self, index: u32) -> Option<u32> {
        self.0.leaf_deciders.get(index as usize).copied()
    }
}

impl Trie {
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.roots.as_slice())
            + size_of_val(self.nodes.as_slice())
            + 2 * size_of_val(self.leaves.as_slice())
            + size_of_val(self.root_deciders.as_slice())
    }
}

impl Memory for Trie {
    fn root(&self, index: u32) -> Option<u32> {
        self.roots.get(index as usize).copied()
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)
    }

    fn leaf(&self, index: u32) -> Option<u32> {
        self.leaves.get(index as usize).copied()
    }
}

/// A prefix, and the number of what holds there.
type Entry = (Prefix, u32);

/// Builds the table of sorted, distinct prefixes. Addresses in none have class 0 and nobody
/// who decides.
pub(super) fn build(prefixes: &[(Prefix, Held)]) -> Trie {
    let mut all = vec![Held::default()];
    let mut known = HashMap::from([(Held::default(), 0)]);
    let entries: Vec<Entry> = prefixes
        .iter()
        .map(|&(prefix, held)| {
            let number = *known.entry(held).or_insert_with(|| {
                all.push(held);
                index(all.len() - 1)
            });
            (prefix, number)
        })
        .collect();
    let mut trie = of_entries(&entries);
    let held = |number: u32| all.get(number as usize).copied().unwrap_or_default();
    let leaves = || trie.leaves.iter().map(|&number| held(number));
    let leaf_deciders = leaves().map(|held| held.decider).collect();
    let classes = leaves().map(|held| held.class).collect();
    (trie.leaves, trie.leaf_deciders) = (classes, leaf_deciders);
    for root in &mut trie.roots {
        let mut decider = 0;
        if *root & LEAF != 0 {
            let Held {
                class,
                decider: of_root,
            } = held(*root & !LEAF);
            (*root, decider) = (LEAF | class, of_root);
        }
        trie.root_deciders.push(decider);
    }
    trie
}

fn of_entries(prefixes: &[Entry]) -> Trie {
    let mut trie = Trie {
        roots: vec![LEAF; ROOTS_PER_FAMILY as usize],
        ..Trie::default()
    };
    let (wide, narrow): (Vec<Entry>, Vec<Entry>) = prefixes
        .iter()
        .partition(|(prefix, _)| u32::from(prefix.length) <= ROOT_BITS);
    for (prefix, class) in wide {
        // Sorted: what encloses comes first, and is overwritten.
        let first = window(prefix.bits, 0, ROOT_BITS);
        let count = 1usize << (ROOT_BITS - u32::from(prefix.length));
        trie.roots[first..first + count].fill(LEAF | class);
    }
    for group in narrow.chunk_by(|(one, _), (other, _)| {
        one.bits >> (128 - ROOT_BITS) == other.bits >> (128 - ROOT_BITS)
    }) {
        let root = window(group[0].0.bits, 0, ROOT_BITS);
        let outside = trie.roots[root] & !LEAF;
        let node = trie.reserve(1);
        trie.fill(node, group, ROOT_BITS, outside);
        trie.roots[root] = index(node);
    }
    trie
}

impl Trie {
    fn reserve(&mut self, count: usize) -> usize {
        let first = self.nodes.len();
        self.nodes.resize(first + count, Node::default());
        first
    }

    /// Fills `node` with prefixes that share `depth` bits and are all longer.
    /// `outside` is the class of addresses there that are in none of them.
    fn fill(&mut self, node: usize, prefixes: &[Entry], depth: u32, outside: u32) {
        let skip = skip(prefixes, depth);
        let start = depth + skip;
        let mut filled = Node {
            leaves: index(self.leaves.len()),
            ..Node::default()
        };
        if skip > 0 {
            filled.skip = u64::from(skip) | (bits(prefixes[0].0.bits, depth, skip) << 8);
            self.leaves.push(outside);
        }
        let mut rest = prefixes;
        let mut slots: Vec<Slot<'_>> = vec![
            Slot {
                class: outside,
                below: &[]
            };
            1 << STRIDE
        ];
        while let Some((prefix, class)) = rest.first() {
            let length = u32::from(prefix.length);
            let slot = window(prefix.bits, start, STRIDE);
            if length <= start + STRIDE {
                let count = 1usize << (start + STRIDE - length);
                for slot in &mut slots[slot..slot + count] {
                    slot.class = *class;
                }
                rest = &rest[1..];
            } else {
                let same = rest.iter().take_while(|(other, _)| {
                    u32::from(other.length) > start + STRIDE
                        && window(other.bits, start, STRIDE) == slot
                });
                let (below, behind) = rest.split_at(same.count());
                slots[slot].below = below;
                rest = behind;
            }
        }
        let children: Vec<&Slot<'_>> = slots.iter().filter(|slot| !slot.below.is_empty()).collect();
        filled.children = index(self.reserve(children.len()));
        let mut run = None;
        for (slot, content) in slots.iter().enumerate() {
            if !content.below.is_empty() {
                filled.internal |= 1 << slot;
            } else if run != Some(content.class) {
                filled.runs |= 1 << slot;
                self.leaves.push(content.class);
                run = Some(content.class);
            }
        }
        self.nodes[node] = filled;
        for (child, slot) in children.into_iter().enumerate() {
            self.fill(
                filled.children as usize + child,
                slot.below,
                start + STRIDE,
                slot.class,
            );
        }
    }
}

#[derive(Clone)]
struct Slot<'a> {
    class: u32,
    /// Prefixes that go on below.
    below: &'a [Entry],
}

/// How many bits can be compared at once: those that all share, short of where the
/// shortest ends, so that it still falls into the stride behind.
fn skip(prefixes: &[Entry], depth: u32) -> u32 {
    let (Some((first, _)), Some((last, _))) = (prefixes.first(), prefixes.last()) else {
        return 0;
    };
    let shared = (first.bits ^ last.bits).leading_zeros();
    let shortest = prefixes
        .iter()
        .map(|(prefix, _)| u32::from(prefix.length))
        .min()
        .unwrap_or(depth + 1);
    (shared.min(shortest - 1) - depth).min(MAX_SKIP)
}

/// `count` bits from `start` on, right-aligned; zeros behind the end.
fn bits(key: u128, start: u32, count: u32) -> u64 {
    let aligned = key.checked_shl(start).unwrap_or(0) >> (128 - count);
    u64::try_from(aligned).unwrap_or(0) // at most 56 bits
}

fn window(key: u128, start: u32, count: u32) -> usize {
    usize::try_from(bits(key, start, count)).unwrap_or(0)
}

fn index(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX) // beyond any table; a lookup there finds nothing
}
