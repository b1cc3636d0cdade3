//! DNS over TCP: the segments of a connection to a resolver, both ways.

use aya_ebpf::bindings::__sk_buff;
use netfilter_ebpf::{
    abi::RCODE_DROP,
    dns::STREAM_PREFIX,
    egress, gate,
    packet::{ACK, Fragment, Packet, RST, SYN},
    stream::{self, PENDING, Phase, Piece, Stream, Walk},
    verdict::{Answer, Forgetful, Grounds, Reason, Verdict},
};

use crate::{
    answer::{self, Reading},
    atomic::compare_exchange,
    buffer::{Buffer, seam},
    conclude, forgetful,
    maps::{ANSWER_COUNTS, MAX_QUESTIONS, STREAMS, Scratch, count},
    message::{self, scratch},
    options, question,
    skb::Skb,
    tables::Generation,
    widen::widen,
};

/// Bytes of a segment that are read at once.
const WINDOW: usize = 0x800;
/// Of a segment as offloads make it: 64 KiB.
const MAX_WINDOWS: usize = 33;
/// Messages that end in one window: none is shorter than a header, and real
/// ones than twice that.
const MAX_MESSAGES: usize = 128;

/// What the filter reads of a TCP header.
struct Segment {
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    /// Offset in the frame.
    payload: usize,
    /// Bytes.
    length: usize,
}

#[inline(always)]
fn segment<B: Buffer>(buffer: &B, packet: &Packet) -> Option<Segment> {
    let header: [u8; 14] = buffer.read(packet.transport)?;
    let payload = packet.transport + (header[12] >> 4) as usize * 4;
    Some(Segment {
        sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        acknowledged: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        flags: header[13],
        payload,
        length: packet.end.checked_sub(payload)?,
    })
}

/// Judges a segment to a resolver. `seen`: it does not leave the machine, and
/// is only read for the sake of its answer.
#[inline(always)]
pub(crate) fn outbound<B: Buffer>(buffer: &B, generation: &Generation, seen: bool) -> Verdict {
    match judge_segment(buffer, u64::from(generation.slot()), u64::from(seen)) {
        0 => Verdict::Pass(Grounds::Rule),
        reason => Verdict::Drop(Reason::from_number(reason as u8).unwrap_or(Reason::DnsMalformed)),
    }
}

