//! Policy to tables: flatten prefixes and names, cut ports into atoms.

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use netfilter_ebpf::{
    abi::{
        ATOM_LINK, ATOMS, Address, AtomSet, Atoms, CLASS_RESOLVER, Class, Decider, FragmentKey,
        Held, NAME_IDS, QUERY_TYPES, RCODE_DROP, SETTING_ANY_TYPE, SETTING_REJECT, SETTING_REPORT,
        Settings, Users,
    },
    egress::{self, Lent, Origin, Tables},
    packet::Packet,
    verdict::{Reason, Verdict},
};

use crate::policy::{
    Action, Destination, Mode, NameRefusal, OnDeny, Pattern, Policy, QueryTypes, Rule, Traffic,
};

mod cut;
pub mod deciders;
mod names;
mod prefixes;
mod trie;

use deciders::Deciders;
pub use names::Name;
pub use trie::Trie;

/// Everything that the kernel needs of a policy, as pure data. Indices begin at zero;
/// whoever copies it into the kernel adds where the copy begins.
#[derive(Debug)]
pub struct Image {
    pub settings: Settings,
    pub users: Users,
    pub atoms: Box<Atoms>,
    /// The first grants nothing.
    pub classes: Vec<Class>,
    /// What the tries' leaves number. The first is that of addresses in no prefix.
    pub held: Vec<Held>,
    pub ipv4: Trie,
    pub ipv6: Trie,
    /// A resolver is on this machine: its answers come by the loopback interface.
    pub local_resolver: bool,
    /// The name table, flattened, sorted by wire form: apexes of wildcards included.
    pub names: Vec<Name>,
    /// Chains of the rules that decide somewhere. The first is nobody.
    pub deciders: Vec<Decider>,
    /// Of every rule; see [`deciders::key`].
    pub rule_keys: Vec<u64>,
    summary: Summary,
}

/// What a policy compiles to, for `check` and the metrics.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    pub rules: usize,
    /// Prefixes after flattening: those at which the rights change.
    pub ipv4_prefixes: usize,
    pub ipv6_prefixes: usize,
    pub names: usize,
    pub atoms: usize,
    /// Distinct sets of rights among the prefixes.
    pub classes: usize,
    /// Bytes of kernel memory that one copy of the tables takes.
    pub kernel_bytes: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the rules tell apart more than {available} sets of protocols and ports; use fewer distinct port ranges"
    )]
    TooManyAtoms { available: usize },
    #[error("the policy has {names} names, and there is room for {available}")]
    TooManyNames { names: usize, available: usize },
}

/// What the rules say of one prefix or name, before flattening and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Rights {
    allow: AtomSet,
    deny: AtomSet,
    audit: AtomSet,
    resolver: bool,
}

impl Rights {
    fn union(self, other: &Self) -> Self {
        Self {
            allow: self.allow.union(&other.allow),
            deny: self.deny.union(&other.deny),
            audit: self.audit.union(&other.audit),
            resolver: self.resolver || other.resolver,
        }
    }

    fn of(action: Action, atoms: AtomSet) -> Self {
        let mut rights = Self::default();
        match action {
            Action::Allow => rights.allow = atoms,
            Action::Deny => rights.deny = atoms,
            Action::Audit => rights.audit = atoms,
        }
        rights
    }

    fn class(&self) -> Class {
        let allow = self.allow.without(&self.deny);
        Class {
            allow,
            deny: self.deny,
            audit: self.audit.without(&self.deny).without(&allow),
            flags: if self.resolver { CLASS_RESOLVER } else { 0 },
            padding: [0; 7],
        }
    }
}

