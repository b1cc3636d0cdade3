//! DNS over TCP, segment by segment: what a nasty server or client can do with it.

use std::cell::{Cell, RefCell};

use netfilter_daemon::datapath::test_run::Program;
use netfilter_ebpf::verdict::Answer;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    bpffs::{DROP, Kernel, PASS, REDIRECT, at_once},
    frame::{
        self, ACK, FIN, Frame, PSH, RST, SYN, answer, carrying, framed, padding, query, record,
        records, secret, tcp, to, wire, with_options,
    },
};

const POLICY: &str = "
resolvers: [10.0.0.53, 'fd00::53', 127.0.0.53]
outbound_rules:
  - { name: exact, type: fqdn, destination: { fqdn: a.example, protocol: TCP, port_ranges: '443' } }
  - { name: below, type: fqdn, destination: { fqdn: '*.b.example', protocol: TCP, port_ranges: '443' } }
";
const RESOLVER: &str = "10.0.0.53";
const A: u16 = 1;
const AAAA: u16 = 28;
/// The first byte of each half.
const OURS: u32 = u32::MAX - 20; // wraps soon
const THEIRS: u32 = 7000;

/// A connection from a port of the machine to the resolver.
#[derive(Clone, Copy)]
struct Connection {
    port: u16,
    resolver: &'static str,
    local: &'static str,
}

const CONNECTION: Connection = Connection {
    port: 41_000,
    resolver: RESOLVER,
    local: frame::LOCAL,
};

impl Connection {
    fn out(&self, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let segment = carrying((self.port, 53), sequence, THEIRS, flags, data);
        to(self.resolver, frame::TCP, segment)
            .from(self.local)
            .bytes()
    }

    fn back(&self, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let segment = carrying((53, self.port), sequence, OURS, flags, data);
        to(self.local, frame::TCP, segment)
            .from(self.resolver)
            .bytes()
    }

    fn open(&self, kernel: &mut Kernel) {
        let syn = self.out(OURS.wrapping_sub(1), SYN, &[]);
        assert_eq!(kernel.egress(&syn).action, PASS);
        let reply = self.back(THEIRS - 1, SYN | ACK, &[]);
        assert_eq!(kernel.ingress(&reply).action, PASS);
        let done = self.out(OURS, ACK, &[]);
        assert_eq!(kernel.egress(&done).action, PASS);
    }

    /// Opens it and asks one question.
    fn ask(&self, kernel: &mut Kernel, question: &[u8]) {
        self.open(kernel);
        let segment = self.out(OURS, ACK, &framed(question));
        assert_eq!(kernel.egress(&segment).action, PASS);
    }

    /// Lets the resolver's bytes in, cut at these places.
    fn answer(&self, kernel: &mut Kernel, stream: &[u8], cuts: &[usize]) {
        let mut from = 0;
        for to in cuts.iter().copied().chain([stream.len()]) {
            let sequence = THEIRS + u32::try_from(from).unwrap();
            let segment = self.back(sequence, ACK, &stream[from..to]);
            assert_eq!(kernel.ingress(&segment).action, PASS, "{from}..{to}");
            from = to;
        }
    }
}

/// Cuts a stream into segments of this size.
fn every(size: usize, stream: &[u8]) -> Vec<usize> {
    (size..stream.len()).step_by(size).collect()
}

fn learned(kernel: &mut Kernel, address: &str) -> bool {
    kernel.passes(&tcp(address, 443).bytes())
}

#[test]
fn an_answer_is_learned_however_it_is_cut() {
    let question = query(7, "a.example", A);
    let length = framed(&answer(
        &question,
        60,
        &["192.0.2.1", "2001:db8::1", "192.0.2.3"],
    ))
    .len();
    let every: Vec<usize> = (1..length).collect();
    let mut ways = vec![Vec::new(), every.clone()];
    ways.extend(every.iter().map(|cut| vec![*cut]));
    let mut kernel = Kernel::new(POLICY);
    for (way, cuts) in ways.iter().enumerate() {
        let connection = Connection {
            port: 20_000 + u16::try_from(way).unwrap(),
            ..CONNECTION
        };
        let own = [
            format!("192.0.2.{way}"),
            format!("2001:db8::{way}"),
            format!("198.51.100.{way}"),
        ];
        let own = own.each_ref().map(String::as_str);
        connection.ask(&mut kernel, &question);
        for address in own {
            assert!(!learned(&mut kernel, address), "{address}");
        }
        let stream = framed(&answer(&question, 60, &own));
        connection.answer(&mut kernel, &stream, cuts);
        for address in own {
            assert!(learned(&mut kernel, address), "{address}, cut at {cuts:?}");
        }
    }
}

