//! Names, questions and answers that carry data, and DNS elsewhere.

use crate::lab::battery::Channel;

mod answers;
mod around;
mod edns;
mod elsewhere;
mod fields;
mod message;
mod names;
mod rewritten;
mod sections;
mod streams;

pub(super) const CHANNELS: &[Channel] = &[
    names::A,
    names::TXT,
    names::NULL,
    names::CNAME,
    names::REVERSE,
    names::WILDCARD_TXT,
    names::BINARY,
    names::WILDCARD,
    sections::TWO_QUESTIONS,
    sections::AUTHORITY,
    sections::ADDITIONAL,
    sections::ANSWER,
    sections::UPDATE,
    sections::NOTIFY,
    sections::CLASS,
    edns::UNKNOWN,
    edns::COOKIE,
    edns::PADDING,
    edns::RESERVED,
    around::TRAILING,
    around::SURPLUS,
    around::TRAILER,
    around::IPV4_OPTIONS,
    around::EXTENSION,
    around::ICMP,
    fields::ID,
    fields::CASE,
    streams::FOREIGN,
    streams::PIPELINED,
    streams::BEHIND,
    streams::SYN_DATA,
    streams::RESET,
    streams::OUT_OF_ORDER,
    rewritten::DATAGRAM,
    rewritten::FILE,
    elsewhere::UDP,
    elsewhere::TCP,
    elsewhere::TLS,
    elsewhere::HTTPS,
    elsewhere::QUIC,
    elsewhere::MDNS,
    elsewhere::LLMNR,
    elsewhere::NBNS,
    answers::FORBIDDEN,
    answers::ELSEWHERE,
    answers::FORGED_OUTSIDE,
    answers::FORGED_INSIDE,
    answers::AGREED,
];