/// # Errors
/// Where the policy does not fit the tables. Nothing is truncated.
pub fn compile(policy: &Policy) -> Result<Image, Error> {
    let traffic = policy
        .rules
        .iter()
        .flat_map(|rule| &rule.traffic)
        .chain(&policy.inbound);
    let cut = cut::Cut::new(traffic).ok_or(Error::TooManyAtoms {
        available: ATOMS - cut::RESERVED,
    })?;
    let atoms_of = |traffic: &[Traffic]| {
        traffic
            .iter()
            .fold(AtomSet::EMPTY, |set, traffic| set.union(cut.set(traffic)))
    };

    let mut classes = Numbered::default();
    let of_rules = policy.rules.iter();
    let of_rules: Vec<Decider> = of_rules
        .map(|rule| Deciders::of(rule, atoms_of(&rule.traffic)))
        .collect();
    let mut deciders = Deciders::default();
    let mut held = Numbered::default();
    let mut flatten = |ipv6| {
        let said = prefixes::of(policy, &of_rules, ipv6);
        let flat = prefixes::flatten(said, &mut deciders, |rights| classes.index(rights.class()));
        let entries = flat.list.iter();
        let entries: Vec<_> = entries
            .map(|&(prefix, at)| (prefix, held.index(at)))
            .collect();
        (trie::build(&entries), flat.count)
    };
    let (ipv4, ipv4_prefixes) = flatten(false);
    let (ipv6, ipv6_prefixes) = flatten(true);

    let names = names::flatten(policy, &of_rules, &mut deciders);
    if names.len() >= NAME_IDS as usize {
        return Err(Error::TooManyNames {
            names: names.len(),
            available: NAME_IDS as usize - 1,
        });
    }
    let (classes, held, deciders) = (classes.list, held.list, deciders.0.list);
    let summary = Summary {
        rules: policy.rules.len(),
        ipv4_prefixes,
        ipv6_prefixes,
        names: names.len(),
        atoms: cut.len(),
        classes: classes.len(),
        kernel_bytes: ipv4.bytes()
            + ipv6.bytes()
            + size_of_val(classes.as_slice())
            + size_of_val(held.as_slice())
            + size_of_val(deciders.as_slice())
            + size_of::<Atoms>()
            + names::bytes(&names),
    };
    Ok(Image {
        users: Users::of(&policy.bypass_users),
        settings: settings(policy, atoms_of(&policy.inbound)),
        atoms: cut.atoms,
        classes,
        held,
        ipv4,
        ipv6,
        local_resolver: policy.resolvers.iter().any(IpAddr::is_loopback),
        names,
        deciders,
        rule_keys: of_rules.iter().map(|decider| decider.rule).collect(),
        summary,
    })
}

fn settings(policy: &Policy, inbound: AtomSet) -> Settings {
    let report = if policy.mode == Mode::Report {
        SETTING_REPORT
    } else {
        0
    };
    let (any_type, query_types) = match &policy.dns.query_types {
        QueryTypes::Any => (SETTING_ANY_TYPE, [0; QUERY_TYPES / 64]),
        QueryTypes::Only(types) => {
            let mut bits = [0; QUERY_TYPES / 64];
            for &qtype in types {
                bits[usize::from(qtype >> 6)] |= 1 << (qtype & 63);
            }
            (0, bits)
        }
    };
    let reject = if policy.on_deny == OnDeny::Reject {
        SETTING_REJECT
    } else {
        0
    };
    Settings {
        inbound,
        flags: report | reject | any_type,
        denied_name_rcode: match policy.dns.on_deny {
            NameRefusal::Nxdomain => 3,
            NameRefusal::Refused => 5,
            NameRefusal::Drop => RCODE_DROP,
        },
        minimum_ttl: policy.dns.minimum_ttl,
        grace: policy.dns.grace,
        query_types,
        wildcard_length: policy.dns.wildcard_length,
        wildcard_rate: policy.dns.wildcard_rate.unwrap_or(u32::MAX),
        ..Settings::default()
    }
}

/// Distinct values and their numbers. The first is the default: of no rule at all, and nobody's.
struct Numbered<T> {
    list: Vec<T>,
    known: HashMap<T, u32>,
}

impl<T: Copy + Default + Eq + Hash> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            list: vec![T::default()],
            known: HashMap::from([(T::default(), 0)]),
        }
    }
}

impl<T: Copy + Eq + Hash> Numbered<T> {
    fn index(&mut self, value: T) -> u32 {
        *self.known.entry(value).or_insert_with(|| {
            self.list.push(value);
            u32::try_from(self.list.len() - 1).unwrap_or(0) // more than 2³² do not fit in memory; 0 grants nothing
        })
    }
}

impl Image {
    pub fn summary(&self) -> Summary {
        self.summary.clone()
    }

    /// The kernel's own decision for a packet to `address` from a host that
    /// holds no learned addresses and no flows. `port` is ignored for protocols without ports.
    ///
    /// # Errors
    /// The reason for which it would be dropped.
    pub fn judge_address(&self, address: IpAddr, protocol: u8, port: u16) -> Result<(), Reason> {
        self.judge(address, protocol, port, None)
    }

    /// The same once the answer to a question for `name` (wire form, without the root byte)
    /// has held the address.
    ///
    /// # Errors
    /// The reason for which it would be dropped.
    pub fn judge_learned(
        &self,
        address: IpAddr,
        protocol: u8,
        port: u16,
        name: &[u8],
    ) -> Result<(), Reason> {
        self.judge(address, protocol, port, self.name(name))
    }

