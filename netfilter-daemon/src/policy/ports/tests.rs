use proptest::prelude::*;

use super::*;

fn traffic(protocol: &str, ports: &str) -> Traffic {
    Traffic::new(
        Protocol::parse(protocol).unwrap(),
        Ports::parse(ports).unwrap(),
    )
    .unwrap()
}

fn wrong(ports: &str) -> String {
    Ports::parse(ports).unwrap_err().to_string()
}

#[test]
fn a_port_in_the_range_is_covered_and_its_neighbours_are_not() {
    let traffic = traffic("TCP", "443, 8000-8100");
    for port in [443, 8000, 8050, 8100] {
        assert!(traffic.covers(6, Some(port)), "{port}");
    }
    for port in [0, 442, 444, 7999, 8101, 65535] {
        assert!(!traffic.covers(6, Some(port)), "{port}");
    }
}

#[test]
fn tcp_ports_open_nothing_in_udp() {
    assert!(!traffic("TCP", "53").covers(17, Some(53)));
    assert!(traffic("UDP", "53").covers(17, Some(53)));
}

#[test]
fn letter_case_of_the_protocol_is_free() {
    assert_eq!(traffic("tcp", "443"), traffic("TCP", "443"));
    assert_ne!(traffic("udp", "443"), traffic("TCP", "443"));
}

#[test]
fn icmp_means_that_of_both_families() {
    let icmp = traffic("ICMP", "*");
    assert!(icmp.covers(1, None));
    assert!(icmp.covers(58, None));
    assert!(!icmp.covers(6, Some(443)));
}

#[test]
fn the_compiler_gets_each_protocol_that_is_covered_and_no_other() {
    for (protocol, numbers) in [
        ("TCP", &[6][..]),
        ("UDP", &[17]),
        ("ICMP", &[1, 58]),
        ("1", &[1]),
        ("58", &[58]),
        ("47", &[47]),
    ] {
        let traffic = traffic(protocol, "*");
        let parts: Vec<_> = traffic.parts().collect();
        let expected = numbers.iter().map(|number| (Some(*number), &Ports::All));
        assert_eq!(parts, expected.collect::<Vec<_>>(), "{protocol}");
        for number in 0..=255 {
            let covered = traffic.covers(number, None);
            assert_eq!(covered, numbers.contains(&number), "{protocol}: {number}");
        }
    }
}

#[test]
fn icmp_by_number_means_that_one_family() {
    assert!(traffic("1", "*").covers(1, None));
    assert!(!traffic("1", "*").covers(58, None));
}

#[test]
fn any_protocol_with_ports_means_tcp_and_udp_and_nothing_else() {
    let dns = traffic("*", "53");
    assert!(dns.covers(6, Some(53)));
    assert!(dns.covers(17, Some(53)));
    assert!(!dns.covers(132, Some(53)));
    assert!(!dns.covers(1, None));
    assert!(!dns.covers(6, Some(54)));
    let numbers: Vec<_> = dns.parts().map(|(number, _)| number).collect();
    assert_eq!(numbers, [Some(6), Some(17)]);
}

#[test]
fn any_protocol_with_all_ports_means_everything() {
    let all = traffic("*", "*");
    assert!((0..=255).all(|protocol| all.covers(protocol, None)));
    assert_eq!(all, Traffic::ANY);
    assert_eq!(all.parts().collect::<Vec<_>>(), [(None, &Ports::All)]);
}

#[test]
fn a_packet_without_a_port_is_not_covered_by_ports() {
    assert!(!traffic("TCP", "0-65535").covers(6, None));
    assert!(traffic("TCP", "*").covers(6, None));
}

#[test]
fn the_numbers_of_tcp_and_udp_are_their_names() {
    assert_eq!(traffic("6", "443"), traffic("TCP", "443"));
    assert_eq!(traffic("17", "443"), traffic("UDP", "443"));
}

