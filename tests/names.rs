//! DNS, frame by frame: what is asked, what is believed, what is learned.

use aya::util::KernelVersion;
use std::{thread::sleep, time::Duration};

use netfilter_daemon::{
    datapath::{
        Target,
        test_run::{Context, Program},
    },
    lab::namespace::Namespace,
};
use netfilter_ebpf::{
    abi::{GRANTS, LEASE_GRANTS},
    verdict::Answer,
};

use crate::{
    bpffs::{DROP, Kernel, PASS, REDIRECT, image},
    frame::{
        self, Frame, answer, datagram, padding, query, record, records, secret, tcp, to, wire,
        with_options,
    },
    world::patience,
};

const POLICY: &str = "
resolvers: [10.0.0.53, 'fd00::53']
outbound_rules:
  - name: exact
    type: fqdn
    destination: { fqdn: a.example, protocol: TCP, port_ranges: '443' }
  - name: below
    type: fqdn
    destination: { fqdn: '*.b.example', protocol: TCP, port_ranges: '8443' }
  - name: no-metadata
    type: ip
    action: deny
    destination: { cidr: 169.254.169.254/32, protocol: '*', port_ranges: '*' }
";
const RESOLVER: &str = "10.0.0.53";
const PORT: u16 = 40_000;

fn asked(message: &[u8]) -> Vec<u8> {
    to(RESOLVER, frame::UDP, datagram(PORT, 53, message)).bytes()
}

fn answered(from: &str, port: u16, message: &[u8]) -> Vec<u8> {
    to(frame::LOCAL, frame::UDP, datagram(53, port, message))
        .from(from)
        .bytes()
}

/// Asks and has it answered, both permitted.
fn learn(kernel: &mut Kernel, name: &str, addresses: &[&str]) {
    kernel.learn(name, 60, addresses);
}

/// Asks, which is permitted, and gets this.
fn tell(kernel: &mut Kernel, question: &[u8], reply: &[u8]) -> i32 {
    assert_eq!(kernel.egress(&asked(question)).action, PASS);
    kernel.ingress(&answered(RESOLVER, PORT, reply)).action
}

/// The name of the question, in a record.
const OWNER: &[u8] = &[0xc0, 12];

/// Who waits for names is woken when many are there, and not for a few.
#[test]
fn answers_wake_the_daemon_before_the_ring_is_full_and_not_before_many_are_there() {
    const MANY: usize = 1_400;
    let mut kernel = Kernel::new(POLICY);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let names = runtime
        .block_on(async { kernel.datapath.take_resolutions() })
        .unwrap();
    let is_woken = |within: Duration| {
        runtime.block_on(async { tokio::time::timeout(within, names.next()).await.is_ok() })
    };
    let mut taken = 0;
    for _ in 0..2 {
        (0..MANY).for_each(|_| learn(&mut kernel, "a.example", &["192.0.2.1"]));
        assert!(!is_woken(Duration::from_millis(300)));
        (0..MANY).for_each(|_| learn(&mut kernel, "a.example", &["192.0.2.1"]));
        assert!(is_woken(Duration::from_secs(10) * patience()));
        taken += 1;
        while names.waiting().inspect(|_| taken += 1).next().is_some() {}
        assert!(!is_woken(Duration::from_millis(1)), "none is there");
    }
    assert_eq!(taken, 4 * MANY);
}

#[test]
fn an_answer_opens_what_its_name_grants_and_nothing_else() {
    let mut kernel = Kernel::new(POLICY);
    assert!(!kernel.passes(&tcp("192.0.2.1", 443).bytes()));
    learn(&mut kernel, "a.example", &["192.0.2.1", "2001:db8::1"]);
    assert!(kernel.passes(&tcp("192.0.2.1", 443).bytes()));
    assert!(kernel.passes(&tcp("2001:db8::1", 443).bytes()));
    assert!(
        !kernel.passes(&tcp("192.0.2.1", 8443).bytes()),
        "a port that only another name grants"
    );
    assert!(!kernel.passes(&frame::udp("192.0.2.1", 443).bytes()));
    assert!(
        !kernel.passes(&tcp("192.0.2.2", 443).bytes()),
        "its neighbour"
    );
}

#[test]
fn an_address_that_two_names_share_keeps_their_ports_apart() {
    let mut kernel = Kernel::new(POLICY);
    learn(&mut kernel, "a.example", &["192.0.2.1"]);
    assert!(!kernel.passes(&tcp("192.0.2.1", 8443).bytes()));
    learn(&mut kernel, "x.y.b.example", &["192.0.2.1"]);
    assert!(kernel.passes(&tcp("192.0.2.1", 8443).bytes()));
    assert!(kernel.passes(&tcp("192.0.2.1", 443).bytes()));
}

#[test]
fn a_wildcard_is_one_or_more_labels_and_never_its_apex() {
    let mut kernel = Kernel::new(POLICY);
    for (name, permitted) in [
        ("x.b.example", true),
        ("X.Y.B.Example", true),
        ("under_score.b.example", true),
        ("b.example", false),
        ("xb.example", false),
        ("a.example", true),
        ("x.a.example", false),
        ("example", false),
        ("a.example.evil", false),
    ] {
        let action = kernel.egress(&asked(&query(1, name, 28))).action;
        assert_eq!(action, if permitted { PASS } else { REDIRECT }, "{name}");
    }
}

/// There are 32,767 ids, and each of these policies brings 12,000 names. An address that
/// was lent for a name that is gone must not be worth what the next of its id is.
#[test]
fn ids_of_names_that_are_gone_go_to_new_names_and_open_nothing() {
    let others = |policy: u32| {
        let name =
            |n| format!("  - {{ name: n{n}, type: fqdn, destination: n{n}.of{policy}.example }}\n");
        (0..12_000).map(name).collect::<String>()
    };
    let with = |policy: u32, rules: &str| image(&format!("{POLICY}{rules}{}", others(policy)));
    let lasting = "  - { name: lasting, type: fqdn, destination: lasting.example }\n";
    let mut kernel = Kernel::of(&with(0, lasting));
    for (name, address) in [
        ("lasting.example", "192.0.2.1"),
        ("n7.of0.example", "192.0.2.2"),
        ("a.example", "192.0.2.3"),
    ] {
        kernel.learn(name, 3600, &[address]);
    }
    // Of the other, the lease alone remembers its name.
    assert!(kernel.passes(&tcp("192.0.2.1", 443).bytes()));
    for policy in 1..5 {
        kernel.datapath.replace(&with(policy, "")).unwrap();
        for gone in ["192.0.2.1", "192.0.2.2"] {
            assert!(!kernel.passes(&tcp(gone, 443).bytes()), "{policy}: {gone}");
        }
        assert!(kernel.passes(&tcp("192.0.2.3", 443).bytes()), "{policy}");
        learn(
            &mut kernel,
            &format!("n9.of{policy}.example"),
            &["192.0.2.4"],
        );
        assert!(kernel.passes(&tcp("192.0.2.4", 443).bytes()), "{policy}");
    }
    kernel.datapath.replace(&with(5, lasting)).unwrap();
    assert!(
        !kernel.passes(&tcp("192.0.2.2", 443).bytes()),
        "nobody's name, still"
    );
}

