use super::*;
use crate::packet::{Frame, Link, parse, parse_on};

mod dhcp;
mod group;
mod neighbour;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const LOCAL: [u8; 16] = ipv6("fe80", 2);
const HOST: [u8; 16] = ipv6("2001", 7);
const REPORTS: [u8; 16] = ipv6("ff02", 0x16);

/// `<head>::<tail>`
const fn ipv6(head: &str, tail: u8) -> [u8; 16] {
    const fn nibble(byte: u8) -> u8 {
        match byte {
            b'0'..=b'9' => byte - b'0',
            byte => byte - b'a' + 10,
        }
    }
    let head = head.as_bytes();
    let mut address = [0; 16];
    address[0] = nibble(head[0]) << 4 | nibble(head[1]);
    address[1] = nibble(head[2]) << 4 | nibble(head[3]);
    address[15] = tail;
    address
}

fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &MAC, &ethertype.to_be_bytes(), packet].concat()
}

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap().to_be_bytes()
}

fn over_ipv4(to: [u8; 4], hops: u8, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
    packet.extend(short(header + payload.len()));
    packet.extend([0, 0, 0, 0, hops, protocol, 0, 0, 0, 0, 0, 0]);
    packet.extend(to);
    packet.extend(options);
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

fn over_ipv6(from: [u8; 16], to: [u8; 16], (next, hops): (u8, u8), payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(short(payload.len()));
    packet.extend([next, hops]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

fn udp(from: u16, to: u16, message: &[u8]) -> Vec<u8> {
    [
        &from.to_be_bytes()[..],
        &to.to_be_bytes(),
        &short(8 + message.len()),
        &[0, 0],
        message,
    ]
    .concat()
}

fn bootp(options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[28..34].copy_from_slice(&MAC);
    message.extend([99, 130, 83, 99]);
    message.extend(options);
    message
}

fn discover(options: &[u8]) -> Vec<u8> {
    over_ipv4([255; 4], 64, UDP, &[], &udp(68, 67, &bootp(options)))
}

fn solicit(options: &[u8]) -> Vec<u8> {
    let message = [&[1, 7, 7, 7][..], options].concat();
    let mut servers = ipv6("ff02", 2);
    servers[13] = 1;
    over_ipv6(LOCAL, servers, (UDP, 1), &udp(546, 547, &message))
}

fn icmp(from: [u8; 16], to: [u8; 16], kind: u8, body: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0][..], body].concat();
    over_ipv6(from, to, (ICMPV6, 255), &message)
}

/// The group of the solicited node, for targets whose last three bytes are 0, 0, 7.
fn solicited() -> [u8; 16] {
    let mut group = ipv6("ff02", 7);
    group[11..14].copy_from_slice(&[1, 0xff, 0]);
    group
}

fn solicitation(option: &[u8]) -> Vec<u8> {
    icmp(
        LOCAL,
        solicited(),
        135,
        &[&[0; 4], &HOST[..], option].concat(),
    )
}

fn advertisement(option: &[u8]) -> Vec<u8> {
    let body = [&[0x20, 0, 0, 0], &HOST[..], option].concat();
    icmp(LOCAL, ipv6("ff02", 1), 136, &body)
}

fn routers(option: &[u8]) -> Vec<u8> {
    icmp(LOCAL, ipv6("ff02", 2), 133, &[&[0; 4], option].concat())
}

fn hardware_option(kind: u8) -> Vec<u8> {
    [&[kind, 1][..], &MAC].concat()
}

const ALERT: [u8; 8] = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];

fn mld(to: [u8; 16], alert: [u8; 8], message: &[u8]) -> Vec<u8> {
    over_ipv6(LOCAL, to, (0, 1), &[&alert, message].concat())
}

/// A report of version 2 with these records, each with its sources.
fn report(sources: &[usize]) -> Vec<u8> {
    let mut message = vec![143, 0, 0, 0, 0, 0];
    message.extend(short(sources.len()));
    for &sources in sources {
        message.extend([4, 0]);
        message.extend(short(sources));
        message.extend(ipv6("ff05", 9));
        message.extend(HOST.repeat(sources));
    }
    mld(REPORTS, ALERT, &message)
}

