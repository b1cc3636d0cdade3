//! What servers sent, and what RFCs print: tests/corpus/dns. A line `#` says
//! where a message is from, a line `>` an address that it teaches and its TTL.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path};

use hickory_proto::op::{Message, ResponseCode};
use netfilter_ebpf::abi::Address;

use crate::{
    hickory,
    reader::{self, Found, Reading, Stream},
};

struct Vector {
    message: Vec<u8>,
    teaches: Found,
}

fn vectors() -> BTreeMap<String, Vector> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/dns");
    let files = fs::read_dir(directory).unwrap().map(Result::unwrap);
    files
        .map(|file| {
            let text = fs::read_to_string(file.path()).unwrap();
            assert!(text.starts_with("# "), "{:?} is from nowhere", file.path());
            (file.file_name().into_string().unwrap(), vector(&text))
        })
        .collect()
}

fn vector(text: &str) -> Vector {
    let mut vector = Vector {
        message: Vec::new(),
        teaches: Found::new(),
    };
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("#", _)) => {}
            Some((">", taught)) => {
                let (address, ttl) = taught.split_once(' ').unwrap();
                let address = match address.parse().unwrap() {
                    IpAddr::V4(address) => Address::from_ipv4(address.to_bits()),
                    IpAddr::V6(address) => Address::from_ipv6(address.octets()),
                };
                vector.teaches.push((address, ttl.parse().unwrap()));
            }
            _ => {
                let byte = |at| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
                vector.message.extend((0..line.len()).step_by(2).map(byte));
            }
        }
    }
    vector
}

#[test]
fn real_answers_teach_the_addresses_in_them() {
    let vectors = vectors();
    assert!(vectors.len() > 30);
    for (name, Vector { message, teaches }) in vectors {
        assert_eq!(reader::datagram(&message), Some(teaches.clone()), "{name}");
        let parsed = Message::from_vec(&message).unwrap();
        if parsed.response_code == ResponseCode::NoError {
            assert_eq!(hickory::addresses(&parsed), teaches, "{name}");
        }
    }
}

#[test]
fn real_answers_teach_the_same_wherever_a_stream_is_cut() {
    for (name, Vector { message, teaches }) in vectors() {
        let expected = [(teaches, Reading::End)];
        for cut in 1..message.len() + 2 {
            let stream = Stream::of(&[&message], [cut].iter());
            assert_eq!(stream.read, expected, "{name} cut at {cut}");
        }
        let byte_by_byte = Stream::of(&[&message, &message], [1].iter().cycle());
        assert_eq!(
            byte_by_byte.read,
            [&expected[..], &expected].concat(),
            "{name}"
        );
    }
}

#[test]
fn a_real_answer_without_its_end_teaches_nothing() {
    for (name, Vector { message, teaches }) in vectors() {
        let Some(last) = teaches.last() else { continue };
        // The last record of an address; the sections behind it are not read.
        let whole = reader::whole(&message).0;
        assert_eq!(whole.last(), Some(last), "{name}");
        let answers = (0..message.len()).rev();
        let end = answers
            .take_while(|length| reader::datagram(&message[..*length]).is_some())
            .last()
            .unwrap_or(message.len());
        for length in 0..end {
            assert_eq!(
                reader::datagram(&message[..length]),
                None,
                "{name} to {length}"
            );
        }
    }
}
