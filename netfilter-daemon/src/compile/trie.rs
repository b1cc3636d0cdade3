//! Builds the prefix table that `netfilter_ebpf::table` looks up.

use netfilter_ebpf::table::{
    IS_NARROW, LEAF, LIST, MAX_SKIP, NARROW, Node, Nodes, ROOT_BITS, ROOTS_PER_FAMILY, STRIDES,
    Search, WIDE,
};

use super::prefixes::Prefix;

/// The table of one family. Its leaves are numbers of what holds at an address.
#[derive(Debug, Default)]
pub struct Trie {
    pub roots: Vec<u32>,
    pub nodes: Vec<Node>,
}

impl Trie {
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.roots.as_slice()) + size_of_val(self.nodes.as_slice())
    }

    /// The number of what holds at a left-aligned address, as the kernel finds it.
    pub(super) fn lookup(&self, (high, low): (u64, u64)) -> Option<u32> {
        let entry = *self.roots.get(Search::root(high))?;
        Search { high, low, entry }.leaf(self)
    }
}

impl Nodes for Trie {
    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)
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
        let node = trie.nodes.len();
        trie.nodes.push(Node::default());
        trie.roots[root] = index(node);
        trie.fill(node, group, ROOT_BITS, outside);
    }
    trie
}

impl Trie {
    /// Fills `node` with prefixes that share `depth` bits and are all longer.
    /// `outside` holds for addresses there that are in none of them.
    fn fill(&mut self, node: usize, prefixes: &[Entry], depth: u32, outside: u32) {
        let skip = skip(prefixes, depth);
        let start = depth + skip;
        let skipped = u64::from(skip) | bits(prefixes[0].0.bits, depth, skip) << 8;
        // One kind wherever it can be, so that which comes is guessed right.
        let is_near = prefixes
            .iter()
            .all(|(prefix, _)| u32::from(prefix.length) <= depth + 1 + NARROW.bits);
        let found = [is_near, !is_near]
            .into_iter()
            .find_map(|narrow| list(prefixes, start, outside, narrow));
        if let Some(list) = found {
            let skip = skipped | list.skip;
            self.nodes[node] = Node { skip, ..list };
            return;
        }
        let stride = stride(prefixes.len(), is_near);
        let first = self.nodes.len();
        let branch = Node {
            skip: skipped,
            ..everywhere(outside)
        };
        self.nodes[node] = branch.leading_to(index(first), stride.into());
        self.nodes
            .resize(first + (1 << stride), everywhere(outside));
        let mut rest = prefixes;
        while let Some((prefix, held)) = rest.first() {
            let length = u32::from(prefix.length);
            let number = window(prefix.bits, start, stride);
            let child = first + number;
            if length <= start + stride {
                // Sorted, as above.
                let count = 1usize << (start + stride - length);
                self.nodes[child..child + count].fill(everywhere(*held));
                rest = &rest[1..];
            } else {
                let same = rest
                    .iter()
                    .take_while(|(other, _)| window(other.bits, start, stride) == number);
                let (below, behind) = rest.split_at(same.count());
                let outside = self.nodes[child].leaf(0);
                self.fill(child, below, start + stride, outside);
                rest = behind;
            }
        }
    }
}

/// A node of the one thing that holds there.
fn everywhere(held: u32) -> Node {
    Node {
        skip: LIST,
        words: [WIDE.unused(); 3],
        leaves: wide(|_| held),
    }
}

/// The leaves of a node that is no narrow list, from their numbers.
fn wide(leaf: impl Fn(usize) -> u32) -> [u16; 16] {
    let halves = |number: usize| {
        let [a, b, c, d] = leaf(number).to_le_bytes();
        [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
    };
    std::array::from_fn(|place| halves(place / 2)[place % 2])
}

/// Bits that a branch with so many prefixes below consumes. A child that can be a narrow list
/// has room for three or more.
fn stride(prefixes: usize, is_near: bool) -> u32 {
    let children = if is_near { prefixes / 3 } else { prefixes };
    children
        .max(1)
        .ilog2()
        .clamp(*STRIDES.start(), *STRIDES.end())
}

/// The list of sorted prefixes that share `start` bits, without its skip. `None` where more is needed.
fn list(prefixes: &[Entry], start: u32, outside: u32, narrow: bool) -> Option<Node> {
    let lanes = if narrow { NARROW } else { WIDE };
    let bits = lanes.bits;
    let last = start + bits;
    let mut ranges = vec![(0, outside)];
    let mut enclosing = vec![(1 << bits, outside)];
    let mut begin = |at: usize, held: u32| {
        match ranges.last_mut() {
            Some((begun, of)) if *begun == at => *of = held,
            _ => ranges.push((at, held)),
        }
        ranges.dedup_by_key(|(_, held)| *held);
        ranges.len() <= 1 + lanes.count()
    };
    for (prefix, held) in prefixes {
        let length = u32::from(prefix.length);
        let at = window(prefix.bits, start, bits);
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
        && ended < 1 << bits
    {
        let (_, outer) = enclosing.last()?;
        begin(ended, *outer).then_some(())?;
    }
    // What holds at the end of all holds in lanes that are not used.
    let mut words = [lanes.unused(); 3];
    for (number, (at, _)) in (0..).zip(ranges.iter().skip(1)) {
        let word = &mut words[(number / lanes.of_word()) as usize];
        *word = lanes.with(*word, number % lanes.of_word(), *at as u64);
    }
    let leaf = |number: usize| match number.checked_sub(1) {
        None => outside,
        Some(range) => ranges[range.min(ranges.len() - 1)].1,
    };
    let mut node = Node {
        skip: LIST,
        words,
        leaves: wide(leaf),
    };
    if narrow {
        node.skip |= IS_NARROW;
        for (number, place) in node.leaves.iter_mut().enumerate() {
            *place = u16::try_from(leaf(number)).ok()?;
        }
    }
    Some(node)
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
        trie.lookup((half(address >> 64), half(address)))
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
        let full = NARROW.count() as u128 / 2;
        for count in [full, full + 1] {
            let trie = build(&hosts(count));
            assert_eq!(trie.nodes[0].is_list(), count == full);
            let last = 2 * count - 1;
            for (at, held) in [
                (0, 0),
                (1, 7),
                (2, 0),
                (last, 7),
                (last + 1, 0),
                (0xffff, 0),
            ] {
                assert_eq!(looked_up(&trie, (0x0a01_0000 + at) << 96), Some(held));
            }
        }
    }
}
