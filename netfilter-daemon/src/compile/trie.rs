//! Builds the prefix table that `netfilter_ebpf::table` looks up.

use netfilter_ebpf::table::{
    FAR, LEAF, LIST, MAX_SKIP, Memory, NEAR, Node, ROOT_BITS, ROOTS_PER_FAMILY, STARTS, STRIDE,
    WINDOW,
};

use super::prefixes::Prefix;

/// The table of one family. Its leaves are numbers of what holds at an address.
#[derive(Debug, Default)]
pub struct Trie {
    pub roots: Vec<u32>,
    pub nodes: Vec<Node>,
    pub leaves: Vec<u32>,
}

impl Trie {
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.roots.as_slice())
            + size_of_val(self.nodes.as_slice())
            + size_of_val(self.leaves.as_slice())
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
pub(super) type Entry = (Prefix, u32);

/// Builds the table of sorted, distinct prefixes. Addresses in none have number 0.
pub(super) fn build(prefixes: &[Entry]) -> Trie {
    let mut trie = Trie {
        roots: vec![LEAF; ROOTS_PER_FAMILY as usize],
        ..Trie::default()
    };
    let (wide, narrow): (Vec<Entry>, Vec<Entry>) = prefixes
        .iter()
        .partition(|(prefix, _)| u32::from(prefix.length) <= ROOT_BITS);
    for (prefix, held) in wide {
        // Sorted: what encloses comes first, and is overwritten.
        let first = window(prefix.bits, 0, ROOT_BITS);
        let count = 1usize << (ROOT_BITS - u32::from(prefix.length));
        trie.roots[first..first + count].fill(LEAF | held);
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
    /// `outside` holds for addresses there that are in none of them.
    fn fill(&mut self, node: usize, prefixes: &[Entry], depth: u32, outside: u32) {
        let skip = skip(prefixes, depth);
        let start = depth + skip;
        let skipped = u64::from(skip) | bits(prefixes[0].0.bits, depth, skip) << 8;
        if let Some(list) = list(prefixes, start, outside) {
            let skip = skipped | list.skip;
            self.nodes[node] = Node { skip, ..list };
            return;
        }
        let mut rest = prefixes;
        let mut slots: Vec<Slot<'_>> = vec![
            Slot {
                held: outside,
                below: &[]
            };
            1 << STRIDE
        ];
        while let Some((prefix, held)) = rest.first() {
            let length = u32::from(prefix.length);
            let slot = window(prefix.bits, start, STRIDE);
            if length <= start + STRIDE {
                let count = 1usize << (start + STRIDE - length);
                for slot in &mut slots[slot..slot + count] {
                    slot.held = *held;
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
        let first_child = self.reserve(children.len());
        let (mut internal, mut runs) = (0, 0);
        let mut leaves = vec![outside];
        for (slot, content) in slots.iter().enumerate() {
            if !content.below.is_empty() {
                internal |= 1 << slot;
            } else if runs == 0 || leaves.last() != Some(&content.held) {
                runs |= 1 << slot;
                leaves.push(content.held);
            }
        }
        let far = index(self.leaves.len());
        let near = near(&leaves).unwrap_or_else(|| {
            self.leaves.extend(leaves);
            [FAR; NEAR]
        });
        let branch = Node {
            skip: skipped,
            words: [internal, runs, 0],
            near,
        };
        self.nodes[node] = branch.leading_to(index(first_child), far);
        for (child, slot) in children.into_iter().enumerate() {
            self.fill(first_child + child, slot.below, start + STRIDE, slot.held);
        }
    }
}

/// The list of sorted prefixes that share `start` bits, without its skip. `None` where more is needed.
fn list(prefixes: &[Entry], start: u32, outside: u32) -> Option<Node> {
    let last = start + WINDOW;
    let mut ranges = vec![(0, outside)];
    let mut enclosing = vec![(1 << WINDOW, outside)];
    let mut begin = |at: usize, held: u32| {
        match ranges.last_mut() {
            Some((begun, of)) if *begun == at => *of = held,
            _ => ranges.push((at, held)),
        }
        ranges.dedup_by_key(|(_, held)| *held);
        ranges.len() <= 1 + STARTS
    };
    for (prefix, held) in prefixes {
        let length = u32::from(prefix.length);
        let at = window(prefix.bits, start, WINDOW);
        let end = at + (1 << last.checked_sub(length)?);
        // Those that end before.
        while let Some(&(ended, _)) = enclosing.last().filter(|(end, _)| *end <= at) {
            enclosing.pop();
            let (_, outer) = enclosing.last()?;
            begin(ended, *outer).then_some(())?;
        }
        begin(at, *held).then_some(())?;
        enclosing.push((end, *held));
    }
    while let Some((ended, _)) = enclosing.pop()
        && ended < 1 << WINDOW
    {
        let (_, outer) = enclosing.last()?;
        begin(ended, *outer).then_some(())?;
    }
    let mut words = [u64::MAX; 3];
    for (lane, (at, _)) in ranges.iter().skip(1).enumerate() {
        let shift = lane % 4 * 16;
        words[lane / 4] &= !(0xffff << shift);
        words[lane / 4] |= (*at as u64) << shift;
    }
    let (_, held) = *ranges.last()?;
    ranges.resize(1 + STARTS, (0, held));
    let held = ranges.iter().map(|(_, held)| *held);
    let leaves: Vec<u32> = std::iter::once(outside).chain(held).collect();
    Some(Node {
        skip: LIST,
        words,
        near: near(&leaves)?,
    })
}

/// A node's leaves, if it can hold them all.
fn near(leaves: &[u32]) -> Option<[u16; NEAR]> {
    let mut near = [0; NEAR];
    for (number, held) in leaves.iter().enumerate() {
        *near.get_mut(number)? = u16::try_from(*held).ok().filter(|held| *held != FAR)?;
    }
    Some(near)
}

#[derive(Clone)]
struct Slot<'a> {
    held: u32,
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
    let rest = key.checked_shl(start).unwrap_or(0);
    let aligned = rest.checked_shr(128 - count).unwrap_or(0); // where there are none
    u64::try_from(aligned).unwrap_or(0) // at most 56 bits
}

fn window(key: u128, start: u32, count: u32) -> usize {
    usize::try_from(bits(key, start, count)).unwrap_or(0)
}

fn index(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX) // beyond any table; a lookup there finds nothing
}

#[cfg(test)]
mod tests {
    use netfilter_ebpf::table;
    use proptest::prelude::*;

    use super::*;

    /// What holds at an address, asked of each prefix.
    fn longest(prefixes: &[Entry], address: u128) -> u32 {
        let holds = |prefix: &Prefix| {
            prefix.length == 0 || (prefix.bits ^ address) >> (128 - prefix.length) == 0
        };
        let holding = prefixes.iter().filter(|(prefix, _)| holds(prefix));
        let longest = holding.max_by_key(|(prefix, _)| prefix.length);
        longest.map_or(0, |(_, held)| *held)
    }

    fn looked_up(trie: &Trie, address: u128) -> Option<u32> {
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap();
        table::lookup(trie, (half(address >> 64), half(address)))
    }

    fn distinct(list: Vec<(u128, u8, u32)>) -> Vec<Entry> {
        let masked = |bits: u128, length: u8| match length {
            0 => 0,
            _ => bits >> (128 - length) << (128 - length),
        };
        let entries = list.into_iter().map(|(bits, length, held)| {
            let bits = masked(bits, length);
            (Prefix { bits, length }, held)
        });
        let distinct: std::collections::BTreeMap<Prefix, u32> = entries.collect();
        distinct.into_iter().collect()
    }

    /// Bits that are often alike, so that prefixes enclose each other and lie side by side; and
    /// so dense in places that lists overflow.
    fn clustered() -> impl Strategy<Value = u128> {
        let few = prop_oneof![Just(0u128), Just(u128::MAX), any::<u128>()];
        (few, any::<u128>(), 0u32..=128, 0u32..=128).prop_map(|(one, other, from, to)| {
            let (from, to) = (from.min(to), from.max(to));
            let between =
                u128::MAX.checked_shr(from).unwrap_or(0) & !u128::MAX.checked_shr(to).unwrap_or(0);
            one & !between | other & between
        })
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let held = prop_oneof![8 => 0u32..4, 1 => 65_533u32..65_537, 1 => any::<u16>().prop_map(u32::from)];
        let anywhere = (clustered(), 0u8..=128, held.clone());
        let near = (any::<u16>(), 100u8..=128, held).prop_map(|(low, length, held)| {
            (0x2001_0db8_u128 << 96 | u128::from(low), length, held)
        });
        prop_oneof![
            prop::collection::vec(anywhere, 0..60),
            prop::collection::vec(near, 0..400),
        ]
        .prop_map(distinct)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        /// Asked at random, and where something begins, ends and just beside.
        #[test]
        fn a_lookup_finds_what_the_longest_prefix_holds(
            prefixes in entries(),
            elsewhere in prop::collection::vec(clustered(), 20),
        ) {
            let trie = build(&prefixes);
            let ends = prefixes.iter().flat_map(|(Prefix { bits, length }, _)| {
                let last = bits | u128::MAX.checked_shr((*length).into()).unwrap_or(0);
                [*bits, last, bits.wrapping_sub(1), last.wrapping_add(1)]
            });
            for address in ends.chain(elsewhere) {
                prop_assert_eq!(looked_up(&trie, address), Some(longest(&prefixes, address)), "{:#x}", address);
            }
        }
    }

    /// A /16 of as many ranges as a list holds is one; of one more it is not.
    #[test]
    fn a_list_is_filled_to_its_end() {
        let hosts = |count: u128| -> Vec<Entry> {
            let host = |number| Prefix {
                bits: (0x0a01_0001 + 2 * number) << 96,
                length: 32,
            };
            (0..count).map(|number| (host(number), 7)).collect()
        };
        assert!(build(&hosts(6)).nodes[0].is_list());
        let trie = build(&hosts(7));
        assert!(!trie.nodes[0].is_list() && trie.leaves.is_empty());
        assert_eq!(looked_up(&trie, 0x0a01_000d << 96), Some(7));
    }
}
