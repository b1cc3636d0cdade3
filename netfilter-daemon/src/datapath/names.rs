//! The name table, and the ids by which addresses remember what they were lent for.

use std::collections::HashMap;

use aya::maps::{MapError, lpm_trie::Key};
use netfilter_ebpf::{
    abi::{
        Address, Alias, AtomSet, Crowd, Flow, FlowKey, Lease, NAME_ID_NONE, NAME_IDS,
        NAME_WILDCARD, QuestionKey, QuestionValue,
    },
    name::{self, KEY_DATA},
    stream::Stream,
};

use super::{
    Error,
    fill::Writer,
    maps::{self, HashOf, LpmOf, Plain},
    pins::Pins,
};
use crate::{
    compile::{Image, Name},
    policy::{Pattern, name::dotted},
};

/// A pattern as a key of the name table, without the copy that it is in.
pub(super) type NameKey = (u32, [u8; KEY_DATA]);

impl Writer {
    /// The names of the tables and their ids.
    pub(super) fn ids(&self) -> Result<HashMap<NameKey, u32>, Error> {
        ids(&self.names)
    }

    /// A name keeps its id while it or its predecessor is in the tables: what an
    /// address was lent for then stays what it was, whatever the policy's order.
    /// What was lent under a name that is gone is worth what its parent grants now.
    pub(super) fn fill_names(&mut self, copy: u32, image: &Image) -> Result<(), Error> {
        let mut known = HashMap::new();
        let mut stale = Vec::new();
        for path in &self.former_names {
            // Those of tables that are of another layout, or gone, are nobody's names.
            let Ok(names) = maps::open_at::<LpmOf<[u8; KEY_DATA], u32>>(path, maps::NAMES) else {
                continue;
            };
            known.extend(ids(&names)?);
        }
        known.extend(ids(&self.names)?);
        let mut free = self.free(copy, &known, image)?.into_iter();
        let listed: Result<Vec<_>, MapError> = self.names.iter().collect();
        for (key, _) in listed.map_err(maps::failed("list", maps::NAMES))? {
            if u32::from(key.data().0[0]) == copy {
                stale.push(key);
            }
        }
        for key in &stale {
            self.names
                .remove(key)
                .map_err(maps::failed("clear", maps::NAMES))?;
        }
        let half = (copy * NAME_IDS) as usize;
        let bases = self.bases(copy as usize);
        let mut sets = vec![(AtomSet::EMPTY, 0); NAME_IDS as usize];
        let granted = |name: &Name| (name.set, bases.decider(name.decider));
        for (key, &id) in &known {
            if let (Some(set), Some(parent)) = (sets.get_mut(id as usize), closest(key, image)) {
                *set = granted(parent);
            }
        }
        for name in &image.names {
            let (bits, mut data) = key(&name.pattern);
            let id = if !name.may_be_asked() {
                NAME_ID_NONE
            } else if let Some(&id) = known.get(&(bits, data)) {
                id
            } else {
                free.next().unwrap_or(NAME_ID_NONE)
            };
            if id != NAME_ID_NONE
                && let Some(set) = sets.get_mut(id as usize)
            {
                *set = granted(name);
            }
            data[0] = u8::try_from(copy).unwrap_or(0); // 0 or 1
            let wildcard = if name.pattern.is_wildcard() {
                NAME_WILDCARD
            } else {
                0
            };
            self.names
                .insert(&Key::new(bits, Plain(data)), Plain(id | wildcard), 0)
                .map_err(maps::failed("write", maps::NAMES))?;
        }
        let deciders = sets.iter().map(|(_, decider)| *decider);
        self.name_deciders.store(half, deciders)?;
        self.name_sets
            .store(half, sets.into_iter().map(|(set, _)| set))
    }

    /// Ids for the names that have none: those that never were anybody's and, when
    /// these come to an end, those that nothing knows any more.
    fn free(
        &mut self,
        copy: u32,
        known: &HashMap<NameKey, u32>,
        image: &Image,
    ) -> Result<Vec<u32>, Error> {
        let new = image
            .names
            .iter()
            .filter(|name| name.may_be_asked() && !known.contains_key(&key(&name.pattern)))
            .count();
        let cursor = self
            .name_cursor
            .get(&0, 0)
            .map_err(maps::failed("read", maps::NAME_CURSOR))?
            .0
            .max(known.values().copied().max().unwrap_or(0));
        let mut free: Vec<u32> = (cursor + 1..NAME_IDS).take(new).collect();
        if free.len() < new {
            let kept = image.names.iter().map(|name| key(&name.pattern));
            let kept = kept.filter_map(|key| known.get(&key).copied());
            free = self.forgotten(copy, kept)?;
        }
        free.truncate(new);
        if free.len() < new {
            return Err(Error::TooSmall {
                map: maps::NAMES,
                needed: known.len() + new,
                available: NAME_IDS as usize - 1,
            });
        }
        let other = ((1 - copy) * NAME_IDS) as usize;
        let mut sets = self.name_sets.map()?;
        for &id in &free {
            // The policy before this one, which may come back, may have had a name of this id.
            sets.store(other + id as usize, std::iter::once(AtomSet::EMPTY))?;
        }
        let last = free.iter().copied().max().unwrap_or(0).max(cursor);
        self.name_cursor
            .set(0, Plain(last), 0)
            .map_err(maps::failed("write", maps::NAME_CURSOR))?;
        Ok(free)
    }

