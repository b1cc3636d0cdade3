//! Everything that crosses between the kernel and user space: keys, values,
//! events, constants. Integers are in native byte order unless a field says
//! otherwise; padding is explicit and zero.

use core::mem::{offset_of, size_of};

use crate::dns::MAX_ALIASES;

/// The version of the layout of a policy's tables, which are made anew where it
/// changed. What outlives policies has a version for each map, beside its name in
/// `netfilter-daemon/src/datapath/maps.rs`: whoever changes a layout raises its number.
pub const TABLES_LAYOUT: u32 = 6;

/// Distinct sets of (protocol, port) that one policy can tell apart.
pub const ATOMS: usize = 256;
/// The atom of whatever no rule mentions. No set ever holds it.
pub const ATOM_NONE: u8 = 0;
/// Plumbing to a unicast address, which is for whom is on the link: DHCP and neighbour
/// discovery. Granted to the connected subnets.
pub const ATOM_LINK: u8 = 1;
/// In the set of a name, whose deciders say what it audits. No packet to a learned address
/// has this atom.
pub const ATOM_AUDITS: u8 = ATOM_LINK;

/// Interfaces counted apart. Slot 0 is whatever has no slot of its own.
pub const INTERFACE_SLOTS: u32 = 64;
/// Places for [`Interface`] entries; see [`interface_place`].
pub const INTERFACE_INDEXES: u32 = 4096;
/// Places in which the entry of one interface can be.
pub const INTERFACE_PROBES: u32 = 4;
/// Counters per interface slot: families times protocol labels.
pub const COUNTERS_PER_SLOT: u32 = 12;

/// Names a policy can hold, and with those of its predecessors remember.
pub const NAME_IDS: u32 = 32_768;
/// The id of a name that grants nothing: what a denied question is remembered
/// as where it passes all the same, because of audit.
pub const NAME_ID_NONE: u32 = 0;
/// In the name table, beside the id: the entry is a wildcard.
pub const NAME_WILDCARD: u32 = 1 << 31;

/// Grants that one learned address can hold. A content network's address is
/// lent by many names; more than this are refused and counted.
pub const GRANTS: usize = LEASE_GRANTS + CROWD_GRANTS;
/// Of them, those that stand with the address. Few names lend most addresses: with what the
/// kernel puts before it, such a lease takes two cache lines.
pub const LEASE_GRANTS: usize = 6;
/// The others, of an address that more names lend.
pub const CROWD_GRANTS: usize = 26;

/// Names that one alias can be asked for on behalf of.
pub const ALIAS_GRANTS: usize = 8;

/// Addresses read from one DNS answer (of a stream: from one segment).
pub const MAX_ANSWER_ADDRESSES: usize = 256;
/// Of them, those that user space is told.
pub const REPORTED_ADDRESSES: usize = 32;
/// Query types (RFC 6895 section 3.1) that a policy can list.
pub const QUERY_TYPES: usize = 512;
/// Bytes of a DNS message that the programs read (EDNS limit, RFC 6891 6.2.5).
pub const MAX_DNS_MESSAGE: usize = 4096;

/// The `probe`-th place where the entry of an interface can be. The stride is odd and far
/// from the distances between interfaces that were made one after the other.
#[must_use]
#[inline(always)]
pub const fn interface_place(ifindex: u32, probe: u32) -> u32 {
    ifindex.wrapping_add(probe * 1021) % INTERFACE_INDEXES
}

/// The copy of the tables that a generation uses: policies are double-buffered.
#[must_use]
pub const fn slot(generation: u32) -> u32 {
    generation & 1
}

/// An address of either family as a number: IPv4 as `::ffff:a.b.c.d` (RFC 4291
/// section 2.5.5.2). Numeric value of the network-order bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct Address {
    pub high: u64,
    pub low: u64,
}

impl Address {
    const IPV4_MAPPED: u64 = 0xffff_0000_0000;

    #[must_use]
    #[inline(always)]
    pub const fn from_ipv4(address: u32) -> Self {
        Self {
            high: 0,
            low: Self::IPV4_MAPPED | address as u64,
        }
    }

