//! The tables against the obvious slow evaluation of the rules, and the kernel
//! against the same code on the host.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netfilter_daemon::{
    compile,
    policy::{self, Action, Destination, Policy, Rule, System, Traffic, service_tag::Catalogue},
};
use netfilter_ebpf::{
    packet::{self, Frame as Parsed},
    surplus,
    verdict::{Reason, Verdict},
};
use proptest::{prelude::*, strategy::ValueTree};

use crate::{
    bpffs::{DROP, Kernel, PASS},
    frame::{self, Frame, datagram, segment},
};

/// The obvious evaluation: a deny that covers wins, else an allow, else an audit.
fn slowly(policy: &Policy, address: IpAddr, protocol: u8, port: u16) -> Result<(), Reason> {
    let port = matches!(protocol, frame::TCP | frame::UDP).then_some(port);
    let covers = |rule: &&Rule| {
        let (Destination::Tag { prefixes, .. } | Destination::Prefixes(prefixes)) =
            &rule.destination
        else {
            return false;
        };
        prefixes.iter().any(|prefix| prefix.contains(&address))
            && rule
                .traffic
                .iter()
                .any(|traffic| traffic.covers(protocol, port))
    };
    let any = |action| {
        policy
            .rules
            .iter()
            .filter(|rule| rule.action == action)
            .any(|rule| covers(&rule))
    };
    match () {
        () if any(Action::Deny) => Err(Reason::DeniedByRule),
        () if any(Action::Allow) || any(Action::Audit) => Ok(()),
        () => Err(Reason::NoRule),
    }
}

fn empty() -> Policy {
    policy::parse("outbound_rules: []", "empty", &System::default(), &|_| {
        Catalogue::built_in()
    })
    .unwrap()
}

/// Prefixes that often nest, touch and repeat, as the published ones do.
fn prefix() -> impl Strategy<Value = IpNet> {
    let ipv4 = (any::<u32>(), 0..=32u8, any::<bool>()).prop_map(|(bits, length, near)| {
        let bits = if near {
            0x0a00_0000 | bits & 0x0003_ffff
        } else {
            bits
        };
        IpNet::new(Ipv4Addr::from(bits).into(), length)
            .unwrap()
            .trunc()
    });
    let ipv6 = (any::<u128>(), 0..=128u8, any::<bool>()).prop_map(|(bits, length, near)| {
        let bits = if near {
            0x2603_1030 << 96 | bits & 0xffff_ffff
        } else {
            bits
        };
        IpNet::new(Ipv6Addr::from(bits).into(), length)
            .unwrap()
            .trunc()
    });
    prop_oneof![ipv4, ipv6]
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let protocol = prop_oneof![Just("TCP"), Just("UDP"), Just("*")];
    let ports = prop_oneof![
        Just("*".to_owned()),
        (0..20u16, 0..20u16).prop_map(|(one, other)| format!(
            "{}-{}",
            one.min(other),
            one.max(other)
        )),
        any::<u16>().prop_map(|port| port.to_string()),
    ];
    let with_ports = (protocol, ports);
    let without = prop_oneof![Just("ICMP"), Just("50"), Just("47")]
        .prop_map(|protocol| (protocol, "*".to_owned()));
    prop_oneof![3 => with_ports, 1 => without].prop_map(|(protocol, ports)| {
        Traffic::new(
            policy::Protocol::parse(protocol).unwrap(),
            policy::Ports::parse(&ports).unwrap(),
        )
        .unwrap()
    })
}

fn random_policy() -> impl Strategy<Value = Policy> {
    let action =
        prop_oneof![4 => Just(Action::Allow), 1 => Just(Action::Deny), 1 => Just(Action::Audit)];
    let rule = (
        action,
        prop::collection::vec(prefix(), 1..12),
        prop::collection::vec(traffic(), 1..3),
    );
    prop::collection::vec(rule, 0..10).prop_map(|rules| {
        let rules = rules
            .into_iter()
            .enumerate()
            .map(|(number, (action, prefixes, traffic))| Rule {
                name: format!("rule {number}"),
                action,
                destination: Destination::Prefixes(prefixes),
                traffic,
            });
        Policy {
            rules: rules.collect(),
            ..empty()
        }
    })
}

