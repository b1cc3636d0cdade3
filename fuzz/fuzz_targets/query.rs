//! What goes out as a question is one that hickory reads, and nothing besides.
#![no_main]

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::DNSClass,
    serialize::binary::{BinDecodable, BinDecoder},
};
use libfuzzer_sys::fuzz_target;
use netfilter_ebpf::{
    dns::{self, Kind, Question},
    name::{self, KEY_LENGTH, KeyBuffer},
};

fuzz_target!(|bytes: &[u8]| {
    let key = std::cell::RefCell::new(KeyBuffer::new());
    let label = |at, before| name::read_label(bytes, at, before, &mut key.borrow_mut());
    let mut question = Question::default();
    if dns::read_question(bytes, 0, Kind::Query, 0, label, &mut question).is_err() {
        return;
    }
    let bytes = without_options(bytes, question.length);
    let mut decoder = BinDecoder::new(&bytes);
    let message = Message::read(&mut decoder).expect("a message");
    assert!(decoder.is_empty(), "bytes behind");
    assert_eq!(message.message_type, MessageType::Query);
    assert_eq!(message.op_code, OpCode::Query);
    assert_eq!(message.response_code.low(), ResponseCode::NoError.low());
    assert!(!message.authoritative && !message.truncation);
    assert!(message.answers.is_empty() && message.authorities.is_empty());
    assert!(message.additionals.is_empty() && message.signature.is_none());
    let [query] = &message.queries[..] else {
        panic!("{} questions", message.queries.len());
    };
    assert_eq!(query.query_class, DNSClass::IN);
    assert_eq!(u16::from(query.query_type), question.qtype);
    let mut wire = Vec::new();
    for label in query.name.iter() {
        wire.push(u8::try_from(label.len()).expect("a label"));
        wire.extend(label.to_ascii_lowercase());
    }
    let key = key.into_inner();
    let start = key.start(question.name_length);
    let reversed = &key.bytes[start..start + question.name_length];
    let ours: Vec<u8> = reversed
        .iter()
        .rev()
        .map(|byte| byte & !KEY_LENGTH)
        .collect();
    assert_eq!(ours, wire);
});

/// hickory reads the options in an OPT record; the filter only sees that they
/// are all that is behind the question, as they do not go further than the resolver.
fn without_options(query: &[u8], question: usize) -> Vec<u8> {
    let mut query = query.to_vec();
    if let Some(opt) = query.get_mut(question..).filter(|opt| !opt.is_empty()) {
        let options = opt.len() - 11;
        let length = opt[9..11].try_into().expect("two bytes");
        assert_eq!(usize::from(u16::from_be_bytes(length)), options);
        opt[9..11].fill(0);
        query.truncate(question + 11);
    }
    query
}
