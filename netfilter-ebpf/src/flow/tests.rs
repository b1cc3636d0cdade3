use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    abi::Address,
    packet::{Fragment, PSH},
};

const NOW: u32 = 1_000;
const LATER: u32 = NOW + 30;
/// First numbers of the two ends.
const OURS_BEGIN: u32 = 0xffff_fff0;
const THEIRS_BEGIN: u32 = 77;

fn segment(kind: u8, sequence: u32, length: u32, acknowledged: u32) -> Packet {
    let nowhere = Address::from_ipv4(0);
    let marks = u32::from(kind & SYN != 0) + u32::from(kind & FIN != 0);
    Packet {
        source: nowhere,
        destination: nowhere,
        protocol: TCP,
        hops: 64,
        fragment: Fragment::Whole,
        source_port: 0,
        destination_port: 0,
        kind,
        sequence,
        next: sequence.wrapping_add(length + marks),
        acknowledged,
        network: 0,
        transport: 0,
        end: 0,
    }
}

/// Our next number, and the remote's.
const OURS_NEXT: u32 = OURS_BEGIN.wrapping_add(1);
const THEIRS_NEXT: u32 = THEIRS_BEGIN + 1;

fn half_open() -> Flow {
    let mut flow = Flow::arrived(TCP, NOW);
    flow.arrives(&segment(SYN, THEIRS_BEGIN, 0, 0), NOW);
    flow.leaves(&segment(SYN | ACK, OURS_BEGIN, 0, THEIRS_NEXT), NOW);
    flow
}

fn open() -> Flow {
    let mut flow = half_open();
    flow.arrives(&segment(ACK, THEIRS_NEXT, 0, OURS_NEXT), NOW);
    assert!(flow.is_open());
    flow
}

#[test]
fn only_who_acknowledges_our_number_opens_a_flow() {
    let mut flow = half_open();
    for wrong in [0, OURS_BEGIN, OURS_NEXT + 1, OURS_NEXT.swap_bytes()] {
        flow.arrives(&segment(ACK, THEIRS_NEXT, 0, wrong), NOW);
        flow.arrives(&segment(SYN | ACK, THEIRS_NEXT, 0, wrong), NOW);
        assert!(!flow.is_open(), "{wrong}");
    }
    assert_eq!(flow.until, NOW + FLOW_IDLE_OPENING);
    flow.arrives(&segment(ACK | PSH, THEIRS_NEXT, 9, OURS_NEXT), NOW);
    assert!(flow.is_open());
    assert_eq!(flow.until, NOW + FLOW_IDLE_TCP);
}

#[test]
fn our_reset_of_a_spoofed_segment_teaches_nothing() {
    let mut flow = Flow::arrived(TCP, NOW);
    let chosen = 4_711;
    flow.arrives(&segment(ACK, 1, 0, chosen), NOW);
    // RFC 9293 section 3.10.7.1: its number is the one that was acknowledged.
    assert_eq!(flow.leaves(&segment(RST, chosen, 0, 0), NOW), Next::Reset);
    flow.arrives(&segment(ACK, 1, 0, chosen), NOW);
    assert!(!flow.is_open());
}

#[test]
fn a_simultaneous_open_is_open() {
    let mut flow = Flow::arrived(TCP, NOW);
    flow.arrives(&segment(SYN, THEIRS_BEGIN, 0, 0), NOW);
    flow.leaves(&segment(SYN, OURS_BEGIN, 0, 0), NOW);
    assert!(!flow.is_open());
    flow.arrives(&segment(SYN | ACK, THEIRS_BEGIN, 0, OURS_NEXT), NOW);
    assert!(flow.is_open());
}

