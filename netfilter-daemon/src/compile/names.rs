//! The rules' names, flattened: each entry's rights are the union of all patterns
//! that enclose it, and the apex of a wildcard has an entry of its own.

use std::collections::{BTreeMap, BTreeSet};

use netfilter_ebpf::abi::AtomSet;

use super::{Error, Rights, name_rights};
use crate::policy::{Action, Pattern, Policy, Traffic};

/// An entry of the name table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub pattern: Pattern,
    /// What an address that this name lends may be used for.
    pub set: AtomSet,
    /// It may be asked for although it lends nothing.
    pub asked: bool,
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
}

/// Bytes of the name table in the kernel: an LPM trie allocates a node for each
/// entry (about 40 bytes and the key) and sets of 32 bytes.
pub(super) fn bytes(names: &[Name]) -> usize {
    names.len() * (40 + 256 + 4 + 32)
}

pub(super) fn flatten(
    policy: &Policy,
    atoms_of: &impl Fn(&[Traffic]) -> AtomSet,
) -> Result<Vec<Name>, Error> {
    let mut own: BTreeMap<(Vec<u8>, bool), (Pattern, Rights)> = BTreeMap::new();
    for rule in &policy.rules {
        let Some((pattern, rights)) = name_rights(rule, atoms_of(&rule.traffic)) else {
            continue;
        };
        if rule.action == Action::Audit {
            return Err(Error::AuditedName {
                rule: rule.name.clone(),
            });
        }
        if pattern.is_wildcard() {
            let apex = pattern.apex();
            own.entry(key(&apex))
                .or_insert_with(|| (apex, Rights::default()));
        }
        let entry = own
            .entry(key(pattern))
            .or_insert_with(|| (pattern.clone(), Rights::default()));
        entry.1 = entry.1.union(&rights);
    }
    let mut reverse = BTreeSet::new();
    if policy.dns.private_reverse {
        for pattern in private_reverse() {
            reverse.insert(key(&pattern));
            own.entry(key(&pattern))
                .or_insert_with(|| (pattern, Rights::default()));
        }
    }
    let enclosing = |pattern: &Pattern, rights: Rights| {
        suffixes(pattern.wire())
            .filter(|suffix| *suffix != pattern.wire())
            .filter_map(|suffix| own.get(&(suffix.to_vec(), true)))
            .fold(rights, |union, (_, rights)| union.union(rights))
    };
    let names = own.values().map(|(pattern, rights)| {
        let rights = enclosing(pattern, *rights);
        Name {
            pattern: pattern.clone(),
            set: rights.allow.without(&rights.deny),
            asked: reverse.contains(&key(pattern)) && rights.deny.is_empty(),
        }
    });
    Ok(names.collect())
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