/// Two questions in one segment, as glibc sends them, and answers in the other order.
#[test]
fn questions_and_answers_may_share_segments_in_any_order() {
    let (one, other) = (query(1, "a.example", A), query(2, "x.b.example", AAAA));
    let stream = [
        framed(&answer(&other, 60, &["2001:db8::2"])),
        framed(&answer(&one, 60, &["192.0.2.1"])),
    ]
    .concat();
    for cut in [0, 1, 2, 3, 40, stream.len() - 1] {
        let mut kernel = Kernel::new(POLICY);
        CONNECTION.open(&mut kernel);
        let both = [framed(&one), framed(&other)].concat();
        let segment = CONNECTION.out(OURS, ACK, &both);
        assert_eq!(kernel.egress(&segment).action, PASS);
        let cuts: &[usize] = if cut == 0 { &[] } else { &[cut] };
        CONNECTION.answer(&mut kernel, &stream, cuts);
        assert!(learned(&mut kernel, "192.0.2.1"), "{cut}");
        assert!(learned(&mut kernel, "2001:db8::2"), "{cut}");
    }
}

/// Longer than any segment, so that whole segments are stepped over.
#[test]
fn a_record_that_fills_segments_hides_none_behind_it() {
    let question = query(7, "a.example", A);
    let text = record(&[0xc0, 12], 16, 1, 60, &[0; 3000]);
    let mut kernel = Kernel::new(POLICY);
    for size in 90..110 {
        let connection = Connection {
            port: 20_000 + size,
            ..CONNECTION
        };
        let host = u8::try_from(size).unwrap();
        let address = record(&[0xc0, 12], 1, 1, 60, &[192, 0, 2, host]);
        let stream = framed(&records(&question, &[text.clone(), address]));
        connection.ask(&mut kernel, &question);
        connection.answer(&mut kernel, &stream, &every(size.into(), &stream));
        assert!(learned(&mut kernel, &format!("192.0.2.{host}")), "{size}");
    }
}

/// 64 KiB of records: as many as a message can hold, in segments as they come.
#[test]
fn the_largest_answer_is_learned_to_its_last_record() {
    let question = query(7, "a.example", A);
    let addresses: Vec<String> = (0..4000)
        .map(|host| format!("198.18.{}.{}", host / 256, host % 256))
        .collect();
    let refs: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let stream = framed(&answer(&question, 60, &refs));
    for size in [1448, 3000] {
        let mut kernel = Kernel::new(POLICY);
        CONNECTION.ask(&mut kernel, &question);
        let cuts = every(size, &stream);
        CONNECTION.answer(&mut kernel, &stream, &cuts);
        for address in addresses.iter().step_by(37).chain(addresses.last()) {
            assert!(
                learned(&mut kernel, address),
                "{address} of segments of {size}"
            );
        }
    }
}

#[test]
fn segments_out_of_order_wait_and_repeated_ones_do_no_harm() {
    let question = query(7, "a.example", A);
    let stream = framed(&answer(&question, 60, &["192.0.2.1"]));
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.ask(&mut kernel, &question);
    let part = |from: usize, to: usize| {
        CONNECTION.back(
            THEIRS + u32::try_from(from).unwrap(),
            ACK,
            &stream[from..to],
        )
    };
    assert_eq!(
        kernel.ingress(&part(20, 30)).action,
        DROP,
        "ahead of its turn"
    );
    assert_eq!(kernel.ingress(&part(0, 20)).action, PASS);
    assert_eq!(kernel.ingress(&part(0, 20)).action, PASS, "again");
    assert_eq!(kernel.ingress(&part(40, stream.len())).action, DROP);
    assert_eq!(kernel.ingress(&part(10, 30)).action, PASS, "half of it new");
    assert_eq!(kernel.ingress(&part(30, stream.len())).action, PASS);
    assert!(learned(&mut kernel, "192.0.2.1"));
}

#[test]
fn the_length_of_a_question_may_come_alone() {
    let question = query(7, "a.example", A);
    let stream = framed(&question);
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.open(&mut kernel);
    let body = OURS.wrapping_add(2);
    for (what, sequence, data) in [
        ("the length", OURS, &stream[..2]),
        ("again", OURS, &stream[..2]),
        ("the rest", body, &stream[2..]),
        ("again", body, &stream[2..]),
        ("both", OURS, &stream[..]),
    ] {
        let segment = CONNECTION.out(sequence, ACK, data);
        assert_eq!(kernel.egress(&segment).action, PASS, "{what}");
    }
    // Lost, and sent again with what follows.
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.open(&mut kernel);
    for data in [&stream[..2], &stream[..]] {
        assert_eq!(kernel.egress(&CONNECTION.out(OURS, ACK, data)).action, PASS);
    }
    let reply = CONNECTION.back(THEIRS, ACK, &framed(&answer(&question, 60, &["192.0.2.1"])));
    assert_eq!(kernel.ingress(&reply).action, PASS);
    assert!(learned(&mut kernel, "192.0.2.1"));
    let behind = OURS.wrapping_add(u32::try_from(stream.len()).unwrap());
    assert!(kernel.passes(&CONNECTION.out(behind, ACK, &framed(&query(8, "a.example", A)))));
}

/// A question that the filter allows and that, read from its byte `at` on, is a
/// framed question for a name that it does not.
fn smuggler(at: usize) -> Vec<u8> {
    let hidden = framed(&query(9, "evil.test", 16));
    let mut label = vec![b'x'; 63];
    // Header, length byte.
    let place = at - 2 - 12 - 1;
    label[place..place + hidden.len()].copy_from_slice(&hidden);
    let mut message = query(8, "", A);
    message.truncate(12);
    message.push(63);
    message.extend(label);
    message.extend(wire("b.example"));
    message.extend([0, 1, 0, 1]);
    framed(&message)
}

