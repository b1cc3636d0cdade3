//! Puts a policy into the idle copy of the tables, then flips one word.

use std::{
    io,
    mem::offset_of,
    path::PathBuf,
    sync::atomic::{Ordering, fence},
};

use netfilter_ebpf::{
    abi::{
        Address, AtomSet, Atoms, Class, Decider, Held, NAME_IDS, SETTING_LIFTED, Settings, Users,
        slot,
    },
    name::KEY_DATA,
    table::{LEAF, Node, ROOTS_PER_FAMILY},
};

use super::{
    Error,
    mapping::{Mapping, Table},
    maps::{self, ArrayOf, HashOf, LpmOf, Plain},
    pins::Pins,
};
use crate::compile::{Image, Trie, deciders::Deciders};

/// The write side. One process at a time has it.
pub(super) struct Writer {
    pub(super) active: Mapping<u32>,
    settings: ArrayOf<Settings>,
    users: ArrayOf<Users>,
    roots: Table<u32>,
    nodes: Table<Node>,
    held: Table<Held>,
    classes: Table<Class>,
    /// The bytes of two [`Atoms`].
    atoms: Table<u8>,
    pub(super) names: LpmOf<[u8; KEY_DATA], u32>,
    pub(super) name_sets: Table<AtomSet>,
    pub(super) deciders: Table<Decider>,
    pub(super) name_deciders: Table<u32>,
    pub(super) name_cursor: ArrayOf<u32>,
    pub(super) hits: HashOf<u64, u64>,
    /// Where the names of all tables are that may be in force.
    pub(super) former_names: Vec<PathBuf>,
    pub(super) pins: Pins,
    /// The generation that these tables follow.
    after: u32,
}

/// Seconds of CLOCK_BOOTTIME, or zero; see [`Settings`].
#[derive(Clone, Copy, Default)]
pub(super) struct Times {
    pub(super) expires: u32,
    pub(super) opened: u32,
}

impl Writer {
    /// `after`: the generation in force, if it is not in these tables.
    pub(super) fn open(pins: &Pins, after: u32) -> Result<Self, Error> {
        let mut seed: ArrayOf<u64> = maps::open(pins, maps::SEED)?;
        if seed.get(&0, 0).map_err(maps::failed("read", maps::SEED))?.0 == 0 {
            seed.set(0, Plain(random()?), 0)
                .map_err(maps::failed("write", maps::SEED))?;
        }
        Ok(Self {
            active: Table::open(pins, maps::ACTIVE, 1)?.map()?,
            settings: maps::open(pins, maps::SETTINGS)?,
            users: maps::open(pins, maps::USERS)?,
            roots: Table::open(pins, maps::ROOTS, ROOTS_PER_FAMILY as usize)?,
            nodes: Table::open(pins, maps::NODES, 1)?,
            held: Table::open(pins, maps::HELD, 2)?,
            classes: Table::open(pins, maps::CLASSES, 1)?,
            atoms: Table::open(pins, maps::ATOMS, size_of::<Atoms>())?,
            names: maps::open(pins, maps::NAMES)?,
            name_sets: Table::open(pins, maps::NAME_SETS, 1)?,
            deciders: Table::open(pins, maps::DECIDERS, 1)?,
            name_deciders: Table::open(pins, maps::NAME_DECIDERS, 2)?,
            name_cursor: maps::open(pins, maps::NAME_CURSOR)?,
            hits: maps::open(pins, maps::HITS)?,
            former_names: pins.all(maps::NAMES)?,
            pins: pins.clone(),
            after,
        })
    }

    pub(super) fn generation(&self) -> u32 {
        self.active.load(0).unwrap_or(0).max(self.after)
    }