    fn judge(
        &self,
        address: IpAddr,
        protocol: u8,
        port: u16,
        learned: Option<&Name>,
    ) -> Result<(), Reason> {
        let packet = Packet {
            hops: 64,
            destination_port: port,
            ..Packet::between(Address::default(), self::address(address), protocol, 0)
        };
        let tables = Static {
            image: self,
            learned,
        };
        match egress::decide(&packet, self.class(packet.destination), &tables) {
            // A question to a resolver may be sent; which one is the name table's affair.
            Verdict::Pass(_) | Verdict::Audit(_) | Verdict::Ask => Ok(()),
            Verdict::Drop(reason) => Err(reason),
        }
    }

    /// Whether what comes in to this port is answered.
    pub fn lets_in(&self, protocol: u8, port: u16) -> bool {
        let atom = cut::atom(&self.atoms, protocol, port);
        self.settings.inbound.contains(atom)
    }

    /// The kernel's own decision on a packet, with nothing learned.
    pub fn decide(&self, packet: &Packet) -> Verdict {
        let tables = Static {
            image: self,
            learned: None,
        };
        egress::decide(packet, self.class(packet.destination), &tables)
    }

    /// The class of an address.
    pub fn class(&self, address: Address) -> Option<&Class> {
        let trie = if address.is_ipv4() {
            &self.ipv4
        } else {
            &self.ipv6
        };
        let leaf = trie.lookup(address.left_aligned())?;
        let held = self.held.get(leaf as usize)?;
        self.classes.get(held.class as usize)
    }

    /// The pattern that the name table finds for a name (wire form, without
    /// the root byte); `None` when a question for it would be denied.
    pub fn judge_name(&self, wire: &[u8]) -> Option<&Pattern> {
        self.name(wire)
            .filter(|name| name.may_be_asked())
            .map(|name| &name.pattern)
    }

    /// The longest entry of the name table that matches, which may be one that grants nothing.
    pub fn name(&self, wire: &[u8]) -> Option<&Name> {
        let wire = wire.to_ascii_lowercase();
        self.entry(&wire, false).or_else(|| {
            let mut parents = names::suffixes(&wire).skip(1);
            parents.find_map(|parent| self.entry(parent, true))
        })
    }

    /// The longest wildcard that stands for every name below `wire`.
    pub fn wildcard(&self, wire: &[u8]) -> Option<&Name> {
        names::suffixes(wire).find_map(|suffix| self.entry(suffix, true))
    }

    fn entry(&self, wire: &[u8], wildcard: bool) -> Option<&Name> {
        let place = |name: &Name| {
            let pattern = &name.pattern;
            (pattern.wire(), pattern.is_wildcard()).cmp(&(wire, wildcard))
        };
        let index = self.names.binary_search_by(place).ok()?;
        self.names.get(index)
    }

    /// Whether an address learned for `pattern` could be used with this protocol and port, if
    /// only audited (unless an address rule denies the address itself).
    pub fn name_allows(&self, pattern: &Pattern, protocol: u8, port: u16) -> bool {
        self.entry(pattern.wire(), pattern.is_wildcard())
            .is_some_and(|name| name.lends(cut::atom(&self.atoms, protocol, port)).is_some())
    }
}

/// An address as the tables hold it.
pub fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::from_ipv4(address.to_bits()),
        IpAddr::V6(address) => Address::from_ipv6(address.octets()),
    }
}

/// A policy on a host that has learned at most one name's addresses.
struct Static<'a> {
    image: &'a Image,
    /// The name that lends every address.
    learned: Option<&'a Name>,
}

impl Tables for Static<'_> {
    fn atom(&self, protocol: u8, port: u16) -> Option<u8> {
        Some(cut::atom(&self.image.atoms, protocol, port))
    }

    fn knows(&self, _: Address) -> bool {
        true
    }

    fn learned(&self, _: &Packet, atom: u8) -> Option<Lent> {
        self.learned?.lends(atom)
    }

    fn flow(&self, _: &Packet, _: u8) -> Option<Origin> {
        None
    }

    fn quoted(&self, _: &Packet) -> Option<&Packet> {
        None
    }

    /// Of addresses alone there is none.
    fn is_plumbing(&self, _: &Packet) -> bool {
        false
    }

    fn fragment(&self, _: &FragmentKey) -> bool {
        false
    }

    fn now(&self) -> u32 {
        0
    }
}

/// What a rule adds to a name.
fn name_rights(rule: &Rule, atoms: AtomSet) -> Option<(&Pattern, Rights)> {
    match &rule.destination {
        Destination::Name(pattern) => Some((pattern, Rights::of(rule.action, atoms))),
        _ => None,
    }
}

/// What the connected subnets grant.
fn on_link() -> AtomSet {
    let mut set = AtomSet::EMPTY;
    set.insert(ATOM_LINK);
    set
}
