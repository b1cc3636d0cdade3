//! The promises of the product, each with a test that fails when it is broken.
//!
//! Needs root: BPF programs are loaded, and network namespaces made. Nothing is
//! attached outside of those.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]

mod agreement;
mod audited;
mod battery;
mod bpffs;
mod bypass;
mod cli;
mod doctor;
mod elsewhere;
mod enforcement;
mod events;
mod flows;
mod forgery;
mod frame;
mod hits;
mod hostile;
mod idle;
mod interfaces;
mod kept;
mod kills;
mod live;
mod memo;
mod memory;
mod names;
mod neighbours;
mod ordinary;
mod page;
mod plain;
mod plumbing;
mod privileges;
mod prometheus;
mod reload;
mod remotes;
mod resolvers;
mod series;
mod service;
mod streams;
mod suggest;
mod tags;
mod tools;
mod top;
mod traffic;
mod upgrade;
mod web;
mod who;
mod workload;
mod world;