/// Reversed, a length byte stands behind its label: a digit in another label
/// could be taken for it ("0" is 48) if keys did not mark lengths.
#[test]
fn a_label_cannot_pass_for_the_end_of_a_wildcard() {
    let parent = "p".repeat(48);
    let policy = format!(
        "resolvers: [{RESOLVER}]\noutbound_rules: [{{ name: w, type: fqdn, destination: '*.{parent}.example' }}]"
    );
    let mut kernel = Kernel::new(&policy);
    assert_eq!(
        kernel
            .egress(&asked(&query(1, &format!("x.{parent}.example"), 1)))
            .action,
        PASS
    );
    assert_eq!(
        kernel
            .egress(&asked(&query(1, &format!("x0{parent}.example"), 1)))
            .action,
        REDIRECT
    );
}

#[test]
fn a_denied_question_is_answered_at_once() {
    let mut kernel = Kernel::new(POLICY);
    let question = query(0x1234, "evil.example", 16);
    let outcome = kernel.egress(&asked(&question));
    assert_eq!(outcome.action, REDIRECT);
    let reply = &outcome.frame;
    assert_eq!(reply[..6], [2, 0, 0, 0, 0, 2], "back to where it came from");
    assert_eq!(reply[26..30], [10, 0, 0, 53]);
    assert_eq!(reply[30..34], [10, 0, 0, 2]);
    assert_eq!(reply[34..38], [0, 53, 0x9c, 0x40]);
    assert_eq!(reply[42..44], [0x12, 0x34]);
    assert_eq!(reply[44..46], [0x81, 0x83], "a response, NXDOMAIN");
    assert_eq!(reply[54..], question[12..], "the question as it was asked");
    let handed_back = kernel.handed_back(&outcome);
    assert_eq!((handed_back.action, handed_back.mark), (PASS, 0));
    assert_eq!(
        kernel.ingress(reply).action,
        DROP,
        "the same from elsewhere is not believed"
    );
}

/// To the last bit, sums too; where there was none, there is none.
#[test]
fn a_refused_datagram_is_what_the_resolver_could_have_sent() {
    let mut kernel = Kernel::new(POLICY);
    for (resolver, local) in [(RESOLVER, frame::LOCAL), ("fd00::53", frame::LOCAL_V6)] {
        for (asked, answered) in [
            ([0x01, 0x00], [0x81, 0x83]),
            ([0x00, 0x30], [0x80, 0x93]), // checking disabled; AD means another thing
        ] {
            let message = |flags: [u8; 2]| {
                let mut message = query(7, "evil.test", 1);
                message[2..4].copy_from_slice(&flags);
                message
            };
            let sent = to(resolver, frame::UDP, datagram(PORT, 53, &message(asked))).from(local);
            let back = datagram(53, PORT, &message(answered));
            let back = to(local, frame::UDP, back).from(resolver);
            let outcome = kernel.egress(&sent.clone().checked().bytes());
            assert_eq!(
                outcome.frame,
                back.clone().checked().returned(),
                "{resolver}"
            );
            assert_eq!(kernel.egress(&sent.bytes()).frame, back.returned());
        }
    }
}

#[test]
fn a_forged_answer_opens_nothing() {
    let genuine = query(7, "a.example", 1);
    let forged = |id, name| answer(&query(id, name, 1), 60, &["192.0.2.66"]);
    let other_type = answer(&query(7, "a.example", 28), 60, &["192.0.2.66"]);
    for (what, from, port, message) in [
        ("another id", RESOLVER, PORT, forged(8, "a.example")),
        ("another question", RESOLVER, PORT, forged(7, "x.b.example")),
        ("another type", RESOLVER, PORT, other_type),
        (
            "another letter case",
            RESOLVER,
            PORT,
            forged(7, "A.example"),
        ),
        ("another port", RESOLVER, PORT + 1, forged(7, "a.example")),
        ("another server", "10.0.0.54", PORT, forged(7, "a.example")),
    ] {
        let mut kernel = Kernel::new(POLICY);
        assert_eq!(kernel.egress(&asked(&genuine)).action, PASS);
        let action = kernel.ingress(&answered(from, port, &message)).action;
        assert_eq!(action == DROP, from == RESOLVER, "{what}");
        assert!(!kernel.passes(&tcp("192.0.2.66", 443).bytes()), "{what}");
        // And the real one is still believed.
        let real = answer(&genuine, 60, &["192.0.2.1"]);
        assert_eq!(
            kernel.ingress(&answered(RESOLVER, PORT, &real)).action,
            PASS,
            "{what}"
        );
        assert!(kernel.passes(&tcp("192.0.2.1", 443).bytes()), "{what}");
    }
}

#[test]
fn an_answer_without_a_question_opens_nothing() {
    let mut kernel = Kernel::new(POLICY);
    let message = answer(&query(7, "a.example", 1), 60, &["192.0.2.66"]);
    assert_eq!(
        kernel.ingress(&answered(RESOLVER, PORT, &message)).action,
        DROP
    );
    assert!(!kernel.passes(&tcp("192.0.2.66", 443).bytes()));
}

#[test]
fn an_answer_is_believed_once() {
    let mut kernel = Kernel::new(POLICY);
    learn(&mut kernel, "a.example", &["192.0.2.1"]);
    let again = answer(&query(7, "a.example", 1), 60, &["192.0.2.66"]);
    assert_eq!(
        kernel.ingress(&answered(RESOLVER, PORT, &again)).action,
        DROP
    );
    assert!(!kernel.passes(&tcp("192.0.2.66", 443).bytes()));
}

#[test]
fn a_deny_rule_wins_over_an_answer() {
    let mut kernel = Kernel::new(POLICY);
    learn(&mut kernel, "a.example", &["169.254.169.254", "192.0.2.1"]);
    assert!(kernel.passes(&tcp("192.0.2.1", 443).bytes()));
    assert!(!kernel.passes(&tcp("169.254.169.254", 443).bytes()));
}

#[test]
fn an_ipv4_mapped_address_in_an_answer_opens_nothing() {
    let mut kernel = Kernel::new(POLICY);
    learn(&mut kernel, "a.example", &["::ffff:192.0.2.1"]);
    assert!(!kernel.passes(&tcp("192.0.2.1", 443).bytes()));
}

#[test]
fn a_refusal_or_a_name_without_addresses_teaches_nothing() {
    let mut kernel = Kernel::new(POLICY);
    let question = query(7, "a.example", 1);
    kernel.egress(&asked(&question));
    let mut message = answer(&question, 60, &["192.0.2.1"]);
    message[3] |= 3;
    assert_eq!(
        kernel.ingress(&answered(RESOLVER, PORT, &message)).action,
        PASS,
        "an NXDOMAIN with records passes"
    );
    assert!(!kernel.passes(&tcp("192.0.2.1", 443).bytes()));
}

/// 254 bytes in wire form, without the root, if the last label has 61.
fn long_name(last: usize) -> String {
    let label = "x".repeat(63);
    format!("{label}.{label}.{label}.{}", "x".repeat(last))
}

