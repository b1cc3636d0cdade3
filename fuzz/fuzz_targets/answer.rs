//! An answer is read alike whole and in pieces, and as hickory reads it.
//!
//! The first two bytes of the input say in what pieces the rest comes.
#![no_main]

#[path = "../../tests/messages/hickory.rs"]
mod hickory;
#[path = "../../tests/messages/reader.rs"]
mod reader;

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{DNSClass, RData, rdata::svcb::SvcParamValue},
};
use libfuzzer_sys::fuzz_target;
use netfilter_ebpf::{
    abi::{Address, MAX_ANSWER_ADDRESSES, MAX_DNS_MESSAGE},
    name::MAX_NAME,
};
use reader::{Found, Reading, Stream};

/// An answer that comes behind the other: `a. A 192.0.2.1`.
const NEXT: &[u8] = b"\0\x07\x84\0\0\x01\0\x01\0\0\0\0\x01a\0\0\x01\0\x01\
    \xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";

fuzz_target!(|input: &[u8]| {
    let [small, large, message @ ..] = input else {
        return;
    };
    if message.len() > usize::from(u16::MAX) {
        return;
    }
    let (found, reading) = reader::whole(message);
    let pieces = [usize::from(*small) + 1, (usize::from(*large) + 1) * 8];
    agrees_with_datagram(message, &found, reading);
    agrees_with_stream(message, &found, reading, &pieces);
    assert!(found.len() <= there(message).len());
    assert_eq!(found, there(message)[..found.len()]);
    match Message::from_vec(message) {
        Ok(parsed) if is_ours(&parsed) => {
            agrees_with_hickory(&parsed, &found, reading);
            let known = hickory::aliases(&parsed);
            let ours = reader::aliases(message).unwrap_or_default();
            // One that points into the header is left out.
            assert!(
                ours.iter()
                    .all(|alias| alias.is_empty() || known.contains(alias))
            );
        }
        Ok(_) => assert!(found.is_empty()),
        // `there` is the measure.
        Err(_) => {}
    }
});

/// All or nothing.
fn agrees_with_datagram(message: &[u8], found: &Found, reading: Reading) {
    let fits = message.len() <= MAX_DNS_MESSAGE && found.len() <= MAX_ANSWER_ADDRESSES;
    let expected = (reading == Reading::End && fits).then_some(found);
    assert_eq!(reader::datagram(message).as_ref(), expected);
}

/// In pieces, what came before a fault may have been learned. Those of its own piece are not.
fn agrees_with_stream(message: &[u8], found: &Found, reading: Reading, pieces: &[usize]) {
    let stream = Stream::of(&[message, NEXT], pieces.iter().cycle());
    let [(learned, ended), (next, Reading::End)] = &stream.read[..] else {
        panic!("{:?}", stream.read);
    };
    assert_eq!(next, &[(Address::from_ipv4(0xc000_0201), 60)]);
    if *ended == Reading::End {
        assert_eq!((learned, *ended), (found, reading));
    } else {
        // More than one piece can hold are a fault there alone.
        assert!(reading == Reading::Malformed || found.len() > MAX_ANSWER_ADDRESSES);
        assert!(found.starts_with(learned));
    }
}

/// An answer to a question that the filter lets out, with addresses in it. The
/// others teach nothing, whatever they hold.
fn is_ours(message: &Message) -> bool {
    let one = |query: &[hickory_proto::op::Query]| matches!(query, [query] if query.query_class == DNSClass::IN);
    message.op_code == OpCode::Query
        && message.message_type == hickory_proto::op::MessageType::Response
        && one(&message.queries)
        && message.response_code.low() == ResponseCode::NoError.low()
}

