//! The maps as [`Tables`] and [`Memory`], for the generation in force.

use aya_ebpf::maps::{Array, lpm_trie::Key};
use netfilter_ebpf::{
    abi::{Address, CLASS_RESOLVER, Class, FragmentKey, Grant, SETTING_LIFTED, Settings, slot},
    egress::{Origin, Tables},
    name::KEY_DATA,
    packet::{self, Packet},
    plumbing::Plumbing,
    table::{self, LEAF, Memory, Node, ROOTS_PER_FAMILY},
};

use crate::{
    clock, flow, frame, lease,
    maps::{
        ACTIVE, ATOMS, CLASSES, FRAGMENTS, LEAF_DECIDERS, LEAVES, NAMES, NODES, ROOT_DECIDERS,
        ROOTS, SETTINGS, Scratch,
    },
    message::scratch,
    plumbing,
};

/// No copy has this number.
const NO_COPY: u32 = 2;

/// One generation of the policy. Read once per packet, so a packet is judged by one.
pub(crate) struct Generation {
    slot: u32,
    pub(crate) settings: &'static Settings,
}

impl Generation {
    /// The generation that judges the packet at hand. `None` before the first policy.
    #[inline(always)]
    pub(crate) fn active() -> Option<Self> {
        let scratch = scratch()?;
        scratch.copy = NO_COPY;
        let copy = Self::in_force()?;
        scratch.copy = copy;
        Self::of(copy)
    }

    /// The copy in force, for what has no scratch. `None` before the first policy.
    #[inline(always)]
    pub(crate) fn in_force() -> Option<u32> {
        // SAFETY: a map value; volatile because user space flips it.
        let generation = unsafe { core::ptr::read_volatile(ACTIVE.get_ptr(0)?) };
        if generation == 0 {
            return None;
        }
        let copy = slot(generation);
        let expires = SETTINGS.get(copy)?.expires;
        if expires != 0 && clock::now() >= expires {
            return Some(slot(copy + 1));
        }
        Some(copy)
    }

    /// Once more that of [`Self::active`], whatever was put into force meanwhile.
    #[inline(always)]
    pub(crate) fn at_hand() -> Option<Self> {
        Self::of(scratch()?.copy)
    }

    /// Whether nothing is judged.
    #[inline(always)]
    pub(crate) fn is_lifted(&self) -> bool {
        self.settings.flags & SETTING_LIFTED != 0
    }

    /// That of a copy.
    #[inline(always)]
    pub(crate) fn of(slot: u32) -> Option<Self> {
        Some(Self {
            slot,
            settings: SETTINGS.get(slot)?,
        })
    }

    #[inline(always)]
    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    #[inline(always)]
    pub(crate) fn is_resolver(&self, address: Address) -> bool {
        self.class_of(address)
            .is_some_and(|class| class.flags & CLASS_RESOLVER != 0)
    }

    /// Whether the policy lets this in.
    #[inline(always)]
    pub(crate) fn lets_in(&self, protocol: u8, local_port: u16) -> bool {
        self.atom(protocol, local_port)
            .is_some_and(|atom| self.settings.inbound.contains(atom))
    }

    #[inline(always)]
    fn class_of(&self, address: Address) -> Option<&'static Class> {
        let (high, low) = address.left_aligned();
        CLASSES.get(netfilter_class(
            high,
            low,
            u64::from(self.slot * 2 + u32::from(!address.is_ipv4())),
        ) as u32)
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

/// The index of the class of a left-aligned address in table `table` (copy times
/// two, plus one for IPv6). A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_class(high: u64, low: u64, table: u64) -> u64 {
    table::lookup(
        &Trie {
            table: table as u32,
        },
        (high, low),
    )
    .map_or(u64::MAX, u64::from)
}

struct Trie {
    table: u32,
}

#[inline(always)]
pub(crate) fn pick(pairs: &Array<[u32; 2]>, index: u32) -> Option<u32> {
    pairs.get(index >> 1).map(|pair| pair[(index & 1) as usize])
}

impl Memory for Trie {
    #[inline(always)]
    fn root(&self, index: u32) -> Option<u32> {
        pick(&ROOTS, self.table * ROOTS_PER_FAMILY + index)
    }

    #[inline(always)]
    fn node(&self, index: u32) -> Option<&Node> {
        NODES.get(index)
    }

    #[inline(always)]
    fn leaf(&self, index: u32) -> Option<u32> {
        pick(&LEAVES, index)
    }
}

/// The same tables, asked for who decides.
pub(crate) struct Deciders {
    pub(crate) table: u32,
}

impl Memory for Deciders {
    #[inline(always)]
    fn root(&self, index: u32) -> Option<u32> {
        let index = self.table * ROOTS_PER_FAMILY + index;
        match pick(&ROOTS, index)? {
            class if class & LEAF != 0 => pick(&ROOT_DECIDERS, index).map(|first| LEAF | first),
            node => Some(node),
        }
    }

    #[inline(always)]
    fn node(&self, index: u32) -> Option<&Node> {
        NODES.get(index)
    }

    #[inline(always)]
    fn leaf(&self, index: u32) -> Option<u32> {
        pick(&LEAF_DECIDERS, index)
    }
}

impl Tables for Generation {
    #[inline(always)]
    fn class(&self, packet: &Packet) -> Option<&Class> {
        self.class_of(packet.destination)
    }

    #[inline(always)]
    fn atom(&self, protocol: u8, port: u16) -> Option<u8> {
        let atoms = ATOMS.get(self.slot)?;
        Some(match protocol {
            packet::TCP => atoms.tcp[port as usize],
            packet::UDP => atoms.udp[port as usize],
            _ => atoms.other[protocol as usize],
        })
    }

    #[inline(always)]
    fn learned(&self, packet: &Packet, atom: u8) -> Option<Grant> {
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
    fn plumbing(&self, _: &Packet) -> Option<Plumbing> {
        plumbing::at_hand()
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