#[test]
fn a_flow_that_a_name_admitted_lives_long_once_its_syn_is_answered() {
    let granted = NOW + 600;
    let syn = segment(SYN, OURS_BEGIN, 0, 0);
    let mut flow = Flow::left(&syn, 5, granted, NOW);
    assert_eq!(flow.until, NOW + FLOW_IDLE_OPENING);
    flow.arrives(&segment(SYN | ACK, THEIRS_BEGIN, 0, OURS_NEXT + 1), NOW);
    assert_eq!(flow.until, NOW + FLOW_IDLE_OPENING);
    flow.arrives(&segment(SYN | ACK, THEIRS_BEGIN, 0, OURS_NEXT), NOW);
    assert_eq!(flow.until, granted + FLOW_IDLE_TCP);
    let refused = segment(RST | ACK, 0, 0, OURS_NEXT);
    let mut flow = Flow::left(&syn, 5, granted, NOW);
    assert_eq!(flow.arrives(&refused, NOW), Next::Reset);
}

#[test]
fn an_open_flow_is_over_when_both_ends_have_closed_it_and_heard_so() {
    // The remote first.
    let mut flow = open();
    let fin = segment(FIN | ACK, THEIRS_NEXT, 0, OURS_NEXT);
    assert_eq!(flow.arrives(&fin, NOW), Next::Goes);
    let ack = segment(ACK, OURS_NEXT, 0, THEIRS_NEXT + 1);
    assert_eq!(flow.leaves(&ack, NOW), Next::Goes);
    let fin = segment(FIN | ACK, OURS_NEXT, 0, THEIRS_NEXT + 1);
    assert_eq!(flow.leaves(&fin, NOW), Next::Goes);
    assert_eq!(flow.until, NOW + FLOW_IDLE_CLOSING);
    let last = segment(ACK, THEIRS_NEXT + 1, 0, OURS_NEXT + 1);
    assert_eq!(flow.arrives(&last, NOW), Next::Over);
    // We first.
    let mut flow = open();
    let fin = segment(FIN | ACK, OURS_NEXT, 0, THEIRS_NEXT);
    assert_eq!(flow.leaves(&fin, NOW), Next::Goes);
    let half = segment(ACK, THEIRS_NEXT, 100, OURS_NEXT + 1);
    assert_eq!(flow.arrives(&half, NOW), Next::Goes, "half-closed");
    let fin = segment(FIN | ACK, THEIRS_NEXT + 100, 0, OURS_NEXT + 1);
    assert_eq!(flow.arrives(&fin, NOW), Next::Over);
    // Both at once.
    let mut flow = open();
    flow.leaves(&segment(FIN | ACK, OURS_NEXT, 0, THEIRS_NEXT), NOW);
    flow.arrives(&segment(FIN | ACK, THEIRS_NEXT, 0, OURS_NEXT), NOW);
    let ack = segment(ACK, OURS_NEXT + 1, 0, THEIRS_NEXT + 1);
    assert_eq!(flow.leaves(&ack, NOW), Next::Goes);
    let ack = segment(ACK, THEIRS_NEXT + 1, 0, OURS_NEXT + 1);
    assert_eq!(flow.arrives(&ack, NOW), Next::Over);
}

#[test]
fn what_is_over_stays_so_until_a_syn() {
    let mut flow = Flow::ended(FLOW_INBOUND, NOW, Next::Over);
    flow.leaves(&segment(FIN | ACK, OURS_NEXT, 0, THEIRS_NEXT), LATER);
    flow.arrives(&segment(ACK, THEIRS_NEXT, 0, OURS_NEXT + 1), LATER);
    assert!(!flow.is_open() && flow.until == NOW + FLOW_IDLE_CLOSED);
    flow.arrives(&segment(SYN, THEIRS_BEGIN, 0, 0), LATER);
    flow.leaves(&segment(SYN | ACK, OURS_BEGIN, 0, THEIRS_NEXT), LATER);
    flow.arrives(&segment(ACK, THEIRS_NEXT, 0, OURS_NEXT), LATER);
    assert!(flow.is_open());
}

