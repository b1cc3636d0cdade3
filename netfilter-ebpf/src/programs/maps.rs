//! Every map. Those of the policy hold two copies, of which `ACTIVE` names one.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{
        Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, ProgramArray, RingBuf,
    },
};
use netfilter_ebpf::{
    abi::{
        Address, Alias, Asked, AskedKey, AtomSet, Atoms, COUNTERS_PER_SLOT, Class, Counter, Crowd,
        Decider, DropKey, Event, Flow, FlowKey, FragmentKey, HIT_RULES, Held, INTERFACE_INDEXES,
        INTERFACE_SLOTS, Interface, Lease, MAX_DNS_MESSAGE, NAME_IDS, Named, NamedKey, Paths,
        PathsKey, QuestionKey, QuestionValue, RECENT_SETS, Resolved, Settings, Turnover, Users,
        Wanted, WantedKey, Who,
    },
    dns::{Addresses, Cursor, MAX_ALIASES, Question},
    gate::Bucket,
    name::{KEY_DATA, KeyBuffer},
    packet::Packet,
    plumbing, remote,
    source::{self, Silence, Source},
    stream::{Inbound, Stream, Walk},
    table::{Node, ROOTS_PER_FAMILY},
};

/// Behind the longest message: the most that one read takes, and the most that a
/// stream kept before it, so that an offset alone is enough for a bound.
pub(crate) const MESSAGE_SLACK: usize = 512;
/// Questions in one TCP segment. Real clients send two.
pub(crate) const MAX_QUESTIONS: usize = 16;

/// The generation in force; zero before the first. Its lowest bit is the copy.
#[map]
pub(crate) static ACTIVE: Array<u32> = Array::with_max_entries(1, BPF_F_MMAPABLE);

// The policy, two copies of each. Capacities are set when the object is loaded.

#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(2, 0);
/// By copy and family; then by first bits of the address.
#[map]
pub(crate) static ROOTS: Array<[u32; ROOTS_PER_FAMILY as usize]> =
    Array::with_max_entries(4, BPF_F_MMAPABLE);
#[map]
pub(crate) static NODES: Array<Node> = Array::with_max_entries(2, BPF_F_MMAPABLE);
/// What leaves number, of each copy.
#[map]
pub(crate) static HELD: Array<[Held; 2]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static CLASSES: Array<Class> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
pub(crate) static ATOMS: Array<Atoms> = Array::with_max_entries(2, BPF_F_MMAPABLE);
/// Keys of both copies, told apart by their first byte, to name ids.
#[map]
pub(crate) static NAMES: LpmTrie<[u8; KEY_DATA], u32> = LpmTrie::with_max_entries(2 * NAME_IDS, 0);
/// By copy and name id.
#[map]
pub(crate) static NAME_SETS: Array<AtomSet> = Array::with_max_entries(2 * NAME_IDS, BPF_F_MMAPABLE);

// Which rules decide where, for `hits`.

/// The first is nobody.
#[map]
pub(crate) static DECIDERS: Array<Decider> = Array::with_max_entries(2, BPF_F_MMAPABLE);
/// Beside `NAME_SETS`: indices of deciders, in pairs.
#[map]
pub(crate) static NAME_DECIDERS: Array<[u32; 2]> =
    Array::with_max_entries(NAME_IDS, BPF_F_MMAPABLE);

/// By copy: whose sockets may pass by.
#[map]
pub(crate) static USERS: Array<Users> = Array::with_max_entries(2, 0);

/// The cookie of the network namespace that is filtered (SO_NETNS_COOKIE).
#[map]
pub(crate) static NETWORK: Array<u64> = Array::with_max_entries(1, 0);

/// The highest name id ever given out; user space only.
#[map]
pub(crate) static NAME_CURSOR: Array<u32> = Array::with_max_entries(1, 0);

// What the programs learn; survives policies, daemons and upgrades. Most of it has its
// memory from the start: a packet cannot wait for memory, and without it an answer
// would go on unlearned. Two tables of flows take it as they fill, for they are large and few
// machines fill them; a flow that finds none is put there by a later packet of it.

#[map]
pub(crate) static LEASES: HashMap<Address, Lease> = HashMap::with_max_entries(65_536, 0);
/// Of the addresses that many names lend.
#[map]
pub(crate) static CROWDS: HashMap<Address, Crowd> = HashMap::with_max_entries(4_096, 0);
/// Which addresses these two and the flows below know, see [`netfilter_ebpf::remote`].
#[map]
pub(crate) static REMOTES: Array<u64> = Array::with_max_entries(remote::STATE + 1, BPF_F_MMAPABLE);
#[map]
pub(crate) static QUESTIONS: LruHashMap<QuestionKey, QuestionValue> =
    LruHashMap::with_max_entries(16_384, 0);