    #[must_use]
    #[inline(always)]
    pub const fn from_ipv6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            high: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            low: u64::from_be_bytes([i, j, k, l, m, n, o, p]),
        }
    }

    #[must_use]
    #[inline(always)]
    pub const fn is_ipv4(self) -> bool {
        self.high == 0 && self.low >> 32 == 0xffff
    }

    /// The address left-aligned, as the prefix table reads it.
    #[must_use]
    #[inline(always)]
    pub const fn left_aligned(self) -> (u64, u64) {
        if self.is_ipv4() {
            (self.low << 32, 0)
        } else {
            (self.high, self.low)
        }
    }
}

/// A set of atoms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct AtomSet {
    pub words: [u64; ATOMS / 64],
}

impl AtomSet {
    pub const EMPTY: Self = Self {
        words: [0; ATOMS / 64],
    };

    #[must_use]
    #[inline(always)]
    pub const fn contains(&self, atom: u8) -> bool {
        self.words[(atom >> 6) as usize] >> (atom & 63) & 1 == 1
    }

    pub const fn insert(&mut self, atom: u8) {
        self.words[(atom >> 6) as usize] |= 1 << (atom & 63);
    }

    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
        self
    }

    #[must_use]
    pub fn without(mut self, other: &Self) -> Self {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
        self
    }

    #[must_use]
    pub fn intersection(mut self, other: &Self) -> Self {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= other;
        }
        self
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words == [0; ATOMS / 64]
    }
}

/// What a prefix grants: the union of every rule that encloses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Class {
    /// Allowed, and not denied.
    pub allow: AtomSet,
    /// [`CLASS_RESOLVER`]. In the first cache line, which is all that permitted packets read.
    pub flags: u32,
    pub padding: [u32; 7],
    /// Denied, also to learned addresses.
    pub deny: AtomSet,
    /// Passes, and is counted as what would have been dropped.
    pub audit: AtomSet,
}

/// What the leaves of the prefix tables number: what holds at a prefix, and who says so. Prefixes
/// of different rules that grant the same have one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Held {
    /// Index of its [`Class`].
    pub class: u32,
    /// Index of the first of its [`Decider`]s; 0: nobody.
    pub decider: u32,
}

/// The address is that of a configured resolver.
pub const CLASS_RESOLVER: u32 = 1;

/// A rule, at a place in the tables where it decides on some traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Decider {
    pub atoms: AtomSet,
    /// The rule's key in `HITS`: the first eight bytes of the SHA-256 of its name.
    pub rule: u64,
    /// Index of the one that decides on what this one says nothing of; 0: nobody does.
    pub next: u32,
    /// [`DECIDER_ALLOWS`], [`DECIDER_DENIES`] or [`DECIDER_AUDITS`].
    pub action: u32,
}

pub const DECIDER_ALLOWS: u32 = 1;
pub const DECIDER_DENIES: u32 = 2;
pub const DECIDER_AUDITS: u32 = 3;
/// Deciders of one place that are asked. One that says nothing new is not among them, so
/// those that allow are at most [`ATOMS`].
pub const DECIDERS_AT_ONCE: u32 = 320;
/// Rules whose flows are counted: of the policy in force and of its predecessor.
pub const HIT_RULES: u32 = 65_536;
/// Pairs of places for flows that were seen lately.
pub const RECENT_SETS: u32 = 8_192;

/// (protocol, port) to atom.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Atoms {
    /// By destination port.
    pub tcp: [u8; 65_536],
    pub udp: [u8; 65_536],
    /// By IP protocol number, for all protocols without ports.
    pub other: [u8; 256],
}

/// What a policy sets beside its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Settings {
    /// What may come in: replies to it may leave.
    pub inbound: AtomSet,
    /// Zero or more of the `SETTING_` numbers.
    pub flags: u32,
    /// The DNS RCODE that answers a denied question (RFC 1035 section 4.1.1), or [`RCODE_DROP`].
    pub denied_name_rcode: u32,
    /// Seconds that a learned address lives at least.
    pub minimum_ttl: u32,
    /// Seconds added to each TTL.
    pub grace: u32,
    /// The query types that may be asked for, a bit each; see [`crate::gate`].
    pub query_types: [u64; QUERY_TYPES / 64],
    /// Bytes of the longest name, in wire form without the root, that a wildcard admits.
    pub wildcard_length: u32,
    /// Names that a wildcard admits in a minute and that were not asked for
    /// lately. `u32::MAX`: any number.
    pub wildcard_rate: u32,
    /// From this second of CLOCK_BOOTTIME on the other copy is in force instead,
    /// unless somebody has confirmed this one meanwhile; 0: never.
    pub expires: u32,
    /// Until this second of CLOCK_BOOTTIME there may be answers to questions that left
    /// before the filter came. They pass, and teach nothing.
    pub opened: u32,
}