/// Whoever can send raw segments may make the resolver read from another byte
/// than the filter did.
#[test]
fn no_segment_moves_where_messages_begin() {
    let first = framed(&query(7, "a.example", A)); // 29 bytes
    let length = u32::try_from(first.len()).unwrap();
    let at = 20;
    let smuggler = smuggler(at);
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.open(&mut kernel);
    assert_eq!(
        kernel.egress(&CONNECTION.out(OURS, ACK, &smuggler)).action,
        PASS,
        "at its place"
    );

    let after = OURS.wrapping_add(length);
    let early = after.wrapping_sub(u32::try_from(at).unwrap());
    let attacks: [(&str, u32, &[u8]); 5] = [
        ("a message that begins within another", early, &smuggler),
        ("a longer one over another", OURS, &smuggler),
        ("a length alone, over another", OURS, &smuggler[..2]),
        ("a gap", after.wrapping_add(9), &smuggler),
        ("half a message", after, &smuggler[..40]),
    ];
    for (what, sequence, data) in attacks {
        let mut kernel = Kernel::new(POLICY);
        CONNECTION.open(&mut kernel);
        assert_eq!(
            kernel.egress(&CONNECTION.out(OURS, ACK, &first)).action,
            PASS
        );
        assert!(
            !kernel.passes(&CONNECTION.out(sequence, ACK, data)),
            "{what}"
        );
        // And what is right still passes.
        assert!(kernel.passes(&CONNECTION.out(OURS, ACK, &first)), "{what}");
        assert!(kernel.passes(&CONNECTION.out(after, ACK, &first)), "{what}");
    }

    // One that begins within another, and ends with it.
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.open(&mut kernel);
    assert!(kernel.passes(&CONNECTION.out(OURS, ACK, &smuggler)));
    let within = u32::try_from(smuggler.len() - first.len()).unwrap();
    assert!(!kernel.passes(&CONNECTION.out(OURS.wrapping_add(within), ACK, &first)));

    // The length alone, and then another one that would make it end elsewhere.
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.open(&mut kernel);
    assert!(kernel.passes(&CONNECTION.out(OURS, ACK, &first[..2])));
    assert!(!kernel.passes(&CONNECTION.out(OURS, ACK, &smuggler[..2])));
    assert!(!kernel.passes(&CONNECTION.out(OURS, ACK, &smuggler)));

    // Two messages, repeated as one that covers both.
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.open(&mut kernel);
    let filler = smuggler.len() - first.len();
    let mut rest = query(
        1,
        &format!("{}.b.example", "y".repeat(filler - 2 - 12 - 1 - 11 - 4)),
        A,
    );
    rest = framed(&rest);
    assert_eq!(first.len() + rest.len(), smuggler.len());
    assert!(kernel.passes(&CONNECTION.out(OURS, ACK, &first)));
    assert!(kernel.passes(&CONNECTION.out(after, ACK, &rest)));
    assert!(!kernel.passes(&CONNECTION.out(OURS, ACK, &smuggler)));
    let both = [first.clone(), rest].concat();
    assert!(
        kernel.passes(&CONNECTION.out(OURS, ACK, &both)),
        "as the kernel repeats it"
    );
}

/// A SYN on an open connection must not let the sender choose where messages begin.
#[test]
fn only_the_resolver_opens_a_connection() {
    let first = framed(&query(7, "a.example", A));
    let mut kernel = Kernel::new(POLICY);
    let syn = CONNECTION.out(OURS.wrapping_sub(1), SYN, &[]);
    let other = CONNECTION.out(OURS.wrapping_add(70), SYN, &[]);
    assert!(kernel.passes(&other), "given up");
    assert!(kernel.passes(&syn));
    assert!(
        !kernel.passes(&CONNECTION.out(OURS, ACK, &first)),
        "before the SYN-ACK"
    );
    let early = CONNECTION.back(0, ACK, &first);
    assert_eq!(kernel.ingress(&early).action, DROP, "before the SYN-ACK");
    assert!(kernel.passes(&syn), "sent again");
    let other = carrying(
        (53, CONNECTION.port),
        THEIRS - 1,
        OURS.wrapping_add(5),
        SYN | ACK,
        &[],
    );
    let other = to(frame::LOCAL, frame::TCP, other).from(RESOLVER).bytes();
    kernel.ingress(&other);
    assert!(
        !kernel.passes(&CONNECTION.out(OURS, ACK, &first)),
        "it acknowledged another"
    );
    let opening = CONNECTION.back(THEIRS - 1, SYN | ACK, b"data");
    assert_eq!(kernel.ingress(&opening).action, DROP, "data in a SYN-ACK");
    kernel.ingress(&CONNECTION.back(THEIRS - 1, SYN, &[]));
    assert!(
        !kernel.passes(&CONNECTION.out(OURS, ACK, &first)),
        "a SYN of its own"
    );
    kernel.ingress(&CONNECTION.back(THEIRS - 1, SYN | ACK, &[]));
    assert!(kernel.passes(&CONNECTION.out(OURS, ACK, &first)));
    assert!(
        kernel.passes(&CONNECTION.out(OURS.wrapping_add(3), SYN, &[])),
        "a new one"
    );
    assert!(
        !kernel.passes(&CONNECTION.out(OURS.wrapping_add(4), ACK, &first)),
        "not yet open"
    );
    let data = CONNECTION.out(OURS.wrapping_sub(1), SYN, &first);
    assert!(!kernel.passes(&data), "data in a SYN");
    let accepts = CONNECTION.out(OURS.wrapping_sub(1), SYN | ACK, &[]);
    assert!(!kernel.passes(&accepts), "a client's SYN-ACK");

    // One of the resolver that comes late moves nothing.
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.ask(&mut kernel, &query(7, "a.example", A));
    let late = OURS.wrapping_add(u32::try_from(first.len()).unwrap());
    let late = carrying((53, CONNECTION.port), THEIRS + 99, late, SYN | ACK, &[]);
    kernel.ingress(&to(frame::LOCAL, frame::TCP, late).from(RESOLVER).bytes());
    let reply = framed(&answer(&query(7, "a.example", A), 60, &["192.0.2.1"]));
    CONNECTION.answer(&mut kernel, &reply, &[]);
    assert!(learned(&mut kernel, "192.0.2.1"));
}