seam! {
    /// Returns zero or the reason to drop it.
    fn judge_segment = (netfilter_outbound, xdp_outbound)<B>(buffer, slot: u64, seen: u64) {
        let Some(Scratch {
            packet,
            connection: key,
            questions,
            ..
        }) = scratch()
        else {
            return Reason::TableFull as u64;
        };
        *questions = 0;
        *key = egress::flow_key(packet);
        let bare = packet.fragment == Fragment::Whole && gate::is_bare(packet, buffer.length());
        let Some(segment) = segment(buffer, packet).filter(|_| bare) else {
            return Reason::DnsMalformed as u64;
        };
        if segment.flags & SYN != 0 {
            // Data in a SYN (RFC 7413) is sent again without it.
            if segment.flags & ACK != 0 || segment.length != 0 {
                return Reason::DnsStream as u64;
            }
            return netfilter_open(segment.sequence);
        }
        let Some(stream) = STREAMS.get_ptr_mut(&*key) else {
            // Begun before the filter, or forgotten; what ends it may go.
            return if segment.flags & RST != 0 && segment.length == 0 {
                0
            } else {
                Reason::DnsStream as u64
            };
        };
        // SAFETY: a map value.
        let phase = unsafe { (&raw const (*stream).phase).read_volatile() };
        if segment.length == 0 && (phase != Phase::Refused as u32 || segment.flags & RST != 0) {
            return 0;
        }
        if phase != Phase::Open as u32 {
            return Reason::DnsStream as u64;
        }
        // SAFETY: a map value.
        let lock = unsafe { &raw mut (*stream).outbound_lock };
        if !compare_exchange(lock, 0, 1) {
            return Reason::DnsStream as u64;
        }
        // SAFETY: a map value, ours while locked.
        let verdict = unsafe { judge(buffer, &segment, &mut *stream, slot, seen) };
        compare_exchange(lock, 1, 0);
        verdict
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_open(sequence: u32) -> u64 {
    let Some(Scratch {
        connection: key,
        stream,
        ..
    }) = scratch()
    else {
        return Reason::TableFull as u64;
    };
    // SAFETY: copied at once.
    if let Some(known) = unsafe { STREAMS.get(&*key) }
        && known.phase == Phase::Opening as u32
        && known.outbound.next == sequence.wrapping_add(1)
    {
        return 0; // sent again
    }
    *stream = Stream::opening(sequence);
    match forgetful::put(&STREAMS, Forgetful::Streams, &*key, &*stream) {
        Ok(()) => 0,
        Err(_) => Reason::TableFull as u64,
    }
}

/// Judges each question of a segment. The stream goes on only if the segment goes out.
#[inline(always)]
fn judge<B: Buffer>(
    buffer: &B,
    segment: &Segment,
    stream: &mut Stream,
    slot: u64,
    seen: u64,
) -> u64 {
    let generation = Generation::of(slot as u32);
    let Some(scratch) = scratch() else {
        return Reason::Unready as u64;
    };
    scratch.stream.outbound = stream.outbound;
    scratch.walk = Walk {
        at: segment.payload as u32,
        end: (segment.payload + segment.length) as u32,
        sequence: segment.sequence,
        count: 0,
        permitted: 0,
        denied: 0,
        in_place: 1,
    };
    let mut reason = Reason::DnsMalformed as u64; // too many
    for _ in 0..=MAX_QUESTIONS {
        let step = judge_piece(buffer, slot, seen);
        if step != MORE {
            reason = step;
            break;
        }
    }
    if reason != END {
        return reason;
    }
    let Some(Scratch {
        walk,
        stream: judged,
        questions,
        ..
    }) = self::scratch()
    else {
        return Reason::TableFull as u64;
    };
    let passes = walk.denied == 0 || seen != 0 || generation.only_reports();
    if passes {
        stream.outbound = judged.outbound;
    } else if generation
        .settings()
        .is_some_and(|settings| settings.denied_name_rcode != RCODE_DROP)
    {
        stream.phase = Phase::Refused as u32;
        *questions = walk.in_place & u32::from(walk.permitted == 0);
    }
    u64::from(walk.denied)
}

const MORE: u64 = 0x100;
const END: u64 = 0x101;

seam! {
    /// Judges the next question of the segment. Returns the reason to drop the segment, or more.
    fn judge_piece = (netfilter_piece, xdp_piece)<B>(buffer, slot: u64, seen: u64) {
        let generation = Generation::of(slot as u32);
        let Some(scratch) = scratch() else {
            return Reason::Unready as u64;
        };
        let Walk {
            at, end, sequence, ..
        } = scratch.walk;
        if at >= end {
            return END;
        }
        let mut body = at;
        let mut piece = Piece {
            from: sequence,
            to: sequence,
            length: 0,
            bare: false,
        };
        if let Some(length) = scratch.stream.outbound.body_at(sequence) {
            piece.length = length;
            scratch.walk.in_place = 0;
        } else {
            let Some(bytes) = buffer.load::<[u8; STREAM_PREFIX]>(at as usize) else {
                return Reason::DnsMalformed as u64;
            };
            piece.length = u16::from_be_bytes(bytes);
            body = at + STREAM_PREFIX as u32;
            piece.bare = body >= end;
        }
        let next = if piece.bare {
            body
        } else {
            body + u32::from(piece.length)
        };
        if next > end {
            return Reason::DnsMalformed as u64;
        }
        piece.to = sequence.wrapping_add(next - at);
        scratch.walk.at = next;
        scratch.walk.sequence = piece.to;
        let admitted = netfilter_admit(
            piece.from,
            piece.to,
            u64::from(piece.length),
            u64::from(piece.bare),
        );
        if admitted == 0 {
            return Reason::DnsStream as u64;
        }
        if piece.bare {
            return MORE;
        }
        let length = usize::from(piece.length);
        let reason = match message::load(buffer, body as usize, 0, length) {
            Some(()) => question::ask(length, &generation, seen != 0),
            None => Some(Reason::DnsMalformed),
        };
        if seen == 0 {
            question::tally(reason);
        }
        let Some(Scratch { walk, rcodes, .. }) = crate::message::scratch() else {
            return Reason::TableFull as u64;
        };
        match reason {
            None => {
                walk.permitted += 1;
                let message = u64::from(body);
                if seen == 0 && !options::blank(buffer, message, length as u64, &generation) {
                    return Reason::DnsMalformed as u64;
                }
            }
            Some(reason @ (Reason::DnsName | Reason::DnsType | Reason::DnsLimit)) => {
                walk.denied = reason as u32;
                let settings = generation.settings();
                rcodes[walk.count as usize & (MAX_QUESTIONS - 1)] = settings
                    .map_or(RCODE_DROP, |settings| conclude::rcode(reason, settings))
                    as u8;
            }
            Some(reason) => return reason as u64,
        }
        walk.count += 1;
        MORE
    }
}

/// [`stream::Outbound::admit`], with a stack of its own.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_admit(from: u32, to: u32, length: u64, bare: u64) -> u64 {
    let piece = Piece {
        from,
        to,
        length: length as u16,
        bare: bare != 0,
    };
    u64::from(scratch().is_some_and(|scratch| scratch.stream.outbound.admit(piece)))
}

/// Reads a segment from a resolver. False: it must not come in.
#[inline(always)]
pub(crate) fn inbound(skb: &Skb, generation: &Generation, seen: bool) -> bool {
    netfilter_inbound(skb.skb(), u64::from(generation.slot()), u64::from(seen)) != 0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_inbound(raw: *mut __sk_buff, slot: u64, seen: u64) -> u64 {
    let skb = &Skb::at(raw);
    let Some(Scratch {
        packet,
        connection: key,
        inbound,
        ..
    }) = scratch()
    else {
        return 0;
    };
    *key = egress::inbound_flow_key(packet);
    let Some(stream) = STREAMS.get_ptr_mut(&*key) else {
        return 1;
    };
    let Some(segment) = segment(skb, packet).filter(|_| packet.fragment == Fragment::Whole) else {
        return 0;
    };
    // SAFETY: a map value.
    let stream = unsafe { &mut *stream };
    if segment.flags & SYN != 0 {
        let ours = segment.flags & ACK != 0
            && segment.length == 0
            && stream.phase == Phase::Opening as u32
            && segment.acknowledged == stream.outbound.next;
        if ours {
            stream.inbound.next = segment.sequence.wrapping_add(1);
            stream.phase = Phase::Open as u32;
        }
        return u64::from(segment.length == 0);
    }
    if stream.phase == Phase::Refused as u32 {
        return u64::from(segment.flags & RST != 0);
    }
    if segment.length == 0 {
        return 1;
    }
    let lock = &raw mut stream.inbound_lock;
    if stream.phase != Phase::Open as u32 || !compare_exchange(lock, 0, 1) {
        return 0;
    }
    *inbound = stream.inbound;
    let comes_in = match stream::repeated(inbound.next, segment.sequence) {
        None => 0,
        Some(repeated) if repeated as usize >= segment.length => 1,
        Some(repeated) => {
            inbound.next = segment.sequence.wrapping_add(segment.length as u32);
            let repeated = repeated as usize;
            let read = read(
                raw,
                segment.payload + repeated,
                segment.length - repeated,
                slot,
                seen,
            );
            if read {
                if let Some(Scratch { inbound, .. }) = scratch() {
                    stream.inbound = *inbound;
                }
            } else {
                stream.phase = Phase::Refused as u32;
            }
            u64::from(read)
        }
    };
    compare_exchange(lock, 1, 0);
    comes_in
}

/// Reads what is new in a segment, window by window.
#[inline(always)]
fn read(raw: *mut __sk_buff, mut at: usize, mut left: usize, slot: u64, seen: u64) -> bool {
    for _ in 0..MAX_WINDOWS {
        (at, left) = (widen(at), widen(left));
        if left == 0 {
            return true;
        }
        let length = if left < WINDOW { left } else { WINDOW };
        if netfilter_window(raw, at as u64, length as u64, slot, seen) == 0 {
            return false;
        }
        at += length;
        left -= length;
    }
    false
}

/// Reads on in a stream with `length` more bytes, which stand at `from` in the frame.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_window(
    raw: *mut __sk_buff,
    from: u64,
    length: u64,
    slot: u64,
    seen: u64,
) -> u64 {
    let Some(Scratch {
        inbound,
        message,
        name,
        alias,
        ..
    }) = scratch()
    else {
        return 0;
    };
    if u64::from(inbound.cursor.at) >= length && inbound.pending_length == 0 {
        inbound.cursor.at -= length as u32; // nothing that is read
        return 1;
    }
    (*name, *alias) = (inbound.name, inbound.alias);
    let pending = u64::from(inbound.pending_length);
    if pending != 0 {
        let (to, from) = (
            message.as_mut_ptr().cast::<[u64; PENDING / 8]>(),
            inbound.pending.as_ptr().cast::<[u64; PENDING / 8]>(),
        );
        // SAFETY: both are as long and aligned to words.
        unsafe { *to = *from };
    }
    answer::begin(inbound.cursor);
    if message::load(
        &Skb::at(raw),
        from as usize,
        pending as usize,
        length as usize,
    )
    .is_none()
    {
        return 0;
    }
    for _ in 0..MAX_MESSAGES {
        if netfilter_message(pending + length, slot, seen) == 0 {
            return netfilter_keep(raw, from, length);
        }
    }
    0
}

/// Reads on in the window to its end, or to that of a message. Zero: the former.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_message(length: u64, slot: u64, seen: u64) -> u64 {
    let reading = answer::read(length as usize);
    let mut learned = match reading {
        Reading::Short | Reading::End => answer::learn(length as usize, slot as u32),
        Reading::Unsolicited => Answer::Unsolicited,
        Reading::Malformed => Answer::Malformed,
    };
    let Some(Scratch {
        cursor,
        addresses,
        inbound,
        ..
    }) = scratch()
    else {
        return 0;
    };
    if reading == Reading::Short {
        inbound.lent |= u32::from(learned == Answer::Learned);
        return 0;
    }
    if learned == Answer::Empty && inbound.lent != 0 {
        learned = Answer::Learned;
    }
    inbound.lent = 0;
    cursor.next_message();
    addresses.clear();
    if seen == 0 || learned == Answer::Learned {
        count(&ANSWER_COUNTS, learned as u8);
    }
    1
}

