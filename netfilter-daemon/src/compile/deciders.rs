//! Which rule decides where: kept beside the tables, so that the programs can count for
//! each rule the flows that it let out or denied.
//!
//! Of several rules that do the same to a packet, the one decides whose prefix or name is the
//! most specific; of those, the first in the policy's order.

use netfilter_ebpf::abi::{
    AtomSet, DECIDER_ALLOWS, DECIDER_AUDITS, DECIDER_DENIES, DECIDERS_AT_ONCE, Decider,
};

use super::Numbered;
use crate::policy::{Action, Rule};

/// A rule's key in the kernel. It is the same in every policy that has a rule of this name.
pub fn key(name: &str) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    let first = digest.as_ref().first_chunk().copied();
    u64::from_be_bytes(first.unwrap_or_default()) // it has 32
}

/// Chains of deciders; equal ends are one. The first is nobody, and the end of each.
#[derive(Default)]
pub(crate) struct Deciders(pub(super) Numbered<Decider>);

impl Deciders {
    pub(crate) const NOBODY: u32 = 0;

    /// What `rule` says of these atoms.
    pub(super) fn of(rule: &Rule, atoms: AtomSet) -> Decider {
        Decider {
            atoms,
            rule: key(&rule.name),
            next: Self::NOBODY,
            action: match rule.action {
                Action::Allow => DECIDER_ALLOWS,
                Action::Deny => DECIDER_DENIES,
                Action::Audit => DECIDER_AUDITS,
            },
        }
    }

    /// The chain that asks `first`, in their order, and then those of the chain `rest`.
    pub(super) fn chain(&mut self, first: &[Decider], rest: u32) -> u32 {
        if first.is_empty() {
            return rest;
        }
        let mut asked: Vec<Decider> = Vec::new();
        let mut told = [AtomSet::EMPTY; DECIDER_AUDITS as usize + 1];
        for decider in first.iter().copied().chain(self.walk(rest)) {
            if let Some(known) = told.get_mut(decider.action as usize)
                && !decider.atoms.without(known).is_empty()
            {
                *known = known.union(&decider.atoms);
                asked.push(decider);
            }
        }
        asked.truncate(DECIDERS_AT_ONCE as usize);
        let mut next = Self::NOBODY;
        for decider in asked.into_iter().rev() {
            next = self.0.index(Decider { next, ..decider });
        }
        next
    }

    /// All that a chain audits.
    pub(super) fn audited(&self, first: u32) -> AtomSet {
        self.walk(first)
            .filter(|decider| decider.action == DECIDER_AUDITS)
            .fold(AtomSet::EMPTY, |set, decider| set.union(&decider.atoms))
    }

    fn walk(&self, first: u32) -> impl Iterator<Item = Decider> {
        walk(&self.0.list, first)
    }
}

/// The deciders of a chain, in the order in which they are asked.
pub(super) fn walk(list: &[Decider], first: u32) -> impl Iterator<Item = Decider> {
    let at = |index: u32| list.get(index as usize).filter(|_| index != 0).copied();
    std::iter::successors(at(first), move |decider| at(decider.next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(rule: u64, action: u32, atoms: &[u8]) -> Decider {
        let mut set = AtomSet::EMPTY;
        atoms.iter().for_each(|atom| set.insert(*atom));
        Decider {
            atoms: set,
            rule,
            next: 0,
            action,
        }
    }

    fn rules(deciders: &Deciders, chain: u32) -> Vec<u64> {
        deciders.walk(chain).map(|decider| decider.rule).collect()
    }

    #[test]
    fn the_more_specific_is_asked_first_and_who_says_nothing_new_not_at_all() {
        let mut deciders = Deciders::default();
        let wide = deciders.chain(&[says(1, DECIDER_ALLOWS, &[2, 3])], 0);
        let narrow = [says(2, DECIDER_ALLOWS, &[3]), says(3, DECIDER_ALLOWS, &[3])];
        let chain = deciders.chain(&narrow, wide);
        assert_eq!(rules(&deciders, chain), [2, 1]);
        // What denies says something else about the same atom than what allows.
        let chain = deciders.chain(&[says(4, DECIDER_DENIES, &[3])], wide);
        assert_eq!(rules(&deciders, chain), [4, 1]);
        let chain = deciders.chain(&[says(5, DECIDER_ALLOWS, &[2, 3, 4])], wide);
        assert_eq!(rules(&deciders, chain), [5]);
    }

    #[test]
    fn equal_ends_are_kept_once() {
        let mut deciders = Deciders::default();
        let wide = deciders.chain(&[says(1, DECIDER_ALLOWS, &[2])], 0);
        for rule in 2..100 {
            deciders.chain(&[says(rule, DECIDER_ALLOWS, &[3])], wide);
        }
        assert_eq!(deciders.0.list.len(), 1 + 1 + 98);
        assert_eq!(deciders.chain(&[says(1, DECIDER_ALLOWS, &[2])], 0), wide);
    }

    #[test]
    fn no_chain_is_longer_than_is_walked() {
        let mut deciders = Deciders::default();
        let mut chain = 0;
        for action in [DECIDER_ALLOWS, DECIDER_DENIES, DECIDER_AUDITS] {
            for atom in 0..=255 {
                chain = deciders.chain(&[says(u64::from(atom), action, &[atom])], chain);
            }
        }
        assert_eq!(rules(&deciders, chain).len(), DECIDERS_AT_ONCE as usize);
    }
}
