//! A packet that leaves.

use netfilter_ebpf::{
    abi::{FRAGMENT_TIMEOUT, Grant, SETTING_LIFTED},
    egress::{self, Tables},
    packet::{self, Fragment, Packet},
    quote,
    verdict::{Forgetful, Grounds, Reason, Verdict},
};

use crate::{
    buffer::{Buffer, seam},
    clock,
    conclude::{self, Subject},
    flow, forgetful,
    frame::{self, Frame, has_surplus, read, read_quote},
    hits, interface,
    maps::{FRAGMENTS, Scratch},
    memo,
    message::scratch,
    plumbing, question, stream,
    tables::Generation,
};

/// Three stages, each with a stack of its own: 512 bytes are for all that call each other.
#[inline(always)]
pub(crate) fn run<B: Buffer>(buffer: &B) -> i32 {
    let Some((generation, settings)) = Generation::active() else {
        let verdict = Verdict::Drop(Reason::Unready);
        return conclude::conclude(buffer, verdict, Subject::Unread, None);
    };
    if settings.has(SETTING_LIFTED) {
        return B::PASS;
    }
    let copy = u64::from(generation.slot());
    let (code, subject) = match judge_plain(buffer, generation.era()) {
        PASSED => return B::PASS,
        NOT_PLAIN => match read(buffer) {
            Ok(Frame::Plumbing) => (code_of(Verdict::Pass(Grounds::Rule)), Subject::Unread),
            Err(reason) => (reason as u64, Subject::Unread),
            Ok(Frame::Ip(_)) if has_surplus(buffer) => (Reason::Surplus as u64, Subject::Packet),
            Ok(Frame::Ip(_)) => {
                read_quote(buffer);
                plumbing::read(buffer);
                (judge_any(buffer, copy), Subject::Packet)
            }
        },
        code => (code, Subject::Packet),
    };
    if code == ASKS {
        return conclude::act_on(buffer, ask(buffer, copy), Subject::Question, copy);
    }
    conclude::act_on(buffer, code, subject, copy)
}

// In place of a verdict's code; see `conclude`.
const PASSED: u64 = 0x200;
const NOT_PLAIN: u64 = 0x201;
const ASKS: u64 = 0x202;

#[inline(always)]
fn code_of(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Ask => ASKS,
        verdict => conclude::code_of(verdict),
    }
}

/// A plain packet that needs no look at what its bytes hold, and its interface's slot of
/// the counters.
#[inline(always)]
pub(crate) fn plain<B: Buffer>(buffer: &B) -> Option<(Packet, u32)> {
    let interface = interface::find(buffer.ifindex())?;
    let packet = frame::plain(buffer, interface)?;
    let nothing_more = packet.end == buffer.length() && plumbing::is_other(&packet);
    nothing_more.then_some((packet, interface.slot))
}

seam! {
    /// Judges a plain packet. Most pass here, and are counted; others are in the scratch then.
    fn judge_plain = (netfilter_judge_plain, xdp_judge_plain)<B>(buffer, era: u64) {
        let generation = Generation::again(era);
        let Some((packet, slot)) = plain(buffer) else {
            return NOT_PLAIN;
        };
        let (verdict, is_remembered) = memo::decide(&packet, &generation);
        hits::note(&packet, &verdict, &generation, || frame::park(&packet));
        match verdict {
            Verdict::Pass(grounds) => {
                if let Grounds::Learned(grant) = grounds
                    && flow::is_to_learn(&packet, grant, is_remembered)
                {
                    frame::park(&packet);
                    flow::learned(grant, generation.now());
                }
                conclude::count_pass(
                    buffer,
                    slot,
                    packet.family(),
                    packet.protocol_label(),
                );
                PASSED
            }
            verdict => {
                frame::park(&packet);
                if let Verdict::Audit(Some(grant)) = verdict
                    && flow::is_to_learn(&packet, grant, false)
                {
                    flow::learned(grant, generation.now());
                }
                code_of(verdict)
            }
        }
    }
}

seam! {
    /// Judges the packet in the scratch, of any kind.
    fn judge_any = (netfilter_judge, xdp_judge)<B>(buffer, copy: u64) {
        let generation = Generation::of(copy as u32);
        let Some(scratch) = scratch() else {
            return Reason::Unready as u64;
        };
        let packet = &scratch.packet;
        let verdict = egress::decide(packet, &generation);
        hits::note(packet, &verdict, &generation, || ());
        code_of(settle(buffer, packet, verdict, &generation))
    }
}

seam! {
    /// Judges the question in the scratch's packet.
    fn ask = (netfilter_judge_question, xdp_judge_question)<B>(buffer, copy: u64) {
        let generation = Generation::of(copy as u32);
        let Some(scratch) = scratch() else {
            return Reason::Unready as u64;
        };
        // Of what cannot be read no name is reported, nor that of the question before.
        scratch.question.name_length = 0;
        if !buffer.own() {
            return Reason::TableFull as u64;
        }
        let packet = &scratch.packet;
        let verdict = if packet.protocol == packet::TCP {
            stream::outbound(buffer, &generation, false)
        } else {
            question::datagram(buffer, packet, &generation)
        };
        conclude::code_of(verdict)
    }
}

/// What passes is remembered where later packets will be judged by it, or has a rate.
#[inline(always)]
fn settle<B: Buffer>(
    buffer: &B,
    packet: &Packet,
    verdict: Verdict,
    generation: &Generation,
) -> Verdict {
    let (lent, passed) = match verdict {
        Verdict::Pass(Grounds::Plumbing) if !plumbing::affords(buffer) => {
            return Verdict::Drop(Reason::PlumbingLimit);
        }
        Verdict::Pass(Grounds::Learned(grant)) => (Some(grant), Verdict::Pass(Grounds::Rule)),
        // Nothing of the grounds goes on: the verifier takes no number that
        // is not set in every case.
        Verdict::Pass(_) => (None, Verdict::Pass(Grounds::Rule)),
        Verdict::Audit(lent) => (lent, Verdict::Audit(None)),
        verdict => return verdict,
    };
    if remember(packet, lent, generation) {
        passed
    } else {
        Verdict::Drop(Reason::TableFull)
    }
}

/// Remembers what later packets will be judged by. False: there was no room.
#[inline(always)]
fn remember(packet: &Packet, lent: Option<Grant>, generation: &Generation) -> bool {
    if let Some(grant) = lent
        && !quote::is_error(packet.protocol, packet.kind)
        && flow::is_to_learn(packet, grant, false)
    {
        flow::learned(grant, generation.now());
    }
    match packet.fragment {
        Fragment::First(id) => netfilter_first(id) != 0,
        _ => true,
    }
}

/// A global function, see `message`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_first(id: u32) -> u64 {
    let Some(Scratch {
        packet,
        datagram: key,
        ..
    }) = scratch()
    else {
        return 0;
    };
    *key = egress::fragment_key(packet, id);
    let until = clock::now() + FRAGMENT_TIMEOUT;
    u64::from(forgetful::put(&FRAGMENTS, Forgetful::Fragments, &*key, &until).is_ok())
}