    /// The ids that neither the policy in force knows, nor anything that was learned or
    /// is under way, and that are not kept. The copy is the other one.
    fn forgotten(&self, copy: u32, kept: impl Iterator<Item = u32>) -> Result<Vec<u32>, Error> {
        // Programs may read other tables, too, in which these ids mean something: those
        // before larger ones, and those of a start that was killed.
        if self.active.load(0).unwrap_or(0) == 0 || self.pins.all(maps::NAMES)?.len() > 1 {
            return Ok(Vec::new());
        }
        let mut used = vec![false; NAME_IDS as usize];
        let mut use_up = |id: u32| {
            if let Some(used) = used.get_mut(id as usize) {
                *used = true;
            }
        };
        use_up(NAME_ID_NONE);
        kept.for_each(&mut use_up);
        for entry in self.names.iter() {
            let (key, Plain(id)) = entry.map_err(maps::failed("list", maps::NAMES))?;
            if u32::from(key.data().0[0]) != copy {
                use_up(id & !NAME_WILDCARD);
            }
        }
        // In the order in which one leads to the next, so that none slips by on its way.
        let pins = &self.pins;
        visit::<QuestionKey, QuestionValue>(pins, maps::QUESTIONS, |it| use_up(it.name))?;
        visit::<FlowKey, Stream>(pins, maps::STREAMS, |it| use_up(it.inbound.name))?;
        visit::<u64, Alias>(pins, maps::ALIASES, |it| {
            it.grants.iter().for_each(|grant| use_up(grant.name()));
        })?;
        visit::<Address, Lease>(pins, maps::LEASES, |it| {
            it.grants.iter().for_each(|grant| use_up(grant.name()));
        })?;
        visit::<Address, Crowd>(pins, maps::CROWDS, |it| {
            it.grants.iter().for_each(|grant| use_up(grant.name()));
        })?;
        for flows in [maps::HALF_OPEN, maps::OUTBOUND] {
            visit::<FlowKey, Flow>(pins, flows, |it| use_up(it.origin))?;
        }
        let unused = (0..NAME_IDS).zip(used).filter(|(_, used)| !used);
        Ok(unused.map(|(id, _)| id).collect())
    }
}

/// Shows every entry of a map of what was learned.
fn visit<K: Copy + 'static, V: Copy + 'static>(
    pins: &Pins,
    name: &'static str,
    mut see: impl FnMut(V),
) -> Result<(), Error> {
    let map: HashOf<K, V> = maps::open(pins, name)?;
    for entry in map.iter() {
        let (_, Plain(value)) = entry.map_err(maps::failed("list", name))?;
        see(value);
    }
    Ok(())
}

/// The names of tables, without the copy that each is in, and their ids.
fn ids(names: &LpmOf<[u8; KEY_DATA], u32>) -> Result<HashMap<NameKey, u32>, Error> {
    let listed: Result<Vec<_>, MapError> = names.iter().collect();
    let listed = listed.map_err(maps::failed("list", maps::NAMES))?;
    let ids = listed.into_iter().map(|(key, Plain(id))| {
        let mut data = key.data().0;
        data[0] = 0;
        ((key.prefix_len(), data), id & !NAME_WILDCARD)
    });
    Ok(ids.filter(|(_, id)| *id != NAME_ID_NONE).collect())
}

/// The entry of a new policy that speaks for a former one.
fn closest<'a>((bits, data): &NameKey, image: &'a Image) -> Option<&'a Name> {
    let wildcard = is_wildcard(*bits, data);
    let wire = wire(*bits, data);
    match wildcard {
        false => image.name(&wire),
        true => image.wildcard(&wire),
    }
}

fn is_wildcard(bits: u32, data: &[u8; KEY_DATA]) -> bool {
    data[bits as usize / 8 - 1] != name::KEY_END
}

/// The name of a key, in wire form without the root.
pub(super) fn wire(bits: u32, data: &[u8; KEY_DATA]) -> Vec<u8> {
    let end = bits as usize / 8 - usize::from(!is_wildcard(bits, data));
    data[1..end]
        .iter()
        .rev()
        .map(|byte| byte & !name::KEY_LENGTH)
        .collect()
}

/// The key of a pattern, for copy 0.
pub(super) fn key(pattern: &Pattern) -> NameKey {
    name::key(pattern.wire(), pattern.is_wildcard())
}

/// The pattern of a key, as text.
pub(super) fn text(bits: u32, data: &[u8; KEY_DATA]) -> String {
    let name = dotted(&wire(bits, data));
    if is_wildcard(bits, data) {
        format!("*.{name}")
    } else {
        name
    }
}