fn igmp(to: [u8; 4], message: &[u8]) -> Vec<u8> {
    over_ipv4(to, 1, IGMP, &[148, 4, 0, 0], message)
}

fn read_frame(frame: &[u8]) -> Option<Plumbing> {
    match parse(frame) {
        Ok(Frame::Ip(packet)) => read(frame, &packet),
        _ => None,
    }
}

fn is_plumbing(frame: &[u8]) -> bool {
    read_frame(frame).is_some()
}

/// The same without its Ethernet header, where the interface has none.
fn is_plumbing_bare(frame: &[u8]) -> bool {
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    match parse_on(&frame[14..], Link::Bare(ethertype)) {
        Ok(Frame::Ip(packet)) => read(&frame[14..], &packet).is_some(),
        other => panic!("{other:?}"),
    }
}

/// The bytes behind the addresses of Ethernet in which something can be said.
fn free(frame: &[u8]) -> Vec<usize> {
    assert!(is_plumbing(frame));
    let says = |at: usize| {
        (0..8).any(|bit| {
            let mut changed = frame.to_vec();
            changed[at] ^= 1 << bit;
            is_plumbing(&changed)
        })
    };
    (14..frame.len()).filter(|at| says(*at)).collect()
}

/// Offsets behind `from`, as ranges.
fn ranges(free: &[usize], from: usize) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for at in free.iter().filter(|at| **at >= from).map(|at| at - from) {
        match ranges.last_mut() {
            Some((_, end)) if *end == at => *end += 1,
            _ => ranges.push((at, at + 1)),
        }
    }
    ranges
}

const IPV4_PAYLOAD: usize = 14 + 20;
const IPV6_PAYLOAD: usize = 14 + 40;

#[test]
fn of_a_discovery_what_is_free_is_known() {
    let frame = discover(&[53, 1, 1, 12, 2, b'v', b'm', 61, 1, 9, 255, 0, 0]);
    assert_eq!(
        read_frame(&frame),
        Some(Plumbing {
            kind: Kind::Dhcp,
            costs: 1
        })
    );
    let options = 8 + 240;
    let expected = vec![
        (6, 8),                      // checksum
        (8 + 4, 8 + 11),             // transaction, seconds, whether to broadcast
        (options, options + 1),      // a message type may be a client identifier
        (options + 2, options + 3),  // the type
        (options + 5, options + 8),  // the host's name, and what follows may be another option
        (options + 9, options + 10), // the client's identifier
    ];
    assert_eq!(ranges(&free(&frame), IPV4_PAYLOAD), expected);
}

#[test]
fn options_that_clients_send_pass_and_no_others() {
    let with = |options: &[u8]| is_plumbing(&discover(&[options, &[255]].concat()));
    assert!(with(&[
        53, 1, 1, 57, 2, 5, 192, 80, 0, 0, 0, 50, 4, 10, 0, 0, 1
    ]));
    assert!(with(&[&[61, 64][..], &[1; 64]].concat()));
    assert!(!with(&[&[61, 65][..], &[1; 65]].concat()));
    for code in [43, 82, 125, 224, 252] {
        assert!(!with(&[code, 4, 1, 2, 3, 4]), "{code}");
    }
    assert!(!with(&[50, 3, 10, 0, 0]), "an address of three bytes");
    assert!(!with(&[12, 1, b'a', 12, 1, b'b']), "twice");
    assert!(with(&[81, 3, 0, 0, 0, 145, 1, 1]));
    assert!(!is_plumbing(&discover(&[53, 1, 1])), "without an end");
    assert!(
        !is_plumbing(&discover(&[53, 1, 1, 12, 9, 255])),
        "beyond the end"
    );
    assert!(
        !is_plumbing(&discover(&[53, 1, 1, 255, 0, 7])),
        "behind the end"
    );
}

#[test]
fn a_request_is_not_longer_than_every_server_takes() {
    let longest = |bytes| discover(&[&[53, 1, 1, 255][..], &vec![0; bytes]].concat());
    assert!(is_plumbing(&longest(548 - 244)));
    assert!(!is_plumbing(&longest(548 - 243)));
}

