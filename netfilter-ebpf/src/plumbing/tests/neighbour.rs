//! Neighbours: whom they ask and tell, and who they are.

use super::*;

/// The body of a message about a target.
fn about(target: [u8; 16], option: &[u8]) -> Vec<u8> {
    [&[0; 4], &target[..], option].concat()
}

#[test]
fn a_neighbour_is_asked_itself_or_by_the_group_of_its_address() {
    let asked = |to, target| is_plumbing(&icmp(LOCAL, to, 135, &about(target, &[])));
    let link = ipv6("fe80", 7);
    assert!(asked(solicited(), HOST) && asked(HOST, HOST));
    assert!(asked(solicited(), link) && asked(link, link));
    assert!(!asked(HOST, link) && !asked(ipv6("ff02", 1), HOST));
    for at in [12, 13, 14, 15] {
        let mut group = solicited();
        group[at] ^= 1;
        assert!(!asked(group, HOST), "{at}");
    }
}

#[test]
fn a_target_is_one_machine() {
    let mut nobody = solicited();
    nobody[15] = 0;
    assert!(!is_plumbing(&icmp(
        LOCAL,
        nobody,
        135,
        &about([0; 16], &[])
    )));
    let group = ipv6("ff05", 7);
    assert!(!is_plumbing(&icmp(
        LOCAL,
        solicited(),
        135,
        &about(group, &[])
    )));
    for target in [[0; 16], group] {
        assert!(!is_plumbing(&icmp(
            LOCAL,
            ipv6("ff02", 1),
            136,
            &about(target, &[])
        )));
    }
}

#[test]
fn routers_are_asked_on_the_link() {
    let asked = |to| is_plumbing(&icmp(LOCAL, to, 133, &[0; 4]));
    assert!(asked(ipv6("ff02", 2)) && asked(ipv6("fe80", 1)));
    assert!(!asked(HOST) && !asked(ipv6("ff02", 1)) && !asked(ipv6("ff05", 2)));
}

#[test]
fn one_neighbour_or_all_are_told() {
    let told = |to| is_plumbing(&icmp(LOCAL, to, 136, &about(HOST, &hardware_option(2))));
    assert!(told(ipv6("ff02", 1)) && told(ipv6("fe80", 9)) && told(ipv6("2001", 9)));
    assert!(!told(ipv6("ff02", 2)) && !told(ipv6("ff05", 1)));
}

#[test]
fn who_has_no_address_says_no_hardware_address_and_asks_for_nothing_but_neighbours() {
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let from_nobody = |to, kind, body: &[u8]| is_plumbing(&icmp([0; 16], to, kind, body));
    assert!(from_nobody(solicited(), 135, &about(HOST, &nonce)));
    let own = about(HOST, &hardware_option(1));
    assert!(!from_nobody(solicited(), 135, &own));
    let routers = [&[0; 4], &nonce[..]].concat();
    assert!(!from_nobody(ipv6("ff02", 2), 133, &routers));
    assert!(from_nobody(ipv6("ff02", 2), 133, &[0; 4]));
    assert!(!from_nobody(ipv6("ff02", 1), 136, &about(HOST, &nonce)));
}

#[test]
fn no_extension_header_comes_before() {
    let message = [&[135, 0, 0, 0][..], &about(HOST, &[])].concat();
    let behind = [&ALERT, &message[..]].concat();
    assert!(!is_plumbing(&over_ipv6(
        LOCAL,
        solicited(),
        (0, 255),
        &behind
    )));
    assert!(is_plumbing(&over_ipv6(
        LOCAL,
        solicited(),
        (ICMPV6, 255),
        &message
    )));
}
