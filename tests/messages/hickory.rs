//! What hickory-proto finds in a message.

use hickory_proto::{
    op::Message,
    rr::{
        DNSClass, Name, RData, Record,
        rdata::{SVCB, svcb::SvcParamValue},
    },
};
use netfilter_ebpf::abi::Address;

use super::reader::Found;

/// The addresses of the answer section, as far as they are the filter's: of
/// class IN, IPv4-mapped ones left out (they belong on no wire), and with the
/// TTL that RFC 2181 section 8 gives to one with its highest bit set.
pub fn addresses(message: &Message) -> Found {
    let mut found = Found::new();
    for record in &message.answers {
        if record.dns_class != DNSClass::IN {
            continue;
        }
        let ttl = i32::try_from(record.ttl).map_or(0, |_| record.ttl);
        found.extend(of(record).into_iter().map(|address| (address, ttl)));
    }
    found
}

/// The names that CNAME, SVCB and HTTPS records point to, in wire form and
/// lowercased; empty for the root, and for names that are not ASCII.
pub fn aliases(message: &Message) -> Vec<Vec<u8>> {
    let records = message.answers.iter();
    let targets = records.filter(|record| record.dns_class == DNSClass::IN);
    let targets = targets.filter_map(|record| match &record.data {
        RData::CNAME(target) => Some(&target.0),
        RData::SVCB(service) => Some(&service.target_name),
        RData::HTTPS(service) => Some(&service.0.target_name),
        _ => None,
    });
    let wire = |name: &Name| {
        let mut wire = Vec::new();
        for label in name.iter() {
            wire.push(u8::try_from(label.len()).unwrap_or(0));
            wire.extend(label.to_ascii_lowercase());
        }
        if wire.is_ascii() { wire } else { Vec::new() }
    };
    targets.map(wire).collect()
}

fn of(record: &Record) -> Vec<Address> {
    match &record.data {
        RData::A(a) => vec![Address::from_ipv4(a.0.to_bits())],
        RData::AAAA(aaaa) => ipv6(aaaa.0.octets()).collect(),
        RData::SVCB(service) => hints(service),
        RData::HTTPS(service) => hints(&service.0),
        _ => Vec::new(),
    }
}

fn hints(service: &SVCB) -> Vec<Address> {
    let mut found = Vec::new();
    for (_, value) in &service.svc_params {
        match value {
            SvcParamValue::Ipv4Hint(hint) => {
                found.extend(hint.0.iter().map(|a| Address::from_ipv4(a.0.to_bits())));
            }
            SvcParamValue::Ipv6Hint(hint) => {
                found.extend(hint.0.iter().flat_map(|aaaa| ipv6(aaaa.0.octets())));
            }
            _ => {}
        }
    }
    found
}

fn ipv6(bytes: [u8; 16]) -> impl Iterator<Item = Address> {
    Some(Address::from_ipv6(bytes))
        .filter(|address| !address.is_ipv4())
        .into_iter()
}
