//! The packet logic that the BPF programs and the daemon share.
//!
//! The path of a packet that leaves the machine: [`packet::parse`] reads the
//! frame through [`packet::Bytes`], which a socket buffer, an XDP frame and a
//! byte slice implement. It must hold nothing but what it says ([`surplus`]).
//! [`egress::decide`] judges it: the machine's own plumbing passes ([`plumbing`]), a question to a configured resolver must be
//! read first ([`dns`]), everything else is looked up in the prefix table
//! ([`table`]), then among the addresses learned from DNS, then among the flows
//! that the tables cannot know ([`flow`]); an ICMP error is judged by what it
//! quotes ([`quote`]). [`egress::Tables`] is implemented by the BPF
//! maps and by the daemon's compiled policy, so `explain`, the tests and the
//! fuzzers run what the kernel runs. The result is a [`verdict::Verdict`], which
//! becomes an action of the kernel in one place. A packet that arrives is
//! read for two reasons only: a DNS answer teaches addresses, and a permitted
//! inbound flow is remembered so that its replies pass. [`guard`] refuses sockets
//! whose packets would never come by here.
//!
//! The binary of this crate (`programs/`) holds the BPF programs; everything
//! else is `no_std` without dependencies.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod checksum;
pub mod dns;
pub mod egress;
pub mod flow;
pub mod gate;
pub mod guard;
pub mod lease;
pub mod name;
pub mod packet;
pub mod plumbing;
pub mod quote;
pub mod refusal;
pub mod remote;
pub mod source;
pub mod stream;
pub mod surplus;
pub mod table;
pub mod verdict;
pub mod wanted;