impl Settings {
    /// Whether one of the `SETTING_` numbers is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// Drop nothing; count and report what would have been dropped.
pub const SETTING_REPORT: u32 = 1;
/// Refuse with TCP RST or ICMP instead of dropping in silence.
pub const SETTING_REJECT: u32 = 2;
/// Every query type may be asked for.
pub const SETTING_ANY_TYPE: u32 = 4;
/// Nothing is judged: what was in force before the first policy.
pub const SETTING_LIFTED: u32 = 8;
/// In place of an RCODE: no answer at all.
pub const RCODE_DROP: u32 = 255;

/// Users whose sockets may pass by the filter.
pub const USERS: usize = 63;

/// The users of a policy whose sockets may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Users {
    /// Those of `ids` that count.
    pub count: u32,
    pub ids: [u32; USERS],
}

impl Users {
    /// The first [`USERS`] of them.
    #[must_use]
    pub fn of(ids: &[u32]) -> Self {
        let mut users = Self::default();
        for (to, id) in users.ids.iter_mut().zip(ids) {
            *to = *id;
            users.count += 1;
        }
        users
    }

    #[must_use]
    #[inline(always)]
    pub const fn contains(&self, id: u32) -> bool {
        let mut index = 0;
        while index < USERS && index < self.count as usize {
            if self.ids[index] == id {
                return true;
            }
            index += 1;
        }
        false
    }
}

impl Default for Users {
    fn default() -> Self {
        Self {
            count: 0,
            ids: [0; USERS],
        }
    }
}

/// What one name lent an address: the name's id and until when, as one word so
/// that it is read and replaced whole. Zero is no grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Grant(pub u64);

impl Grant {
    /// `until` is in seconds of CLOCK_BOOTTIME.
    #[must_use]
    #[inline(always)]
    pub const fn new(name: u32, until: u32) -> Self {
        Self((name as u64) << 32 | until as u64)
    }

    #[must_use]
    #[inline(always)]
    pub const fn name(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the time")]
    pub const fn until(self) -> u32 {
        self.0 as u32
    }
}

/// An address that DNS answers lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Lease<const COUNT: usize = LEASE_GRANTS> {
    /// The key once more, for the kernel gives an element that was removed to
    /// another key at once, while a program may still hold it.
    pub address: Address,
    /// Filled from the front; a zero ends it.
    pub grants: [Grant; COUNT],
}

/// What does not fit the [`Lease`] of the same address, without which it counts for nothing.
pub type Crowd = Lease<CROWD_GRANTS>;

impl<const COUNT: usize> Lease<COUNT> {
    /// That nobody lends.
    #[must_use]
    pub const fn of(address: Address) -> Self {
        Self {
            address,
            grants: [Grant(0); COUNT],
        }
    }
}

/// A name that answers for other names pointed to: whoever may ask for those
/// may ask for it. Filled from the front; a zero ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Alias {
    /// As in [`Lease`].
    pub key: u64,
    pub grants: [Grant; ALIAS_GRANTS],
}

/// A question in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct QuestionKey {
    pub client: Address,
    pub resolver: Address,
    /// Of the question's bytes as they were sent, keyed per machine.
    pub hash: u64,
    pub client_port: u16,
    pub id: u16,
    /// IP protocol number.
    pub protocol: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct QuestionValue {
    /// The name that admits it, or [`NAME_ID_NONE`].
    pub name: u32,
    /// Seconds of CLOCK_BOOTTIME.
    pub asked: u32,
    /// The key of its [`Alias`], or zero.
    pub alias: u64,
}