    /// All or nothing: the word flips when everything is in place.
    pub(super) fn fill_and_flip(&mut self, image: &Image, times: Times) -> Result<u32, Error> {
        let generation = self.generation().wrapping_add(1).max(1);
        let copy = slot(generation);
        self.check(image)?;
        wait_for_readers()?;
        self.count_rules(copy, image)?;
        self.fill_names(copy, image)?;
        let Times { expires, opened } = times;
        self.set(
            copy,
            Settings {
                expires,
                opened,
                ..image.settings
            },
        )?;
        self.set_users(copy, image.users)?;
        let half = copy as usize;
        let Atoms { tcp, udp, other } = &*image.atoms;
        let atoms = half * size_of::<Atoms>();
        self.atoms.store(atoms, tcp.iter().copied())?;
        self.atoms
            .store(atoms + offset_of!(Atoms, udp), udp.iter().copied())?;
        self.atoms
            .store(atoms + offset_of!(Atoms, other), other.iter().copied())?;
        let bases = self.bases(half);
        self.classes
            .store(bases.classes, image.classes.iter().copied())?;
        let held = image.held.iter().map(|held| bases.held(*held));
        self.held.store_every_second(half, held)?;
        let deciders = image.deciders.iter().map(|decider| Decider {
            next: bases.decider(decider.next),
            ..*decider
        });
        self.deciders.store(bases.deciders, deciders)?;
        // Those of an earlier policy behind it are nobody's.
        let end = image.deciders.len();
        if end < self.deciders.len() / 2 {
            let nobody = std::iter::once(Decider::default());
            self.deciders.store(bases.deciders + end, nobody)?;
        }
        let behind = Bases {
            nodes: bases.nodes + image.ipv4.nodes.len(),
            ..bases
        };
        let family = ROOTS_PER_FAMILY as usize;
        self.fill_trie(&image.ipv4, 2 * half * family, bases)?;
        self.fill_trie(&image.ipv6, (2 * half + 1) * family, behind)?;
        fence(Ordering::SeqCst);
        self.active.store(0, std::iter::once(generation))?;
        Ok(generation)
    }

    fn set(&mut self, copy: u32, settings: Settings) -> Result<(), Error> {
        self.settings
            .set(copy, Plain(settings), 0)
            .map_err(maps::failed("write", maps::SETTINGS))
    }

    fn settings(&self, copy: u32) -> Result<Settings, Error> {
        let Plain(settings) = self
            .settings
            .get(&copy, 0)
            .map_err(maps::failed("read", maps::SETTINGS))?;
        Ok(settings)
    }

    fn set_users(&mut self, copy: u32, users: Users) -> Result<(), Error> {
        self.users
            .set(copy, Plain(users), 0)
            .map_err(maps::failed("write", maps::USERS))
    }

    /// The second at which the policy in force gives way to its predecessor; 0: never.
    pub(super) fn expires(&self) -> Result<u32, Error> {
        Ok(self.settings(slot(self.generation()))?.expires)
    }

    /// The policy in force stays.
    pub(super) fn confirm(&mut self) -> Result<(), Error> {
        let copy = slot(self.generation());
        let settings = self.settings(copy)?;
        self.set(
            copy,
            Settings {
                expires: 0,
                ..settings
            },
        )
    }

    /// Nothing is judged any more.
    pub(super) fn lift(&mut self) -> Result<(), Error> {
        let copy = slot(self.generation());
        let settings = self.settings(copy)?;
        let flags = settings.flags | SETTING_LIFTED;
        self.set(copy, Settings { flags, ..settings })
    }

    /// The predecessor of the policy in force, which is still in the other copy, follows it.
    pub(super) fn revert(&mut self) -> Result<u32, Error> {
        let generation = self.generation().wrapping_add(1).max(1);
        self.active.store(0, std::iter::once(generation))?;
        Ok(generation)
    }

    /// The predecessor of the next policy is that nothing is judged.
    pub(super) fn precede_by_nothing(&mut self) -> Result<(), Error> {
        let lifted = Settings {
            flags: SETTING_LIFTED,
            ..Settings::default()
        };
        self.set(slot(self.generation()), lifted)
    }

    /// The predecessor of the next policy is the one that is in force in other tables,
    /// no larger than these.
    pub(super) fn precede_by(&mut self, other: &Self) -> Result<(), Error> {
        let copy = slot(other.generation());
        let half = copy as usize;
        let family = 2 * ROOTS_PER_FAMILY as usize;
        let (from, to) = (other.bases(half), self.bases(half));
        let node = |node: u32| add(subtract(node, from.nodes), to.nodes);
        let roots = other.roots.half(half, family)?;
        self.roots
            .store(half * family, roots.map(|root| of_root(root, node)))?;
        let nodes = other.nodes.half(half, other.nodes.len() / 2)?;
        self.nodes
            .store(to.nodes, nodes.map(|each| moved(each, node)))?;
        let classes = other.classes.half(half, other.classes.len() / 2)?;
        self.classes.store(to.classes, classes)?;
        let decider = |first: u32| match first {
            Deciders::NOBODY => first,
            _ => to.decider(subtract(first, from.deciders)),
        };
        let held = other.held.every_second(half)?.map(|held| Held {
            class: add(subtract(held.class, from.classes), to.classes),
            decider: decider(held.decider),
        });
        self.held.store_every_second(half, held)?;
        let deciders = other.deciders.half(half, other.deciders.len() / 2)?;
        let deciders = deciders.map(|each| Decider {
            next: decider(each.next),
            ..each
        });
        self.deciders.store(to.deciders, deciders)?;
        let atoms = size_of::<Atoms>();
        self.atoms
            .store(half * atoms, other.atoms.half(half, atoms)?)?;
        let sets = NAME_IDS as usize;
        self.name_sets
            .store(half * sets, other.name_sets.half(half, sets)?)?;
        let of_names = other.name_deciders.half(half, sets)?.map(decider);
        self.name_deciders.store(half * sets, of_names)?;
        for entry in other.names.iter() {
            let (key, id) = entry.map_err(maps::failed("list", maps::NAMES))?;
            if u32::from(key.data().0[0]) == copy {
                self.names
                    .insert(&key, id, 0)
                    .map_err(maps::failed("write", maps::NAMES))?;
            }
        }
        let users = other.users.get(&copy, 0);
        self.set_users(copy, users.map_err(maps::failed("read", maps::USERS))?.0)?;
        self.set(copy, other.settings(copy)?)
    }

