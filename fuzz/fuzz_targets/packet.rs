//! No frame makes its reader panic, or find anything outside of it; nor is it read in two ways.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netfilter_ebpf::{
    packet::{self, Frame, Packet, plain},
    plumbing, surplus,
};

fuzz_target!(|frame: &[u8]| {
    if let Some(packet) = plain::read(frame, Some) {
        assert_eq!(packet::parse(frame), Ok(Frame::Ip(packet)));
        assert!(packet.end < frame.len() || surplus::check(frame, &packet).is_ok());
    }
    if let Ok(Frame::Ip(packet)) = packet::parse(frame) {
        let Packet {
            network,
            transport,
            end,
            ..
        } = packet;
        assert!(network < transport && transport <= end && end <= frame.len());
        // What is padded is short, and zeros.
        if surplus::check(frame, &packet).is_ok() {
            let behind = &frame[end..];
            assert!(behind.is_empty() || frame.len() <= network + surplus::SHORTEST);
            assert!(behind.iter().all(|byte| *byte == 0));
        }
        if let Some(read) = plumbing::read(frame, &packet) {
            assert!(read.costs > 0 && read.costs as usize <= frame.len());
        }
    }
});
