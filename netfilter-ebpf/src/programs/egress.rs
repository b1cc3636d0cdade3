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
    memo::Memo,
    message::scratch,
    plumbing, question, stream,
    tables::Generation,
};

/// What does not pass at once is judged in stages, each with a stack of its own: 512 bytes are
/// for all that call each other.
#[inline(always)]
pub(crate) fn run<B: Buffer>(buffer: &B) -> i32 {
    let Some((generation, settings)) = Generation::active() else {
        let verdict = Verdict::Drop(Reason::Unready);
        return conclude::conclude(buffer, verdict, Subject::Unread, None);
    };
    if settings.has(SETTING_LIFTED) {
        return B::PASS;
    }
    let class = glance(buffer, &generation);
    if class == PASSED {
        return B::PASS;
    }
    let (copy, era) = (u64::from(generation.slot()), generation.era());
    let (code, subject) = match unjudged(buffer) {
        Some(concluded) => concluded,
        None => match judge(buffer, era, class) {
            PASSED => return B::PASS,
            ASKS => (ask(buffer, copy), Subject::Question),
            ASKS_BY_STREAM => {
                let verdict = stream::outbound(buffer, &generation, false);
                (conclude::code_of(verdict), Subject::Question)
            }
            code => (code, Subject::Packet),
        },
    };
    conclude::act_on(buffer, code, subject, copy)
}

/// Brings the packet into the scratch, of any kind; or a verdict's code, of what needs no judge.
#[inline(always)]
fn unjudged<B: Buffer>(buffer: &B) -> Option<(u64, Subject)> {
    if park(buffer) != 0 {
        return None;
    }
    match read(buffer) {
        Ok(Frame::Plumbing) => {
            let verdict = Verdict::Pass(Grounds::Rule);
            Some((conclude::code_of(verdict), Subject::Unread))
        }
        Err(reason) => Some((reason as u64, Subject::Unread)),
        Ok(Frame::Ip(_)) if has_surplus(buffer) => Some((Reason::Surplus as u64, Subject::Packet)),
        Ok(Frame::Ip(_)) => {
            read_quote(buffer);
            plumbing::read(buffer);
            None
        }
    }
}

// In place of a verdict's code; see `conclude`.
const ASKS: u64 = 0x200;
const ASKS_BY_STREAM: u64 = 0x201;
/// And is counted. Also in place of the number of a class.
const PASSED: u64 = u64::MAX;

/// In place of the number of a class.
const UNREAD: u64 = u64::MAX - 1;

/// What `then` makes of a plain packet that needs no look at what its bytes hold, and of its
/// interface's slot of the counters.
#[inline(always)]
pub(crate) fn plain<B: Buffer, T>(
    buffer: &B,
    then: impl FnOnce(Packet, u32) -> Option<T>,
) -> Option<T> {
    let interface = interface::find(buffer.ifindex())?;
    frame::plain(
        buffer,
        interface,
        #[inline(always)]
        |packet| {
            let nothing_more = packet.end == buffer.length() && plumbing::is_other(&packet);
            match nothing_more {
                true => then(packet, interface.slot),
                false => None,
            }
        },
    )
}

/// Most packets are plain, and pass because a rule on their address lets them out, or a name did
/// a moment ago: [`egress::decide`] would say the same. Nothing is kept of them that this does
/// not need, so others are read once more: of them, it says which class is where they go.
#[inline(always)]
fn glance<B: Buffer>(buffer: &B, generation: &Generation) -> u64 {
    let seen = plain(
        buffer,
        #[inline(always)]
        |packet, slot| pass(buffer, generation, &packet, slot),
    );
    seen.unwrap_or(UNREAD)
}

