//! DHCP: every option by its length, and all else that no client sends.

use core::ops::RangeInclusive;

use super::*;

/// Options of DHCPv4 with the lengths that clients give them.
const SENT: [(u8, RangeInclusive<usize>); 17] = [
    (12, 0..=64),
    (50, 4..=4),
    (51, 4..=4),
    (53, 1..=1),
    (54, 4..=4),
    (55, 0..=48),
    (56, 0..=64),
    (57, 2..=2),
    (60, 0..=96),
    (61, 0..=64),
    (80, 0..=0),
    (81, 0..=128),
    (93, 2..=2),
    (94, 3..=3),
    (97, 17..=17),
    (116, 1..=1),
    (145, 0..=4),
];

/// Those of DHCPv6, of which the longest fill all the room that there is.
const SENT_V6: [(u8, RangeInclusive<usize>); 12] = [
    (1, 0..=130),
    (2, 0..=130),
    (3, 0..=252),
    (4, 0..=252),
    (6, 0..=64),
    (8, 2..=2),
    (14, 0..=0),
    (15, 0..=128),
    (16, 0..=128),
    (20, 0..=0),
    (25, 0..=252),
    (39, 0..=128),
];

fn is_sent(sent: &[(u8, RangeInclusive<usize>)], code: u8, length: usize) -> bool {
    let mut sent = sent.iter();
    sent.any(|(known, lengths)| *known == code && lengths.contains(&length))
}

/// An option of ones.
fn option(code: u8, length: usize) -> Vec<u8> {
    [&[code, u8::try_from(length).unwrap()][..], &vec![1; length]].concat()
}

#[test]
fn each_option_has_the_lengths_that_clients_give_it() {
    for code in 1..255 {
        for length in 0..=200 {
            let frame = discover(&[option(code, length), vec![255]].concat());
            let expected = is_sent(&SENT, code, length);
            assert_eq!(is_plumbing(&frame), expected, "{code} of {length}");
        }
    }
    for code in 0..=255 {
        for length in 0..=255 {
            let frame = solicit(&[&[0][..], &[code, 0], &option(code, length)[1..]].concat());
            let expected = is_sent(&SENT_V6, code, length);
            assert_eq!(is_plumbing(&frame), expected, "{code} of {length}, IPv6");
        }
    }
}

#[test]
fn no_option_comes_twice_and_each_may_come_with_each() {
    for (one, lengths) in &SENT {
        for (other, others) in &SENT {
            let options = [
                option(*one, *lengths.start()),
                option(*other, *others.start()),
            ];
            let frame = discover(&[options.concat(), vec![255]].concat());
            assert_eq!(is_plumbing(&frame), one != other, "{one} and {other}");
        }
    }
}

#[test]
fn options_and_padding_among_them_are_32_at_most() {
    let with = |padding| {
        is_plumbing(&discover(
            &[&[53, 1, 1][..], &vec![0; padding], &[255]].concat(),
        ))
    };
    assert!(with(30) && !with(31));
}

#[test]
fn of_the_flags_there_is_one() {
    for flags in 0..=255 {
        let mut frame = discover(&[53, 1, 1, 255]);
        frame[IPV4_PAYLOAD + 8 + 10] = flags;
        assert_eq!(is_plumbing(&frame), flags & 0x7f == 0, "{flags}");
    }
}

#[test]
fn messages_of_ipv6_are_those_of_clients() {
    for kind in 0..=255 {
        let mut frame = solicit(&[]);
        frame[IPV6_PAYLOAD + 8] = kind;
        let of_client = matches!(kind, 1 | 3 | 4 | 5 | 6 | 8 | 9 | 11);
        assert_eq!(is_plumbing(&frame), of_client, "{kind}");
    }
}

#[test]
fn it_goes_to_everybody_or_to_one_machine_and_to_no_group() {
    let to = |to| over_ipv4(to, 64, UDP, &[], &udp(68, 67, &bootp(&[53, 1, 1, 255])));
    // Of one machine, whether it is on the link is for the tables.
    for one in [[255; 4], [10, 0, 0, 1], [203, 0, 113, 9]] {
        assert!(is_plumbing(&to(one)), "{one:?}");
    }
    for group in [[224, 0, 0, 1], [239, 255, 255, 255]] {
        assert!(!is_plumbing(&to(group)), "{group:?}");
    }
    let [agents, other, site] = [("ff02", 2), ("ff02", 3), ("ff05", 2)].map(|(head, tail)| {
        let mut to = ipv6(head, tail);
        to[13] = 1;
        over_ipv6(LOCAL, to, (UDP, 1), &udp(546, 547, &[1, 7, 7, 7]))
    });
    assert!(is_plumbing(&agents) && !is_plumbing(&other) && !is_plumbing(&site));
}

#[test]
fn it_is_whole_and_behind_nothing_but_fixed_headers() {
    let mut first = discover(&[53, 1, 1, 255]);
    first[14 + 6] = 0x20;
    assert!(!is_plumbing(&first), "a first fragment");
    let message = udp(68, 67, &bootp(&[53, 1, 1, 255]));
    let alert = over_ipv4([255; 4], 64, UDP, &[148, 4, 0, 0], &message);
    assert!(!is_plumbing(&alert), "behind an option");
    let mut servers = ipv6("ff02", 2);
    servers[13] = 1;
    let alert = [UDP, 0, 5, 2, 0, 0, 1, 0];
    let message = [&alert[..], &udp(546, 547, &[1, 7, 7, 7])].concat();
    let behind = over_ipv6(LOCAL, servers, (0, 1), &message);
    assert!(!is_plumbing(&behind), "behind an extension header");
}

#[test]
fn where_frames_have_no_addresses_there_is_none_to_say() {
    let mut frame = discover(&[53, 1, 1, 255]);
    assert!(!is_plumbing_bare(&frame));
    frame[IPV4_PAYLOAD + 8 + 28..][..6].fill(0);
    assert!(is_plumbing_bare(&frame));
    assert!(!is_plumbing_bare(&solicitation(&hardware_option(1))));
    assert!(is_plumbing_bare(&solicitation(&[])));
}
