//! A packet that leaves.

use netfilter_ebpf::{
    abi::FRAGMENT_TIMEOUT,
    egress::{self, Tables},
    packet::{self, Fragment, Packet},
    quote,
    verdict::{Forgetful, Grounds, Reason, Verdict},
};

use crate::{
    buffer::Buffer,
    clock,
    conclude::{self, Subject},
    flow, forgetful,
    frame::{Frame, has_surplus, read, read_quote},
    hits,
    maps::{FRAGMENTS, Scratch},
    message::scratch,
    plumbing, question, stream,
    tables::Generation,
};

#[inline(always)]
pub(crate) fn run<B: Buffer>(buffer: &B) -> i32 {
    let Some(generation) = Generation::active() else {
        return conclude::conclude(buffer, Verdict::Drop(Reason::Unready), Subject::Unread);
    };
    if generation.is_lifted() {
        return B::PASS;
    }
    match read(buffer) {
        Ok(Frame::Plumbing) => {
            conclude::conclude(buffer, Verdict::Pass(Grounds::Rule), Subject::Unread)
        }
        Err(reason) => conclude::conclude(buffer, Verdict::Drop(reason), Subject::Unread),
        Ok(Frame::Ip(_)) if has_surplus(buffer) => {
            conclude::conclude(buffer, Verdict::Drop(Reason::Surplus), Subject::Packet)
        }
        Ok(Frame::Ip(packet)) => {
            read_quote(buffer);
            plumbing::read(buffer);
            let mut verdict = egress::decide(packet, &generation);
            hits::note(packet, &verdict);
            let mut subject = Subject::Packet;
            if let Verdict::Ask = verdict {
                verdict = if packet.protocol == packet::TCP {
                    stream::outbound(buffer, &generation, false)
                } else {
                    question::datagram(buffer, packet, &generation)
                };
                subject = Subject::Question;
            }
            if let Verdict::Pass(Grounds::Plumbing(_)) = verdict {
                verdict = if plumbing::affords(buffer) {
                    Verdict::Pass(Grounds::Rule)
                } else {
                    Verdict::Drop(Reason::PlumbingLimit)
                };
            } else if let Verdict::Pass(grounds) = verdict {
                // Nothing of the grounds goes on: the verifier takes no number that
                // is not set in every case.
                verdict = if remember(packet, grounds, &generation) {
                    Verdict::Pass(Grounds::Rule)
                } else {
                    Verdict::Drop(Reason::TableFull)
                };
            }
            conclude::conclude(buffer, verdict, subject)
        }
    }
}

/// Remembers what later packets will be judged by. False: there was no room.
#[inline(always)]
fn remember(packet: &Packet, grounds: Grounds, generation: &Generation) -> bool {
    if let Grounds::Learned(grant) = grounds
        && !quote::is_error(packet.protocol, packet.kind)
    {
        flow::learned(packet, grant, generation.now());
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