    /// Where a copy begins.
    pub(super) fn bases(&self, half: usize) -> Bases {
        Bases {
            nodes: half * (self.nodes.len() / 2),
            classes: half * (self.classes.len() / 2),
            deciders: half * (self.deciders.len() / 2),
        }
    }

    /// Whether everything fits, before anything is written.
    pub(super) fn check(&self, image: &Image) -> Result<(), Error> {
        let fits = |map, needed: usize, both: usize| {
            if needed <= both / 2 {
                Ok(())
            } else {
                Err(Error::TooSmall {
                    map,
                    needed,
                    available: both / 2,
                })
            }
        };
        fits(
            maps::NODES,
            image.ipv4.nodes.len() + image.ipv6.nodes.len(),
            self.nodes.len(),
        )?;
        fits(maps::HELD, image.held.len(), self.held.len())?;
        fits(maps::CLASSES, image.classes.len(), self.classes.len())?;
        fits(maps::DECIDERS, image.deciders.len(), self.deciders.len())
    }

    fn fill_trie(&mut self, trie: &Trie, roots: usize, bases: Bases) -> Result<(), Error> {
        let node = |node| add(node, bases.nodes);
        let nodes = trie.nodes.iter().map(|each| moved(*each, node));
        self.nodes.store(bases.nodes, nodes)?;
        let entries = trie.roots.iter().map(|root| of_root(*root, node));
        self.roots.store(roots, entries)
    }
}

/// An entry of the direct table, with another index of its node.
fn of_root(root: u32, node: impl Fn(u32) -> u32) -> u32 {
    match root & LEAF {
        0 => node(root),
        _ => root,
    }
}

/// A node among others, with another index of its children.
fn moved(node: Node, child: impl Fn(u32) -> u32) -> Node {
    match node.is_list() {
        true => node,
        false => node.leading_to(child(node.children()), node.stride()),
    }
}

/// Where this copy of a family's table begins in each map.
#[derive(Clone, Copy)]
pub(super) struct Bases {
    nodes: usize,
    classes: usize,
    deciders: usize,
}

impl Bases {
    /// Nobody is the same in both copies.
    pub(super) fn decider(&self, decider: u32) -> u32 {
        match decider {
            Deciders::NOBODY => decider,
            _ => add(decider, self.deciders),
        }
    }

    fn held(&self, held: Held) -> Held {
        Held {
            class: add(held.class, self.classes),
            decider: self.decider(held.decider),
        }
    }
}

fn subtract(index: u32, base: usize) -> u32 {
    u32::try_from((index as usize).saturating_sub(base)).unwrap_or(u32::MAX)
}

fn add(index: u32, base: usize) -> u32 {
    u32::try_from(index as usize + base).unwrap_or(u32::MAX) // beyond any map: finds nothing
}

/// Waits until no program reads the idle copy any more: programs run in RCU
/// read-side sections, and `MEMBARRIER_CMD_GLOBAL` waits for all of those.
pub(super) fn wait_for_readers() -> Result<(), Error> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } == 0 {
        return Ok(());
    }
    // Not on a kernel with full dynticks (membarrier(2)): no program takes this long.
    std::thread::sleep(std::time::Duration::from_millis(200));
    Ok(())
}

fn random() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    // SAFETY: the buffer is valid for its length.
    let read = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(read) != Ok(bytes.len()) {
        return Err(Error::System {
            operation: "read random bytes",
            source: io::Error::last_os_error(),
        });
    }
    Ok(u64::from_ne_bytes(bytes) | 1)
}

/// The kernel's address as the standard library's.
pub(super) fn ip(address: Address) -> std::net::IpAddr {
    let bits = u128::from(address.high) << 64 | u128::from(address.low);
    std::net::IpAddr::V6(bits.into()).to_canonical()
}