#[test]
fn a_query_that_is_not_just_a_query_is_stopped() {
    let plain = query(7, "a.example", 1);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut message = plain.clone();
        change(&mut message);
        message
    };
    let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    let messages = [
        ("plain", PASS, plain.clone()),
        (
            "EDNS",
            PASS,
            with(&|m| {
                m[11] = 1;
                m.extend(opt);
            }),
        ),
        ("bytes behind", DROP, with(&|m| m.extend(b"secret"))),
        (
            "bytes behind EDNS",
            DROP,
            with(&|m| {
                m[11] = 1;
                m.extend(opt);
                m.push(0);
            }),
        ),
        ("a response", DROP, with(&|m| m[2] |= 0x80)),
        ("an update", DROP, with(&|m| m[2] |= 5 << 3)),
        ("two questions", DROP, with(&|m| m[5] = 2)),
        ("no question", DROP, with(&|m| m[5] = 0)),
        ("an answer section", DROP, with(&|m| m[7] = 1)),
        ("an authority section", DROP, with(&|m| m[9] = 1)),
        ("an authoritative one", DROP, with(&|m| m[2] |= 4)),
        ("a truncated one", DROP, with(&|m| m[2] |= 2)),
        ("an RCODE", DROP, with(&|m| m[3] |= 3)),
        ("recursion that is available", DROP, with(&|m| m[3] |= 0x80)),
        ("a bit that must be zero", DROP, with(&|m| m[3] |= 0x40)),
        ("bits of validators", PASS, with(&|m| m[3] |= 0x30)),
        (
            "flags of EDNS",
            PASS,
            with(&|m| {
                m[11] = 1;
                m.extend([0, 0, 41, 4, 208, 0, 0, 0xc0, 0, 0, 0]);
            }),
        ),
        (
            "a flag of EDNS that nobody knows",
            DROP,
            with(&|m| {
                m[11] = 1;
                m.extend([0, 0, 41, 4, 208, 0, 0, 0x20, 0, 0, 0]);
            }),
        ),
        (
            "another that nobody knows",
            DROP,
            with(&|m| {
                m[11] = 1;
                m.extend([0, 0, 41, 4, 208, 0, 0, 0, 1, 0, 0]);
            }),
        ),
        (
            "another version of EDNS",
            DROP,
            with(&|m| {
                m[11] = 1;
                m.extend([0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0]);
            }),
        ),
        (
            "half an RCODE in EDNS",
            DROP,
            with(&|m| {
                m[11] = 1;
                m.extend([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
            }),
        ),
        (
            "half an option",
            DROP,
            with(&|m| {
                m[11] = 1;
                m.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 3, 0, 10, 0]);
            }),
        ),
        (
            "options as long as they may be",
            PASS,
            with(&|m| {
                m[11] = 1;
                m.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 1, 0]);
                m.extend([b's'; 256]);
            }),
        ),
        (
            "options longer than that",
            DROP,
            with(&|m| {
                m[11] = 1;
                m.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 1, 1]);
                m.extend([b's'; 257]);
            }),
        ),
        ("an OPT that is not there", DROP, with(&|m| m[11] = 1)),
        (
            "another OPT that is not there",
            DROP,
            with(&|m| {
                m[11] = 2;
                m.extend(opt);
            }),
        ),
        (
            "EDNS of a name",
            DROP,
            with(&|m| {
                m[11] = 1;
                m.extend(opt);
                m[27] = 1;
            }),
        ),
        (
            "an address behind",
            DROP,
            with(&|m| {
                m[11] = 1;
                m.extend(opt);
                m[29] = 1;
            }),
        ),
        (
            "class CHAOS",
            DROP,
            with(&|m| {
                let end = m.len();
                m[end - 1] = 3;
            }),
        ),
        ("a pointer", DROP, with(&|m| m[12] = 0xc0)),
        ("a long label", DROP, with(&|m| m[12] = 64)),
        ("cut short", DROP, with(&|m| m.truncate(14))),
        ("a label in eight bits", DROP, with(&|m| m[13] = 0xe4)),
        (
            "the longest name, denied",
            REDIRECT,
            query(7, &long_name(61), 1),
        ),
        ("a longer one", DROP, query(7, &long_name(62), 1)),
        ("nothing", DROP, Vec::new()),
    ];
    let mut kernel = Kernel::new(POLICY);
    for (what, action, message) in messages {
        assert_eq!(kernel.egress(&asked(&message)).action, action, "{what}");
    }
}

#[test]
fn only_port_53_of_a_configured_resolver_is_one() {
    let mut kernel = Kernel::new(POLICY);
    let message = query(7, "a.example", 1);
    let question =
        |to_address: &str, port| to(to_address, frame::UDP, datagram(PORT, port, &message)).bytes();
    assert!(kernel.passes(&question(RESOLVER, 53)));
    assert!(!kernel.passes(&question(RESOLVER, 5353)));
    assert!(!kernel.passes(&question("8.8.8.8", 53)));
    assert!(!kernel.passes(&tcp("8.8.8.8", 53).bytes()));
    assert!(!kernel.passes(&tcp(RESOLVER, 853).bytes()), "DNS over TLS");
    assert!(kernel.passes(&to("fd00::53", frame::UDP, datagram(PORT, 53, &message)).bytes()));
}