/// Addresses at the edges of the policy's prefixes and elsewhere.
fn addresses(policy: &Policy, random: &[u128]) -> Vec<IpAddr> {
    let prefixes = policy
        .rules
        .iter()
        .filter_map(|rule| match &rule.destination {
            Destination::Prefixes(prefixes) | Destination::Tag { prefixes, .. } => Some(prefixes),
            Destination::Name(_) => None,
        });
    let mut addresses: Vec<IpAddr> = prefixes.flatten().flat_map(edges).collect();
    for &bits in random {
        addresses.push(Ipv4Addr::from((bits >> 32) as u32).into());
        addresses.push(Ipv6Addr::from(bits).into());
    }
    addresses.retain(
        |address| !matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()),
    );
    addresses
}

/// First and last of a prefix, and their neighbours outside.
fn edges(prefix: &IpNet) -> Vec<IpAddr> {
    match prefix {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|bits| Ipv4Addr::from(bits).into())
                .to_vec()
        }
        IpNet::V6(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|bits| Ipv6Addr::from(bits).into())
                .to_vec()
        }
    }
}

const PROTOCOLS: [u8; 6] = [1, 6, 17, 47, 50, 58];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn tables_agree_with_the_rules(
        policy in random_policy(),
        random in prop::collection::vec(any::<u128>(), 8),
        ports in prop::collection::vec(prop_oneof![0..25u16, any::<u16>()], 4),
    ) {
        let image = compile::compile(&policy).unwrap();
        for address in addresses(&policy, &random) {
            for protocol in PROTOCOLS {
                for &port in &ports {
                    let expected = slowly(&policy, address, protocol, port);
                    prop_assert_eq!(image.judge_address(address, protocol, port), expected, "{} {} {}", address, protocol, port);
                }
            }
        }
    }
}

fn frame_to(address: IpAddr, protocol: u8, port: u16) -> Frame {
    let payload = match protocol {
        frame::TCP => segment(40_000, port, frame::SYN),
        frame::UDP => datagram(40_000, port, b"x"),
        1 => vec![8, 0, 0, 0, 0, 1, 0, 1],
        58 => vec![128, 0, 0, 0, 0, 1, 0, 1],
        _ => vec![0; 16],
    };
    frame::to(&address.to_string(), protocol, payload)
}

fn assert_agreement(policy: &Policy, random: &[u128], ports: &[u16]) -> usize {
    let policy = Policy {
        on_deny: policy::OnDeny::Drop,
        ..policy.clone()
    };
    let image = compile::compile(&policy).unwrap();
    let mut kernel = Kernel::of(&image);
    let mut frames = 0;
    for address in addresses(&policy, random) {
        for (protocol, &port) in PROTOCOLS.iter().zip(ports.iter().cycle()) {
            let bytes = frame_to(address, *protocol, port).bytes();
            let verdict = match packet::parse(bytes.as_slice()) {
                Ok(Parsed::Ip(packet)) => image.decide(&packet),
                Ok(_) => panic!("no plumbing here"),
                Err(reason) => Verdict::Drop(reason),
            };
            let expected = if matches!(verdict, Verdict::Drop(_)) {
                DROP
            } else {
                PASS
            };
            assert_eq!(
                kernel.egress(&bytes).action,
                expected,
                "{address} {protocol} {port}: {verdict:?}"
            );
            assert_eq!(
                kernel.workload(&bytes).action,
                expected,
                "a workload's: {address} {protocol} {port}: {verdict:?}"
            );
            if !address.is_multicast() && address != IpAddr::V4(Ipv4Addr::BROADCAST) {
                assert_eq!(
                    expected == PASS,
                    slowly(&policy, address, *protocol, port).is_ok(),
                    "{address} {protocol} {port}"
                );
            }
            frames += 1;
        }
    }
    frames
}

/// Of policies; `cargo xtask vmtest` has less time.
const ROUNDS: &str = "NETFILTER_AGREEMENT_ROUNDS";