#[test]
fn a_fragmented_segment_is_stopped() {
    let (question, fragment) = (query(7, "a.example", A), Some((0, true, 9)));
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.open(&mut kernel);
    let segment = carrying((CONNECTION.port, 53), OURS, THEIRS, ACK, &framed(&question));
    let whole = to(RESOLVER, frame::TCP, segment);
    let part = Frame {
        fragment,
        ..whole.clone()
    };
    assert!(!kernel.passes(&part.bytes()));
    assert!(kernel.passes(&whole.bytes()));
    let reply = framed(&answer(&question, 60, &["192.0.2.1"]));
    let segment = carrying((53, CONNECTION.port), THEIRS, OURS, ACK, &reply);
    let part = Frame {
        fragment,
        ..to(frame::LOCAL, frame::TCP, segment).from(RESOLVER)
    };
    assert_eq!(kernel.ingress(&part.bytes()).action, DROP);
    assert!(!learned(&mut kernel, "192.0.2.1"));
}

/// Two processors with a segment each: whatever the far end makes of both, only
/// one was judged to stand there.
/// Two questions in a segment, of which the second begins at either parity.
#[test]
fn options_of_questions_in_a_stream_are_padding_when_they_leave() {
    let mut kernel = Kernel::new(POLICY);
    for (port, length) in (20_000..).zip([4, 5, 12, 13, 44, 255, 256]) {
        let connection = Connection { port, ..CONNECTION };
        connection.open(&mut kernel);
        let of = |options: &[u8]| {
            let questions = ["a.example", "x.b.example"].map(|name| {
                let message = with_options(&query(7, name, A), options);
                framed(&message)
            });
            let data = questions.concat();
            let segment = carrying((port, 53), OURS, THEIRS, ACK | PSH, &data);
            let sent = to(connection.resolver, frame::TCP, segment);
            sent.checked().bytes()
        };
        let outcome = kernel.egress(&of(&secret(length)));
        assert_eq!(outcome.action, PASS);
        assert_eq!(outcome.frame, of(&padding(length)), "{length}");
    }
}

#[test]
fn nothing_leaves_around_a_segment() {
    let mut kernel = Kernel::new(POLICY);
    let connection = CONNECTION;
    connection.open(&mut kernel);
    let question = framed(&query(7, "a.example", A));
    let plain = connection.out(OURS, ACK, &question);
    let behind = [&plain[..], b"secret"].concat();
    assert_eq!(kernel.egress(&behind).action, DROP);
    let filled_up = |flags| {
        let mut short = connection.out(OURS, flags, &[]);
        short.resize(60, 0);
        short
    };
    assert_eq!(kernel.egress(&filled_up(ACK)).action, PASS);
    let segment = carrying((connection.port, 53), OURS, THEIRS, ACK, &question);
    let mut with_options = to(connection.resolver, frame::TCP, segment);
    with_options.options = vec![0x1e, 4, 1, 2];
    assert_eq!(kernel.egress(&with_options.bytes()).action, DROP);
    assert_eq!(kernel.egress(&plain).action, PASS);
}

#[test]
fn of_two_segments_at_the_same_moment_one_goes_out() {
    let mut kernel = Kernel::new(POLICY);
    let twins = [(); 2].map(|()| kernel.twin(Program::Egress));
    let all = |name| framed(&query(7, name, A)).repeat(15);
    for round in 0..300 {
        let connection = Connection {
            port: 20_000 + round,
            ..CONNECTION
        };
        connection.open(&mut kernel);
        let frames = ["a.example", "x.b.example"].map(|name| connection.out(OURS, ACK, &all(name)));
        let passed = at_once(&twins, &frames).map(|action| action == PASS);
        assert_ne!(passed[0], passed[1], "round {round}");
    }
}

