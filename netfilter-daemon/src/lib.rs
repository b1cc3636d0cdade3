//! A packet-level egress filter: only approved outbound leaves the machine.

pub mod bypass;
pub mod causes;
pub mod cli;
pub mod compile;
pub mod control;
pub mod daemon;
pub mod datapath;
pub mod doctor;
pub mod explain;
pub mod interfaces;
pub mod lab;
pub mod log;
pub mod metrics;
pub mod moment;
pub mod netlink;
pub mod policy;
pub mod rate;
pub mod refresh;
pub mod resolvers;
pub mod serve;
pub mod sessions;
pub mod shown;
pub mod suggest;
pub mod tags;

#[cfg(test)]
mod golden;
