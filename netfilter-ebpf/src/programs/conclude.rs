//! A verdict becomes an action of the kernel: here and nowhere else.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use netfilter_ebpf::{
    abi::{
        COUNTERS_PER_SLOT, Counter, DropKey, RCODE_DROP, SETTING_REJECT, SETTING_REPORT, Settings,
    },
    packet::{Bytes, TCP},
    verdict::{Family, ProtocolLabel, Reason, Verdict},
};

use crate::{
    event, interface,
    maps::{DROPPED, PASSED, RELAYED},
    message::scratch,
    refuse,
    skb::Skb,
    tables::Generation,
};

/// Goes on to whatever other program is attached, then on its way.
pub(crate) const PASS: i32 = TC_ACT_UNSPEC;
const DROP: i32 = TC_ACT_SHOT;

/// Jumps to a program, and does not come back if it is there.
#[inline(always)]
pub(crate) fn relay(ctx: &TcContext, index: u32) -> i32 {
    // SAFETY: a jump to a program of the same type, with its context.
    unsafe { RELAYED.tail_call(ctx, index) };
    DROP
}

/// What a verdict is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A frame that is no IP packet, or none that could be read.
    Unread,
    /// The packet in the scratch.
    Packet,
    /// That packet, which is a question whose name was read.
    Question,
    /// That packet, which arrived.
    Incoming,
}

/// The RCODE that answers a question in the resolver's stead, or [`RCODE_DROP`].
#[inline(always)]
pub(crate) fn rcode(reason: Reason, settings: &Settings) -> u32 {
    const NOERROR: u32 = 0;
    const NXDOMAIN: u32 = 3;
    const REFUSED: u32 = 5;
    match (reason, settings.denied_name_rcode) {
        (_, RCODE_DROP) => RCODE_DROP,
        // The name exists: it only has no records of this type (RFC 2308 section 2.2).
        (Reason::DnsType, NXDOMAIN) => NOERROR,
        (Reason::DnsLimit, _) => REFUSED,
        (_, configured) => configured,
    }
}

/// Counts, reports and refuses.
#[inline(always)]
pub(crate) fn conclude(skb: &Skb, verdict: Verdict, subject: Subject) -> i32 {
    let code = match verdict {
        Verdict::Pass(_) => PASSED_CODE,
        Verdict::Audit => AUDIT_CODE,
        Verdict::Drop(reason) => reason as u64,
        Verdict::Ask => Reason::DnsMalformed as u64, // judged before; fail closed
    };
    netfilter_conclude(skb.raw(), code, subject as u64) as i32
}

const PASSED_CODE: u64 = 0x100;
const AUDIT_CODE: u64 = 0x101;

/// A global function, see `message`. `code` is the reason of a drop, or more.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_conclude(raw: *mut __sk_buff, code: u64, subject: u64) -> u64 {
    let skb = &Skb {
        ctx: TcContext::new(raw),
    };
    let packet = scratch()
        .filter(|_| subject != Subject::Unread as u64)
        .map(|scratch| &scratch.packet);
    let (family, protocol) = match packet {
        Some(packet) => (packet.family(), packet.protocol_label()),
        None => (Family::Other, ProtocolLabel::Other),
    };
    if code == PASSED_CODE {
        count_pass(skb, family, protocol);
        return PASS as u64;
    }
    let reason = Reason::from_number(code as u8)
        .filter(|_| code != AUDIT_CODE)
        .unwrap_or(Reason::NoRule);
    let settings = Generation::at_hand().map(|generation| generation.settings);
    let flags = settings.map_or(0, |settings| settings.flags);
    let audited = code == AUDIT_CODE || flags & SETTING_REPORT != 0;
    count_drop(skb, reason, family, protocol, audited);
    event::report(
        skb,
        reason,
        audited,
        packet.is_some(),
        subject == Subject::Question as u64,
    );
    if audited {
        count_pass(skb, family, protocol);
        return PASS as u64;
    }
    let (Some(packet), Some(settings)) = (packet, settings) else {
        return DROP as u64;
    };
    let incoming = subject == Subject::Incoming as u64;
    let refused = match reason {
        _ if incoming => None,
        Reason::DnsName | Reason::DnsType | Reason::DnsLimit => match rcode(reason, settings) {
            RCODE_DROP => None,
            _ if packet.protocol == TCP => refuse::stream(skb, packet),
            rcode => refuse::question(skb, packet, rcode as u8),
        },
        Reason::DnsStream | Reason::DnsMalformed if packet.protocol != TCP => None,
        Reason::NoRule | Reason::DeniedByRule | Reason::DnsStream | Reason::DnsMalformed
            if flags & SETTING_REJECT != 0 =>
        {
            refuse::packet(skb, packet)
        }
        _ => None,
    };
    refused.unwrap_or(DROP) as u64
}

#[inline(always)]
fn slot(skb: &Skb) -> u32 {
    interface::slot(skb.ifindex())
}

#[inline(always)]
fn count_pass(skb: &Skb, family: Family, protocol: ProtocolLabel) {
    const PROTOCOLS: u32 = ProtocolLabel::ALL.len() as u32;
    const { assert!(COUNTERS_PER_SLOT == PROTOCOLS * Family::ALL.len() as u32) };
    let index = slot(skb) * COUNTERS_PER_SLOT + family as u32 * PROTOCOLS + protocol as u32;
    if let Some(counter) = PASSED.get_ptr_mut(index) {
        add(counter, skb);
    }
}

#[inline(always)]
fn count_drop(skb: &Skb, reason: Reason, family: Family, protocol: ProtocolLabel, audited: bool) {
    let key = DropKey {
        interface: slot(skb),
        reason: reason as u8,
        family: family as u8,
        protocol: protocol as u8,
        audited: u8::from(audited),
    };
    if let Some(counter) = DROPPED.get_ptr_mut(&key) {
        return add(counter, skb);
    }
    let first = Counter {
        packets: skb.segments(),
        bytes: skb.length() as u64,
    };
    // The keys are few and fit; another processor's insert of the same key has made a zero for us.
    if DROPPED
        .insert(&key, &first, u64::from(aya_ebpf::bindings::BPF_NOEXIST))
        .is_err()
        && let Some(counter) = DROPPED.get_ptr_mut(&key)
    {
        add(counter, skb);
    }
}

#[inline(always)]
fn add(counter: *mut Counter, skb: &Skb) {
    // SAFETY: a map value of this processor.
    unsafe {
        (*counter).packets += skb.segments();
        (*counter).bytes += skb.length() as u64;
    }
}