#[test]
fn the_kernel_agrees_with_the_host_on_random_policies() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = (
        random_policy(),
        prop::collection::vec(any::<u128>(), 30),
        prop::collection::vec(0..25u16, 7),
    );
    let rounds = env::var(ROUNDS).map_or(12, |text| text.parse().unwrap());
    let mut frames = 0;
    for _ in 0..rounds {
        let (policy, random, ports) =
            proptest::strategy::Strategy::new_tree(&strategy, &mut runner)
                .unwrap()
                .current();
        frames += assert_agreement(&policy, &random, &ports);
    }
    assert!(frames > rounds * 160, "{frames}");
}

#[test]
fn the_kernel_agrees_with_the_host_on_the_preset() {
    let text = "presets: [azure-ml]\nresolvers: [10.0.0.53]";
    let policy = policy::parse(text, "preset", &System::default(), &|_| {
        Catalogue::built_in()
    })
    .unwrap();
    let frames = assert_agreement(&policy, &[0; 1], &[443, 443, 5831, 80, 22]);
    assert!(frames > 10_000, "{frames}");
}

#[test]
fn no_aggregation_swallows_an_address_that_is_in_no_tag() {
    let text = "resolvers: [10.0.0.53]\noutbound_rules: [{ name: all, type: service_tag, \
                destination: { service_tag: AzureResourceManager, protocol: TCP, port_ranges: '443' } }]";
    let policy =
        policy::parse(text, "tag", &System::default(), &|_| Catalogue::built_in()).unwrap();
    let image = compile::compile(&policy).unwrap();
    for address in ["168.63.129.16", "169.254.169.254"] {
        assert_eq!(
            image.judge_address(address.parse().unwrap(), 6, 443),
            Err(Reason::NoRule)
        );
    }
}

/// 168.63.129.16 is in no tag while everything around it is.
#[test]
fn a_hole_between_neighbours_stays_a_hole() {
    let around: Vec<String> = (0..32u32)
        .map(|bit| {
            let address = u32::from(Ipv4Addr::new(168, 63, 129, 16)) ^ 1 << bit;
            format!("{}/{}", Ipv4Addr::from(address >> bit << bit), 32 - bit)
        })
        .collect();
    let rules: Vec<String> = around
        .iter()
        .map(|cidr| format!("{{ name: '{cidr}', type: ip, destination: {{ cidr: {cidr}, protocol: TCP, port_ranges: '443' }} }}"))
        .collect();
    let image = crate::bpffs::image(&format!(
        "resolvers: [10.0.0.53]\noutbound_rules: [{}]",
        rules.join(", ")
    ));
    let judge = |address: &str| image.judge_address(address.parse().unwrap(), 6, 443);
    assert_eq!(judge("168.63.129.16"), Err(Reason::NoRule));
    assert_eq!(judge("168.63.129.15"), Ok(()));
    assert_eq!(judge("168.63.129.17"), Ok(()));
    let mut kernel = Kernel::of(&image);
    assert!(!kernel.passes(&frame::tcp("168.63.129.16", 443).bytes()));
    assert!(kernel.passes(&frame::tcp("168.63.129.17", 443).bytes()));
}

