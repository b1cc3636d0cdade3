//! No frame makes its reader panic, or find anything outside of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netfilter_ebpf::packet::{self, Frame, Packet};

fuzz_target!(|frame: &[u8]| {
    if let Ok(Frame::Ip(Packet {
        network,
        transport,
        end,
        ..
    })) = packet::parse(frame)
    {
        assert!(network < transport && transport <= end && end <= frame.len());
    }
});
