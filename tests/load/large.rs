//! Policies of a hundred thousand prefixes and ten thousand names, as people could write them.

use std::{collections::BTreeSet, fmt::Write, net::IpAddr};

pub const PREFIXES: usize = 100_000;
pub const NAMES: usize = 10_000;

const PORTS: [&str; 4] = ["443", "80, 443", "22", "8000-8100"];

/// The same at each run: a generator after Knuth (MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Four fifths of IPv4, of 20 to 32 bits in 4,000 networks of 16, which nest; the others of
/// IPv6, of 40 to 64.
pub fn prefixes() -> Vec<String> {
    let mut random = Random(7);
    let mut seen = BTreeSet::new();
    while seen.len() < PREFIXES * 4 / 5 {
        let length = 20 + random.below(13);
        let network = random.below(4_000) * 13 + (1 << 8);
        let address = network << 16 | random.below(1 << 16);
        seen.insert((address >> (32 - length) << (32 - length), length));
    }
    let v4 = seen.into_iter().map(|(address, length)| {
        let address = IpAddr::from(u32::try_from(address).unwrap().to_be_bytes());
        format!("{address}/{length}")
    });
    let mut list: Vec<String> = v4.collect();
    let mut seen = BTreeSet::new();
    while seen.len() < PREFIXES / 5 {
        let length = 40 + 8 * random.below(4);
        let high = 0x2603 << 48 | random.below(1 << 8) << 40 | random.below(1 << 30);
        let high = high ^ random.below(1 << 24) << 16;
        seen.insert((high >> (64 - length) << (64 - length), length));
    }
    list.extend(seen.into_iter().map(|(high, length)| {
        let address = IpAddr::from((u128::from(high) << 64).to_be_bytes());
        format!("{address}/{length}")
    }));
    list
}

/// A tenth of them wildcards.
fn names() -> String {
    let mut rules = String::new();
    for number in 0..NAMES {
        let name = match number % 10 {
            0 => format!("*.wild{number}.example.net"),
            _ => format!("host{number}.zone{}.example.com", number % 700),
        };
        writeln!(
            rules,
            "  - {{ name: n{number}, type: fqdn, destination: '{name}' }}"
        )
        .unwrap();
    }
    rules
}

/// A rule for each prefix.
pub fn rules(prefixes: &[String]) -> String {
    let mut text = "resolvers: [10.99.0.1]\noutbound_rules:\n".to_owned();
    for (number, prefix) in prefixes.iter().enumerate() {
        let ports = PORTS[number % PORTS.len()];
        writeln!(text, "  - {{ name: r{number}, type: ip, destination: {{ cidr: '{prefix}', protocol: TCP, port_ranges: '{ports}' }} }}").unwrap();
    }
    text
}

/// One rule for all, and a rule for each name.
pub fn list(prefixes: &[String]) -> String {
    let mut text = "resolvers: [10.99.0.1]\noutbound_rules:\n  - name: all\n    type: ip\n    destination:\n      protocol: TCP\n      port_ranges: '443'\n      cidr:\n".to_owned();
    for prefix in prefixes {
        writeln!(text, "        - {prefix}").unwrap();
    }
    text + &names()
}

const TAGS: usize = 8;

/// A rule for each service tag of a list, and for each name; `list` is where the list is.
pub fn tagged(list: &str) -> String {
    let mut text = format!("service_tags: '{list}'\noutbound_rules:\n");
    for tag in 0..TAGS {
        let ports = PORTS[tag % PORTS.len()];
        writeln!(text, "  - {{ name: t{tag}, type: service_tag, destination: {{ service_tag: Tag{tag}, protocol: TCP, port_ranges: '{ports}' }} }}").unwrap();
    }
    text + &names()
}

/// The list, as Azure publishes its own.
pub fn published(prefixes: &[String]) -> String {
    let values: Vec<_> = (0..TAGS)
        .map(|tag| {
            let of_it: Vec<&String> = prefixes.iter().skip(tag).step_by(TAGS).collect();
            serde_json::json!({
                "name": format!("Tag{tag}"), "id": format!("Tag{tag}"),
                "properties": {
                    "changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure",
                    "systemService": "", "addressPrefixes": of_it, "networkFeatures": ["API", "NSG"],
                },
            })
        })
        .collect();
    serde_json::json!({ "changeNumber": 375, "cloud": "Public", "values": values }).to_string()
}
