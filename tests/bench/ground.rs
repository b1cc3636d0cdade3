//! What is measured on: prefixes, policies of them, and where packets go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netfilter_daemon::{
    compile::{self, Image},
    policy::{
        self, Action, Destination, Policy, Ports, Protocol, Rule, System, Traffic,
        service_tag::Catalogue,
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

/// Random numbers, the same in each run (xorshift64*, Vigna 2016).
pub struct Random(u64);

impl Random {
    pub const fn new() -> Self {
        Self(0x2545_f491_4f6c_dd1d)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap() % end
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// As many prefixes, none twice. IPv4: anywhere, half of them /24, the others between /16 and
/// /32. IPv6: in 64 networks of /32, as clouds have them, between /36 and /64, and some hosts.
pub fn prefixes(family: Family, count: usize, random: &mut Random) -> Vec<IpNet> {
    let networks: Vec<u128> = (0..64)
        .map(|_| 0x2 << 124 | random.wide() >> 4 & !0 << 96)
        .collect();
    let mut list = std::collections::BTreeSet::new();
    while list.len() < count {
        list.insert(match family {
            Family::Ipv4 => {
                let bits = (1 << 24) | (u32::try_from(random.next() >> 32).unwrap() % 0xdf00_0000);
                let length = match random.below(2) {
                    0 => 24,
                    _ => 16 + u8::try_from(random.below(17)).unwrap(),
                };
                IpNet::V4(Ipv4Net::new(bits.into(), length).unwrap().trunc())
            }
            Family::Ipv6 => {
                let network = networks[random.below(networks.len())];
                let bits = network | random.wide() >> 32;
                let length = match random.below(8) {
                    0 => 128,
                    _ => 36 + u8::try_from(random.below(29)).unwrap(),
                };
                IpNet::V6(Ipv6Net::new(bits.into(), length).unwrap().trunc())
            }
        });
    }
    list.into_iter().collect()
}

/// Sixteen rules, which share the prefixes and differ in their ports. `open`: another rule
/// lets out what is in none of them, so that all that is looked up passes.
pub fn image(base: &str, prefixes: &[IpNet], open: bool) -> Image {
    const RULES: usize = 16;
    let system = System::default();
    let parsed = policy::parse(base, "bench", &system, &|_| Catalogue::built_in());
    let mut policy: Policy = parsed.unwrap();
    let rule = |name: String, prefixes, ports: &str| Rule {
        name,
        action: Action::Allow,
        destination: Destination::Prefixes(prefixes),
        traffic: vec![
            Traffic::new(
                Protocol::parse("TCP").unwrap(),
                Ports::parse(ports).unwrap(),
            )
            .unwrap(),
        ],
    };
    for number in 0..RULES {
        let own = prefixes.iter().skip(number).step_by(RULES);
        policy.rules.push(rule(
            format!("rule {number}"),
            own.copied().collect(),
            &format!("443,{}", 2000 + number),
        ));
    }
    if open {
        let all = ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap());
        policy.rules.push(rule("all".into(), all.into(), "443"));
    }
    compile::compile(&policy).unwrap()
}

/// Random addresses, every second of which is in one of the prefixes.
pub fn destinations(prefixes: &[IpNet], count: usize, random: &mut Random) -> Vec<IpAddr> {
    (0..count)
        .map(|index| {
            let prefix = prefixes[random.below(prefixes.len())];
            match prefix {
                _ if index % 2 == 1 => elsewhere(prefixes, random),
                IpNet::V4(net) => {
                    let within = u32::try_from(random.next() >> 32).unwrap();
                    let host = within.checked_shr(net.prefix_len().into()).unwrap_or(0);
                    IpAddr::V4(Ipv4Addr::from(net.network().to_bits() | host))
                }
                IpNet::V6(net) => {
                    let host = random.wide().checked_shr(net.prefix_len().into());
                    IpAddr::V6(Ipv6Addr::from(net.network().to_bits() | host.unwrap_or(0)))
                }
            }
        })
        .collect()
}

/// A random address of the same family and in none of the sorted prefixes.
fn elsewhere(prefixes: &[IpNet], random: &mut Random) -> IpAddr {
    loop {
        let address = match prefixes[0] {
            IpNet::V4(_) => {
                let bits = (1 << 24) | (u32::try_from(random.next() >> 32).unwrap() % 0xdf00_0000);
                IpAddr::V4(bits.into())
            }
            // In the same networks, or hardly any would go beyond the first bits.
            IpNet::V6(_) => {
                let IpNet::V6(near) = prefixes[random.below(prefixes.len())] else {
                    continue;
                };
                let bits = near.network().to_bits() & !0 << 96 | random.wide() >> 32;
                IpAddr::V6(bits.into())
            }
        };
        // Prefixes that enclose others stand before them, few of them long.
        let behind = prefixes.partition_point(|net| net.addr() <= address);
        let near = &prefixes[behind.saturating_sub(64)..behind];
        if !near.iter().any(|net| net.contains(&address)) {
            return address;
        }
    }
}
