//! The maps as [`Tables`] and [`Memory`], for the generation in force.

use aya_ebpf::maps::{Array, lpm_trie::Key};
use netfilter_ebpf::{
    abi::{Address, CLASS_RESOLVER, Class, FragmentKey, Held, SETTING_REPORT, Settings, slot},
    egress::{Lent, Origin, Tables},
    name::KEY_DATA,
    packet::{self, Packet},
    table::{Node, Nodes, Search},
};

use crate::{
    clock, flow, frame, lease,
    maps::{ACTIVE, ATOMS, CLASSES, FRAGMENTS, HELD, NAMES, NODES, ROOTS, SETTINGS, Scratch},
    message::scratch,
    plumbing, remotes,
    widen::{bounded, opaque},
};

/// One generation of the policy. Read once per packet, so a packet is judged by one.
#[derive(Clone, Copy)]
pub(crate) struct Generation {
    slot: u32,
    /// Zero where it was not told.
    number: u32,
}

impl Generation {
    /// The generation in force, and what it says beside its tables. `None` before the first policy.
    #[inline(always)]
    pub(crate) fn active() -> Option<(Self, &'static Settings)> {
        // SAFETY: a map value; volatile because user space flips it.
        let number = unsafe { ACTIVE.get_ptr(0)?.read_volatile() };
        if number == 0 {
            return None;
        }
        let slot = slot(number);
        let settings = SETTINGS.get(slot)?;
        // Read anew: not all that come by here have a processor to themselves.
        if settings.expires != 0 && clock::read() >= settings.expires {
            let slot = slot ^ 1;
            return Some((Self { slot, number }, SETTINGS.get(slot)?));
        }
        Some((Self { slot, number }, settings))
    }

    /// That of a copy.
    #[inline(always)]
    pub(crate) fn of(slot: u32) -> Self {
        Self { slot, number: 0 }
    }

    #[inline(always)]
    pub(crate) fn settings(&self) -> Option<&'static Settings> {
        SETTINGS.get(self.slot)
    }

    /// Whether what would be dropped is only reported.
    #[inline(always)]
    pub(crate) fn only_reports(&self) -> bool {
        self.settings()
            .is_some_and(|settings| settings.has(SETTING_REPORT))
    }

    /// Which policy it is, in one word: the number that user space put into force last, and
    /// the copy. An atom has room in the last byte.
    #[inline(always)]
    pub(crate) fn era(&self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.slot) << 8
    }

    /// That of an [`era`](Self::era).
    #[inline(always)]
    pub(crate) fn again(era: u64) -> Self {
        Self {
            slot: (era >> 8) as u32 & 1,
            number: (era >> 32) as u32,
        }
    }

    #[inline(always)]
    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    #[inline(always)]
    pub(crate) fn is_resolver(&self, address: Address) -> bool {
        self.class_number(address)
            .and_then(|number| self.class(number))
            .is_some_and(|class| class.flags & CLASS_RESOLVER != 0)
    }

    /// Whether the policy lets this in.
    #[inline(always)]
    pub(crate) fn lets_in(&self, protocol: u8, local_port: u16) -> bool {
        let Some(settings) = self.settings() else {
            return false;
        };
        self.atom(protocol, local_port)
            .is_some_and(|atom| settings.inbound.contains(atom))
    }

    #[inline(always)]
    pub(crate) fn class_number(&self, address: Address) -> Option<u32> {
        held(address, self.slot).map(|held| held.class)
    }

    /// Begins to look an address up before it is known whether that will be needed: what it waits
    /// for comes meanwhile.
    #[inline(always)]
    pub(crate) fn search(&self, address: Address) -> Option<Search> {
        search(address, self.slot)
    }

    /// [`class_number`](Self::class_number) of what is searched for, without a call.
    #[inline(always)]
    pub(crate) fn class_found(&self, search: Search) -> Option<u32> {
        holding(search.leaf(&Trie)?, self.slot).map(|held| held.class)
    }

    #[inline(always)]
    pub(crate) fn class(&self, number: u32) -> Option<&'static Class> {
        CLASSES.get(number)
    }

    /// What the name table holds for the pattern that a name of `length` bytes matches, whose key is in the scratch.
    #[inline(always)]
    pub(crate) fn name(&self, length: usize) -> Option<u32> {
        let Scratch { key, .. } = scratch()?;
        let mut start = key.finish(length, self.slot, false) as u64;
        // SAFETY: plain arithmetic; the verifier wants to see the bound.
        unsafe { core::arch::asm!("{0} &= 0x1ff", inout(reg) start) };
        // SAFETY: a whole key lies behind every start, see KeyBuffer.
        let key = unsafe {
            &*key
                .bytes
                .as_ptr()
                .add(start as usize)
                .cast::<Key<[u8; KEY_DATA]>>()
        };
        NAMES.get(key).copied()
    }
}