#[test]
fn a_hundred_records_are_learned_and_hostile_bytes_are_not() {
    let mut kernel = Kernel::new(POLICY);
    let addresses: Vec<String> = (1..=100).map(|host| format!("198.51.100.{host}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    learn(&mut kernel, "a.example", &addresses);
    for address in addresses {
        assert!(kernel.passes(&tcp(address, 443).bytes()), "{address}");
    }
    let question = query(9, "a.example", 1);
    let whole = answer(&question, 60, &["192.0.2.1", "192.0.2.2"]);
    for cut in question.len()..whole.len() {
        kernel.egress(&asked(&question));
        let action = kernel
            .ingress(&answered(RESOLVER, PORT, &whole[..cut]))
            .action;
        assert_eq!(action, DROP, "cut at {cut}");
        assert!(
            !kernel.passes(&tcp("192.0.2.2", 443).bytes()),
            "cut at {cut}"
        );
    }
    let mut lying = whole.clone();
    lying[7] = 200;
    kernel.egress(&asked(&question));
    assert_eq!(
        kernel.ingress(&answered(RESOLVER, PORT, &lying)).action,
        DROP
    );
}

#[test]
fn a_record_that_lies_teaches_nothing() {
    const FORGED: [u8; 4] = [192, 0, 2, 66];
    let address = |owner: &[u8], last| record(owner, 1, 1, 60, &[192, 0, 2, last]);
    let service = |rest: &[u8]| record(OWNER, 65, 1, 60, &[&[0, 1, 0], rest].concat());
    let question = query(7, "a.example", 1);
    let mut kernel = Kernel::new(POLICY);
    for (what, lie) in [
        (
            "a name that is too long",
            address(&wire(&long_name(62)), 66),
        ),
        ("a reserved label", address(&[0x40, 12], 66)),
        ("another", address(&[0x80, 12], 66)),
        (
            "five bytes of IPv4",
            record(OWNER, 1, 1, 60, &[192, 0, 2, 66, 0]),
        ),
        ("seventeen of IPv6", record(OWNER, 28, 1, 60, &[0x20; 17])),
        (
            "a hint and a half",
            service(&[0, 4, 0, 6, 192, 0, 2, 66, 192, 0]),
        ),
        ("a hint of nothing", service(&[0, 4, 0, 0])),
        (
            "a target in a pointer",
            record(OWNER, 65, 1, 60, &[0, 1, 0xc0, 12]),
        ),
        ("no target", record(OWNER, 65, 1, 60, &[0, 1])),
        ("half a priority", record(OWNER, 65, 1, 60, &[0])),
    ] {
        let truth = address(OWNER, 66);
        for both in [[truth.clone(), lie.clone()], [lie, truth]] {
            let told = tell(&mut kernel, &question, &records(&question, &both));
            assert_eq!(told, DROP, "{what}");
        }
    }
    let mapped = [
        &[0, 6, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        &FORGED[..],
    ]
    .concat();
    let ignored = [record(OWNER, 1, 3, 60, &FORGED), service(&mapped)];
    let told = tell(&mut kernel, &question, &records(&question, &ignored));
    assert_eq!(told, PASS);
    assert!(!kernel.passes(&tcp("192.0.2.66", 443).bytes()));
    // And what is only just none of these is learned.
    let fair = [
        address(&wire(&long_name(61)), 1),
        service(&[0, 4, 0, 4, 192, 0, 2, 2]),
    ];
    let told = tell(&mut kernel, &question, &records(&question, &fair));
    assert_eq!(told, PASS);
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert!(kernel.passes(&tcp(address, 443).bytes()), "{address}");
    }
}

/// RFC 9460: a client may connect to the hints, and asks for the target.
#[test]
fn the_hints_of_a_service_are_learned_and_its_target_may_be_asked_for() {
    for kind in [64, 65] {
        let mut kernel = Kernel::new(POLICY);
        let question = query(7, "a.example", 65);
        let data = [
            &[0, 1][..],
            &wire("svc.test"),
            &[
                0, 1, 0, 3, 2, b'h', b'2', 0, 4, 0, 8, 192, 0, 2, 1, 192, 0, 2, 2,
            ],
            &[
                0, 6, 0, 16, 0x20, 1, 13, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            ],
        ]
        .concat();
        let reply = records(&question, &[record(OWNER, kind, 1, 60, &data)]);
        assert!(!kernel.passes(&asked(&query(8, "svc.test", 1))));
        assert_eq!(tell(&mut kernel, &question, &reply), PASS);
        for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
            assert!(kernel.passes(&tcp(address, 443).bytes()), "{address}");
        }
        learn(&mut kernel, "svc.test", &["192.0.2.3"]);
        assert!(kernel.passes(&tcp("192.0.2.3", 443).bytes()));
    }
}

/// More addresses than an answer may have: none of them is learned.
#[test]
fn an_answer_of_too_many_addresses_is_dropped() {
    let question = query(7, "a.example", 1);
    let mut kernel = Kernel::new(POLICY);
    for (count, action) in [(257, DROP), (256, PASS)] {
        // Of 4 KiB there is room for no more A records.
        let hints: Vec<u8> = (0..count)
            .flat_map(|n: u16| {
                let [high, low] = n.to_be_bytes();
                [198, 18, high, low]
            })
            .collect();
        let length = u16::try_from(hints.len()).unwrap().to_be_bytes();
        let data = [&[0, 1, 0, 0, 4], &length[..], &hints].concat();
        let reply = records(&question, &[record(OWNER, 65, 1, 60, &data)]);
        assert_eq!(tell(&mut kernel, &question, &reply), action, "{count}");
        let opened = kernel.passes(&tcp("198.18.0.9", 443).bytes());
        assert_eq!(opened, action == PASS, "{count}");
    }
}

#[test]
fn what_only_audit_let_pass_teaches_nothing() {
    let policy = format!("dns: {{ query_types: [A] }}\n{POLICY}");
    let mut kernel = Kernel::new(&format!(
        "isolation_mode: allow_internet_outbound\n{policy}"
    ));
    for (question, address) in [
        (query(7, "a.example", 28), "192.0.2.1"),
        (query(7, "evil.test", 1), "192.0.2.2"),
    ] {
        let reply = answer(&question, 60, &[address]);
        assert_eq!(tell(&mut kernel, &question, &reply), PASS);
    }
    assert_eq!(kernel.answers(Answer::Audited), 2);
    kernel
        .datapath
        .replace(&crate::bpffs::image(&policy))
        .unwrap();
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert!(!kernel.passes(&tcp(address, 443).bytes()), "{address}");
    }
}

#[test]
fn a_fragmented_answer_is_dropped() {
    let mut kernel = Kernel::new(POLICY);
    let question = query(7, "a.example", 1);
    kernel.egress(&asked(&question));
    let reply = datagram(53, PORT, &answer(&question, 60, &["192.0.2.1"]));
    let part = Frame {
        fragment: Some((0, true, 9)),
        ..to(frame::LOCAL, frame::UDP, reply).from(RESOLVER)
    };
    assert_eq!(kernel.ingress(&part.bytes()).action, DROP);
    assert!(!kernel.passes(&tcp("192.0.2.1", 443).bytes()));
}

#[test]
fn a_fragmented_question_is_stopped() {
    let mut kernel = Kernel::new(POLICY);
    let whole = to(
        RESOLVER,
        frame::UDP,
        datagram(PORT, 53, &query(7, "a.example", 1)),
    );
    assert!(kernel.passes(&whole.bytes()));
    assert!(
        !kernel.passes(
            &Frame {
                fragment: Some((0, true, 9)),
                ..whole
            }
            .bytes()
        )
    );
}

/// An address that eight patterns lend, and thirty: what a content network does.
#[test]
fn many_names_can_lend_one_address() {
    let mut policy = format!("resolvers: [{RESOLVER}]\noutbound_rules:\n");
    for name in 0..30 {
        let port = 1000 + name;
        policy += &format!(
            "  - {{ name: n{name}, type: fqdn, destination: {{ fqdn: n{name}.example, protocol: TCP, port_ranges: '{port}' }} }}\n"
        );
    }
    let mut kernel = Kernel::new(&policy);
    for name in 0..30 {
        assert!(!kernel.passes(&tcp("192.0.2.1", 1000 + name).bytes()));
        learn(&mut kernel, &format!("n{name}.example"), &["192.0.2.1"]);
    }
    for name in 0..30 {
        assert!(
            kernel.passes(&tcp("192.0.2.1", 1000 + name).bytes()),
            "n{name}"
        );
    }
}

#[test]
fn an_expired_name_no_longer_admits_and_a_connection_in_use_goes_on() {
    let mut kernel = Kernel::new(&format!("dns: {{ minimum_ttl: 1, grace: 0 }}\n{POLICY}"));
    let question = query(7, "a.example", 1);
    kernel.egress(&asked(&question));
    kernel.ingress(&answered(
        RESOLVER,
        PORT,
        &answer(&question, 0, &["192.0.2.1"]),
    ));
    let segment =
        |port, flags| to("192.0.2.1", frame::TCP, frame::segment(port, 443, flags)).bytes();
    assert!(kernel.passes(&segment(1000, frame::SYN)));
    sleep(Duration::from_millis(2_100));
    assert!(!kernel.passes(&segment(1001, frame::SYN)), "a new one");
    assert!(kernel.passes(&segment(1000, frame::ACK)), "the one in use");
    // It goes when its rule goes.
    kernel
        .datapath
        .replace(&crate::bpffs::image(
            "resolvers: [10.0.0.53]\noutbound_rules: []",
        ))
        .unwrap();
    assert!(!kernel.passes(&segment(1000, frame::ACK)));
}

