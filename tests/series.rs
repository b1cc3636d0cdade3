//! What a sender chooses makes no series: labels are lists of the program, of the policy and of
//! the machine.

use std::collections::BTreeSet;

use netfilter_daemon::{
    datapath::test_run::{Context, Program},
    metrics::{self, Exposition, Snapshot},
};
use netfilter_ebpf::verdict::{Family, ProtocolLabel, Reason};

use crate::{
    bpffs::Kernel,
    frame::{UDP, datagram, query, to},
};

const POLICY: &str = "
resolvers: [10.0.0.53]
outbound_rules:
  - { name: wide, type: ip, destination: { cidr: 128.0.0.0/1, protocol: '*', port_ranges: '*' } }
  - { name: names, type: fqdn, destination: '*.example' }
";

fn page(kernel: &Kernel) -> String {
    let state = kernel.datapath.state();
    let rules = ["wide".to_owned(), "names".to_owned()];
    let snapshot = Snapshot {
        counters: state.counters().unwrap(),
        rule_hits: state.rule_hits(&rules).unwrap(),
        maps: state.occupancy().unwrap(),
        ..Snapshot::default()
    };
    metrics::render(&snapshot, Exposition::Prometheus)
}

fn series(page: &str) -> BTreeSet<&str> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0).collect()
}

/// Marsaglia's xorshift: the same in every run.
struct Random(u64);

impl Random {
    fn bytes(&mut self) -> [u8; 96] {
        let mut bytes = [0; 96];
        for eight in bytes.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            eight.copy_from_slice(&self.0.to_be_bytes());
        }
        bytes
    }
}

#[test]
fn whatever_is_sent_there_are_no_more_series_than_the_lists_have() {
    let mut kernel = Kernel::new(POLICY);
    let mut random = Random(0x5eed);
    let mut send = |kernel: &mut Kernel, rounds: u32| {
        for _ in 0..rounds {
            let bytes = random.bytes();
            let address = std::net::Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
            let mut frame = to(&address.to_string(), bytes[4], bytes[5..80].to_vec()).bytes();
            match bytes[80] % 4 {
                // A header of any kind, or any EtherType.
                0 => frame[12..14].copy_from_slice(&bytes[81..83]),
                1 => frame[14..34].copy_from_slice(&bytes[5..25]),
                _ => {}
            }
            // The kernel refuses some before the program sees them.
            let run = kernel
                .datapath
                .test_run(Program::Egress, &frame, Context::default(), 1);
            drop(run);
            let name: String = bytes[5..13]
                .iter()
                .map(|byte| char::from(b'a' + byte % 26))
                .collect();
            for suffix in ["example", "attacker"] {
                let asked = query(7, &format!("{name}.{suffix}"), u16::from(bytes[90]));
                kernel.egress(&to("10.0.0.53", UDP, datagram(40_000, 53, &asked)).bytes());
            }
        }
    };
    send(&mut kernel, 4_000);
    let before = page(&kernel);
    let known = series(&before);
    // Of one interface, each at most in packets and bytes, and only some of them can be.
    let drops = Reason::ALL.len() * Family::ALL.len() * ProtocolLabel::ALL.len();
    let of_drops = known
        .iter()
        .filter(|line| line.starts_with("netfilter_dropped_packets_total"));
    assert!((5..=drops).contains(&of_drops.count()), "{before}");
    send(&mut kernel, 4_000);
    let after = page(&kernel);
    let new: Vec<_> = series(&after).difference(&known).copied().collect();
    assert!(new.len() <= 3, "it grows: {new:#?}");
    assert!(!after.contains("attacker"), "{after}");
}
