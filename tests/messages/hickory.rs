//! What hickory-proto finds in a message.

use hickory_proto::{
    op::Message,
    rr::{
        DNSClass, RData, Record,
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