/// Lets a plain packet out, or says its class. `None`: it is not known here.
#[inline(always)]
fn pass<B: Buffer>(buffer: &B, generation: &Generation, packet: &Packet, slot: u32) -> Option<u64> {
    // On a question its name decides.
    if egress::is_dns(packet.protocol, packet.destination_port) {
        return None;
    }
    let to = packet.destination;
    let search = generation.search(to)?;
    let atom = generation.atom(packet.protocol, packet.destination_port)?;
    let memo = Memo::of(to)?;
    if !memo.recalls(packet, generation, atom) {
        let number = generation.class_found(search)?;
        if !generation
            .class(number)
            .is_some_and(|class| class.allow.contains(atom))
        {
            return Some(number.into());
        }
        memo.note_rule(to, generation, atom);
    }
    if hits::may_begin(packet) && !memo.is_by_name() {
        note_begin(buffer, u64::from(generation.slot()));
    }
    conclude::count_pass(buffer, slot, packet.family(), packet.protocol_label());
    Some(PASSED)
}

seam! {
    /// Counts the rule on its address that lets a plain packet out, if a flow begins with it.
    fn note_begin = (netfilter_note_begin, xdp_note_begin)<B>(buffer, copy: u64) {
        if let Some(packet) = plain(buffer, |packet, _| Some(packet)) {
            let verdict = Verdict::Pass(Grounds::Rule);
            let generation = Generation::of(copy as u32);
            hits::note(&packet, &verdict, &generation, || frame::park(&packet));
        }
        0
    }
}

seam! {
    /// Brings a plain packet into the scratch. Zero of any other.
    fn park = (netfilter_park, xdp_park)<B>(buffer) {
        let Some(packet) = plain(buffer, |packet, _| Some(packet)) else {
            return 0;
        };
        frame::park(&packet);
        1
    }
}

seam! {
    /// Judges the packet in the scratch, of any kind. `class`: its number, if it was looked up.
    fn judge = (netfilter_judge, xdp_judge)<B>(buffer, era: u64, class: u64) {
        let generation = Generation::again(era);
        let Some(scratch) = scratch() else {
            return Reason::Unready as u64;
        };
        let packet = &scratch.packet;
        let class = match class {
            UNREAD => generation.class_number(packet.destination),
            class => Some(class as u32),
        };
        let class = class.and_then(|number| generation.class(number));
        let verdict = egress::decide(packet, class, &generation);
        hits::note(packet, &verdict, &generation, || ());
        match settle(buffer, packet, verdict, &generation) {
            Verdict::Pass(_) => {
                let slot = interface::slot(buffer.ifindex());
                conclude::count_pass(buffer, slot, packet.family(), packet.protocol_label());
                PASSED
            }
            Verdict::Ask => {
                // Of what cannot be read no name is reported, nor that of the question before.
                scratch.question.name_length = 0;
                match packet.protocol {
                    _ if !buffer.own() => Reason::TableFull as u64,
                    packet::TCP => ASKS_BY_STREAM,
                    _ => ASKS,
                }
            }
            verdict => conclude::code_of(verdict),
        }
    }
}

seam! {
    /// Judges the question in the scratch's packet, a datagram.
    fn ask = (netfilter_judge_question, xdp_judge_question)<B>(buffer, copy: u64) {
        let generation = Generation::of(copy as u32);
        let Some(scratch) = scratch() else {
            return Reason::Unready as u64;
        };
        conclude::code_of(question::datagram(buffer, &scratch.packet, &generation))
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
        Verdict::Pass(Grounds::Learned(grant)) => {
            note(packet, grant, generation);
            (Some(grant), Verdict::Pass(Grounds::Rule))
        }
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

/// Notes that what goes on of the packet's flow may pass, while the grant will not end.
#[inline(always)]
fn note(packet: &Packet, grant: Grant, generation: &Generation) {
    if (packet.protocol == packet::TCP || packet.protocol == packet::UDP)
        && !flow::ends_soon(grant, generation.now())
        && let Some(atom) = generation.atom(packet.protocol, packet.destination_port)
        && let Some(memo) = Memo::of(packet.destination)
    {
        memo.note_name(packet, generation, atom);
    }
}

/// Remembers what later packets will be judged by. False: there was no room.
#[inline(always)]
fn remember(packet: &Packet, lent: Option<Grant>, generation: &Generation) -> bool {
    if let Some(grant) = lent
        && !quote::is_error(packet.protocol, packet.kind)
    {
        let now = generation.now();
        if !flow::goes_on(packet) || flow::ends_soon(grant, now) {
            flow::learned(grant, now);
        }
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
