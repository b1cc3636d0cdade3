//! The kernel's programs read plumbing as the library does, and count it.

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
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    // Who sends the frame.
    message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    message.extend([99, 130, 83, 99, 53, 1, 1]);
    message.extend(behind);
    let mut packet = frame::to("255.255.255.255", 17, frame::datagram(68, 67, &message));
    packet.source = Some("0.0.0.0".parse().unwrap());
    packet.bytes()
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