/// A longer life is not shortened, and one with its highest bit set is none at
/// all (RFC 2181 section 8).
#[test]
fn a_life_is_as_long_as_its_longest_record_and_the_policy_say() {
    let kernel = |minimum, grace| {
        Kernel::new(&format!(
            "dns: {{ minimum_ttl: {minimum}, grace: {grace} }}\n{POLICY}"
        ))
    };
    let mut kernels = [kernel(0, 0), kernel(600, 0), kernel(0, 600)];
    for kernel in &mut kernels {
        kernel.learn("a.example", 0, &["192.0.2.1"]);
        kernel.learn("a.example", 1 << 31 | 600, &["192.0.2.2"]);
        kernel.learn("a.example", 600, &["192.0.2.3"]);
        kernel.learn("a.example", 0, &["192.0.2.3"]);
    }
    sleep(Duration::from_millis(1_100));
    for (kernel, lives) in kernels.iter_mut().zip([false, true, true]) {
        for (address, opens) in [
            ("192.0.2.1", lives),
            ("192.0.2.2", lives),
            ("192.0.2.3", true),
        ] {
            assert_eq!(
                kernel.passes(&tcp(address, 443).bytes()),
                opens,
                "{address}"
            );
        }
    }
}

/// As many names as an address has room for, and one more: nobody's grant goes
/// before its time.
#[test]
fn a_name_too_many_waits_until_another_expires() {
    let mut policy =
        "dns: { minimum_ttl: 0, grace: 0 }\nresolvers: [10.0.0.53]\noutbound_rules:\n".to_owned();
    for name in 0..=GRANTS {
        policy += &format!(
            "  - {{ name: n{name}, type: fqdn, destination: {{ fqdn: n{name}.example, protocol: TCP, port_ranges: '{name}' }} }}\n",
        );
    }
    let mut kernel = Kernel::new(&policy);
    let of = |name: usize| format!("n{name}.example");
    let opens = |kernel: &mut Kernel, name: usize| {
        kernel.passes(&tcp("192.0.2.1", u16::try_from(name).unwrap()).bytes())
    };
    kernel.learn(&of(0), 2, &["192.0.2.1"]);
    for name in 1..=GRANTS {
        kernel.learn(&of(name), 600, &["192.0.2.1"]);
    }
    assert_eq!(kernel.answers(Answer::TableFull), 1);
    assert!(!opens(&mut kernel, GRANTS));
    sleep(Duration::from_millis(3_100));
    assert!(!opens(&mut kernel, 0));
    learn(&mut kernel, &of(GRANTS), &["192.0.2.1"]);
    for name in 1..=GRANTS {
        assert!(opens(&mut kernel, name), "{name}");
    }
}

/// The first names have the place beside the address, the next ones another.
#[test]
fn an_address_of_many_names_stays_for_the_last_of_them_and_goes_with_it() {
    let mut policy =
        "dns: { minimum_ttl: 0, grace: 0 }\nresolvers: [10.0.0.53]\noutbound_rules:\n".to_owned();
    for name in 0..=LEASE_GRANTS {
        policy += &format!(
            "  - {{ name: n{name}, type: fqdn, destination: {{ fqdn: n{name}.example, protocol: TCP, port_ranges: '443' }} }}\n",
        );
    }
    let learned = |kernel: &Kernel| {
        let occupancy = kernel.datapath.state().occupancy().unwrap();
        ["LEASES", "CROWDS"].map(|map| {
            let mut maps = occupancy.iter();
            maps.find(|each| each.map == map).unwrap().entries
        })
    };
    // From another port each time, for what was let out before goes on.
    let opens = |kernel: &mut Kernel, port: u16| {
        kernel.passes(
            &to(
                "192.0.2.1",
                frame::TCP,
                frame::segment(port, 443, frame::SYN),
            )
            .bytes(),
        )
    };
    // One after the other: to load the programs takes its time on a busy machine.
    // On a machine that is emulated, so does all else.
    let unit = if patience() > 1 { 3 } else { 1 };
    for (short, long) in [(unit, 6 * unit), (6 * unit, unit)] {
        let mut kernel = Kernel::new(&policy);
        let mut learn = |name: usize, life| {
            kernel.learn(&format!("n{name}.example"), life, &["192.0.2.1"]);
            learned(&kernel)
        };
        for name in 0..LEASE_GRANTS {
            assert_eq!(learn(name, short), [1, 0]);
        }
        assert_eq!(learn(LEASE_GRANTS, long), [1, 1]);
        sleep(unit * Duration::from_millis(3_100));
        assert_eq!(kernel.datapath.state().forget_expired().unwrap(), 0);
        assert_eq!(learned(&kernel), [1, u64::from(long > short)]);
        assert!(opens(&mut kernel, 40_000));
        sleep(unit * Duration::from_millis(5_000));
        assert!(!opens(&mut kernel, 40_001));
        assert_eq!(kernel.datapath.state().forget_expired().unwrap(), 1);
        assert_eq!(learned(&kernel), [0, 0]);
    }
}

/// Names get their numbers in the order of the file: another order must not give
/// what one name lent to another.
#[test]
fn what_was_learned_follows_its_name_through_reloads() {
    let rule = |name: &str, port| {
        format!(
            "  - {{ name: {name}, type: fqdn, destination: {{ fqdn: {name}.example, protocol: TCP, port_ranges: '{port}' }} }}\n"
        )
    };
    let policy = |rules: &[String]| {
        crate::bpffs::image(&format!(
            "resolvers: [{RESOLVER}]\noutbound_rules:\n{}",
            rules.concat()
        ))
    };
    let (a, b, c) = (rule("a", 1), rule("b", 2), rule("c", 3));
    let mut kernel = Kernel::of(&policy(&[a.clone(), b.clone()]));
    learn(&mut kernel, "a.example", &["192.0.2.1"]);
    learn(&mut kernel, "b.example", &["192.0.2.2"]);
    for _ in 0..3 {
        kernel
            .datapath
            .replace(&policy(&[c.clone(), b.clone(), a.clone()]))
            .unwrap();
        assert!(kernel.passes(&tcp("192.0.2.1", 1).bytes()));
        assert!(kernel.passes(&tcp("192.0.2.2", 2).bytes()));
        assert!(!kernel.passes(&tcp("192.0.2.1", 2).bytes()));
        assert!(!kernel.passes(&tcp("192.0.2.1", 3).bytes()));
    }
    kernel.datapath.replace(&policy(&[c, b])).unwrap();
    assert!(
        !kernel.passes(&tcp("192.0.2.1", 1).bytes()),
        "its rule is gone"
    );
    assert!(kernel.passes(&tcp("192.0.2.2", 2).bytes()));
    // The rule's wildcard parent speaks for it, should there be one.
    let wild = "  - { name: w, type: fqdn, destination: { fqdn: '*.example', protocol: TCP, port_ranges: '9' } }\n";
    kernel
        .datapath
        .replace(&policy(&[wild.to_owned()]))
        .unwrap();
    assert!(kernel.passes(&tcp("192.0.2.2", 9).bytes()));
    assert!(!kernel.passes(&tcp("192.0.2.2", 2).bytes()));
}