#[test]
fn ranges_are_sorted_and_merged() {
    assert_eq!(
        Ports::parse("8080,80-90,85-100,101,443").unwrap(),
        Ports::Ranges(vec![80..=101, 443..=443, 8080..=8080])
    );
    assert_eq!(
        Ports::parse("80,82").unwrap(),
        Ports::Ranges(vec![80..=80, 82..=82])
    );
    assert_eq!(Ports::parse("443-443").unwrap(), Ports::of([443]));
    assert_eq!(
        Ports::parse("65535,0-65535").unwrap(),
        Ports::Ranges(vec![0..=65535])
    );
}

#[test]
fn ports_with_a_portless_protocol_are_refused() {
    for protocol in ["ICMP", "47", "132"] {
        let protocol = Protocol::parse(protocol).unwrap();
        let refused = Traffic::new(protocol, Ports::of([443])).unwrap_err();
        assert_eq!(refused, Error::Portless(protocol));
        assert!(Traffic::new(protocol, Ports::All).is_ok());
    }
}

#[test]
fn what_is_no_list_of_ports_is_named() {
    assert_eq!(wrong(""), Error::Empty.to_string());
    assert!(wrong("70000").starts_with("port 70000 does not exist"));
    assert!(wrong("1-99999999999999999999").contains("99999999999999999999"));
    assert!(wrong("8100-8000").contains("write 8000-8100"));
    assert!(wrong("443,,80").contains("empty item"));
    assert!(wrong("443,").contains("empty item"));
    assert!(wrong("443,*").contains("cannot be mixed"));
    for garbage in [
        "https", "-", "80-", "-80", "1-2-3", "0x50", "+80", "8 0", "22:22",
    ] {
        assert!(wrong(garbage).contains("neither a port"), "{garbage}");
    }
}

#[test]
fn what_is_no_protocol_is_named() {
    for protocol in ["TPC", "256", "-1", "", "tcp/udp", "+6"] {
        assert!(Protocol::parse(protocol).is_err(), "{protocol}");
    }
    assert_eq!(Protocol::parse("255"), Ok(Protocol::Number(255)));
}

#[test]
fn traffic_reads_as_people_say_it() {
    assert_eq!(
        traffic("TCP", "8000-8100,443").to_string(),
        "TCP 443, 8000-8100"
    );
    assert_eq!(traffic("*", "53").to_string(), "TCP and UDP 53");
    assert_eq!(traffic("*", "*").to_string(), "everything");
    assert_eq!(traffic("TCP", "*").to_string(), "TCP *");
    assert_eq!(traffic("ICMP", "*").to_string(), "ICMP");
    assert_eq!(traffic("47", "*").to_string(), "protocol 47");
}

proptest! {
    #[test]
    fn merging_changes_no_answer(ranges in prop::collection::vec((0u16.., 0u16..), 1..8), port in 0u16..) {
        let ranges: Vec<_> = ranges.into_iter().map(|(a, b)| a.min(b)..=a.max(b)).collect();
        let text: Vec<_> = ranges.iter().map(|r| format!("{}-{}", r.start(), r.end())).collect();
        let traffic = traffic("TCP", &text.join(","));
        prop_assert_eq!(traffic.covers(6, Some(port)), ranges.iter().any(|r| r.contains(&port)));
    }

    #[test]
    fn the_compiler_s_parts_say_the_same_as_covers(
        protocol in prop::sample::select(vec!["*", "TCP", "UDP", "ICMP", "47"]),
        number in 0u8..,
        port in 0u16..2000,
        ports in prop::sample::select(vec!["*", "80,443", "0-1000"]),
    ) {
        let Ok(traffic) = Traffic::new(
            Protocol::parse(protocol).unwrap(), Ports::parse(ports).unwrap()
        ) else { return Ok(()) };
        let by_parts = traffic.parts().any(|(part, ports)| {
            part.is_none_or(|part| part == number) && match ports {
                Ports::All => true,
                Ports::Ranges(ranges) => ranges.iter().any(|range| range.contains(&port)),
            }
        });
        prop_assert_eq!(by_parts, traffic.covers(number, Some(port)));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,40}") {
        let read = (Protocol::parse(&text), Ports::parse(&text));
        drop(read);
    }
}