#[test]
fn a_reset_that_ends_it_has_the_very_number_that_we_wait_for() {
    for (sequence, next) in [
        (THEIRS_NEXT, Next::Reset),
        (THEIRS_NEXT - 1, Next::Goes),
        (THEIRS_NEXT + 1, Next::Goes),
    ] {
        let mut flow = open();
        let reset = segment(RST, sequence, 0, 0);
        assert_eq!(flow.arrives(&reset, LATER), next);
    }
    assert_eq!(
        open().leaves(&segment(RST, OURS_NEXT, 0, 0), NOW),
        Next::Reset
    );
}

proptest! {
    /// Who guesses none of our numbers neither opens a flow nor ends or shortens one,
    /// nor keeps its ends from closing it.
    #[test]
    fn whoever_is_not_on_the_path_changes_nothing(
        forged in vec((any::<u8>(), any::<u32>(), 0..1_400_u32, any::<u32>()), 1..50),
    ) {
        let known = [OURS_NEXT, OURS_NEXT + 1];
        let (mut proven, mut begun) = (open(), half_open());
        for (kind, sequence, length, acknowledged) in forged {
            prop_assume!(!known.contains(&acknowledged) && sequence != THEIRS_NEXT);
            let segment = segment(kind & 0x3f, sequence, length, acknowledged);
            prop_assert_eq!(proven.arrives(&segment, LATER), Next::Goes);
            prop_assert!(proven.is_open() && proven.until >= NOW + FLOW_IDLE_TCP);
            prop_assert_eq!(begun.arrives(&segment, LATER), Next::Goes);
            prop_assert!(!begun.is_open() && begun.until <= LATER + FLOW_IDLE_OPENING);
        }
        proven.leaves(&segment(FIN | ACK, OURS_NEXT, 0, THEIRS_NEXT), LATER);
        let ack = segment(ACK, THEIRS_NEXT, 0, OURS_NEXT + 1);
        prop_assert_eq!(proven.arrives(&ack, LATER), Next::Goes, "half-closed");
        let fin = segment(FIN | ACK, THEIRS_NEXT, 0, OURS_NEXT + 1);
        prop_assert_eq!(proven.arrives(&fin, LATER), Next::Over);
    }

    /// The model: the two ends of a real connection, whose segments get lost and
    /// come twice. It is over when each has closed and heard that of the other.
    #[test]
    fn a_connection_is_over_when_its_ends_say_so(
        acts in vec((0..6_u8, any::<bool>()), 1..60),
    ) {
        let mut flow = open();
        let (mut ours, mut theirs) = (OURS_NEXT, THEIRS_NEXT);
        let (mut we_closed, mut they_closed) = (false, false);
        // What each knows of the other's numbers.
        let (mut we_heard, mut they_heard) = (theirs, ours);
        let mut over = false;
        for (act, arrives) in acts {
            let (mut kind, mut length) = (ACK, 0);
            let local = act < 3;
            let sequence = if local { ours } else { theirs };
            let closed = if local { &mut we_closed } else { &mut they_closed };
            match act % 3 {
                1 if !*closed => length = 10,
                2 if !*closed => kind = FIN | ACK,
                _ => {}
            }
            let heard = if local { we_heard } else { they_heard };
            let sent = segment(kind, sequence, length, heard);
            if local {
                // What leaves is seen, and sent again until it comes there.
                ours = sent.next;
                we_closed |= kind & FIN != 0;
                over |= flow.leaves(&sent, NOW) == Next::Over;
                if arrives {
                    they_heard = ours;
                }
            } else if arrives {
                theirs = sent.next;
                they_closed |= kind & FIN != 0;
                over |= flow.arrives(&sent, NOW) == Next::Over;
                we_heard = theirs;
            }
            prop_assert!(!over || (we_closed && they_closed));
            if over {
                break;
            }
        }
        // Whatever was lost, a last word of each ends it.
        if we_closed && they_closed {
            over |= flow.leaves(&segment(ACK, ours, 0, theirs), NOW) == Next::Over;
            over |= flow.arrives(&segment(ACK, theirs, 0, ours), NOW) == Next::Over;
            prop_assert!(over);
        }
    }
}