/// As real chains are: an alias with a TTL of 0 to a name with an underscore; and
/// an NXDOMAIN that carries the aliases which led to it.
#[test]
fn aliases_are_stepped_over_and_an_nxdomain_that_carries_them_teaches_nothing() {
    let alias = |owner: &[u8], target: &str| {
        let target = wire(target);
        let length = u16::try_from(target.len()).unwrap().to_be_bytes();
        [owner, &[0, 5, 0, 1, 0, 0, 0, 0], &length, &target].concat()
    };
    let address = |last| {
        [
            &wire("edge.example.net")[..],
            &[0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 192, 0, 2, last],
        ]
        .concat()
    };
    let question = query(7, "a.example", 1);
    let chain = |rcode: u8, last| {
        let mut message = answer(&question, 0, &[]);
        message[3] |= rcode;
        message[7] = 3;
        message.extend(alias(&[0xc0, 12], "global_frontend.example.net"));
        message.extend(alias(
            &wire("global_frontend.example.net"),
            "edge.example.net",
        ));
        message.extend(address(last));
        message
    };
    let mut kernel = Kernel::new(POLICY);
    for (rcode, last, learned) in [(3, 8, false), (0, 9, true)] {
        kernel.egress(&asked(&question));
        let reply = answered(RESOLVER, PORT, &chain(rcode, last));
        assert_eq!(kernel.ingress(&reply).action, PASS);
        let opened = kernel.passes(&tcp(&format!("192.0.2.{last}"), 443).bytes());
        assert_eq!(opened, learned, "rcode {rcode}");
    }
}

/// The programs count whole seconds: one that is nearly over must not be taken off a life.
#[test]
fn an_address_lives_its_whole_ttl_whenever_it_was_learned() {
    let mut kernel = Kernel::new(&format!("dns: {{ minimum_ttl: 1, grace: 0 }}\n{POLICY}"));
    let boottime = nix::time::ClockId::CLOCK_BOOTTIME;
    let into_second = nix::time::clock_gettime(boottime)
        .unwrap()
        .tv_nsec()
        .cast_unsigned();
    let nearly_over = (1_950_000_000 - into_second) % 1_000_000_000;
    sleep(Duration::from_nanos(nearly_over));
    let question = query(7, "a.example", 1);
    kernel.egress(&asked(&question));
    let reply = answer(&question, 1, &["192.0.2.1"]);
    kernel.ingress(&answered(RESOLVER, PORT, &reply));
    sleep(Duration::from_millis(200));
    assert!(kernel.passes(&tcp("192.0.2.1", 443).bytes()));
}

/// "Never a verifier limit": the programs must load on kernels whose verifier
/// takes other turns, so they stay far from its million.
#[test]
fn the_verifier_has_room_to_spare() {
    let is_new = KernelVersion::current().unwrap() >= KernelVersion::new(6, 6, 0);
    let mut kernel = Kernel::new(POLICY);
    for program in [
        Program::Egress,
        Program::Ingress,
        Program::Loopback,
        Program::Workload,
    ] {
        let verified = kernel.datapath.size(program).unwrap().verified;
        println!("{program:?}: {verified:?}");
        // Older verifiers forget more of what they have seen; the kernel's limit is a million.
        let room = if is_new { 250_000 } else { 650_000 };
        assert!(
            verified.is_none_or(|verified| verified < room),
            "{program:?}: {verified:?}"
        );
    }
}

/// `alias` points from `owner` (wire form) to `target`.
fn cname(owner: &[u8], ttl: u8, target: &[u8]) -> Vec<u8> {
    let length = u16::try_from(target.len()).unwrap().to_be_bytes();
    [owner, &[0, 5, 0, 1, 0, 0, 0, ttl], &length, target].concat()
}

/// A resolver that has kept an alias asks for the name behind it by itself when
/// only its address has expired. systemd-resolved and unbound do.
#[test]
fn what_an_approved_name_points_to_may_be_asked_for_on_its_behalf() {
    let mut kernel = Kernel::new(POLICY);
    let ask = |kernel: &mut Kernel, name: &str, expected| {
        let question = query(9, name, 1);
        assert_eq!(kernel.egress(&asked(&question)).action, expected, "{name}");
        question
    };
    ask(&mut kernel, "edge.cdn.test", REDIRECT);
    for (approved, address, port, id) in [
        ("a.example", "192.0.2.1", 443, 1),
        ("x.b.example", "192.0.2.2", 8443, 2),
    ] {
        let question = query(id, approved, 1);
        kernel.egress(&asked(&question));
        let mut message = answer(&question, 60, &[]);
        message[7] = 3;
        let first = message.len() + 12; // where the first target begins
        message.extend(cname(&[0xc0, 12], 60, &wire("front.cdn.test")));
        // "edge" and a pointer to "cdn.test" in the first target.
        let rest = u8::try_from(first + 6).unwrap();
        message.extend(cname(
            &[0xc0, u8::try_from(first).unwrap()],
            60,
            &[4, b'E', b'd', b'g', b'e', 0xc0, rest],
        ));
        message.extend([
            0xc0,
            u8::try_from(first).unwrap(),
            0,
            1,
            0,
            1,
            0,
            0,
            0,
            60,
            0,
            4,
        ]);
        message.extend(address.parse::<std::net::Ipv4Addr>().unwrap().octets());
        assert_eq!(
            kernel.ingress(&answered(RESOLVER, PORT, &message)).action,
            PASS
        );
        assert!(kernel.passes(&tcp(address, port).bytes()), "{approved}");
    }
    ask(&mut kernel, "FRONT.cdn.test", PASS);
    ask(&mut kernel, "cdn.test", REDIRECT);
    ask(&mut kernel, "x.edge.cdn.test", REDIRECT);
    let question = ask(&mut kernel, "edge.cdn.test", PASS);
    kernel.ingress(&answered(
        RESOLVER,
        PORT,
        &answer(&question, 60, &["192.0.2.3"]),
    ));
    assert!(
        kernel.passes(&tcp("192.0.2.3", 443).bytes()),
        "on behalf of the one"
    );
    assert!(
        kernel.passes(&tcp("192.0.2.3", 8443).bytes()),
        "and of the other"
    );
    assert!(!kernel.passes(&tcp("192.0.2.3", 80).bytes()));

    // It ends with the rules that the aliases were learned for, and a deny rule wins.
    let rules = |rules: &str| {
        crate::bpffs::image(&format!("resolvers: [{RESOLVER}]\noutbound_rules:{rules}"))
    };
    let other = " [{ name: o, type: fqdn, destination: other.example }]";
    kernel.datapath.replace(&rules(other)).unwrap();
    ask(&mut kernel, "edge.cdn.test", REDIRECT);
    kernel
        .datapath
        .replace(&crate::bpffs::image(POLICY))
        .unwrap();
    ask(&mut kernel, "edge.cdn.test", PASS);
    let denied = "\n  - { name: a, type: fqdn, destination: a.example }\n  - { name: d, type: fqdn, action: deny, destination: edge.cdn.test }";
    kernel.datapath.replace(&rules(denied)).unwrap();
    ask(&mut kernel, "front.cdn.test", PASS);
    ask(&mut kernel, "edge.cdn.test", REDIRECT);
}