/// Keeps what the next segment goes on from. Zero where that is too much.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netfilter_keep(raw: *mut __sk_buff, from: u64, length: u64) -> u64 {
    let Some(Scratch {
        inbound,
        cursor,
        tail,
        name,
        alias,
        ..
    }) = scratch()
    else {
        return 0;
    };
    (inbound.name, inbound.alias) = (*name, *alias);
    let pending = u64::from(inbound.pending_length);
    let (at, end) = (u64::from(cursor.at), pending + length);
    inbound.cursor = *cursor;
    if at >= end {
        inbound.cursor.at = (at - end) as u32;
        inbound.pending_length = 0;
        return 1;
    }
    let kept = end - at;
    if kept > PENDING as u64 {
        return 0;
    }
    let copied = if at >= pending {
        message::copy(
            &Skb::at(raw),
            from + (at - pending),
            tail.as_mut_ptr(),
            0,
            kept,
        )
    } else if at == 0 {
        // Behind what was kept before.
        let (to, from_kept) = (
            tail.as_mut_ptr().cast::<[u64; PENDING / 8]>(),
            inbound.pending.as_ptr().cast::<[u64; PENDING / 8]>(),
        );
        // SAFETY: both are at least as long and aligned to words.
        unsafe { *to = *from_kept };
        message::copy(&Skb::at(raw), from, tail.as_mut_ptr(), pending, length)
    } else {
        None
    };
    if copied.is_none() {
        return 0;
    }
    let (to, kept_bytes) = (
        inbound.pending.as_mut_ptr().cast::<[u64; PENDING / 8]>(),
        tail.as_ptr().cast::<[u64; PENDING / 8]>(),
    );
    // SAFETY: as above.
    unsafe { *to = *kept_bytes };
    inbound.pending_length = kept as u32;
    inbound.cursor.at = 0;
    1
}
