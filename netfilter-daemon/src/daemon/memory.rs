//! Which name an address was last resolved from.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{datapath::Resolution, policy::name};

/// Addresses remembered. With the longest names there are, 7 MB.
const ADDRESSES: usize = 16_384;

/// Applications decide what is resolved, and so what is in here: it is bounded,
/// and what was resolved least recently goes first.
#[derive(Debug)]
pub(super) struct Memory {
    known: HashMap<IpAddr, Known>,
    /// By turn, the oldest first.
    order: BTreeMap<u64, IpAddr>,
    turn: u64,
    bound: usize,
}

#[derive(Debug)]
struct Known {
    /// In wire form, and shared by the addresses of an answer: as text, a hostile
    /// name is four times as long.
    name: Arc<[u8]>,
    at: u64,
    turn: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(ADDRESSES)
    }
}

impl Memory {
    fn new(bound: usize) -> Self {
        Self {
            known: HashMap::new(),
            order: BTreeMap::new(),
            turn: 0,
            bound,
        }
    }

    /// `now` in seconds since 1970.
    pub(super) fn learn(&mut self, resolution: &Resolution) {
        let name: Arc<[u8]> = resolution.name.as_slice().into();
        for &address in &resolution.addresses {
            self.turn += 1;
            let known = Known {
                name: Arc::clone(&name),
                at: resolution.time,
                turn: self.turn,
            };
            if let Some(former) = self.known.insert(address, known) {
                self.order.remove(&former.turn);
            }
            self.order.insert(self.turn, address);
            if self.known.len() > self.bound
                && let Some((_, oldest)) = self.order.pop_first()
            {
                self.known.remove(&oldest);
            }
        }
    }

    /// The name as text, and when it was resolved, in seconds since 1970.
    pub(super) fn name(&self, address: IpAddr) -> Option<(String, u64)> {
        let known = self.known.get(&address)?;
        Some((name::dotted(&known.name), known.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn learn(memory: &mut Memory, label: &str, addresses: impl IntoIterator<Item = u8>, now: u64) {
        let mut name = vec![u8::try_from(label.len()).unwrap()];
        name.extend(label.bytes());
        let addresses = addresses.into_iter().map(address).collect();
        let time = now;
        memory.learn(&Resolution {
            time,
            name,
            addresses,
            seen: 0,
            aliases: Vec::new(),
        });
    }

    fn names(memory: &Memory, addresses: impl IntoIterator<Item = u8>) -> Vec<Option<String>> {
        let name = |last| memory.name(address(last)).map(|(name, _)| name);
        addresses.into_iter().map(name).collect()
    }

    fn some(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn an_address_has_the_name_that_it_was_last_resolved_from_and_since_then() {
        let mut memory = Memory::default();
        learn(&mut memory, "one", [1, 2], 100);
        learn(&mut memory, "other", [2], 200);
        assert_eq!(memory.name(address(1)), Some(("one".to_owned(), 100)));
        assert_eq!(memory.name(address(2)), Some(("other".to_owned(), 200)));
        assert_eq!(memory.name(address(3)), None);
    }

    #[test]
    fn what_was_resolved_least_recently_goes_first() {
        let mut memory = Memory::new(3);
        learn(&mut memory, "one", [1, 2, 3], 1);
        learn(&mut memory, "again", [1], 2);
        learn(&mut memory, "more", [4], 3);
        assert_eq!(
            names(&memory, 1..=4),
            [some("again"), None, some("one"), some("more")]
        );
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let mut memory = Memory::new(16);
        for round in 0..1000 {
            let first = u8::try_from(round * 7 % 200).unwrap();
            learn(&mut memory, "x", first..first + 32, round);
            assert!(memory.known.len() <= 16 && memory.order.len() == memory.known.len());
        }
    }

    #[test]
    fn a_name_from_outside_holds_nothing_that_a_terminal_obeys() {
        let mut memory = Memory::default();
        learn(&mut memory, "a\u{1b}[2J\u{9b}.\n", [1], 1);
        assert_eq!(names(&memory, [1]), [some("a\\027[2J\\194\\155\\.\\010")]);
    }
}
