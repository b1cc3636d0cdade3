//! Messages that hickory builds.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{
            A, AAAA, CNAME, HTTPS, MX, NULL, SOA, SVCB, TXT,
            opt::{EdnsCode, EdnsOption},
            svcb::{Alpn, IpHint, SvcParamKey, SvcParamValue},
        },
    },
    serialize::binary::{BinEncodable, BinEncoder},
};
use netfilter_ebpf::{
    abi::MAX_DNS_MESSAGE,
    dns::{self, Kind, MAX_ALIASES, Question},
    name::{self, KeyBuffer},
    packet,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    hickory,
    reader::{self, Reading, Stream, WINDOW},
};

/// A name in any letter case. Few parents, so that the encoder has what to compress.
fn names() -> impl Strategy<Value = Name> {
    let parent = select(vec![
        "example.com.",
        "data.Example.COM.",
        "x.",
        "a.very.deep.name.x.",
        ".",
    ]);
    let labels = vec("[a-zA-Z0-9_-]{1,12}|[a-z]{63}", 0..4);
    (labels, parent).prop_map(|(labels, parent)| {
        let name = Name::from_ascii(parent).unwrap();
        let longer = |name: Name, label: &String| name.prepend_label(label.as_bytes()).ok();
        labels.iter().try_fold(name.clone(), longer).unwrap_or(name)
    })
}

fn ipv4() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from_bits)
}

fn ipv6() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        9 => any::<u128>().prop_map(Ipv6Addr::from_bits),
        1 => ipv4().prop_map(|address| address.to_ipv6_mapped()),
    ]
}

fn services() -> impl Strategy<Value = SVCB> {
    let ipv4 = vec(ipv4().prop_map(A), 1..4);
    let ipv6 = vec(ipv6().prop_map(AAAA), 1..3);
    let alpn = vec("h[23]", 1..3);
    let parts = (
        0..3_u16,
        names(),
        option::of(alpn),
        option::of(any::<u16>()),
        option::of(ipv4),
        option::of(ipv6),
    );
    parts.prop_map(|(priority, target, alpn, port, ipv4, ipv6)| {
        let parameters = [
            alpn.map(|alpn| (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(alpn)))),
            port.map(|port| (SvcParamKey::Port, SvcParamValue::Port(port))),
            ipv4.map(|hint| (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(hint)))),
            ipv6.map(|hint| (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(hint)))),
        ];
        SVCB::new(priority, target, parameters.into_iter().flatten().collect())
    })
}

fn data() -> impl Strategy<Value = RData> {
    let bytes = || vec(any::<u8>(), 1..200);
    let rrsig = |bytes: Vec<u8>| RData::Unknown {
        code: RecordType::RRSIG,
        rdata: NULL::with(bytes),
    };
    prop_oneof![
        8 => ipv4().prop_map(|address| RData::A(A(address))),
        4 => ipv6().prop_map(|address| RData::AAAA(AAAA(address))),
        4 => names().prop_map(|name| RData::CNAME(CNAME(name))),
        2 => services().prop_map(|service| RData::HTTPS(HTTPS(service))),
        1 => services().prop_map(RData::SVCB),
        1 => bytes().prop_map(rrsig),
        1 => bytes().prop_map(|bytes| RData::TXT(TXT::from_bytes(vec![&bytes]))),
        1 => names().prop_map(|name| RData::MX(MX::new(10, name))),
        1 => soa(),
    ]
}

fn soa() -> impl Strategy<Value = RData> {
    (names(), names()).prop_map(|(server, mail)| RData::SOA(SOA::new(server, mail, 1, 2, 3, 4, 5)))
}

fn records(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Record>> {
    let class = prop_oneof![9 => Just(DNSClass::IN), 1 => Just(DNSClass::CH)];
    let ttl = prop_oneof![9 => 0..100_000_u32, 1 => any::<u32>()];
    let record = (names(), class, ttl, data()).prop_map(|(owner, class, ttl, data)| {
        let mut record = Record::from_rdata(owner, ttl, data);
        record.dns_class = class;
        record
    });
    vec(record, count)
}

fn edns() -> impl Strategy<Value = Option<Edns>> {
    let cookie = vec(any::<u8>(), 8..40);
    option::of(
        (any::<bool>(), option::of(cookie)).prop_map(|(dnssec, cookie)| {
            let mut edns = Edns::new();
            edns.set_max_payload(1232).set_dnssec_ok(dnssec);
            if let Some(cookie) = cookie {
                let code = EdnsCode::Cookie.into();
                edns.options_mut().insert(EdnsOption::Unknown(code, cookie));
            }
            edns
        }),
    )
}

fn questions() -> impl Strategy<Value = Query> {
    let types = select(vec![1_u16, 2, 5, 6, 12, 16, 28, 33, 64, 65, 255, 65_280]);
    (names(), types).prop_map(|(name, kind)| Query::query(name, RecordType::from(kind)))
}

/// An answer of at most `size` bytes, as it is on the wire.
fn answers(count: std::ops::Range<usize>, size: usize) -> impl Strategy<Value = Vec<u8>> {
    let authorities = vec((names(), soa()), 0..2);
    let fails = prop::bool::weighted(0.05);
    let parts = (questions(), records(count), authorities, edns(), fails);
    parts.prop_map(move |(query, answers, authorities, edns, fails)| {
        let mut message = Message::response(7, OpCode::Query);
        message.metadata.response_code = if fails {
            ResponseCode::NXDomain
        } else {
            ResponseCode::NoError
        };
        message.add_query(query);
        message.add_answers(answers);
        let authority = |(owner, data)| Record::from_rdata(owner, 60, data);
        message.add_authorities(authorities.into_iter().map(authority));
        message.edns = edns;
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(size as u16);
        message.emit(&mut encoder).unwrap();
        bytes
    })
}

/// What hickory finds in the answers that are heard: those without an error.
fn expected(bytes: &[u8]) -> reader::Found {
    let message = Message::from_vec(bytes).unwrap();
    match message.response_code {
        ResponseCode::NoError => hickory::addresses(&message),
        _ => reader::Found::new(),
    }
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1..20_usize, 1..=WINDOW], 1..50)
}