/// Two names point to it, one of them for a moment only.
#[test]
fn an_alias_lends_for_each_name_as_long_as_that_one_pointed_to_it() {
    let mut kernel = Kernel::new(&format!("dns: {{ minimum_ttl: 0, grace: 0 }}\n{POLICY}"));
    for (name, target, ttl) in [
        ("a.example", "front.test", 60),
        ("x.b.example", "front.test", 0),
        ("x.b.example", "edge.test", 0),
    ] {
        let question = query(7, name, 1);
        let reply = records(&question, &[cname(OWNER, ttl, &wire(target))]);
        assert_eq!(tell(&mut kernel, &question, &reply), PASS);
    }
    sleep(Duration::from_millis(1_100));
    assert!(!kernel.passes(&asked(&query(7, "edge.test", 1))));
    learn(&mut kernel, "front.test", &["192.0.2.1"]);
    assert!(kernel.passes(&tcp("192.0.2.1", 443).bytes()));
    assert!(!kernel.passes(&tcp("192.0.2.1", 8443).bytes()));
}

/// What an approved name points to was chosen by its owner, not by who asks.
#[test]
fn an_alias_below_a_wildcard_is_not_limited() {
    let policy = format!("dns: {{ wildcard_name_length: 11 }}\n{POLICY}");
    let mut kernel = Kernel::new(&policy);
    let question = query(7, "a.example", 1);
    let alias = cname(OWNER, 60, &wire("front.b.example"));
    assert!(!kernel.passes(&asked(&query(8, "front.b.example", 1))));
    assert_eq!(
        tell(&mut kernel, &question, &records(&question, &[alias])),
        PASS
    );
    assert!(kernel.passes(&asked(&query(8, "front.b.example", 1))));
    assert!(!kernel.passes(&asked(&query(8, "other.b.example", 1))));
}

#[test]
fn an_alias_that_is_hostile_teaches_nothing_and_its_addresses_do() {
    let mut kernel = Kernel::new(POLICY);
    let targets: [&[u8]; 6] = [
        &[0xc0, 40],          // to itself
        &[1, b'x', 0xc0, 40], // round and round
        &[0xc0, 2],           // into the header
        &[63, b'x'],          // cut short
        &[1, 0xe4, 0],        // not ASCII
        &[0],                 // the root
    ];
    for (index, target) in targets.into_iter().enumerate() {
        let question = query(u16::try_from(index).unwrap(), "a.example", 1);
        kernel.egress(&asked(&question));
        let address = format!("192.0.2.{index}");
        let mut message = answer(&question, 60, &[]);
        message[7] = 2;
        message.extend(cname(&[0xc0, 12], 60, target));
        message.extend([
            0xc0,
            12,
            0,
            1,
            0,
            1,
            0,
            0,
            0,
            60,
            0,
            4,
            192,
            0,
            2,
            u8::try_from(index).unwrap(),
        ]);
        assert_eq!(
            kernel.ingress(&answered(RESOLVER, PORT, &message)).action,
            PASS
        );
        assert!(kernel.passes(&tcp(&address, 443).bytes()), "{target:?}");
    }
    for name in ["x", "x.x", ""] {
        assert_ne!(
            kernel.egress(&asked(&query(9, name, 1))).action,
            PASS,
            "{name:?}"
        );
    }
}

#[test]
fn only_listed_types_are_asked_for_and_others_have_no_data() {
    let policy = format!("dns: {{ query_types: [A, HTTPS, TYPE300] }}\n{POLICY}");
    let mut kernel = Kernel::new(&policy);
    for (qtype, passes) in [
        (1, true),
        (65, true),
        (300, true),
        (28, false),
        (16, false),
        (255, false),
        (10, false),
        (812, false), // 300 and 512
    ] {
        let outcome = kernel.egress(&asked(&query(1, "a.example", qtype)));
        assert_eq!(outcome.action == PASS, passes, "{qtype}");
        if !passes {
            assert_eq!(outcome.frame[45] & 0x0f, 0, "NOERROR: {qtype}");
        }
    }
    let mut kernel = Kernel::new(&format!("dns: {{ query_types: '*' }}\n{POLICY}"));
    assert!(kernel.passes(&asked(&query(1, "a.example", 65_000))));
    let mut kernel = Kernel::new(POLICY);
    for (qtype, passes) in [
        (1, true),
        (28, true),
        (65, true),
        (12, true),
        (16, false),
        (10, false),
    ] {
        assert_eq!(
            kernel.passes(&asked(&query(1, "a.example", qtype))),
            passes,
            "{qtype}"
        );
    }
}

#[test]
fn a_denied_question_is_answered_as_configured_whatever_its_type() {
    for (configured, action, rcode) in [
        ("nxdomain", REDIRECT, 3),
        ("refused", REDIRECT, 5),
        ("drop", DROP, 0),
    ] {
        let mut kernel = Kernel::new(&format!("dns: {{ on_deny: {configured} }}\n{POLICY}"));
        for (name, qtype) in [
            ("evil.test", 1),
            ("evil.test", 28),
            ("evil.test", 16),
            ("evil.test", 65),
            ("evil.test", 255),
            ("1.0.0.10.in-addr.arpa", 12),
            ("a.example.corp.test", 1),
        ] {
            let outcome = kernel.egress(&asked(&query(1, name, qtype)));
            assert_eq!(outcome.action, action, "{configured}, {name}, {qtype}");
            if action == REDIRECT {
                assert_eq!(
                    outcome.frame[44..46],
                    [0x81, 0x80 | rcode],
                    "{configured}, {name}"
                );
            }
        }
    }
}

#[test]
fn private_reverse_zones_open_by_a_switch() {
    let mut closed = Kernel::new(POLICY);
    let mut open = Kernel::new(&format!("dns: {{ private_reverse_zones: true }}\n{POLICY}"));
    for (name, private) in [
        ("4.3.2.10.in-addr.arpa", true),
        ("1.1.16.172.in-addr.arpa", true),
        ("1.1.31.172.in-addr.arpa", true),
        ("1.1.15.172.in-addr.arpa", false),
        ("1.1.32.172.in-addr.arpa", false),
        ("1.1.168.192.in-addr.arpa", true),
        ("1.1.254.169.in-addr.arpa", true),
        ("168.192.in-addr.arpa", true),
        ("1.1.1.1.in-addr.arpa", false),
        (
            "1.2.3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
            true,
        ),
        ("1.2.b.e.f.ip6.arpa", true),
        ("1.2.c.e.f.ip6.arpa", false),
        ("1.2.e.f.ip6.arpa", false),
    ] {
        let question = asked(&query(1, name, 12));
        assert!(!closed.passes(&question), "{name}");
        assert_eq!(open.passes(&question), private, "{name}");
    }
    // An answer there grants nothing.
    learn(&mut open, "4.3.2.10.in-addr.arpa", &["192.0.2.1"]);
    assert!(!open.passes(&tcp("192.0.2.1", 443).bytes()));
    let deny = "resolvers: [10.0.0.53]\ndns: { private_reverse_zones: true }\noutbound_rules:\n  - { name: d, type: fqdn, action: deny, destination: '*.10.in-addr.arpa' }";
    let mut partly = Kernel::new(deny);
    assert!(!partly.passes(&asked(&query(1, "4.3.2.10.in-addr.arpa", 12))));
    assert!(partly.passes(&asked(&query(1, "4.3.168.192.in-addr.arpa", 12))));
}

