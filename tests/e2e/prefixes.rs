//! What is allowed: the same prefixes for every filter.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
};

use netfilter_daemon::lab::topology::RESOLVERS;

/// Where streams, datagrams and connections go.
pub const PORT: u16 = 443;

/// Destinations of one filter.
pub const DESTINATIONS: usize = 4_096;

/// Below it are the names that are looked up.
pub const ZONE: &str = "bench.example";

/// Prefixes that have nothing in common, with lengths from 20 to 28, all over the address space:
/// the worst for tables, for lists of clouds lie closer.
pub struct Prefixes(Vec<(Ipv4Addr, u8)>);

impl Prefixes {
    /// The first `count` of a list that is always the same.
    pub fn first(count: usize) -> Self {
        let mut places: Vec<u32> = (0..1 << 20).filter(|place| is_routable(*place)).collect();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for at in 0..count {
            let other = at + dice.below(places.len() - at);
            places.swap(at, other);
        }
        let prefix = |place: &u32| {
            let length = 20 + u8::try_from(dice.below(9)).unwrap();
            (Ipv4Addr::from_bits(place << 12), length)
        };
        Self(places[..count].iter().map(prefix).collect())
    }

    /// Addresses that are in them, each in another, as far as there are so many.
    pub fn inside(&self) -> Vec<Ipv4Addr> {
        let mut dice = Dice(7);
        let start = dice.below(self.0.len());
        (0..DESTINATIONS)
            .map(|number| {
                let (address, length) = self.0[(start + number * STRIDE) % self.0.len()];
                let host = dice.below(1 << (32 - length));
                Ipv4Addr::from_bits(address.to_bits() | u32::try_from(host).unwrap())
            })
            .collect()
    }

    /// Addresses that are in none, nor near one.
    pub fn outside(&self) -> Vec<Ipv4Addr> {
        let inside = self.0.iter().map(|(address, _)| address.to_bits() >> 12);
        let taken: std::collections::HashSet<u32> = inside.collect();
        let mut dice = Dice(11);
        let mut drawn = std::iter::repeat_with(|| u32::try_from(dice.below(1 << 20)).unwrap());
        let free = drawn.by_ref().filter(|place| is_routable(*place));
        free.filter(|place| !taken.contains(place))
            .take(DESTINATIONS)
            .map(|place| Ipv4Addr::from_bits(place << 12 | 0xabc))
            .collect()
    }

    /// As a list in Azure's form, of one tag.
    pub fn list(&self) -> String {
        let prefixes: Vec<String> = self.text(|address, length| format!("\"{address}/{length}\""));
        format!(
            r#"{{"changeNumber": 1, "cloud": "Public", "values": [{{"name": "Bench", "properties": {{"addressPrefixes": [{}]}}}}]}}"#,
            prefixes.join(", ")
        )
    }

    /// A set of nftables, by address alone, or by address and port. The resolver is in it, so
    /// that one rule is enough.
    pub fn nft_set(&self, ports: bool) -> String {
        let (of, port, dns) = match ports {
            false => ("ipv4_addr", String::new(), ""),
            true => ("ipv4_addr . inet_service", format!(" . {PORT}"), " . 53"),
        };
        let mut elements = self.text(|address, length| format!("{address}/{length}{port}"));
        elements.push(format!("{}{dns}", resolver()));
        format!(
            "set allowed {{ type {of}; flags interval; elements = {{ {} }}; }}",
            elements.join(", ")
        )
    }

    /// What `ipset restore` reads.
    pub fn ipset(&self) -> String {
        let mut text = format!(
            "create allowed hash:net family inet hashsize {} maxelem {}\n",
            self.0.len().next_power_of_two(),
            self.0.len() + 1
        );
        for line in self.text(|address, length| format!("{address}/{length}")) {
            writeln!(text, "add allowed {line}").unwrap();
        }
        writeln!(text, "add allowed {}", resolver()).unwrap();
        text
    }

    fn text(&self, each: impl Fn(Ipv4Addr, u8) -> String) -> Vec<String> {
        let prefixes = self.0.iter();
        prefixes
            .map(|(address, length)| each(*address, *length))
            .collect()
    }
}

/// The policy that allows them, of which the list is a file beside it.
pub fn policy(list: &str) -> String {
    format!(
        "resolvers: [{}]
service_tags: {list}
on_deny: drop
outbound_rules:
  - {{ name: bench, type: service_tag, destination: {{ service_tag: Bench, protocol: '*', port_ranges: '{PORT}' }} }}
  - {{ name: names, type: fqdn, destination: {{ fqdn: '*.{ZONE}', protocol: TCP, port_ranges: '{PORT}' }} }}
",
        resolver()
    )
}

pub fn resolver() -> Ipv4Addr {
    match RESOLVERS[0] {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("the lab's first resolver has an IPv4 address"),
    }
}

/// Of the /20s: what hosts of the internet have, and nothing that the lab itself uses.
fn is_routable(place: u32) -> bool {
    let [first, second, ..] = Ipv4Addr::from_bits(place << 12).octets();
    !matches!(first, 0 | 10 | 127 | 224..) && [first, second] != [169, 254]
}

/// Always the same: xorshift64*, which needs no crate.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % bound
    }
}

/// Odd, and no divisor of the numbers of prefixes: neighbours of the list are not asked for one
/// after the other.
const STRIDE: usize = 7_919;