/// And an answer that arrives twice is read once.
#[test]
fn of_one_segment_twice_at_the_same_moment_one_is_read() {
    let mut kernel = Kernel::new(POLICY);
    let twins = [(); 2].map(|()| kernel.twin(Program::Ingress));
    let question = query(7, "a.example", A);
    let stream = framed(&answer(&question, 60, &["192.0.2.1"; 80]));
    for round in 0..300 {
        let connection = Connection {
            port: 20_000 + round,
            ..CONNECTION
        };
        connection.ask(&mut kernel, &question);
        let segment = connection.back(THEIRS, ACK, &stream);
        let passed = at_once(&twins, &[segment.clone(), segment]);
        assert!(passed.contains(&PASS), "round {round}");
    }
    assert_eq!(kernel.answers(Answer::Learned), 300);
    assert_eq!(kernel.answers(Answer::Unsolicited), 0);
}

#[test]
fn a_connection_that_the_filter_did_not_see_begin_is_reset() {
    let mut kernel = Kernel::new(POLICY);
    let first = framed(&query(7, "a.example", A));
    let outcome = kernel.egress(&CONNECTION.out(OURS, ACK, &first));
    assert_eq!(outcome.action, REDIRECT);
    assert_eq!(outcome.frame[14 + 20 + 13] & RST, RST);
    assert!(
        kernel.passes(&CONNECTION.out(OURS, RST, &[])),
        "what ends it goes"
    );
    assert!(!kernel.passes(&CONNECTION.out(OURS, RST, &first)));
}

#[test]
fn a_denied_question_is_answered_in_the_stream() {
    let (one, other) = (query(1, "evil.test", A), query(2, "evil.test", AAAA));
    let both = [framed(&one), framed(&other)].concat();
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.open(&mut kernel);
    let outcome = kernel.egress(&CONNECTION.out(OURS, ACK | PSH, &both));
    assert_eq!(outcome.action, REDIRECT);
    let reply = &outcome.frame;
    assert_eq!(reply[26..34], [10, 0, 0, 53, 10, 0, 0, 2]);
    let segment = &reply[34..];
    assert_eq!(segment[..4], [0, 53, 0xa0, 0x28]);
    assert_eq!(
        segment[4..8],
        THEIRS.to_be_bytes(),
        "where the client expects it"
    );
    let acknowledged = OURS.wrapping_add(u32::try_from(both.len()).unwrap());
    assert_eq!(segment[8..12], acknowledged.to_be_bytes());
    assert_eq!(segment[13], ACK | PSH | FIN);
    let mut expected = both.clone();
    for at in [2, 2 + framed(&one).len()] {
        expected[at + 2..at + 4].copy_from_slice(&[0x81, 0x83]);
    }
    assert_eq!(segment[20..], expected, "NXDOMAIN, twice");
    let handed_back = kernel.handed_back(&outcome);
    assert_eq!((handed_back.action, handed_back.mark), (PASS, 0));
    // The resolver never saw it, so the connection is of no more use.
    let next = OURS.wrapping_add(u32::try_from(both.len()).unwrap());
    assert!(!kernel.passes(&CONNECTION.out(next, ACK, &framed(&query(3, "a.example", A)))));
    assert!(!kernel.passes(&CONNECTION.out(OURS, ACK, &framed(&query(3, "a.example", A)))));
    assert!(!kernel.passes(&CONNECTION.out(next, ACK, &[])));
    assert!(kernel.passes(&CONNECTION.out(next, RST, &[])));
    let late = framed(&answer(&query(3, "a.example", A), 60, &["192.0.2.1"]));
    for (flags, data, action) in [(ACK, &late[..], DROP), (ACK, &[], DROP), (RST, &[], PASS)] {
        let segment = CONNECTION.back(THEIRS, flags, data);
        assert_eq!(kernel.ingress(&segment).action, action, "{flags}");
    }
}