/// By the keyed hash of the name.
#[map]
pub(crate) static ALIASES: LruHashMap<u64, Alias> = LruHashMap::with_max_entries(8_192, 0);
/// Connections to resolvers.
#[map]
pub(crate) static STREAMS: LruHashMap<FlowKey, Stream> = LruHashMap::with_max_entries(2_048, 0);
/// Names that wildcards were asked for, as keyed hashes, and when first (seconds
/// of CLOCK_BOOTTIME).
#[map]
pub(crate) static SEEN: LruHashMap<u64, u32> = LruHashMap::with_max_entries(32_768, 0);
/// By name id: how many new names a wildcard may still be asked for.
#[map]
pub(crate) static RATES: Array<Bucket> = Array::with_max_entries(NAME_IDS, 0);
/// By interface slot and [`plumbing::Kind`]: what may still be said.
#[map]
pub(crate) static PLUMBING: Array<Bucket> =
    Array::with_max_entries(INTERFACE_SLOTS * plumbing::KINDS, 0);
/// TCP connections that came in and whose remote proved that it receives ours:
/// no flood of other packets gets in here, nor can it push one out.
#[map]
pub(crate) static INBOUND: HashMap<FlowKey, Flow> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
/// Flows that a learned name admitted. A map of their own: what floods from the
/// inside pushes out nobody who came in.
#[map]
pub(crate) static OUTBOUND: HashMap<FlowKey, Flow> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
/// Flows that came in and are not proven, without connection, or over.
#[map]
pub(crate) static HALF_OPEN: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(65_536, 0);
/// Until when fragments may follow, in seconds of CLOCK_BOOTTIME.
#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, u32> = LruHashMap::with_max_entries(4_096, 0);

/// Egress and ingress, for the relays.
#[map]
pub(crate) static RELAYED: ProgramArray = ProgramArray::with_max_entries(2, 0);

// Counters and events.

/// See `abi::interface_place`.
#[map]
pub(crate) static INTERFACES: Array<Interface> =
    Array::with_max_entries(INTERFACE_INDEXES, BPF_F_MMAPABLE);
/// By interface slot, family, protocol label.
#[map]
pub(crate) static PASSED: PerCpuArray<Counter> =
    PerCpuArray::with_max_entries(INTERFACE_SLOTS * COUNTERS_PER_SLOT, 0);
#[map]
pub(crate) static DROPPED: PerCpuHashMap<DropKey, Counter> =
    PerCpuHashMap::with_max_entries(8_192, 0);
/// By rule: flows that it let out, or denied. User space puts the rules in.
#[map]
pub(crate) static HITS: HashMap<u64, u64> = HashMap::with_max_entries(HIT_RULES, BPF_F_NO_PREALLOC);
/// Flows that were seen lately: 40 bits of a keyed hash, and 24 of the second.
#[map]
pub(crate) static RECENT: Array<u64> = Array::with_max_entries(2 * RECENT_SETS, 0);
#[map]
pub(crate) static QUESTION_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(8, 0);
#[map]
pub(crate) static ANSWER_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(8, 0);
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(4, 0);
/// By [`netfilter_ebpf::verdict::LostFlow`].
#[map]
pub(crate) static LOST_FLOWS: PerCpuArray<u64> = PerCpuArray::with_max_entries(4, 0);
/// By [`netfilter_ebpf::verdict::Forgetful`].
#[map]
pub(crate) static TURNOVER: PerCpuArray<Turnover> = PerCpuArray::with_max_entries(8, 0);
/// How much each source may still report; see [`netfilter_ebpf::source`].
#[map]
pub(crate) static SOURCES: Array<Source> = Array::with_max_entries(source::PLACES, 0);
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 18, 0);
/// Who used a socket last.
#[btf_map]
pub(crate) static WHO: SkStorage<Who> = SkStorage::new();
/// Of the processes that use sockets.
#[map]
pub(crate) static PATHS: LruHashMap<PathsKey, Paths> = LruHashMap::with_max_entries(4_096, 0);
/// Sockets that were refused a way past tc. A ring of its own, too.
#[map]
pub(crate) static ATTEMPTS: RingBuf = RingBuf::with_byte_size(1 << 16, 0);
/// How many more are reported, see `gate::Bucket`.
#[map]
pub(crate) static ATTEMPT_BUDGET: Array<u64> = Array::with_max_entries(1, 0);
/// What names resolved to. A ring of its own: answers must not push out denials.
#[map]
pub(crate) static RESOLVED: RingBuf = RingBuf::with_byte_size(RESOLVED_SIZE, 0);
const RESOLVED_SIZE: u32 = 1 << 20;
/// Bytes in it of which the daemon is not told; it looks each second.
pub(crate) const RESOLVED_UNREAD: u64 = RESOLVED_SIZE as u64 / 4;
/// Beyond them it is told again after as many more.
pub(crate) const RESOLVED_STEP: u64 = RESOLVED_UNREAD / 4;
/// What the kernel puts before each record (`BPF_RINGBUF_HDR_SZ`).
pub(crate) const RECORD_HEADER: u64 = 8;