/// What holds at an address in a copy of the tables.
#[inline(always)]
pub(crate) fn held(address: Address, copy: u32) -> Option<&'static Held> {
    let Search { high, low, entry } = search(address, copy)?;
    holding(netfilter_leaf(high, low, u64::from(entry)) as u32, copy)
}

#[inline(always)]
fn search(address: Address, copy: u32) -> Option<Search> {
    let (high, low, family) = if address.is_ipv4() {
        // Opaque, or the compiler asks anew for each of the three.
        (opaque((address.low << 32) as usize) as u64, 0, 0)
    } else {
        (address.high, address.low, 1)
    };
    let roots = ROOTS.get(copy * 2 + family)?;
    let entry = *roots.get(Search::root(high))?;
    Some(Search { high, low, entry })
}

#[inline(always)]
fn holding(leaf: u32, copy: u32) -> Option<&'static Held> {
    // The compiler knows which copies there are, the verifier may not any more.
    HELD.get(leaf)
        .map(|copies| &copies[opaque(copy as usize) & 1])
}

/// The number of the leaf that a [`Search`] finds. A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_leaf(high: u64, low: u64, entry: u64) -> u64 {
    let entry = entry as u32;
    let search = Search { high, low, entry };
    search.leaf(&Trie).map_or(u64::MAX, u64::from)
}

struct Trie;

impl Nodes for Trie {
    #[inline(always)]
    fn node(&self, index: u32) -> Option<&Node> {
        NODES.get(index)
    }

    #[inline(always)]
    fn opaque(number: u64) -> u64 {
        opaque(number as usize) as u64
    }
}

#[inline(always)]
pub(crate) fn pick(pairs: &Array<[u32; 2]>, index: u32) -> Option<u32> {
    pairs.get(index >> 1).map(|pair| pair[(index & 1) as usize])
}

impl Tables for Generation {
    #[inline(always)]
    fn atom(&self, protocol: u8, port: u16) -> Option<u8> {
        let atoms = ATOMS.get(self.slot)?;
        Some(match protocol {
            packet::TCP => atoms.tcp[usize::from(bounded(port))],
            packet::UDP => atoms.udp[usize::from(bounded(port))],
            _ => atoms.other[protocol as usize],
        })
    }

    #[inline(always)]
    fn knows(&self, remote: Address) -> bool {
        remotes::is_known(remote)
    }

    #[inline(always)]
    fn learned(&self, packet: &Packet, atom: u8) -> Option<Lent> {
        lease::find(packet.destination, atom, self.now(), self.slot)
    }

    #[inline(always)]
    fn flow(&self, packet: &Packet, atom: u8) -> Option<Origin> {
        flow::leaving(packet, atom, self)
    }

    #[inline(always)]
    fn quoted(&self, _: &Packet) -> Option<&Packet> {
        frame::quoted()
    }

    #[inline(always)]
    fn is_plumbing(&self, _: &Packet) -> bool {
        plumbing::at_hand().is_some()
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> bool {
        // SAFETY: copied at once.
        unsafe { FRAGMENTS.get(key) }.is_some_and(|until| *until > self.now())
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        clock::now()
    }
}