/// A flow that the tables cannot answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FlowKey {
    pub local: Address,
    pub remote: Address,
    pub local_port: u16,
    pub remote_port: u16,
    pub protocol: u8,
    /// In two words: three bytes at once would be a call.
    pub padding: u8,
    pub more_padding: u16,
}

/// What is known of a flow; see [`crate::flow`]. Two programs write to it at once,
/// on two processors: each only to words of its own, and both to `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Flow {
    /// The name that admitted it, or [`FLOW_INBOUND`].
    pub origin: u32,
    /// Seconds of CLOCK_BOOTTIME.
    pub until: u32,
    /// Until when the lease lasts that admitted it: its own life begins then.
    pub granted: u32,
    /// What acknowledges our newest segment.
    pub sent: u32,
    /// What we acknowledged last.
    pub acknowledged: u32,
    /// What acknowledges our FIN.
    pub our_end: u32,
    /// What acknowledges the remote's FIN, which it may not have sent.
    pub their_end: u32,
    /// What the egress program saw.
    pub local: u16,
    /// What the ingress program saw.
    pub remote: u16,
}

/// The origin of a flow that came in.
pub const FLOW_INBOUND: u32 = u32::MAX;
/// Seconds that a silent flow is remembered. TCP: the 2 h 4 min of RFC 5382
/// REQ-5 would fit; a day keeps an idle SSH session. UDP: RFC 4787 REQ-5.
pub const FLOW_IDLE_TCP: u32 = 86_400;
pub const FLOW_IDLE_OTHER: u32 = 300;
/// Of a TCP flow whose remote has not proved that it receives ours: the longest
/// that Linux waits for the answer to a SYN is 127.
pub const FLOW_IDLE_OPENING: u32 = 128;
/// Of one that we have ended (RFC 5382 REQ-5: not less than 240).
pub const FLOW_IDLE_CLOSING: u32 = 300;
/// Of one that is over, for what is sent again (TIME-WAIT of Linux).
pub const FLOW_IDLE_CLOSED: u32 = 60;

/// What came into a map that forgets by itself, and what was taken out. What is
/// neither there nor taken out was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Turnover {
    pub inserted: u64,
    pub deleted: u64,
}

/// A datagram whose first fragment passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FragmentKey {
    pub source: Address,
    pub destination: Address,
    pub id: u32,
    pub protocol: u8,
    /// In two words: three bytes at once would be a call.
    pub padding: u8,
    pub more_padding: u16,
}

/// Seconds that fragments may follow their first (RFC 8200 section 4.5: 60).
pub const FRAGMENT_TIMEOUT: u32 = 60;

/// Packets and bytes. Bytes are those of the frames, Ethernet header included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counter {
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct DropKey {
    /// Slot of the interface, see [`Interface`].
    pub interface: u32,
    /// [`crate::verdict::Reason`]
    pub reason: u8,
    /// [`crate::verdict::Family`]
    pub family: u8,
    /// [`crate::verdict::ProtocolLabel`]
    pub protocol: u8,
    /// 1 where it passed all the same, because of audit.
    pub audited: u8,
}

/// What the programs must know of an interface before they judge its packets:
/// without an entry nothing leaves by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Interface {
    /// Zero: no entry.
    pub ifindex: u32,
    /// Of the counters.
    pub slot: u32,
    /// Zero or more of the `INTERFACE_` bits below.
    pub flags: u32,
    pub padding: u32,
    /// The last name it had, padded with zeros: for the counters of one that is gone.
    pub name: [u8; 16],
}

/// Frames begin with the IP header (WireGuard, tun, PPP).
pub const INTERFACE_BARE: u32 = 1;
/// Frames begin with a header that the programs do not read. Nothing leaves.
pub const INTERFACE_UNREADABLE: u32 = 2;
/// What arrives goes on through another filtered interface: a bond, a bridge, a VLAN.
pub const INTERFACE_UNDER: u32 = 4;
/// Belongs to a bond, which negotiates with the switch by LACP.
pub const INTERFACE_BONDED: u32 = 8;
/// A workload is behind it: what arrives there leaves the workload.
pub const INTERFACE_WORKLOAD: u32 = 16;

