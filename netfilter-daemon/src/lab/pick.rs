//! Picks what to try of a rule: addresses, ports, and addresses that no rule knows.

use std::{
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::policy::{Ports, Protocol, Traffic};

use super::{
    probe::{Family, Knock},
    reading::Reading,
    topology::routable,
};

/// What is tried beside what a rule allows; the first that the policy does not allow is.
pub(super) const STRANGE: [Knock; 6] = [
    Knock::Tcp(22),
    Knock::Udp(443),
    Knock::Tcp(8443),
    Knock::Udp(9999),
    Knock::Tcp(443),
    Knock::Icmp,
];

/// Where names of the lab point to: benchmarking networks (RFC 2544, RFC
/// 5180), and others for policies that have rules on these.
const IPV4_POOLS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(198, 18, 0, 0),
    Ipv4Addr::new(100, 64, 0, 0),
    Ipv4Addr::new(11, 0, 0, 0),
];
const IPV6_POOLS: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0x2600, 1, 0, 0, 0, 0, 0, 0),
];

/// The first and the last address of a family among prefixes.
pub(super) fn ends(prefixes: &[IpNet], family: Family) -> Vec<(&'static str, IpAddr)> {
    let mine: Vec<_> = prefixes
        .iter()
        .filter(|prefix| Family::of(prefix.addr()) == family)
        .collect();
    let first = mine
        .iter()
        .map(|prefix| prefix.network())
        .find(|it| routable(*it));
    let last = mine
        .iter()
        .rev()
        .map(|prefix| prefix.broadcast())
        .find(|it| routable(*it));
    let middle = || {
        mine.iter()
            .filter_map(|prefix| middle(prefix))
            .find(|it| routable(*it))
    };
    let mut ends: Vec<_> = iter::empty()
        .chain(first.map(|it| ("first address", it)))
        .chain(last.map(|it| ("last address", it)))
        .collect();
    ends.dedup_by_key(|(_, address)| *address);
    if ends.is_empty() {
        ends.extend(middle().map(|it| ("an address inside", it)));
    }
    ends
}

/// The addresses of a family that are right before and right behind prefixes.
pub(super) fn neighbours(prefixes: &[IpNet], family: Family) -> impl Iterator<Item = IpAddr> {
    prefixes
        .iter()
        .filter(move |prefix| Family::of(prefix.addr()) == family)
        .flat_map(|prefix| [step(prefix.broadcast(), 1), step(prefix.network(), -1)])
        .flatten()
        .filter(|address| routable(*address))
}

/// What to try of a rule's traffic: the ends of what it speaks of.
pub(super) fn knocks(traffic: &[Traffic]) -> Vec<Knock> {
    let mut knocks = Vec::new();
    for traffic in traffic {
        let [first, last] = match traffic.ports() {
            Ports::All => [443, 443],
            Ports::Ranges(ranges) => [
                // Nobody can connect to port 0.
                ranges.first().map_or(443, |range| *range.start().max(&1)),
                ranges.last().map_or(443, |range| *range.end()),
            ],
        };
        let new = match traffic.protocol() {
            Protocol::Any => vec![Knock::Tcp(first), Knock::Udp(last)],
            Protocol::Tcp => vec![Knock::Tcp(first), Knock::Tcp(last)],
            Protocol::Udp => vec![Knock::Udp(first), Knock::Udp(last)],
            Protocol::Icmp => vec![Knock::Icmp],
            // There is nobody in the lab who would answer.
            Protocol::Number(_) => vec![],
        };
        for knock in new {
            if !knocks.contains(&knock) {
                knocks.push(knock);
            }
        }
    }
    knocks
}

/// Addresses that no rule mentions, each given out once.
pub(super) struct Pool<'a> {
    reading: Reading<'a>,
    given: u32,
}

impl<'a> Pool<'a> {
    pub(super) fn new(reading: Reading<'a>) -> Self {
        Self { reading, given: 0 }
    }

    /// Where rules mention everything, so does one of them this address.
    pub(super) fn next(&mut self, family: Family) -> IpAddr {
        self.given += 1;
        let bases = match family {
            Family::V4 => IPV4_POOLS.map(IpAddr::V4),
            Family::V6 => IPV6_POOLS.map(IpAddr::V6),
        };
        let [first, ..] = bases.map(|base| step(base, self.given.into()).unwrap_or(base));
        let unmentioned =
            |base| step(base, self.given.into()).filter(|address| !self.reading.mentions(*address));
        bases.into_iter().find_map(unmentioned).unwrap_or(first)
    }
}

/// The address so many further on; `None` beyond either end.
fn step(address: IpAddr, by: i64) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let there = i64::from(address.to_bits()) + by;
            Some(Ipv4Addr::from_bits(u32::try_from(there).ok()?).into())
        }
        IpAddr::V6(address) => {
            let there = address.to_bits().checked_add_signed(by.into())?;
            Some(Ipv6Addr::from_bits(there).into())
        }
    }
}

fn middle(prefix: &IpNet) -> Option<IpAddr> {
    let halves = prefix.subnets(prefix.prefix_len() + 1).ok()?;
    halves.last().map(|upper| upper.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_prefixes_are_theirs_and_of_the_family() {
        let prefixes = nets(&["192.0.2.0/25", "2001:db8::/64", "198.51.100.8/30"]);
        assert_eq!(
            ends(&prefixes, Family::V4),
            [
                ("first address", ip("192.0.2.0")),
                ("last address", ip("198.51.100.11"))
            ]
        );
        assert_eq!(
            ends(&prefixes, Family::V6),
            [
                ("first address", ip("2001:db8::")),
                ("last address", ip("2001:db8::ffff:ffff:ffff:ffff"))
            ]
        );
    }

    #[test]
    fn a_single_address_is_one_end() {
        assert_eq!(
            ends(&nets(&["192.0.2.1/32"]), Family::V4),
            [("first address", ip("192.0.2.1"))]
        );
        assert_eq!(ends(&nets(&["192.0.2.1/32"]), Family::V6), []);
    }

    #[test]
    fn of_everything_the_middle_is_tried_for_the_ends_are_no_hosts() {
        let ends = ends(&nets(&["0.0.0.0/0"]), Family::V4);
        assert_eq!(ends, [("an address inside", ip("128.0.0.0"))]);
    }

    #[test]
    fn neighbours_are_outside_and_next_to_it() {
        let around: Vec<_> = neighbours(&nets(&["192.0.2.0/25"]), Family::V4).collect();
        assert_eq!(around, [ip("192.0.2.128"), ip("192.0.1.255")]);
        assert_eq!(neighbours(&nets(&["::/0"]), Family::V6).count(), 0);
    }

    #[test]
    fn the_ends_of_what_a_rule_speaks_of_are_tried_once() {
        let ports = |text| Ports::parse(text).unwrap();
        let traffic = [
            Traffic::tcp([443]),
            Traffic::new(Protocol::Any, ports("0-53, 8000-8100")).unwrap(),
            Traffic::new(Protocol::Icmp, Ports::All).unwrap(),
            Traffic::ANY,
        ];
        assert_eq!(
            knocks(&traffic),
            [
                Knock::Tcp(443),
                Knock::Tcp(1),
                Knock::Udp(8100),
                Knock::Icmp,
                Knock::Udp(443)
            ]
        );
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