/// To the last bit, sums too: in both families, with and without timestamps, with
/// questions at odd and even offsets, each with flags and an RCODE of its own.
#[test]
fn a_refusal_in_the_stream_is_what_the_resolver_could_have_sent() {
    let mut kernel = Kernel::new(POLICY);
    let mut port = CONNECTION.port;
    for (resolver, local) in [(RESOLVER, frame::LOCAL), ("fd00::53", frame::LOCAL_V6)] {
        for (options, exchanged) in [
            (&[][..], &[][..]),
            (
                &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
                &[1, 1, 8, 10, 5, 6, 7, 8, 1, 2, 3, 4],
            ),
        ] {
            for name in ["evil.test", "evils.test"] {
                let segment = |ports, numbers: [u32; 2], flags, options: &[u8], all: [&[u8]; 3]| {
                    let data = [options, &all.map(framed).concat()].concat();
                    let mut segment = carrying(ports, numbers[0], numbers[1], flags, &data);
                    segment[12] += u8::try_from(options.len() / 4 * 16).unwrap();
                    segment
                };
                let (denied, mut typed) = (query(1, name, A), query(2, "a.example", 16));
                (typed[2], typed[3]) = (0, 0x30);
                let asked = [&denied[..], &typed, &denied];
                let (mut nxdomain, mut empty) = (denied.clone(), typed.clone());
                (nxdomain[2], nxdomain[3]) = (0x81, 0x83);
                (empty[2], empty[3]) = (0x80, 0x90);
                let answers = [&nxdomain[..], &empty, &nxdomain];

                port += 1;
                let connection = Connection {
                    port,
                    resolver,
                    local,
                };
                connection.open(&mut kernel);
                let sent = segment((port, 53), [OURS, THEIRS], ACK | PSH, options, asked);
                let sent = to(resolver, frame::TCP, sent).from(local).checked();
                let outcome = kernel.egress(&sent.bytes());
                let behind = asked.map(framed).concat().len();
                let numbers = [THEIRS, OURS.wrapping_add(u32::try_from(behind).unwrap())];
                let flags = ACK | PSH | FIN;
                let back = segment((53, port), numbers, flags, exchanged, answers);
                let back = to(local, frame::TCP, back).from(resolver).checked();
                assert_eq!(outcome.action, REDIRECT);
                assert_eq!(
                    outcome.frame,
                    back.returned(),
                    "{resolver}, {name}, {options:?}"
                );
            }
        }
    }
}

/// What is no timestamp cannot stay in an answer.
#[test]
fn a_denied_question_behind_other_options_resets_the_connection() {
    let data = framed(&query(1, "evil.test", A));
    let mut kernel = Kernel::new(POLICY);
    for (port, options) in (20_000..).zip([
        &[2, 4, 5, 180][..],
        &[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9],
        &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 9, 2, 4, 5, 180],
    ]) {
        let connection = Connection { port, ..CONNECTION };
        connection.open(&mut kernel);
        let data = [options, &data].concat();
        let mut segment = connection.out(OURS, ACK, &data);
        segment[14 + 20 + 12] += u8::try_from(options.len() / 4 * 16).unwrap();
        let outcome = kernel.egress(&segment);
        assert_eq!(outcome.action, REDIRECT);
        assert_eq!(outcome.frame[14 + 20 + 13], RST, "{options:?}");
    }
}

#[test]
fn a_denied_question_among_permitted_ones_resets_the_connection() {
    let both = [
        framed(&query(1, "a.example", A)),
        framed(&query(2, "evil.test", A)),
    ]
    .concat();
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.open(&mut kernel);
    let outcome = kernel.egress(&CONNECTION.out(OURS, ACK, &both));
    assert_eq!(outcome.action, REDIRECT);
    assert_eq!(outcome.frame[14 + 20 + 13] & RST, RST);
    // As one does whose length went before.
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.open(&mut kernel);
    let denied = framed(&query(2, "evil.test", A));
    assert!(kernel.passes(&CONNECTION.out(OURS, ACK, &denied[..2])));
    let outcome = kernel.egress(&CONNECTION.out(OURS.wrapping_add(2), ACK, &denied[2..]));
    assert_eq!(outcome.action, REDIRECT);
    assert_eq!(outcome.frame[14 + 20 + 13] & RST, RST);
}

/// What did not go out is not part of the stream.
#[test]
fn a_denied_question_that_is_dropped_leaves_the_stream_where_it_was() {
    let mut kernel = Kernel::new(&format!("dns: {{ on_deny: drop }}\n{POLICY}"));
    CONNECTION.open(&mut kernel);
    let denied = framed(&query(1, "longer.evil.test", A));
    let outcome = kernel.egress(&CONNECTION.out(OURS, ACK, &denied));
    assert_eq!(outcome.action, DROP);
    let first = framed(&query(2, "a.example", A));
    let behind = OURS.wrapping_add(u32::try_from(denied.len()).unwrap());
    assert!(!kernel.passes(&CONNECTION.out(behind, ACK, &first)));
    assert!(kernel.passes(&CONNECTION.out(OURS, ACK, &first)));
}

/// What one malformed answer held must not be lent to the name of the next.
#[test]
fn a_malformed_answer_lends_nothing_to_the_next_question() {
    let questions = [1, 2].map(|id| query(id, "a.example", A));
    let mut malformed = answer(&questions[0], 60, &["192.0.2.66", "192.0.2.67"]);
    malformed[54] = 5; // the second record's length
    let real = answer(&questions[1], 60, &["192.0.2.1"]);
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.ask(&mut kernel, &questions[0]);
    let behind = OURS.wrapping_add(u32::try_from(framed(&questions[0]).len()).unwrap());
    let other = CONNECTION.out(behind, ACK, &framed(&questions[1]));
    assert!(kernel.passes(&other));
    let stream = [framed(&malformed), framed(&real)].concat();
    CONNECTION.answer(&mut kernel, &stream, &[]);
    assert!(learned(&mut kernel, "192.0.2.1"));
    assert!(!learned(&mut kernel, "192.0.2.66"));
    assert_eq!(kernel.answers(Answer::Malformed), 1);
}