#[test]
fn a_wildcard_admits_names_up_to_its_length_and_rate() {
    let policy =
        format!("dns: {{ wildcard_name_length: 30, wildcard_names_per_minute: 20 }}\n{POLICY}");
    let mut kernel = Kernel::new(&policy);
    let mut asks = |name: &str| kernel.egress(&asked(&query(1, name, 1)));
    // "x…x.b.example" in wire form without the root: 1 + x + 10.
    assert_eq!(asks(&format!("{}.b.example", "x".repeat(19))).action, PASS);
    let long = asks(&format!("{}.b.example", "x".repeat(20)));
    assert_eq!(
        (long.action, long.frame[45] & 0x0f),
        (REDIRECT, 5),
        "REFUSED"
    );
    let passed = |asks: &mut dyn FnMut(&str) -> i32, case: &dyn Fn(&str) -> String| {
        (0..50)
            .filter(|n| asks(&case(&format!("n{n}.b.example"))) == PASS)
            .count()
    };
    let mut action = |name: &str| asks(name).action;
    assert_eq!(
        passed(&mut action, &str::to_owned),
        19,
        "20 new names, one of them above"
    );
    assert_eq!(
        passed(&mut action, &str::to_uppercase),
        19,
        "those are known, in any letter case"
    );
    assert_eq!(action("a.example"), PASS, "no wildcard");
    let counted = kernel.datapath.state().counters().unwrap();
    let of = |wanted| {
        counted
            .questions
            .iter()
            .find(|(verdict, _)| *verdict == wanted)
            .unwrap()
            .1
    };
    assert_eq!(of(netfilter_ebpf::verdict::Question::Limited), 1 + 31 + 31);
}

/// A query with an OPT record that admits answers of `size` bytes (RFC 6891).
fn edns(name: &str, size: u16) -> Vec<u8> {
    let mut message = query(7, name, 1);
    message[11] = 1;
    message.extend([0, 0, 41]);
    message.extend(size.to_be_bytes());
    message.extend([0, 0, 0x80, 0, 0, 4, 0, 12, 0, 0]);
    message
}

/// Fragments are not read, so none is asked for where the way is narrow. Names of
/// both parities, for the checksum.
#[test]
fn a_question_asks_for_no_answer_that_would_be_fragmented() {
    let mut kernel = Kernel::new(POLICY);
    let narrow = Namespace::new().unwrap();
    let ways = narrow
        .run(|| {
            let add = [
                "link", "add", "wide", "mtu", "9000", "type", "veth", "peer", "name", "narrow",
            ];
            let made = std::process::Command::new("ip").args(add).status().unwrap();
            assert!(made.success());
            [("narrow", true), ("wide", false), ("lo", false)].map(|(name, limited)| {
                let ifindex = nix::net::if_::if_nametoindex(name).unwrap();
                (Context { ifindex, mark: 0 }, limited)
            })
        })
        .unwrap();
    for (with, limited) in ways {
        let target = Target {
            index: with.ifindex,
            name: String::new(),
            flags: 0,
        };
        kernel.datapath.hooks().unwrap().describe(&target).unwrap();
        for name in ["a.example", "x.b.example", "xy.b.example"] {
            for asked_for in [4096u16, 1233, 1232, 512] {
                for resolver in [RESOLVER, "fd00::53"] {
                    let of = |size| {
                        let message = edns(name, size);
                        let sent = to(resolver, frame::UDP, datagram(PORT, 53, &message));
                        sent.checked().bytes()
                    };
                    let outcome = narrow
                        .run(|| kernel.run(Program::Egress, &of(asked_for), with))
                        .unwrap();
                    let left = if limited {
                        asked_for.min(1232)
                    } else {
                        asked_for
                    };
                    assert_eq!(outcome.action, PASS);
                    assert_eq!(outcome.frame, of(left), "{name}, {asked_for}, {with:?}");
                }
            }
        }
    }
}

/// A and AAAA from one socket, and one id from two hundred ports, answered in the
/// other order and twice.
#[test]
fn questions_in_flight_are_told_apart() {
    let mut kernel = Kernel::new(POLICY);
    let names = ["a.example", "x.b.example"];
    let of = |n: u16| {
        let name = names[usize::from(n % 2)];
        let kind = if n % 4 < 2 { 1 } else { 28 };
        (PORT + n / 4, query(7, name, kind))
    };
    let address = |n: u16| match n % 4 {
        0 | 1 => format!("192.0.2.{}", n / 2),
        _ => format!("2001:db8::{n:x}"),
    };
    for n in 0..400 {
        let (port, question) = of(n);
        let sent = to(RESOLVER, frame::UDP, datagram(port, 53, &question));
        assert_eq!(kernel.egress(&sent.bytes()).action, PASS);
    }
    for n in (0..400).rev() {
        let (port, question) = of(n);
        let reply = answered(RESOLVER, port, &answer(&question, 60, &[&address(n)]));
        assert_eq!(kernel.ingress(&reply).action, PASS, "{n}");
        assert_eq!(kernel.ingress(&reply).action, DROP, "{n}, again");
    }
    for n in 0..400 {
        let granted = [443, 8443][usize::from(n % 2)];
        assert!(kernel.passes(&tcp(&address(n), granted).bytes()), "{n}");
    }
}

/// What a cookie or any other option says goes no further; names and options of both
/// parities, for the checksum.
#[test]
fn options_of_a_question_are_padding_when_it_leaves() {
    let mut kernel = Kernel::new(POLICY);
    for name in ["a.example", "x.b.example", "xy.b.example"] {
        for length in [4, 5, 12, 13, 44, 255, 256] {
            for resolver in [RESOLVER, "fd00::53"] {
                let of = |options: &[u8]| {
                    let message = with_options(&query(7, name, 1), options);
                    let sent = to(resolver, frame::UDP, datagram(PORT, 53, &message));
                    sent.checked().bytes()
                };
                let outcome = kernel.egress(&of(&secret(length)));
                assert_eq!(outcome.action, PASS);
                assert_eq!(outcome.frame, of(&padding(length)), "{name}, {length}");
            }
        }
    }
}

#[test]
fn nothing_leaves_around_a_question() {
    let mut kernel = Kernel::new(POLICY);
    let question = query(7, "a.example", 1);
    let surplus = [&datagram(PORT, 53, &question)[..], b"secret"].concat();
    for resolver in [RESOLVER, "fd00::53"] {
        let plain = to(resolver, frame::UDP, datagram(PORT, 53, &question));
        assert_eq!(kernel.egress(&plain.bytes()).action, PASS);
        let behind = to(resolver, frame::UDP, surplus.clone());
        assert_eq!(kernel.egress(&behind.bytes()).action, DROP);
        let in_the_frame = [&plain.bytes()[..], b"secret"].concat();
        assert_eq!(kernel.egress(&in_the_frame).action, DROP);
        let extended = Frame {
            options: vec![0x1e, 4, 1, 2],
            extensions: vec![(60, vec![0, 0, 0x1e, 4, 1, 2, 3, 4])],
            ..plain
        };
        assert_eq!(kernel.egress(&extended.bytes()).action, DROP);
    }
}
