//! Keeps the marks few by which the programs know of which addresses anything is stored
//! ([`netfilter_ebpf::remote`]).

use std::sync::atomic::Ordering;

use netfilter_ebpf::{
    abi::{Address, FlowKey},
    remote::{MARKS, STATE, WORDS, place},
};

use super::{
    Error, State,
    fill::wait_for_readers,
    keys,
    mapping::{Mapping, Table},
    maps,
    pins::Pins,
};

/// So many marks more than twice those that were needed are too many.
const SPARE: u32 = MARKS / 64;

/// Both copies in this process's memory.
struct Remotes(Mapping<u64>);

/// For what stores leases or flows and does not mark their addresses: user space, and programs of other
/// builds. The programs look for all, until the next [`State::thin_remotes`] finds what is there.
pub(super) fn unmarked<T>(
    pins: &Pins,
    store: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut remotes = Remotes::map(pins)?;
    // Before, for what is stored is to be found at once; and behind, for it may have been stored
    // too late to be found, and marked before marks were taken away.
    remotes.mark_all()?;
    let stored = store()?;
    remotes.mark_all()?;
    Ok(stored)
}

impl State {
    /// Where too many addresses are marked, marks those alone for which leases and flows are
    /// stored, and returns how many marks that takes. One caller at a time.
    ///
    /// # Errors
    /// Where a map cannot be read or written.
    pub fn thin_remotes(&self) -> Result<Option<u32>, Error> {
        let mut remotes = Remotes::map(self.pins())?;
        let (copy, needed) = remotes.state()?;
        if remotes.marks(copy) <= 2 * needed + SPARE {
            return Ok(None);
        }
        let idle = copy ^ 1;
        // Until nobody reads it any more who began when it was in use.
        wait_for_readers()?;
        remotes.clear(idle)?;
        // Who marked before that has stored by now, and is found. All others mark here, too.
        wait_for_readers()?;
        for map in [maps::INBOUND, maps::OUTBOUND, maps::HALF_OPEN] {
            self.walk(map, |flow: &FlowKey| remotes.mark(idle, flow.remote))?;
        }
        for map in [maps::CROWDS, maps::LEASES] {
            self.walk(map, |address: &Address| remotes.mark(idle, *address))?;
        }
        remotes.use_copy(idle).map(Some)
    }

    fn walk<K: Copy>(&self, map: &'static str, visit: impl FnMut(&K)) -> Result<(), Error> {
        let data = maps::data(self.pins(), map)?;
        keys::walk(&data, visit).map_err(|source| Error::System {
            operation: "look for known addresses",
            source,
        })
    }
}

impl Remotes {
    fn map(pins: &Pins) -> Result<Self, Error> {
        Table::open(pins, maps::REMOTES, 1)?.map().map(Self)
    }

    /// Which copy is in use, and how many marks it had when it was made.
    fn state(&self) -> Result<(u32, u32), Error> {
        let state = self.0.load(STATE as usize);
        let state = state.ok_or(Error::MissingMap(maps::REMOTES))?;
        let needed = u32::try_from(state >> 1).unwrap_or(MARKS);
        Ok((u32::from(state & 1 != 0), needed))
    }

    /// Returns how many marks it has.
    fn use_copy(&mut self, copy: u32) -> Result<u32, Error> {
        let marks = self.marks(copy);
        let state = u64::from(marks) << 1 | u64::from(copy);
        self.0.store(STATE as usize, std::iter::once(state))?;
        Ok(marks)
    }

    fn marks(&self, copy: u32) -> u32 {
        let words = copy * WORDS..(copy + 1) * WORDS;
        words
            .filter_map(|word| self.0.load(word as usize))
            .map(u64::count_ones)
            .sum()
    }

    fn mark(&self, copy: u32, address: Address) {
        let (word, mark) = place(address);
        if let Some(word) = self.0.atomic((copy * WORDS + word) as usize) {
            word.fetch_or(mark, Ordering::SeqCst);
        }
    }

    fn clear(&mut self, copy: u32) -> Result<(), Error> {
        let none = std::iter::repeat_n(0, WORDS as usize);
        self.0.store((copy * WORDS) as usize, none)
    }

    fn mark_all(&mut self) -> Result<(), Error> {
        self.0
            .store(0, std::iter::repeat_n(u64::MAX, 2 * WORDS as usize))
    }
}
