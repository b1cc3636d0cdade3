//! The name table finds what the patterns' own definition finds.
//!
//! The input: patterns, one a line, an empty line, and a name in wire form.
#![no_main]

#[path = "../../netfilter-daemon/src/policy"]
#[allow(dead_code, reason = "only matching is fuzzed here")]
mod policy {
    pub mod name;
}

use libfuzzer_sys::fuzz_target;
use netfilter_ebpf::name::{self, KEY_DATA, KeyBuffer};
use policy::name::Pattern;

fuzz_target!(|input: &[u8]| {
    let Some(end) = input.windows(2).position(|bytes| bytes == b"\n\n") else {
        return;
    };
    let (text, wire) = (&input[..end], &input[end + 2..]);
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    // A wildcard's apex has an entry of its own, as `compile` makes it.
    let patterns: Vec<Pattern> = text
        .lines()
        .filter_map(|line| line.parse().ok())
        .flat_map(|pattern: Pattern| [pattern.apex(), pattern])
        .collect();
    let mut message = wire.to_vec();
    message.push(0);
    let mut buffer = KeyBuffer::new();
    let mut at = 0;
    loop {
        match name::read_label(message.as_slice(), at, at, &mut buffer) {
            Some(0) => break,
            Some(length) => at += 1 + length,
            None => return,
        }
    }
    let start = buffer.finish(at, 0, false) + 4;
    let asked = &buffer.bytes[start..start + KEY_DATA];
    let slow = patterns
        .iter()
        .filter(|pattern| pattern.matches(&message[..at]))
        .max_by_key(|pattern| (pattern.wire().len(), !pattern.is_wildcard()));
    assert_eq!(longest_prefix(&patterns, asked), slow);
});

/// What the kernel's LPM trie finds.
fn longest_prefix<'a>(patterns: &'a [Pattern], asked: &[u8]) -> Option<&'a Pattern> {
    let keys = patterns.iter().map(|pattern| {
        let (bits, data) = name::key(pattern.wire(), pattern.is_wildcard());
        (bits, data, pattern)
    });
    keys.filter(|(bits, data, _)| asked.starts_with(&data[..*bits as usize / 8]))
        .max_by_key(|(bits, ..)| *bits)
        .map(|(.., pattern)| pattern)
}
