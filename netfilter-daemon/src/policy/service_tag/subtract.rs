//! Networks without some of their parts.

use ipnet::IpNet;

/// The fewest networks that cover `networks` and nothing of `holes`, provided that
/// no two of `networks` overlap.
pub(super) fn subtract(networks: &[IpNet], holes: &[IpNet]) -> Vec<IpNet> {
    let mut rest = Vec::new();
    for network in networks {
        split(*network, holes, &mut rest);
    }
    rest
}

/// Halves the network until a half is whole or is hole. At most 128 levels deep.
fn split(network: IpNet, holes: &[IpNet], rest: &mut Vec<IpNet>) {
    if holes.iter().any(|hole| hole.contains(&network)) {
        return;
    }
    let inside: Vec<IpNet> = holes
        .iter()
        .filter(|hole| network.contains(*hole))
        .copied()
        .collect();
    if inside.is_empty() {
        rest.push(network);
        return;
    }
    // A network with a smaller one inside is longer than one address, so it halves.
    if let Ok(halves) = network.subnets(network.prefix_len() + 1) {
        for half in halves {
            split(half, &inside, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_hole_leaves_what_is_around_it() {
        let rest = subtract(&nets(&["10.0.0.0/30"]), &nets(&["10.0.0.1/32"]));
        assert_eq!(rest, nets(&["10.0.0.0/32", "10.0.0.2/31"]));
    }

    #[test]
    fn without_holes_nothing_changes() {
        let networks = nets(&["0.0.0.0/0", "2000::/3"]);
        assert_eq!(subtract(&networks, &[]), networks);
        assert_eq!(subtract(&networks, &nets(&["fd00::/8"])), networks);
    }

    #[test]
    fn a_hole_as_large_as_the_network_leaves_nothing() {
        assert!(subtract(&nets(&["10.0.0.0/8"]), &nets(&["0.0.0.0/0"])).is_empty());
        assert!(subtract(&nets(&["::/0"]), &nets(&["::/0"])).is_empty());
    }

    proptest! {
        #[test]
        fn an_address_remains_exactly_if_no_hole_has_it(
            holes in prop::collection::vec((0u32..1024, 22u8..=32), 0..6), probe in 0u32..1024
        ) {
            let holes: Vec<IpNet> = holes
                .into_iter()
                .map(|(bits, length)| IpNet::new(Ipv4Addr::from(bits).into(), length).unwrap().trunc())
                .collect();
            let probe: std::net::IpAddr = Ipv4Addr::from(probe).into();
            let rest = subtract(&nets(&["0.0.0.0/22"]), &holes);
            let expected = !holes.iter().any(|hole| hole.contains(&probe));
            prop_assert_eq!(rest.iter().any(|net| net.contains(&probe)), expected);
        }
    }
}