/// They have 256 bytes.
#[test]
fn all_options_together_are_not_long() {
    let with = |name: u8| {
        let option = |code: u8, length: u8| [&[code, length][..], &vec![1; length.into()]].concat();
        let options = [option(60, 96), option(61, 64), option(81, name), vec![255]].concat();
        is_plumbing(&discover(&options))
    };
    assert!(with(90) && !with(91));
    let solicits = |name: u8| {
        let option =
            |code: u8, length: u8| [&[0, code, 0, length][..], &vec![1; length.into()]].concat();
        is_plumbing(&solicit(&[option(1, 130), option(39, name)].concat()))
    };
    assert!(solicits(118) && !solicits(119));
}

#[test]
fn who_asks_is_who_sends_the_frame_and_has_the_address() {
    let changed = |at: usize, bytes: &[u8]| {
        let mut frame = discover(&[53, 1, 3, 255]);
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let message = IPV4_PAYLOAD + 8;
    assert!(!is_plumbing(&changed(message + 12, &[10, 0, 0, 2])));
    let mut renewed = changed(message + 12, &[10, 0, 0, 2]);
    renewed[26..30].copy_from_slice(&[10, 0, 0, 2]);
    assert!(is_plumbing(&renewed));
    assert!(!is_plumbing(&changed(6, &[2, 0, 0, 0, 0, 3])));
    assert!(!is_plumbing(&changed(message, &[2])), "a server's answer");
}

/// Who is on the link is the tables' affair, but for what is always.
#[test]
fn a_request_may_go_to_one_server_and_to_no_group() {
    let options = udp(68, 67, &bootp(&[53, 1, 3, 255]));
    let to = |server| over_ipv4(server, 64, UDP, &[], &options);
    for (server, near) in [
        ([255; 4], true),
        ([169, 254, 169, 254], true),
        ([10, 0, 0, 1], false),
        ([169, 253, 255, 255], false),
        ([169, 255, 0, 0], false),
        ([168, 63, 129, 16], false),
    ] {
        assert!(is_plumbing(&to(server)), "{server:?}");
        let Ok(Frame::Ip(packet)) = parse(&to(server)[..]) else {
            panic!("{server:?}")
        };
        assert_eq!(is_on_link(packet.destination), near, "{server:?}");
    }
    for group in [[224, 0, 0, 1], [239, 1, 2, 3]] {
        assert!(!is_plumbing(&to(group)), "{group:?}");
    }
    let answers = udp(67, 68, &bootp(&[53, 1, 5, 255]));
    assert!(!is_plumbing(&over_ipv4(
        [10, 0, 0, 1],
        64,
        UDP,
        &[],
        &answers
    )));
}

#[test]
fn of_a_solicitation_of_dhcp_for_ipv6_what_is_free_is_known() {
    let frame = solicit(&[0, 8, 0, 2, 0, 0, 0, 1, 0, 2, 3, 4]);
    // Checksum; the message may be another; transaction, times, identifiers.
    let expected = vec![(6, 12), (16, 18), (19, 20), (22, 24)];
    assert_eq!(ranges(&free(&frame), IPV6_PAYLOAD), expected);
    assert!(!is_plumbing(&solicit(&[0, 17, 0, 1, 9])), "a vendor's own");
    assert!(!is_plumbing(&solicit(&[0, 8, 0, 2, 0])), "cut");
    assert!(!is_plumbing(&solicit(&[0, 8, 0, 2, 0, 0, 0])), "and more");
    let mut other = frame.clone();
    other[22..24].copy_from_slice(&[0x20, 1]);
    assert!(!is_plumbing(&other), "not from the link");
}

#[test]
fn of_a_neighbour_only_addresses_are_free() {
    let frame = solicitation(&hardware_option(1));
    // Checksum, and the target but for what the group repeats.
    assert_eq!(ranges(&free(&frame), IPV6_PAYLOAD), [(2, 4), (8, 21)]);
    let frame = advertisement(&hardware_option(2));
    assert_eq!(ranges(&free(&frame), IPV6_PAYLOAD), [(2, 5), (8, 24)]);
    let frame = routers(&hardware_option(1));
    assert_eq!(ranges(&free(&frame), IPV6_PAYLOAD), [(2, 4)]);
    for frame in [solicitation(&[]), advertisement(&[]), routers(&[])] {
        assert!(is_plumbing(&frame));
        assert!(!is_plumbing(&[&frame[..], &[0]].concat()), "bytes behind");
    }
}

#[test]
fn neighbours_say_their_own_address_and_nothing_else() {
    assert!(!is_plumbing(&solicitation(&hardware_option(2))));
    assert!(!is_plumbing(&advertisement(&hardware_option(1))));
    let twice = [hardware_option(1), hardware_option(1)].concat();
    assert!(!is_plumbing(&solicitation(&twice)));
    let long = [&[1, 2][..], &MAC, &[0; 8]].concat();
    assert!(!is_plumbing(&solicitation(&long)));
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    assert!(!is_plumbing(&solicitation(&nonce)));
    let body = [&[0; 4], &HOST[..], &nonce].concat();
    assert!(is_plumbing(&icmp([0; 16], solicited(), 135, &body)));
    let flags = |flags: u8| {
        let mut frame = advertisement(&[]);
        frame[IPV6_PAYLOAD + 4] = flags;
        is_plumbing(&frame)
    };
    assert!(flags(0xe0) && flags(0) && !flags(0x10) && !flags(0x01));
    let body = [&[0; 4], &HOST[..]].concat();
    let elsewhere = icmp(LOCAL, ipv6("ff02", 3), 136, &body);
    assert!(!is_plumbing(&elsewhere), "to another group");
    for kind in [134, 137] {
        let router = icmp(LOCAL, ipv6("ff02", 1), kind, &body);
        assert!(!is_plumbing(&router), "what routers say: {kind}");
    }
    let mut routed = advertisement(&[]);
    routed[14 + 7] = 254;
    assert!(!is_plumbing(&routed), "it may have crossed a router");
}

#[test]
fn reports_of_groups_hold_groups_and_cost_as_many() {
    let costs = |frame: &[u8]| read_frame(frame).map(|plumbing| plumbing.costs);
    assert_eq!(costs(&report(&[0])), Some(1));
    assert_eq!(costs(&report(&[0, 2, 0])), Some(5));
    let frame = report(&[0, 1]);
    // Checksum; types, groups but for what makes them groups, and the source.
    let expected = [(10, 12), (16, 17), (21, 36), (36, 37), (41, 72)];
    let mut free = free(&frame);
    free.retain(|at| *at != IPV6_PAYLOAD + 72);
    let expected: Vec<_> = expected.to_vec();
    assert_eq!(join(ranges(&free, IPV6_PAYLOAD)), join(expected));
    let changed = |at: usize, byte: u8| {
        let mut frame = report(&[0]);
        frame[IPV6_PAYLOAD + 8 + at] = byte;
        is_plumbing(&frame)
    };
    assert!(changed(8, 3) && !changed(8, 7), "types");
    assert!(!changed(9, 1), "auxiliary data");
    assert!(!changed(12, 0x20), "an address that is no group");
    assert!(!changed(7, 2) && !changed(7, 0), "other numbers of records");
    assert!(!is_plumbing(&[report(&[0]), vec![7]].concat()));
    let mut query = report(&[0]);
    query[IPV6_PAYLOAD + 8] = 130;
    assert!(!is_plumbing(&query), "of a router");
    let mut foreign = report(&[0]);
    foreign[22..24].copy_from_slice(&[0x20, 1]);
    assert!(!is_plumbing(&foreign), "not from the link");
    let mut more = report(&[0; 96]);
    assert!(is_plumbing(&more));
    more[IPV6_PAYLOAD + 8 + 7] = 97;
    assert!(!is_plumbing(&more), "one more than there are");
}

/// Ranges that touch become one.
fn join(ranges: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    let mut joined: Vec<(usize, usize)> = Vec::new();
    for (start, end) in ranges {
        match joined.last_mut() {
            Some((_, last)) if *last == start => *last = end,
            _ => joined.push((start, end)),
        }
    }
    joined
}

#[test]
fn reports_of_version_1_go_to_the_group_that_they_name() {
    let group = ipv6("ff05", 9);
    let message = |kind: u8, group: [u8; 16]| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group].concat();
    assert!(is_plumbing(&mld(group, ALERT, &message(131, group))));
    assert!(!is_plumbing(&mld(
        ipv6("ff05", 8),
        ALERT,
        &message(131, group)
    )));
    assert!(is_plumbing(&mld(
        ipv6("ff02", 2),
        ALERT,
        &message(132, group)
    )));
    assert!(!is_plumbing(&mld(group, ALERT, &message(132, group))));
    assert!(
        !is_plumbing(&mld(group, ALERT, &message(130, group))),
        "a router's query"
    );
    let other = [ICMPV6, 0, 1, 4, b'd', b'a', b't', b'a'];
    assert!(!is_plumbing(&mld(group, other, &message(131, group))));

    let [all, routers] = [[239, 1, 2, 3], [224, 0, 0, 2]];
    let message = |kind: u8| [kind, 0, 0, 0, 239, 1, 2, 3];
    assert!(is_plumbing(&igmp(all, &message(0x16))) && is_plumbing(&igmp(all, &message(0x12))));
    assert!(!is_plumbing(&igmp([239, 1, 2, 4], &message(0x16))));
    assert!(is_plumbing(&igmp(routers, &message(0x17))));
    assert!(!is_plumbing(&igmp(all, &message(0x11))), "a router's query");
    let frame = igmp(all, &message(0x16));
    let [zeros, data] = [[0; 14], [7; 14]].map(|more| [&frame[..], &more].concat());
    assert!(is_plumbing(&zeros), "as long as cards send at least");
    assert!(!is_plumbing(&data) && !is_plumbing(&zeros[..59]));
    let records = [0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3];
    assert!(is_plumbing(&igmp([224, 0, 0, 22], &records)));
    assert!(!is_plumbing(&igmp(
        [224, 0, 0, 22],
        &[&records[..], &[0; 4]].concat()
    )));
    let other = over_ipv4([224, 0, 0, 22], 1, IGMP, &[7, 4, 1, 2], &records);
    assert!(!is_plumbing(&other), "another option");
}

