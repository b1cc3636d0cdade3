//! What the benchmark runs beside the filter's own programs, and before them: in no object
//! but its own. See `tests/bench.rs`.

use aya_ebpf::{
    macros::{classifier, map},
    maps::{Array, LpmTrie, ProgramArray, lpm_trie::Key},
    programs::TcContext,
};
use netfilter_ebpf::{
    abi::Address,
    packet::{ETHERNET_HEADER, Packet},
};

use crate::{atomic, buffer::Buffer, egress, frame, skb::Skb};

/// Destinations, as words of the bytes on the wire; of IPv4 the first four.
#[map]
static DESTINATIONS: Array<[u64; 2]> = Array::with_max_entries(1 << 20, 0);
#[map]
static WALK: Array<Walk> = Array::with_max_entries(1, 0);
/// What runs behind `bench_walk`.
#[map]
static RUN: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
static TRIE4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1 << 18, 1);
#[map]
static TRIE6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1 << 18, 1);

/// Which packet comes next: numbers that are taken in turn.
#[repr(C)]
struct Walk {
    at: u64,
    /// Masks, one less than how many there are.
    destinations: u32,
    sources: u32,
}

const IPV4_SOURCE: usize = ETHERNET_HEADER + 12;
const IPV6_SOURCE: usize = ETHERNET_HEADER + 8;

#[classifier]
fn bench_walk4(ctx: TcContext) -> i32 {
    let Some((destination, source)) = next() else {
        return Skb::DROP;
    };
    let packet = ctx.data();
    if packet + ETHERNET_HEADER + 24 > ctx.data_end() {
        return Skb::DROP;
    }
    store32(packet + IPV4_SOURCE + 4, destination[0]);
    if let Some((host, port)) = source {
        store16(packet + IPV4_SOURCE + 2, host);
        store16(packet + ETHERNET_HEADER + 20, port);
    }
    run(&ctx)
}

#[classifier]
fn bench_walk6(ctx: TcContext) -> i32 {
    let Some((destination, source)) = next() else {
        return Skb::DROP;
    };
    let packet = ctx.data();
    if packet + ETHERNET_HEADER + 44 > ctx.data_end() {
        return Skb::DROP;
    }
    store64(packet + IPV6_SOURCE + 16, destination[0]);
    store64(packet + IPV6_SOURCE + 24, destination[1]);
    if let Some((host, port)) = source {
        store16(packet + IPV6_SOURCE + 14, host);
        store16(packet + ETHERNET_HEADER + 40, port);
    }
    run(&ctx)
}

/// Costs what it costs to run a program.
#[classifier]
fn bench_empty(_: TcContext) -> i32 {
    Skb::PASS
}

/// The product's own reading of a frame, and no more.
#[classifier]
fn bench_parse(ctx: TcContext) -> i32 {
    parse(&Skb { ctx }).map_or(Skb::DROP, |_| Skb::PASS)
}

/// What others do: the destination is looked up in the kernel's own table of prefixes.
#[classifier]
fn bench_trie(ctx: TcContext) -> i32 {
    let Some(to) = parse(&Skb { ctx }) else {
        return Skb::DROP;
    };
    let found = if to.is_ipv4() {
        TRIE4.get(Key::new(32, (to.low as u32).to_be_bytes()))
    } else {
        let words = [to.high.to_be(), to.low.to_be()];
        // SAFETY: as many bytes.
        let bytes = unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(words) };
        TRIE6.get(Key::new(128, bytes))
    };
    found.map_or(Skb::DROP, |_| Skb::PASS)
}

/// Where the packet goes to. The compiler must take it that its ports and protocol matter.
#[inline(always)]
fn parse(skb: &Skb) -> Option<Address> {
    let read = |packet: &Packet| {
        let ports = packet.source_port ^ packet.destination_port;
        used(u64::from(ports) << 8 | u64::from(packet.protocol));
        used(packet.destination.high);
        used(packet.destination.low);
        packet.destination
    };
    match egress::plain(skb, |packet, _| Some(packet)) {
        Some(packet) => Some(read(&packet)),
        None => match frame::read(skb) {
            Ok(frame::Frame::Ip(packet)) => Some(read(packet)),
            _ => None,
        },
    }
}

#[inline(always)]
fn used(number: u64) {
    // SAFETY: no instruction at all.
    unsafe { core::arch::asm!("", in("r1") number) };
}

/// Where a packet goes to, and (host, port) where it comes from, as bytes on the wire.
type Ends = ([u64; 2], Option<(u64, u64)>);

/// Those of the next packet.
#[inline(always)]
fn next() -> Option<Ends> {
    let walk = WALK.get(0)?;
    let at = walk.at as u32;
    let destination = *DESTINATIONS.get(at & walk.destinations)?;
    let number = at & walk.sources;
    let source = (walk.sources != 0).then(|| {
        (
            u64::from(((number >> 15) as u16).to_be()),
            u64::from((number as u16 | 0x8000).to_be()),
        )
    });
    Some((destination, source))
}

#[inline(always)]
fn run(ctx: &TcContext) -> i32 {
    if let Some(walk) = WALK.get_ptr_mut(0) {
        // SAFETY: a word of a map value. A barrier: what others send was written long ago, and
        // does not wait in the processor for whoever reads more of it at once than was stored.
        atomic::increment(unsafe { &raw mut (*walk).at });
    }
    // SAFETY: a jump to a program of the same type, with its context.
    unsafe { RUN.tail_call(ctx, 0) };
    Skb::DROP
}

/// Whole words: a byte at a time would make whoever reads it wait for the last.
macro_rules! store {
    ($name:ident, $kind:literal) => {
        #[inline(always)]
        fn $name(at: usize, value: u64) {
            // SAFETY: the caller has compared the place with the packet's end.
            unsafe {
                core::arch::asm!(
                    concat!("*(", $kind, " *)({at} + 0) = {value}"),
                    at = in(reg) at,
                    value = in(reg) value,
                );
            }
        }
    };
}

store!(store16, "u16");
store!(store32, "u32");
store!(store64, "u64");
