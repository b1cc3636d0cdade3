//! A verdict becomes an action of the kernel: here and nowhere else.

use aya_ebpf::programs::TcContext;
use netfilter_ebpf::{
    abi::{
        COUNTERS_PER_SLOT, Counter, DropKey, RCODE_DROP, SETTING_REJECT, SETTING_REPORT, Settings,
    },
    packet::TCP,
    verdict::{Family, ProtocolLabel, Reason, Verdict},
};

use crate::{
    buffer::{Buffer, seam},
    event, interface,
    maps::{DROPPED, PASSED, RELAYED},
    message::scratch,
    refuse,
    skb::Skb,
    tables::Generation,
    wanted,
};

/// At tc.
pub(crate) const PASS: i32 = Skb::PASS;

/// Jumps to a program, and does not come back if it is there.
#[inline(always)]
pub(crate) fn relay(ctx: &TcContext, index: u32) -> i32 {
    // SAFETY: a jump to a program of the same type, with its context.
    unsafe { RELAYED.tail_call(ctx, index) };
    Skb::DROP
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

/// Counts, reports and refuses. `generation`: that which judged, if there was one.
#[inline(always)]
pub(crate) fn conclude<B: Buffer>(
    buffer: &B,
    verdict: Verdict,
    subject: Subject,
    generation: Option<&Generation>,
) -> i32 {
    let copy = generation.map_or(NO_COPY, |generation| u64::from(generation.slot()));
    act_on(buffer, code_of(verdict), subject, copy)
}

/// A verdict as the number that stages hand on.
#[inline(always)]
pub(crate) fn code_of(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Pass(_) => PASSED_CODE,
        Verdict::Audit(_) => AUDIT_CODE,
        Verdict::Drop(reason) => reason as u64,
        Verdict::Ask => Reason::DnsMalformed as u64, // judged before; fail closed
    }
}

/// [`conclude`] of a verdict's code.
#[inline(always)]
pub(crate) fn act_on<B: Buffer>(buffer: &B, code: u64, subject: Subject, copy: u64) -> i32 {
    act(buffer, code, subject as u64, copy) as i32
}

/// No copy has this number.
const NO_COPY: u64 = 2;

const PASSED_CODE: u64 = 0x100;
const AUDIT_CODE: u64 = 0x101;

seam! {
    /// `code` is the reason of a drop, or more.
    fn act = (netfilter_conclude, xdp_conclude)<B>(buffer, code: u64, subject: u64, copy: u64) {
        let packet = scratch()
            .filter(|_| subject != Subject::Unread as u64)
            .map(|scratch| &scratch.packet);
        let (family, protocol) = match packet {
            Some(packet) => (packet.family(), packet.protocol_label()),
            None => (Family::Other, ProtocolLabel::Other),
        };
        if code == PASSED_CODE {
            count_pass(buffer, slot(buffer), family, protocol);
            return B::PASS as u64;
        }
        let reason = Reason::from_number(code as u8)
            .filter(|_| code != AUDIT_CODE)
            .unwrap_or(Reason::NoRule);
        let settings = Generation::of(copy as u32).settings();
        let flags = settings.map_or(0, |settings| settings.flags);
        let audited = code == AUDIT_CODE || flags & SETTING_REPORT != 0;
        count_drop(buffer, reason, family, protocol, audited);
        event::report(
            buffer,
            reason,
            audited,
            packet.is_some(),
            subject == Subject::Question as u64,
        );
        if audited {
            if code != AUDIT_CODE {
                wanted::packet(reason);
            }
            count_pass(buffer, slot(buffer), family, protocol);
            return B::PASS as u64;
        }
        let (Some(packet), Some(settings)) = (packet, settings) else {
            return B::DROP as u64;
        };
        let incoming = subject == Subject::Incoming as u64;
        let refused = match reason {
            _ if incoming => None,
            Reason::DnsName | Reason::DnsType | Reason::DnsLimit => match rcode(reason, settings) {
                RCODE_DROP => None,
                _ if packet.protocol == TCP => refuse::stream(buffer, packet),
                rcode => refuse::question(buffer, packet, rcode as u8),
            },
            Reason::DnsStream | Reason::DnsMalformed if packet.protocol != TCP => None,
            Reason::NoRule | Reason::DeniedByRule | Reason::DnsStream | Reason::DnsMalformed
                if flags & SETTING_REJECT != 0 =>
            {
                refuse::packet(buffer, packet)
            }
            _ => None,
        };
        refused.unwrap_or(B::DROP) as u64
    }
}

#[inline(always)]
fn slot<B: Buffer>(buffer: &B) -> u32 {
    interface::slot(buffer.ifindex())
}

#[inline(always)]
pub(crate) fn count_pass<B: Buffer>(
    buffer: &B,
    slot: u32,
    family: Family,
    protocol: ProtocolLabel,
) {
    const PROTOCOLS: u32 = ProtocolLabel::ALL.len() as u32;
    const { assert!(COUNTERS_PER_SLOT == PROTOCOLS * Family::ALL.len() as u32) };
    let index = slot * COUNTERS_PER_SLOT + family as u32 * PROTOCOLS + protocol as u32;
    if let Some(counter) = PASSED.get_ptr_mut(index) {
        add(counter, buffer);
    }
}

#[inline(always)]
fn count_drop<B: Buffer>(
    buffer: &B,
    reason: Reason,
    family: Family,
    protocol: ProtocolLabel,
    audited: bool,
) {
    let key = DropKey {
        interface: slot(buffer),
        reason: reason as u8,
        family: family as u8,
        protocol: protocol as u8,
        audited: u8::from(audited),
    };
    if let Some(counter) = DROPPED.get_ptr_mut(&key) {
        return add(counter, buffer);
    }
    let first = Counter {
        packets: buffer.segments(),
        bytes: buffer.length() as u64,
    };
    // The keys are few and fit; another processor's insert of the same key has made a zero for us.
    if DROPPED
        .insert(&key, &first, u64::from(aya_ebpf::bindings::BPF_NOEXIST))
        .is_err()
        && let Some(counter) = DROPPED.get_ptr_mut(&key)
    {
        add(counter, buffer);
    }
}

#[inline(always)]
fn add<B: Buffer>(counter: *mut Counter, buffer: &B) {
    // SAFETY: a map value of this processor.
    unsafe {
        (*counter).packets += buffer.segments();
        (*counter).bytes += buffer.length() as u64;
    }
}