/// VLANs or bridges stand on it, so frames leave with tags that the kernel has not
/// set aside.
pub const INTERFACE_TAGGED: u32 = 32;

const _: () = assert!(
    INTERFACE_BARE
        + INTERFACE_UNREADABLE
        + INTERFACE_UNDER
        + INTERFACE_BONDED
        + INTERFACE_WORKLOAD
        + INTERFACE_TAGGED
        == 63,
    "each a bit of its own"
);

/// Of the loopback interface, in every network namespace (LOOPBACK_IFINDEX,
/// include/net/flow.h).
pub const LOOPBACK_IFINDEX: u32 = 1;

/// Bytes of a path that fit. Its last 128 always do.
pub const PATH: usize = 256;

/// A path of the kernel's tree of files or of cgroups: the names of which it consists, the
/// last first, a zero behind each. Those that did not fit are missing, so the end is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Path {
    /// Bytes that count.
    pub length: u16,
    /// 1 where names are missing, or the bytes of one.
    pub cut: u8,
    pub padding: [u8; 5],
    pub text: [u8; PATH],
}

impl Path {
    pub const NONE: Self = Self {
        length: 0,
        cut: 0,
        padding: [0; 5],
        text: [0; PATH],
    };
}

/// Who used a socket, written when it did, in its own context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Who {
    /// Odd while the rest is being written.
    pub sequence: u64,
    /// The kernel's id of the cgroup; 0 where it is not known.
    pub cgroup_id: u64,
    /// When the process began, and how many programs it has executed: with these
    /// and its number it is told from others.
    pub started: u64,
    pub executions: u64,
    /// As the first pid namespace numbers it, or [`NO_PROCESS`].
    pub process: u32,
    /// The real user, as the first user namespace numbers it, or [`NO_USER`].
    pub user: u32,
    /// The second of CLOCK_BOOTTIME at which the socket was last used by another process
    /// than before; 0: never.
    pub shared: u32,
    /// [`crate::verdict::Moment`]
    pub moment: u8,
    pub padding: [u8; 3],
    /// The thread's name, padded with zeros.
    pub program: [u8; 16],
}

impl Who {
    pub const NOBODY: Self = Self {
        sequence: 0,
        cgroup_id: 0,
        started: 0,
        executions: 0,
        process: NO_PROCESS,
        user: NO_USER,
        shared: 0,
        moment: 0,
        padding: [0; 3],
        program: [0; 16],
    };
}

/// A process that executes one program in one cgroup, as in [`Who`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct PathsKey {
    pub started: u64,
    pub cgroup_id: u64,
    pub process: u32,
    pub executions: u32,
}

impl PathsKey {
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the kernel counts in as many bits"
    )]
    #[inline(always)]
    pub const fn new(process: u32, started: u64, executions: u64, cgroup_id: u64) -> Self {
        Self {
            started,
            cgroup_id,
            process,
            executions: executions as u32,
        }
    }
}

/// By which paths it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Paths {
    /// Zero until the rest is written.
    pub whole: u64,
    pub key: PathsKey,
    pub executable: Path,
    pub cgroup: Path,
}

impl Paths {
    pub const NONE: Self = Self {
        whole: 0,
        key: PathsKey::new(0, 0, 0, 0),
        executable: Path::NONE,
        cgroup: Path::NONE,
    };

    /// As if there were none.
    #[inline(always)]
    pub const fn forget(&mut self) {
        self.executable.length = 0;
        self.executable.cut = 0;
        self.cgroup.length = 0;
        self.cgroup.cut = 0;
    }
}

/// Nobody is known: the number stands for none in the kernel, too.
pub const NO_USER: u32 = u32::MAX;