proptest! {
    #[test]
    fn a_datagram_teaches_what_hickory_finds(
        message in prop_oneof![answers(0..8, 1232), answers(0..150, MAX_DNS_MESSAGE)]
    ) {
        prop_assert_eq!(reader::datagram(&message), Some(expected(&message)));
        let parsed = Message::from_vec(&message).unwrap();
        if parsed.response_code == ResponseCode::NoError {
            let mut aliases = hickory::aliases(&parsed);
            // The first few are learned; a target that is the root is none, and not among them.
            aliases.truncate(MAX_ALIASES);
            prop_assert_eq!(reader::aliases(&message), Some(aliases));
        }
    }

    #[test]
    fn a_stream_teaches_the_same_however_it_is_cut(
        messages in vec(prop_oneof![4 => answers(0..8, 1232), 1 => answers(0..150, 4096)], 1..6),
        lengths in lengths(),
    ) {
        let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let stream = Stream::of(&slices, lengths.iter().cycle());
        let expected: Vec<_> =
            messages.iter().map(|message| (expected(message), Reading::End)).collect();
        prop_assert_eq!(stream.read, expected);
    }

    #[test]
    fn a_fault_teaches_nothing_that_was_not_there_before(
        mut message in answers(1..20, MAX_DNS_MESSAGE),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        cut in any::<prop::sample::Index>(),
        lengths in lengths(),
    ) {
        let at = at.index(message.len());
        message[at] = with;
        message.truncate(1 + cut.index(message.len()));
        let (found, reading) = reader::whole(&message);
        let datagram = reader::datagram(&message);
        prop_assert_eq!(datagram, (reading == Reading::End).then(|| found.clone()));
        let stream = Stream::of(&[&message], lengths.iter().cycle());
        let [(learned, ended)] = &stream.read[..] else { panic!("{:?}", stream.read) };
        prop_assert_eq!(*ended, reading);
        prop_assert!(found.starts_with(learned));
    }

    #[test]
    fn every_query_of_hickory_may_be_asked(query in questions(), edns in edns()) {
        let mut message = Message::query();
        message.add_query(query.clone());
        message.edns = edns;
        let bytes = message.to_vec().unwrap();
        let key = std::cell::RefCell::new(KeyBuffer::new());
        let label = |at, before| name::read_label(&bytes[..], at, before, &mut key.borrow_mut());
        let mut read = Question::default();
        dns::read_question(&bytes[..], 0, Kind::Query, 0, label, &mut read).unwrap();
        prop_assert_eq!(read.id, message.id);
        prop_assert_eq!(read.qtype, u16::from(query.query_type));
        let key = key.into_inner();
        let start = key.start(read.name_length);
        let (bits, expected) = name::key(&wire(&query.name), true);
        prop_assert_eq!(
            &key.bytes[start..start + read.name_length],
            &expected[1..bits as usize / 8]
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn a_stream_reads_messages_of_64_kib(
        message in answers(2000..3000, 65_535), lengths in lengths()
    ) {
        prop_assert!(message.len() > 50_000);
        prop_assert_eq!(reader::datagram(&message), None);
        let stream = Stream::of(&[&message, &message], lengths.iter().cycle());
        let expected = (expected(&message), Reading::End);
        prop_assert_eq!(stream.read, [expected.clone(), expected]);
    }

    #[test]
    fn rubbish_of_64_kib_hangs_nothing(
        seed in any::<u64>(), lengths in lengths(), header in answers(0..1, 512)
    ) {
        let rubbish = (1..8192_u64).flat_map(|index| {
            packet::hash(&index.to_be_bytes()[..], 0, 8, seed).to_be_bytes()
        });
        let mut message: Vec<u8> = header.into_iter().chain(rubbish).collect();
        message.truncate(65_535);
        (message[3], message[6], message[7]) = (0, 0xff, 0xff);
        let (found, reading) = reader::whole(&message);
        prop_assert_eq!(reading, Reading::Malformed);
        let stream = Stream::of(&[&message], lengths.iter().cycle());
        prop_assert!(found.starts_with(&stream.read[0].0));
    }
}

#[test]
fn the_longest_name_can_be_asked_for_and_answered() {
    let label = |length| "a".repeat(length);
    let name = format!("{0}.{0}.{0}.{1}.", label(63), label(61));
    let name = Name::from_ascii(name).unwrap();
    assert_eq!(wire(&name).len(), name::MAX_NAME);
    let mut message = Message::response(7, OpCode::Query);
    message.add_query(Query::query(name.clone(), RecordType::A));
    message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1))));
    let bytes = message.to_vec().unwrap();
    assert_eq!(reader::datagram(&bytes), Some(expected(&bytes)));
    assert_eq!(expected(&bytes).len(), 1);
}

/// The name in wire form, without the root, in lower case.
fn wire(name: &Name) -> Vec<u8> {
    let labels = name.iter();
    labels
        .flat_map(|label| [&[label.len() as u8][..], &label.to_ascii_lowercase()].concat())
        .collect()
}
