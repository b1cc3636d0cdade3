//! Reports of groups: each field that says nothing, and where each goes.

use super::*;

const GROUP: [u8; 4] = [239, 1, 2, 3];
const ROUTERS: [u8; 4] = [224, 0, 0, 2];
const REPORTS_V3: [u8; 4] = [224, 0, 0, 22];

fn told(kind: u8, group: [u8; 4]) -> Vec<u8> {
    [&[kind, 0, 0, 0][..], &group].concat()
}

/// IGMPv3, with one record of one source.
fn records(group: [u8; 4]) -> Vec<u8> {
    let record = [&[4, 0, 0, 1][..], &group, &[192, 0, 2, 1]].concat();
    [&[0x22, 0, 0, 0, 0, 0, 0, 1][..], &record].concat()
}

#[test]
fn reports_do_not_leave_the_link() {
    let [one, two] = [1, 2].map(|hops| over_ipv4(GROUP, hops, IGMP, &[], &told(0x16, GROUP)));
    assert!(is_plumbing(&one) && !is_plumbing(&two));
    let mut routed = report(&[0]);
    for hops in [0, 2, 255] {
        routed[14 + 7] = hops;
        assert!(!is_plumbing(&routed), "{hops}");
    }
}

#[test]
fn igmp_comes_behind_the_router_alert_or_nothing() {
    let behind = |options| is_plumbing(&over_ipv4(GROUP, 1, IGMP, options, &told(0x16, GROUP)));
    assert!(behind(&[]) && behind(&[148, 4, 0, 0]));
    assert!(!behind(&[148, 4, 0, 0, 0, 0, 0, 0]) && !behind(&[148, 4, 0, 1]));
    assert!(!behind(&[1, 1, 1, 0]));
}

#[test]
fn igmp_names_groups_where_they_are_heard() {
    for (to, message, passes) in [
        (GROUP, told(0x12, GROUP), true),
        (GROUP, told(0x16, GROUP), true),
        (ROUTERS, told(0x16, GROUP), false),
        ([10, 1, 2, 3], told(0x16, [10, 1, 2, 3]), false),
        (ROUTERS, told(0x17, GROUP), true),
        (GROUP, told(0x17, GROUP), false),
        (ROUTERS, told(0x17, [10, 1, 2, 3]), false),
        (REPORTS_V3, records(GROUP), true),
        (ROUTERS, records(GROUP), false),
        (REPORTS_V3, records([10, 1, 2, 3]), false),
        (REPORTS_V3, records([255, 1, 2, 3]), false),
    ] {
        assert_eq!(
            is_plumbing(&igmp(to, &message)),
            passes,
            "{to:?} {message:?}"
        );
    }
    let costs = read_frame(&igmp(REPORTS_V3, &records(GROUP))).map(|plumbing| plumbing.costs);
    assert_eq!(costs, Some(3), "as many words as it has");
}

#[test]
fn what_is_reserved_in_igmp_is_zero_and_nothing_is_behind() {
    for (to, message) in [
        (GROUP, told(0x16, GROUP)),
        (ROUTERS, told(0x17, GROUP)),
        (REPORTS_V3, records(GROUP)),
    ] {
        let mut code = message.clone();
        code[1] = 1;
        assert!(!is_plumbing(&igmp(to, &code)));
        let more = [&message[..], &[1; 4]].concat();
        assert!(!is_plumbing(&igmp(to, &more)));
    }
    for at in [4, 5] {
        let mut reserved = records(GROUP);
        reserved[at] = 1;
        assert!(!is_plumbing(&igmp(REPORTS_V3, &reserved)), "{at}");
    }
}

#[test]
fn mld_comes_from_the_link_or_from_who_has_no_address_yet() {
    let from = |address: [u8; 16]| {
        let mut frame = report(&[0]);
        frame[14 + 8..14 + 24].copy_from_slice(&address);
        is_plumbing(&frame)
    };
    assert!(from(LOCAL) && from([0; 16]));
    assert!(!from(ipv6("0000", 7)) && !from(ipv6("2001", 0)) && !from(HOST));
}

#[test]
fn mld_comes_behind_the_router_alert_of_hop_by_hop_options() {
    let group = ipv6("ff05", 9);
    let message = [&[131, 0, 0, 0, 0, 0, 0, 0][..], &group].concat();
    let padded_first = [ICMPV6, 0, 1, 0, 5, 2, 0, 0];
    for alert in [ALERT, padded_first] {
        assert!(is_plumbing(&mld(group, alert, &message)));
        let behind = [&alert, &message[..]].concat();
        let elsewhere = over_ipv6(LOCAL, group, (60, 1), &behind);
        assert!(!is_plumbing(&elsewhere), "destination options");
    }
    let none = over_ipv6(LOCAL, group, (ICMPV6, 1), &message);
    assert!(!is_plumbing(&none));
}

#[test]
fn mld_names_groups_where_they_are_heard_and_nothing_else() {
    let (group, host, routers) = (ipv6("ff05", 9), HOST, ipv6("ff02", 2));
    let message = |kind: u8, group: [u8; 16]| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group].concat();
    for (to, message) in [(group, message(131, group)), (routers, message(132, group))] {
        assert!(is_plumbing(&mld(to, ALERT, &message)));
        assert!(!is_plumbing(&mld(
            to,
            ALERT,
            &[&message[..], &[0; 8]].concat()
        )));
        for at in [1, 4, 5, 6, 7] {
            let mut reserved = message.clone();
            reserved[at] = 1;
            assert!(!is_plumbing(&mld(to, ALERT, &reserved)), "{at}");
        }
    }
    assert!(!is_plumbing(&mld(host, ALERT, &message(131, host))));
    assert!(!is_plumbing(&mld(routers, ALERT, &message(132, host))));
    let mut elsewhere = report(&[0]);
    elsewhere[14 + 24..14 + 40].copy_from_slice(&routers);
    assert!(!is_plumbing(&elsewhere), "where nobody expects it");
}

#[test]
fn records_are_of_known_types_and_there_are_some() {
    for kind in 0..=255 {
        let mut frame = report(&[0]);
        frame[IPV6_PAYLOAD + 8 + 8] = kind;
        assert_eq!(is_plumbing(&frame), (1..=6).contains(&kind), "{kind}");
    }
    assert!(!is_plumbing(&report(&[])));
    assert!(is_plumbing(&report(&[0; 96])) && !is_plumbing(&report(&[0; 97])));
}