/// Where the kernel keeps what leads from a process to the paths of its program and its
/// cgroup: offsets in bytes, as this kernel's BTF has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Layout {
    /// Zero: nothing is known, or may be read.
    pub known: u32,
    pub task_mm: u32,
    pub task_leader: u32,
    pub task_started: u32,
    pub task_executions: u32,
    pub task_cgroups: u32,
    pub task_process: u32,
    pub task_rights: u32,
    pub task_program: u32,
    pub rights_user: u32,
    pub mm_file: u32,
    pub file_path: u32,
    pub path_mount: u32,
    pub path_dentry: u32,
    pub dentry_name: u32,
    pub dentry_parent: u32,
    pub mount_root: u32,
    /// Of `struct mount`, which holds the `vfsmount` at `mount_mnt`.
    pub mount_mnt: u32,
    pub mount_parent: u32,
    pub mount_point: u32,
    pub css_cgroup: u32,
    pub cgroup_node: u32,
    pub node_name: u32,
    pub node_parent: u32,
    pub node_id: u32,
    pub sock_cgroup: u32,
}

/// A denied packet or question. In the ring it ends with the last byte of its text that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    pub source: Address,
    pub destination: Address,
    pub ifindex: u32,
    /// Length of the frame in bytes.
    pub bytes: u32,
    pub source_port: u16,
    pub destination_port: u16,
    /// [`crate::verdict::Reason`]
    pub reason: u8,
    /// [`crate::verdict::Family`]
    pub family: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// 1 where it passed all the same, because of audit.
    pub audited: u8,
    /// Seconds of CLOCK_BOOTTIME.
    pub time: u32,
    // As in [`Who`].
    pub process: u32,
    /// Of the same source, before this one, that were not reported; see [`crate::source`].
    pub untold: u64,
    pub cgroup_id: u64,
    pub user: u32,
    pub shared: u32,
    pub program: [u8; 16],
    pub moment: u8,
    /// [`EVENT_CUT_EXECUTABLE`] and [`EVENT_CUT_CGROUP`].
    pub cut: u8,
    /// Bytes of the name that count; 0 where the packet is no DNS question.
    pub name_length: u16,
    /// Of two [`Path`]s.
    pub executable_length: u16,
    pub cgroup_length: u16,
    /// The name that was asked for (DNS wire form as it was sent, without the root), the
    /// executable and the cgroup, each at a multiple of eight bytes.
    pub text: [u8; EVENT_TEXT],
}

pub const EVENT_CUT_EXECUTABLE: u8 = 1;
pub const EVENT_CUT_CGROUP: u8 = 2;
/// A name has 255 bytes at most.
pub const EVENT_TEXT: usize = 256 + 2 * PATH;

/// A socket that asked for a way past tc, or would have been refused it. Fixed size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Attempt {
    /// Seconds of CLOCK_BOOTTIME.
    pub time: u32,
    /// Or [`NO_PROCESS`].
    pub process: u32,
    /// The real user, as the first user namespace numbers it.
    pub user: u32,
    /// [`crate::verdict::Way`]
    pub way: u8,
    /// 1 where it was granted all the same, because of audit.
    pub audited: u8,
    pub padding: u16,
    /// The thread's name, padded with zeros.
    pub program: [u8; 16],
}

/// The kernel does not tell who asks.
pub const NO_PROCESS: u32 = 0;
/// Attempts that are reported.
pub const ATTEMPTS_PER_MINUTE: u32 = 600;

/// Where packets go, or whom they answer, that audit lets pass and no rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct WantedKey {
    /// Zero where it answers; see [`crate::wanted`].
    pub address: Address,
    /// Of the destination; of what answers, its own. Of ICMP that answers, the type.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 1 where it answers somebody who began.
    pub answers: u8,
    pub padding: u32,
}

/// What is known of them. Who sends, and by which port, is that of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Wanted {
    pub packets: u64,
    /// Of them, those that begin a connection of TCP.
    pub begun: u64,
    /// As in [`Who`].
    pub cgroup_id: u64,
    /// Where it went.
    pub address: Address,
    /// Seconds of CLOCK_BOOTTIME.
    pub first: u32,
    pub last: u32,
    /// As in [`Who`].
    pub process: u32,
    pub user: u32,
    pub program: [u8; 16],
}

/// A question that audit lets pass and no rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct AskedKey {
    /// The keyed hash of the name, for which letter case makes no difference.
    pub name: u64,
    pub qtype: u16,
    /// 1 where it did not leave: a client asked a resolver on this machine.
    pub inside: u16,
    pub padding: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Asked {
    pub questions: u64,
    /// Seconds of CLOCK_BOOTTIME.
    pub first: u32,
    pub last: u32,
    /// Bytes of `name` that count.
    pub name_length: u16,
    /// [`crate::verdict::Reason`]
    pub reason: u8,
    pub padding: [u8; 5],
    /// DNS wire form as it was sent first, without the root.
    pub name: [u8; 256],
}