/// What an attacker would put on the wire. Host and kernel drop it all.
#[test]
fn malformed_and_foreign_frames_are_dropped() {
    let policy = "resolvers: [10.0.0.53]\non_deny: drop\noutbound_rules: [\
        { name: a, type: ip, destination: { cidr: 198.51.100.0/24, protocol: '*', port_ranges: '*' } }, \
        { name: b, type: ip, destination: { cidr: '2001:db8::/32', protocol: '*', port_ranges: '*' } }]";
    let mut kernel = Kernel::new(policy);
    let (ipv4, ipv6) = (
        frame::tcp("198.51.100.1", 443),
        frame::tcp("2001:db8::1", 443),
    );
    let changed = |frame: &Frame, at: usize, byte: u8| {
        let mut bytes = frame.bytes();
        bytes[at] = byte;
        bytes
    };
    let followed = |frame: &Frame, behind: &[u8]| [&frame.bytes(), behind].concat();
    let with_options = |options: &[u8]| {
        Frame {
            options: options.to_vec(),
            ..ipv4.clone()
        }
        .bytes()
    };
    let with_extension = |kind, bytes: &[u8]| {
        Frame {
            extensions: vec![(kind, bytes.to_vec())],
            ..ipv6.clone()
        }
        .bytes()
    };
    let arp = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = vec![
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2,
            0, 0, 0, 0, 2,
        ];
        bytes.extend([0; 14]);
        change(&mut bytes);
        bytes
    };
    let tagged = |tags: usize| {
        Frame {
            vlans: vec![7; tags],
            ..ipv4.clone()
        }
        .bytes()
    };
    let cases: Vec<(&str, Option<Reason>, Vec<u8>)> = vec![
        ("plain IPv4", None, ipv4.bytes()),
        ("plain IPv6", None, ipv6.bytes()),
        (
            "a VLAN tag that is not set aside",
            Some(Reason::Ethertype),
            tagged(1),
        ),
        ("ARP", None, arp(&|_| {})),
        ("ARP with padding", None, arp(&|bytes| bytes.resize(60, 0))),
        (
            "ARP with padding that is none",
            Some(Reason::Ethertype),
            arp(&|bytes| {
                bytes.resize(59, 0);
                bytes.push(1);
            }),
        ),
        (
            "ARP with more padding than a frame needs",
            Some(Reason::Ethertype),
            arp(&|bytes| bytes.resize(61, 0)),
        ),
        (
            "ARP from another than its frame",
            Some(Reason::Ethertype),
            arp(&|bytes| bytes[27] = 3),
        ),
        (
            "ARP that knows whom it asks for",
            Some(Reason::Ethertype),
            arp(&|bytes| bytes[32] = 1),
        ),
        (
            "ARP for all ones",
            None,
            arp(&|bytes| bytes[32..38].fill(0xff)),
        ),
        (
            "ARP for its frame's receiver",
            None,
            arp(&|bytes| {
                bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
                bytes[32..38].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
            }),
        ),
        (
            "ARP with bytes behind",
            Some(Reason::Ethertype),
            arp(&|bytes| bytes.extend(b"secret")),
        ),
        (
            "ARP of another protocol",
            Some(Reason::Ethertype),
            arp(&|bytes| bytes[16] = 0x86),
        ),
        (
            "a raw ethertype",
            Some(Reason::Ethertype),
            changed(&ipv4, 12, 0x88),
        ),
        ("LLC", Some(Reason::Ethertype), {
            let mut bytes = ipv4.bytes();
            bytes[12] = 0;
            bytes[13] = 40;
            bytes
        }),
        (
            "version 5",
            Some(Reason::Malformed),
            changed(&ipv4, 14, 0x55),
        ),
        (
            "a header of 16 bytes",
            Some(Reason::Malformed),
            changed(&ipv4, 14, 0x44),
        ),
        (
            "a length beyond the frame",
            Some(Reason::Malformed),
            changed(&ipv4, 17, 200),
        ),
        (
            "a length within the header",
            Some(Reason::Malformed),
            changed(&ipv4, 17, 19),
        ),
        (
            "the reserved flag",
            Some(Reason::Malformed),
            changed(&ipv4, 20, 0x80),
        ),
        (
            "options that say nothing",
            Some(Reason::Surplus),
            with_options(&[1, 1, 1, 0]),
        ),
        ("a router alert", None, with_options(&[148, 4, 0, 0])),
        (
            "another router alert",
            Some(Reason::Surplus),
            with_options(&[148, 4, 0, 1]),
        ),
        (
            "a route to be recorded",
            Some(Reason::Surplus),
            with_options(&[7, 7, 4, 0, 0, 0, 0, 0]),
        ),
        (
            "loose source route",
            Some(Reason::SourceRouting),
            with_options(&[131, 7, 4, 8, 8, 8, 8, 0]),
        ),
        (
            "strict source route behind another",
            Some(Reason::SourceRouting),
            with_options(&[1, 137, 7, 4, 8, 8, 8, 8]),
        ),
        (
            "an option of length zero",
            Some(Reason::Malformed),
            with_options(&[7, 0, 0, 0]),
        ),
        (
            "destination options",
            Some(Reason::Surplus),
            with_extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]),
        ),
        (
            "hop-by-hop options of padding",
            Some(Reason::Surplus),
            with_extension(0, &[0, 0, 1, 4, 0, 0, 0, 0]),
        ),
        (
            "a router alert of IPv6",
            None,
            with_extension(0, &[0, 0, 5, 2, 0, 0, 1, 0]),
        ),
        (
            "an atomic fragment",
            None,
            with_extension(44, &[0, 0, 0, 0, 1, 2, 3, 4]),
        ),
        (
            "an atomic fragment with something in what is reserved",
            Some(Reason::Surplus),
            with_extension(44, &[0, 0, 0, 4, 1, 2, 3, 4]),
        ),
        ("IPv4 with padding", None, followed(&ipv4, &[0; 6])),
        (
            "IPv4 with padding that is none",
            Some(Reason::Surplus),
            followed(&ipv4, &[0, 0, 0, 0, 0, 1]),
        ),
        (
            "IPv4 with more padding than a frame needs",
            Some(Reason::Surplus),
            followed(&ipv4, &[0; 7]),
        ),
        (
            "IPv4 with bytes behind it",
            Some(Reason::Surplus),
            followed(&ipv4, &[1; 1000]),
        ),
        (
            "IPv6 with bytes behind it",
            Some(Reason::Surplus),
            followed(&ipv6, b"s"),
        ),
        (
            "a UDP length within the packet",
            Some(Reason::Surplus),
            changed(&frame::udp("198.51.100.1", 1), 39, 8),
        ),
        (
            "a routing header",
            Some(Reason::SourceRouting),
            with_extension(43, &[0, 0, 0, 0, 0, 0, 0, 0]),
        ),
        (
            "an extension beyond the frame",
            Some(Reason::ExtensionHeader),
            with_extension(60, &[0, 200, 1, 4, 0, 0, 0, 0]),
        ),
        ("a jumbogram", Some(Reason::ExtensionHeader), {
            let mut bytes = with_extension(0, &[0, 0, 0xc2, 4, 0, 1, 0, 0]);
            bytes[18..20].fill(0);
            bytes
        }),
        ("an IPv4-mapped destination", Some(Reason::Malformed), {
            let mut bytes = ipv6.bytes();
            bytes[38..54].copy_from_slice(
                &"198.51.100.1"
                    .parse::<Ipv4Addr>()
                    .unwrap()
                    .to_ipv6_mapped()
                    .octets(),
            );
            bytes
        }),
        (
            "a TCP header of 16 bytes",
            Some(Reason::Malformed),
            changed(&ipv4, 46, 0x40),
        ),
        (
            "a UDP length beyond the packet",
            Some(Reason::Malformed),
            changed(&frame::udp("198.51.100.1", 1), 38, 1),
        ),
    ];
    for (what, reason, bytes) in cases {
        let judged = packet::parse(bytes.as_slice()).and_then(|frame| match frame {
            Parsed::Ip(packet) => surplus::check(bytes.as_slice(), &packet),
            _ => Ok(()),
        });
        assert_eq!(judged.err(), reason, "host: {what}");
        let expected = if reason.is_some() { DROP } else { PASS };
        assert_eq!(kernel.egress(&bytes).action, expected, "kernel: {what}");
        let sent = kernel.workload(&bytes).action;
        assert_eq!(sent, expected, "kernel, of a workload: {what}");
    }
}

/// The kernel's test run refuses frames shorter than their headers, but of workloads; the
/// host reads them with the same code.
#[test]
fn a_frame_cut_anywhere_never_passes() {
    const ETHERNET: usize = 14;
    let mut kernel = Kernel::new(
        "resolvers: [10.0.0.53]\non_deny: drop\noutbound_rules: [{ name: all, type: ip, \
         destination: { cidr: 0.0.0.0/0, protocol: '*', port_ranges: '*' } }, \
         { name: all6, type: ip, destination: { cidr: '::/0', protocol: '*', port_ranges: '*' } }]",
    );
    for whole in [
        frame::tcp("198.51.100.1", 443).bytes(),
        frame::tcp("2001:db8::1", 443).bytes(),
    ] {
        for cut in 0..whole.len() {
            assert!(packet::parse(&whole[..cut]).is_err(), "cut at {cut}");
            if cut >= ETHERNET {
                let action = kernel.workload(&whole[..cut]).action;
                assert_eq!(action, DROP, "a workload's, cut at {cut}");
            }
        }
        assert_eq!(kernel.workload(&whole).action, PASS);
    }
}