/// What hickory finds is found. The filter refuses, and learns less from:
/// - an empty hint (RFC 9460 section 7.3 asks for an address at least);
/// - a compressed question, or a pointer into the header: nobody writes those,
///   so it reads the same message as hickory writes it;
/// - a compressed target name (RFC 9460 section 2.2), likewise.
fn agrees_with_hickory(message: &Message, found: &Found, reading: Reading) {
    let expected = hickory::addresses(message);
    if reading == Reading::End {
        assert_eq!(found, &expected);
        return;
    }
    assert!(expected.starts_with(found));
    if let Ok(written) = message.to_vec()
        && Message::from_vec(&written).is_ok_and(|read| read == *message)
        && !has_empty_hint(message)
    {
        assert_eq!(reader::whole(&written), (expected, Reading::End));
    }
}

fn has_empty_hint(message: &Message) -> bool {
    let services = message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::SVCB(service) => Some(service),
            RData::HTTPS(service) => Some(&service.0),
            _ => None,
        });
    services
        .flat_map(|service| &service.svc_params)
        .any(|(_, value)| match value {
            SvcParamValue::Ipv4Hint(hint) => hint.0.is_empty(),
            SvcParamValue::Ipv6Hint(hint) => hint.0.is_empty(),
            _ => false,
        })
}

/// The addresses that stand in the answer section until its first fault, read
/// the plain way. hickory rejects more: names whose pointers lead into rubbish
/// (here as in the filter the owner has only to end), parameters of HTTPS
/// records out of order, broken data of records that hold no address, and
/// whatever stands behind the answer section. None of those makes an address
/// one that the resolver did not send.
fn there(message: &[u8]) -> Found {
    let mut found = Found::new();
    _ = walk(message, &mut found);
    found
}

fn walk(message: &[u8], found: &mut Found) -> Option<()> {
    let u16_at = |at: usize| Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?));
    let question = name(message, 12, false)?;
    let mut at = question + 4;
    for _ in 0..u16_at(6)? {
        at = name(message, at, true)?;
        let (kind, class, size) = (u16_at(at)?, u16_at(at + 2)?, u16_at(at + 8)?);
        let ttl = u32::from_be_bytes(*message.get(at + 4..)?.first_chunk()?);
        let ttl = i32::try_from(ttl).map_or(0, |_| ttl);
        let end = at + 10 + usize::from(size);
        let data = message.get(at + 10..end)?;
        match (kind, class) {
            (1, 1) if data.len() == 4 => take(data, 4, ttl, found),
            (28, 1) if data.len() == 16 => take(data, 16, ttl, found),
            (1 | 28, 1) => return None,
            (64 | 65, 1) => service(data, ttl, found)?,
            _ => {}
        }
        at = end;
    }
    Some(())
}

/// Behind a name, which a pointer to before it may end.
fn name(message: &[u8], start: usize, compressed: bool) -> Option<usize> {
    let mut at = start;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            high @ 192.. if compressed => {
                let low = *message.get(at + 1)?;
                let target = usize::from(u16::from_be_bytes([high & 0x3f, low]));
                return (12..start).contains(&target).then_some(at + 2);
            }
            _ => return None,
        }
        if at - start > MAX_NAME {
            return None;
        }
    }
}

fn service(data: &[u8], ttl: u32, found: &mut Found) -> Option<()> {
    let mut at = name(data, 2, false)?;
    while at < data.len() {
        let [k0, k1, l0, l1] = *data.get(at..)?.first_chunk()?;
        let end = at + 4 + usize::from(u16::from_be_bytes([l0, l1]));
        let value = data.get(at + 4..end)?;
        match u16::from_be_bytes([k0, k1]) {
            4 if value.len() % 4 == 0 => take(value, 4, ttl, found),
            6 if value.len() % 16 == 0 => take(value, 16, ttl, found),
            4 | 6 => return None,
            _ => {}
        }
        at = end;
    }
    Some(())
}

fn take(bytes: &[u8], size: usize, ttl: u32, found: &mut Found) {
    for bytes in bytes.chunks(size) {
        let address = match *bytes {
            [a, b, c, d] => Address::from_ipv4(u32::from_be_bytes([a, b, c, d])),
            _ => Address::from_ipv6(bytes.try_into().expect("sixteen")),
        };
        if size == 4 || !address.is_ipv4() {
            found.push((address, ttl));
        }
    }
}
