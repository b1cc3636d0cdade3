//! The kernel's programs read plumbing as the library does, and count it.

use netfilter_daemon::{
    compile,
    policy::{self, System, service_tag::Catalogue},
};

use super::*;
use crate::bpffs::Kernel;

/// A solicitation for an address whose last three bytes are zero, with these behind.
fn solicitation(number: u16, behind: &[u8]) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    let target = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, high, low, 0, 0, 0];
    let payload = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target, behind].concat();
    let mut packet = frame::to("ff02::1:ff00:0", 58, payload);
    packet.hops = 255;
    packet.bytes()
}

fn discover(behind: &[u8]) -> Vec<u8> {
    request("0.0.0.0", "255.255.255.255", behind)
}

/// A request of whoever has an address, or has none yet.
fn request(from: &str, to: &str, behind: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    // Who sends the frame.
    message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    message.extend([99, 130, 83, 99, 53, 1, 1]);
    message.extend(behind);
    let from: Ipv4Addr = from.parse().unwrap();
    message[12..16].copy_from_slice(&from.octets());
    let mut packet = frame::to(to, 17, frame::datagram(68, 67, &message));
    packet.source = Some(from.into());
    packet.bytes()
}

/// Of a machine that is in this subnet.
fn in_subnet(subnet: &str, rules: &str) -> Kernel {
    let system = System {
        connected: vec![subnet.parse().unwrap()],
        ..System::default()
    };
    let text = format!("on_deny: drop\nresolvers: [10.0.0.53]\n{rules}");
    let built_in = |_: &str| Catalogue::built_in();
    let policy = policy::parse(&text, "policy.yaml", &system, &built_in).unwrap();
    Kernel::of(&compile::compile(&policy).unwrap())
}

const OWN: &str = "10.0.0.2";
const ROUTED: [&str; 4] = ["10.0.1.1", "168.63.129.16", "203.0.113.9", "239.1.2.3"];

#[test]
fn a_lease_is_renewed_on_the_link_and_elsewhere_if_a_rule_says_so() {
    let mut kernel = in_subnet("10.0.0.0/24", "virtual_network: [10.0.0.0/8]");
    for near in ["10.0.0.1", "10.0.0.255", "169.254.169.254"] {
        assert!(kernel.passes(&request(OWN, near, &[255])), "{near}");
    }
    for far in ROUTED {
        assert!(!kernel.passes(&request(OWN, far, &[255])), "{far}");
    }
    let mut kernel = in_subnet("10.0.0.0/24", "presets: [azure-ml]");
    assert!(kernel.passes(&request(OWN, "168.63.129.16", &[255])));
    assert!(!kernel.passes(&request(OWN, "203.0.113.9", &[255])));
    let relay = "outbound_rules: [{ name: relay, type: ip, destination: { cidr: 203.0.113.9/32, protocol: UDP, port_ranges: '67' } }]";
    let mut kernel = in_subnet("10.0.0.0/24", relay);
    let free = frame::to("203.0.113.9", 17, frame::datagram(68, 67, b"anything"));
    assert!(
        kernel.passes(&free.bytes()),
        "what a rule allows has any form"
    );
    let near = relay.replace("203.0.113.9", "10.0.0.1");
    let mut kernel = in_subnet("10.0.0.0/24", &near);
    for _ in 0..100 {
        assert!(
            kernel.passes(&request(OWN, "10.0.0.1", &[255])),
            "and no rate"
        );
    }
}

#[test]
fn a_renewal_has_the_form_of_one_and_a_rate() {
    let mut kernel = in_subnet("10.0.0.0/24", "outbound_rules: []");
    for (from, behind) in [
        (OWN, &[224, 2, b'v', b'm', 255][..]),
        (OWN, &[255, 0, 0, 1]),
        (OWN, &[]),
    ] {
        for to in ["10.0.0.1", "169.254.169.254"] {
            assert!(!kernel.passes(&request(from, to, behind)), "{behind:?}");
        }
    }
    let free = frame::to("10.0.0.1", 17, frame::datagram(68, 67, b"anything"));
    assert!(!kernel.passes(&free.bytes()));
    let mut other = frame::to("10.0.0.1", 17, frame::datagram(68, 67, b""));
    let whole = request(OWN, "10.0.0.1", &[255]);
    other.payload = whole[34..].to_vec();
    assert!(kernel.passes(&other.clone().from(OWN).bytes()));
    assert!(
        !kernel.passes(&other.clone().from("10.0.0.3").bytes()),
        "another's"
    );
    for ports in [[0, 69, 0, 67], [0, 68, 0, 69], [0, 67, 0, 68]] {
        other.payload[..4].copy_from_slice(&ports);
        assert!(
            !kernel.passes(&other.clone().from(OWN).bytes()),
            "{ports:?}"
        );
    }
    // To whomever it goes, it is one allowance.
    let passed = (0..200u8)
        .filter(|last| {
            let to = [format!("10.0.0.{}", last % 7), "255.255.255.255".to_owned()];
            kernel.passes(&request(OWN, &to[usize::from(last % 2)], &[255]))
        })
        .count();
    assert!((29..60).contains(&passed), "{passed}");
}

#[test]
fn the_kernel_reads_plumbing_to_the_last_byte() {
    let mut kernel = Kernel::new("on_deny: drop\nresolvers: [10.0.0.53]\noutbound_rules: []");
    let own = [1, 1, 2, 0, 0, 0, 0, 2];
    for (passes, frame) in [
        (true, solicitation(1, &[])),
        (true, solicitation(1, &own)),
        (false, solicitation(1, &[&own[..], &[0; 8]].concat())),
        (false, solicitation(1, &[1, 1, 2, 0, 0, 0, 0, 3])),
        (true, discover(&[255])),
        (
            true,
            discover(&[12, 2, b'v', b'm', 61, 3, 1, 2, 3, 255, 0, 0, 0]),
        ),
        (
            false,
            discover(&[12, 2, b'v', b'm', 61, 3, 1, 2, 3, 255, 0, 0, 1]),
        ),
        (false, discover(&[224, 2, b'v', b'm', 255])),
        (false, discover(&[12, 2, b'v', b'm'])),
    ] {
        assert_eq!(kernel.passes(&frame), passes, "{frame:?}");
    }
}

#[test]
fn no_more_is_said_than_a_machine_needs_and_each_kind_has_its_own() {
    let mut kernel = Kernel::new("on_deny: drop\nresolvers: [10.0.0.53]\noutbound_rules: []");
    let flood = 0..1000;
    let passed = flood
        .filter(|number| kernel.passes(&solicitation(*number, &[])))
        .count();
    // What it holds, and 20 for each second that this takes.
    assert!((200..600).contains(&passed), "{passed}");
    let passed = (0..100)
        .filter(|_| kernel.passes(&discover(&[255])))
        .count();
    assert!((30..60).contains(&passed), "{passed}");
}