#[test]
fn a_frame_cut_anywhere_is_no_plumbing() {
    for whole in [
        discover(&[53, 1, 1, 255]),
        solicit(&[0, 8, 0, 2, 0, 0]),
        solicitation(&hardware_option(1)),
        report(&[0, 1]),
        igmp([239, 1, 2, 3], &[0x16, 0, 0, 0, 239, 1, 2, 3]),
    ] {
        assert!(is_plumbing(&whole));
        for cut in 0..whole.len() {
            assert!(!is_plumbing(&whole[..cut]), "cut at {cut}");
        }
    }
}

#[test]
fn what_each_kind_may_say_in_a_minute_and_at_once_is_bounded() {
    for (number, kind, rate) in [
        (1, Kind::Dhcp, (30, 30)),
        (2, Kind::Neighbour, (1200, 200)),
        (3, Kind::Group, (150, 300)),
    ] {
        assert_eq!(kind.rate(), rate, "{kind:?}");
        assert_eq!(
            (kind as u32, Kind::from_number(number)),
            (number, Some(kind))
        );
    }
    assert_eq!(Kind::from_number(0).or(Kind::from_number(KINDS)), None);
}

#[test]
fn what_is_on_the_link_is_told_from_what_is_beyond() {
    let v4 = |address: [u8; 4]| is_on_link(Address::from_ipv4(u32::from_be_bytes(address)));
    let v6 = |head: &str, tail| is_on_link(Address::from_ipv6(ipv6(head, tail)));
    assert!(v4([255; 4]) && v4([224, 0, 0, 0]) && v4([239, 255, 255, 255]));
    assert!(!v4([223, 255, 255, 255]) && !v4([240, 0, 0, 0]) && !v4([255, 255, 255, 254]));
    assert!(v4([169, 254, 0, 1]) && v4([169, 254, 255, 255]));
    assert!(!v4([10, 0, 0, 1]) && !v4([169, 253, 255, 255]) && !v4([169, 255, 0, 0]));
    for head in ["fe80", "febf", "ff00", "ff02", "ffff"] {
        assert!(v6(head, 1), "{head}");
    }
    for head in ["fe7f", "fec0", "feff", "2001", "0000", "f000"] {
        assert!(!v6(head, 1), "{head}");
    }
    let mut like_a_group = ipv6("2001", 1);
    like_a_group[12] = 0xe0;
    assert!(!is_on_link(Address::from_ipv6(like_a_group)));
}
