//! The rules' names, flattened: each entry's rights are the union of all patterns
//! that enclose it, and the apex of a wildcard has an entry of its own.

use std::collections::{BTreeMap, BTreeSet};

use netfilter_ebpf::{
    abi::{ATOM_AUDITS, AtomSet, DECIDER_AUDITS, Decider, Grant, NAME_ID_NONE},
    egress::Lent,
};

use super::{Rights, deciders::Deciders, name_rights};
use crate::policy::{Pattern, Policy};

/// An entry of the name table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub pattern: Pattern,
    /// What an address that this name lends may be used for, and [`ATOM_AUDITS`] where more
    /// than that is [`audited`](Self::audited).
    pub set: AtomSet,
    /// What it may be used for, and is counted as what would have been dropped.
    pub audited: AtomSet,
    /// It may be asked for although it lends nothing.
    pub asked: bool,
    /// Where the chain of those begins who decide on what it lends.
    pub decider: u32,
}

/// Where the names of private, link-local and unique local addresses are (RFC
/// 6303 sections 4.1, 4.2 and 4.4 to 4.6; the 172.16/12 block is sixteen zones).
const PRIVATE_REVERSE: [&str; 9] = [
    "10.in-addr.arpa",
    "168.192.in-addr.arpa",
    "254.169.in-addr.arpa",
    "c.f.ip6.arpa",
    "d.f.ip6.arpa",
    "8.e.f.ip6.arpa",
    "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa",
    "b.e.f.ip6.arpa",
];

fn private_reverse() -> impl Iterator<Item = Pattern> {
    let blocks = (16..32).map(|block| format!("{block}.172.in-addr.arpa"));
    PRIVATE_REVERSE
        .into_iter()
        .map(str::to_owned)
        .chain(blocks)
        .flat_map(|zone| [format!("*.{zone}"), zone])
        .filter_map(|pattern| pattern.parse().ok())
}

impl Name {
    /// Whether a question for it goes out.
    pub fn may_be_asked(&self) -> bool {
        self.asked || !self.set.is_empty()
    }

    /// What an address that it lends may be used for, as [`Tables::learned`] tells it.
    ///
    /// [`Tables::learned`]: netfilter_ebpf::egress::Tables::learned
    pub(super) fn lends(&self, atom: u8) -> Option<Lent> {
        let grant = Grant::new(NAME_ID_NONE, u32::MAX);
        if self.set.contains(atom) {
            Some(Lent::Allowed(grant))
        } else if self.audited.contains(atom) {
            Some(Lent::Audited(grant))
        } else {
            None
        }
    }
}

/// Bytes of the name table in the kernel: an LPM trie allocates a node for each
/// entry (about 40 bytes and the key), sets of 32 bytes, and who decides.
pub(super) fn bytes(names: &[Name]) -> usize {
    names.len() * (40 + 256 + 4 + 32 + 4)
}

pub(super) fn flatten(policy: &Policy, of_rules: &[Decider], deciders: &mut Deciders) -> Vec<Name> {
    let mut own: BTreeMap<(Vec<u8>, bool), Own> = BTreeMap::new();
    for (rule, decider) in policy.rules.iter().zip(of_rules) {
        let Some((pattern, rights)) = name_rights(rule, decider.atoms) else {
            continue;
        };
        if pattern.is_wildcard() {
            let apex = pattern.apex();
            own.entry(key(&apex)).or_insert_with(|| Own::new(apex));
        }
        let entry = own
            .entry(key(pattern))
            .or_insert_with(|| Own::new(pattern.clone()));
        entry.rights = entry.rights.union(&rights);
        entry.deciders.push(*decider);
    }
    let mut reverse = BTreeSet::new();
    if policy.dns.private_reverse {
        for pattern in private_reverse() {
            reverse.insert(key(&pattern));
            own.entry(key(&pattern))
                .or_insert_with(|| Own::new(pattern));
        }
    }
    let names = own.values().map(|each| {
        let wire = each.pattern.wire();
        let enclosing = suffixes(wire).filter(|suffix| *suffix != wire);
        let enclosing = enclosing.filter_map(|suffix| own.get(&(suffix.to_vec(), true)));
        let mut rights = each.rights;
        let mut asked_in_turn = each.deciders.clone();
        for wildcard in enclosing {
            rights = rights.union(&wildcard.rights);
            asked_in_turn.extend(&wildcard.deciders);
        }
        let class = rights.class();
        // Who audits only says it of what nobody allows or denies: the programs ask no other.
        for decider in &mut asked_in_turn {
            if decider.action == DECIDER_AUDITS {
                decider.atoms = decider.atoms.intersection(&class.audit);
            }
        }
        let decider = deciders.chain(&asked_in_turn, Deciders::NOBODY);
        let audited = deciders.audited(decider);
        let mut set = class.allow;
        if !audited.is_empty() {
            set.insert(ATOM_AUDITS);
        }
        Name {
            pattern: each.pattern.clone(),
            set,
            audited,
            asked: reverse.contains(&key(&each.pattern)) && rights.deny.is_empty(),
            decider,
        }
    });
    names.collect()
}

/// What the rules say of one pattern itself.
struct Own {
    pattern: Pattern,
    rights: Rights,
    deciders: Vec<Decider>,
}

impl Own {
    fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            rights: Rights::default(),
            deciders: Vec::new(),
        }
    }
}

fn key(pattern: &Pattern) -> (Vec<u8>, bool) {
    (pattern.wire().to_vec(), pattern.is_wildcard())
}

/// The name itself and its parents, in wire form.
pub(super) fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(wire), |name| {
        let (&length, _) = name.split_first()?;
        name.get(1 + usize::from(length)..)
            .filter(|rest| !rest.is_empty())
    })
}
