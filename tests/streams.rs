//! DNS over TCP, segment by segment: what a nasty server or client can do with it.

use std::cell::{Cell, RefCell};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    bpffs::{DROP, Kernel, PASS, REDIRECT},
    frame::{self, ACK, FIN, RST, SYN, answer, carrying, query, tcp, to},
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

/// With its length before it (RFC 1035 section 4.2.2).
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&length[..], message].concat()
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
    message.extend(frame::wire("b.example"));
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
    assert!(kernel.passes(&syn));
    assert!(
        !kernel.passes(&CONNECTION.out(OURS, ACK, &first)),
        "before the SYN-ACK"
    );
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
}

#[test]
fn a_denied_question_is_answered_in_the_stream() {
    let (one, other) = (query(1, "evil.test", A), query(2, "evil.test", AAAA));
    let both = [framed(&one), framed(&other)].concat();
    let mut kernel = Kernel::new(POLICY);
    CONNECTION.open(&mut kernel);
    let outcome = kernel.egress(&CONNECTION.out(OURS, ACK | 8, &both));
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
    assert_eq!(segment[13], ACK | 8 | FIN);
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
    assert!(kernel.passes(&CONNECTION.out(next, RST, &[])));
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
            let before = kernel.learned_answers();
            let cuts: Vec<usize> = cuts.into_iter().collect();
            connection.answer(kernel, &stream, &cuts);
            prop_assert_eq!(kernel.learned_answers() - before, 4);
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
