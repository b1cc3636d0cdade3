//! The reader of DNS messages against hickory-proto, and against what servers
//! really sent. Needs no root.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]

mod built;
mod hickory;
mod reader;
mod vectors;