// What audit let pass, whole, for `suggest`. It takes memory as it fills: most machines enforce,
// and what finds none is counted, and passes all the same.

#[map]
pub(crate) static WANTED: HashMap<WantedKey, Wanted> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static ASKED: HashMap<AskedKey, Asked> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
/// User space only, which keeps it here over restarts.
#[map]
pub(crate) static NAMED: HashMap<NamedKey, Named> =
    HashMap::with_max_entries(32_768, BPF_F_NO_PREALLOC);

/// What does not fit the 512 bytes of stack. One per processor: tc programs run
/// with bottom halves disabled, so none interrupts another.
#[repr(C)]
pub(crate) struct Scratch {
    /// The packet at hand, see `frame`.
    pub(crate) packet: Packet,
    /// What is told of it, see `event`. Behind its text is room.
    pub(crate) event: Event,
    /// What is told of an answer. Behind it is room, too.
    pub(crate) resolved: Resolved,
    /// A DNS message, or the window of a stream.
    pub(crate) message: [u8; MAX_DNS_MESSAGE + MESSAGE_SLACK],
    /// Where `answer` reads in it.
    pub(crate) cursor: Cursor,
    /// Offset of the message whose question was read in this window.
    pub(crate) question_at: u32,
    /// The id of the name that it lends for.
    pub(crate) name: u32,
    /// The key of its alias, or zero.
    pub(crate) alias: u64,
    /// Whom that alias is asked for on behalf of.
    pub(crate) lenders: Alias,
    /// The keys of the aliases in the window, or zero.
    pub(crate) alias_keys: [u64; MAX_ALIASES],
    pub(crate) fresh_alias: Alias,
    /// Not zero: the questions of a segment are answered in place, with these.
    pub(crate) questions: u32,
    /// Keys, which would take much of a stack.
    pub(crate) connection: FlowKey,
    /// The packet that would answer what an ICMP error quotes.
    pub(crate) quoted: Packet,
    /// What the packet is read as: a [`plumbing::Kind`] or zero, and what it costs.
    pub(crate) plumbing: u32,
    pub(crate) costs: u32,
    pub(crate) flow: Flow,
    pub(crate) datagram: FragmentKey,
    pub(crate) asked: QuestionKey,
    pub(crate) walk: Walk,
    pub(crate) rcodes: [u8; MAX_QUESTIONS],
    pub(crate) tail: [u8; MAX_DNS_MESSAGE + MESSAGE_SLACK],
    pub(crate) stream: Stream,
    pub(crate) inbound: Inbound,
    pub(crate) key: KeyBuffer,
    pub(crate) question: Question,
    pub(crate) addresses: Addresses,
    pub(crate) lease: Lease,
    pub(crate) crowd: Crowd,
    /// Who sends the packet, see `who`.
    pub(crate) who: Who,
    pub(crate) paths: Paths,
    /// Who is not told of now, see `event`.
    pub(crate) silence: Silence,
    /// What audit remembers, see `wanted`.
    pub(crate) wanted_key: WantedKey,
    pub(crate) wanted: Wanted,
    pub(crate) asked_key: AskedKey,
    pub(crate) asked_for: Asked,
}

#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Keys the hashes of questions; set once, when the map is made.
#[map]
pub(crate) static SEED: Array<u64> = Array::with_max_entries(1, 0);

#[inline(always)]
pub(crate) fn seed() -> u64 {
    SEED.get(0).copied().unwrap_or(0)
}

/// What marks a packet that we hand back to its sender: nobody else knows it.
#[inline(always)]
pub(crate) fn refusal_mark() -> u32 {
    (seed() >> 32) as u32 | 1
}

/// What marks a packet that one interface has admitted, for the one above it.
#[inline(always)]
pub(crate) fn admitted_mark() -> u32 {
    refusal_mark() ^ 1 << 31
}

/// What stands beside a frame of a workload that was judged.
#[inline(always)]
pub(crate) fn judged_mark() -> u32 {
    refusal_mark() ^ 1 << 30
}

#[inline(always)]
pub(crate) fn count(map: &PerCpuArray<u64>, index: u8) {
    if let Some(counter) = map.get_ptr_mut(u32::from(index)) {
        // SAFETY: a map value of this processor, and nothing interrupts a tc program but other counters.
        unsafe { *counter += 1 };
    }
}