/// That a name resolved to an address, or is an alias of another name. User space writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct NamedKey {
    /// The address; of an alias, zero and the keyed hash of the other name.
    pub to: Address,
    /// A hash of the name.
    pub name: u64,
    /// 1 for an alias.
    pub alias: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Named {
    /// Seconds of CLOCK_BOOTTIME.
    pub first: u32,
    pub last: u32,
    /// Bytes of `name` that count.
    pub name_length: u64,
    /// DNS wire form, ASCII-lowercased, without the root.
    pub name: [u8; 256],
}

/// What a name resolved to: an answer as it went by. It ends where the name does, which stands right
/// behind the addresses: the less there is to write, the less there is to make room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Resolved {
    pub name_length: u16,
    /// Addresses.
    pub count: u16,
    /// Seconds of CLOCK_BOOTTIME.
    pub time: u32,
    /// The keyed hashes of what it is an alias for, or zero.
    pub aliases: [u64; MAX_ALIASES],
    /// The addresses, of two words each, then the name: DNS wire form as it was asked for, without the root.
    pub rest: [u64; RESOLVED_WORDS],
}

/// Of the longest name.
pub const NAME_WORDS: usize = 256 / 8;
/// Of the most addresses and such a name.
pub const RESOLVED_WORDS: usize = 2 * REPORTED_ADDRESSES + NAME_WORDS;

macro_rules! layout {
    ($($type:ty = $size:literal $(, $field:ident = $offset:literal)*;)+) => {
        $( const _: () = assert!(size_of::<$type>() == $size); $( const _: () = assert!(offset_of!($type, $field) == $offset); )* )+
    };
}

layout! {
    Address = 16;
    AtomSet = 32;
    Decider = 48, rule = 32, next = 40, action = 44;
    Class = 128, flags = 32, deny = 64, audit = 96;
    Held = 8, decider = 4;
    Atoms = 131_328, udp = 65_536, other = 131_072;
    Settings = 128, flags = 32, denied_name_rcode = 36, minimum_ttl = 40, grace = 44, query_types = 48, wildcard_length = 112, expires = 120;
    Grant = 8;
    Lease = 64, grants = 16;
    Crowd = 224, grants = 16;
    QuestionKey = 48, hash = 32, client_port = 40, id = 42, protocol = 44;
    Alias = 72, grants = 8;
    QuestionValue = 16, alias = 8;
    FlowKey = 40, local_port = 32, remote_port = 34, protocol = 36, padding = 37, more_padding = 38;
    Flow = 32, granted = 8, sent = 12, acknowledged = 16, our_end = 20, their_end = 24, local = 28, remote = 30;
    Turnover = 16;
    FragmentKey = 40, id = 32, protocol = 36, padding = 37, more_padding = 38;
    Counter = 16;
    DropKey = 8;
    Interface = 32, slot = 4, flags = 8, name = 16;
    Path = 264, text = 8;
    Who = 64, process = 32, moment = 44, program = 48;
    PathsKey = 24, process = 16;
    Paths = 560, key = 8, executable = 32, cgroup = 296;
    Layout = 104;
    Event = 872, ifindex = 32, source_port = 40, reason = 44, time = 48, untold = 56, user = 72, program = 80, moment = 96, name_length = 98, text = 104;
    Attempt = 32, user = 8, audited = 13, program = 16;
    Users = 256, ids = 4;
    Resolved = 840, time = 4, aliases = 8, rest = 72;
    WantedKey = 24, port = 16, protocol = 18, answers = 19;
    Wanted = 72, address = 24, first = 40, process = 48, program = 56;
    AskedKey = 16, qtype = 8, inside = 10;
    Asked = 280, first = 8, name_length = 16, reason = 18, name = 24;
    NamedKey = 32, name = 16, alias = 24;
    Named = 272, name_length = 8, name = 16;
}