/// More messages than are read of one segment: nothing of it, or after it, comes in.
#[test]
fn a_stream_that_cannot_be_read_is_at_its_end() {
    let question = query(7, "a.example", A);
    let real = framed(&answer(&question, 60, &["192.0.2.1"]));
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.ask(&mut kernel, &question);
    for data in [&[0; 300][..], &real] {
        let segment = CONNECTION.back(THEIRS, ACK, data);
        assert_eq!(kernel.ingress(&segment).action, DROP);
    }
    let behind = OURS.wrapping_add(u32::try_from(framed(&question).len()).unwrap());
    assert!(!kernel.passes(&CONNECTION.out(behind, ACK, &framed(&question))));
    assert!(!learned(&mut kernel, "192.0.2.1"));
}

/// An alias and what it lends for, wherever the answer that teaches them is cut.
#[test]
fn an_alias_lends_however_its_answer_is_cut() {
    let (question, behind) = (query(7, "a.example", A), query(8, "front.cdn.test", A));
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.ask(&mut kernel, &question);
    let alias = record(&[0xc0, 12], 5, 1, 60, &wire("front.cdn.test"));
    let reply = framed(&records(&question, &[alias]));
    CONNECTION.answer(&mut kernel, &reply, &[]);
    let length = framed(&answer(&behind, 60, &["192.0.2.1"])).len();
    for cut in 1..length {
        let connection = Connection {
            port: 20_000 + u16::try_from(cut).unwrap(),
            ..CONNECTION
        };
        let address = format!("192.0.2.{cut}");
        connection.ask(&mut kernel, &behind);
        let reply = framed(&answer(&behind, 60, &[&address]));
        connection.answer(&mut kernel, &reply, &[cut]);
        assert!(learned(&mut kernel, &address), "cut at {cut}");
    }
}

/// As browsers get them: hints of both families, behind other parameters.
#[test]
fn hints_are_learned_however_they_are_cut() {
    let question = query(7, "a.example", 65);
    let reply = |last: u8| {
        let mut v6 = [0; 16];
        (v6[0], v6[1], v6[15]) = (0x20, 1, last);
        let data = [
            &[0, 1][..],
            &wire("svc.example.net"),
            &[0, 1, 0, 3, 2, b'h', b'2'],
            &[0, 4, 0, 8, 192, 0, 2, last, 198, 51, 100, last],
            &[0, 6, 0, 16],
            &v6,
        ]
        .concat();
        framed(&records(
            &question,
            &[record(&[0xc0, 12], 65, 1, 60, &data)],
        ))
    };
    let mut kernel = Kernel::new(POLICY);
    for cut in 1..reply(0).len() {
        let last = u8::try_from(cut).unwrap();
        let connection = Connection {
            port: 20_000 + u16::from(last),
            ..CONNECTION
        };
        connection.ask(&mut kernel, &question);
        connection.answer(&mut kernel, &reply(last), &[cut]);
        for address in [
            format!("192.0.2.{last}"),
            format!("198.51.100.{last}"),
            format!("2001::{last:x}"),
        ] {
            assert!(learned(&mut kernel, &address), "{address}, cut at {cut}");
        }
    }
}

#[test]
fn nonsense_teaches_nothing_and_hangs_nothing() {
    let question = query(7, "a.example", A);
    let real = framed(&answer(&question, 60, &["192.0.2.1"]));
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut message = answer(&question, 60, &["192.0.2.66"]);
        change(&mut message);
        framed(&message)
    };
    let zeros = framed(&vec![0; 65_535]);
    let ones = framed(&vec![0xff; 65_535]);
    let mut labels = answer(&question, 60, &[]);
    labels[7] = 200;
    labels.extend([1, b'x'].repeat(32_000));
    let labels = framed(&labels);
    let nonsense = [
        ("zeros", zeros),
        ("ones", ones),
        ("labels without end", labels),
        ("an empty message", framed(&[])),
        ("a header alone", framed(&real[2..14])),
        ("another id", with(&|m| m[1] = 8)),
        ("another question", with(&|m| m[13] = b'b')),
        ("a query", with(&|m| m[2] &= 0x7f)),
        ("a pointer forward", with(&|m| m[28] = 40)),
        ("a pointer to itself", with(&|m| m[28] = 27)),
        ("a pointer into the header", with(&|m| m[28] = 4)),
        ("a length that lies", with(&|m| m[38] = 200)),
        ("an A record of five bytes", with(&|m| m[38] = 5)),
        (
            "a hint and a half",
            with(&|m| {
                (m[30], m[38]) = (65, 13);
                m.splice(39..39, [0, 1, 0, 0, 4, 0, 6]);
                m.extend([0; 40]);
            }),
        ),
        (
            "a hint that outlasts its record",
            with(&|m| {
                (m[30], m[38]) = (65, 11);
                m.splice(39..39, [0, 1, 0, 0, 4, 0, 8]);
                m.extend([0; 40]);
            }),
        ),
    ];
    for (what, stream) in nonsense {
        for size in [7, 3000] {
            if size == 7 && stream.len() > 5000 {
                continue;
            }
            let mut kernel = Kernel::new(POLICY);
            CONNECTION.ask(&mut kernel, &question);
            let stream = [stream.clone(), real.clone()].concat();
            let cuts = every(size, &stream);
            CONNECTION.answer(&mut kernel, &stream, &cuts);
            assert!(!learned(&mut kernel, "192.0.2.66"), "{what}");
            // What matched the question used it up; what did not leaves it to the real answer.
            let matched = what.starts_with("a pointer")
                || what.starts_with("labels")
                || what.starts_with("a hint")
                || what == "a length that lies"
                || what == "an A record of five bytes";
            assert_eq!(
                learned(&mut kernel, "192.0.2.1"),
                !matched,
                "{what}, by {size}"
            );
        }
    }
}

/// What is learned does not depend on how a stream of several answers is cut.
#[test]
fn random_cuts_teach_the_same() {
    let questions: Vec<Vec<u8>> = (0..4)
        .map(|n| {
            query(
                n,
                &format!("n{n}.b.example"),
                if n % 2 == 0 { A } else { AAAA },
            )
        })
        .collect();
    let addresses = |n: usize| {
        (0..5)
            .map(|host| match n % 2 {
                0 => format!("192.0.2.{}", n * 10 + host),
                _ => format!("2001:db8::{n}:{host}"),
            })
            .collect::<Vec<_>>()
    };
    let mut stream = Vec::new();
    for (n, question) in questions.iter().enumerate() {
        let addresses = addresses(n);
        let refs: Vec<&str> = addresses.iter().map(String::as_str).collect();
        stream.extend(framed(&answer(question, 60, &refs)));
    }
    let kernel = RefCell::new(Kernel::new(POLICY));
    let port = Cell::new(20_000);
    let length = stream.len();
    let cuts = prop::collection::btree_set(1..length, 0..40);
    TestRunner::new(Config::with_cases(200))
        .run(&cuts, |cuts| {
            let kernel = &mut *kernel.borrow_mut();
            port.set(port.get() + 1);
            let connection = Connection {
                port: port.get(),
                ..CONNECTION
            };
            connection.open(kernel);
            let all: Vec<u8> = questions
                .iter()
                .flat_map(|question| framed(question))
                .collect();
            prop_assert_eq!(kernel.egress(&connection.out(OURS, ACK, &all)).action, PASS);
            let before = kernel.answers(Answer::Learned);
            let cuts: Vec<usize> = cuts.into_iter().collect();
            connection.answer(kernel, &stream, &cuts);
            prop_assert_eq!(kernel.answers(Answer::Learned) - before, 4);
            for address in (0..4).flat_map(addresses) {
                prop_assert!(learned(kernel, &address));
            }
            Ok(())
        })
        .unwrap();
}

/// The reader on the loopback interface: nothing is changed or dropped, answers
/// of the local resolver are learned.
#[test]
fn a_local_resolver_teaches_over_udp_and_tcp() {
    let local = Connection {
        port: 42_000,
        resolver: "127.0.0.53",
        local: "127.0.0.1",
    };
    let mut kernel = Kernel::new(POLICY);
    let question = query(7, "a.example", A);
    let datagram = |ports: (u16, u16), message: &[u8], to_resolver| {
        let data = frame::datagram(ports.0, ports.1, message);
        let (from, dest) = if to_resolver {
            ("127.0.0.1", "127.0.0.53")
        } else {
            ("127.0.0.53", "127.0.0.1")
        };
        to(dest, frame::UDP, data).from(from).bytes()
    };
    kernel.loopback(&datagram((42_000, 53), &question, true));
    kernel.loopback(&datagram(
        (53, 42_000),
        &answer(&question, 60, &["192.0.2.1"]),
        false,
    ));
    assert!(learned(&mut kernel, "192.0.2.1"));
    kernel.loopback(&datagram(
        (53, 42_000),
        &answer(&question, 60, &["192.0.2.66"]),
        false,
    ));
    assert!(
        !learned(&mut kernel, "192.0.2.66"),
        "an answer without a question"
    );
    let denied = query(8, "evil.test", A);
    kernel.loopback(&datagram((42_000, 53), &denied, true));
    kernel.loopback(&datagram(
        (53, 42_000),
        &answer(&denied, 60, &["192.0.2.66"]),
        false,
    ));
    assert!(
        !learned(&mut kernel, "192.0.2.66"),
        "a name that no rule allows"
    );

    kernel.loopback(&local.out(OURS.wrapping_sub(1), SYN, &[]));
    kernel.loopback(&local.back(THEIRS - 1, SYN | ACK, &[]));
    let both = [framed(&denied), framed(&query(9, "x.b.example", A))].concat();
    kernel.loopback(&local.out(OURS, ACK, &both));
    let answers = [
        framed(&answer(&denied, 60, &["192.0.2.66"])),
        framed(&answer(&query(9, "x.b.example", A), 60, &["192.0.2.2"])),
    ]
    .concat();
    kernel.loopback(&local.back(THEIRS, ACK, &answers[..50]));
    kernel.loopback(&local.back(THEIRS + 50, ACK, &answers[50..]));
    assert!(learned(&mut kernel, "192.0.2.2"));
    assert!(!learned(&mut kernel, "192.0.2.66"));
}
