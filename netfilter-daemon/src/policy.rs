//! The policy: what may leave the machine, as read from its YAML file.
//!
//! A [`Policy`] in hand is a valid one. The file's shapes stay in [`azure_ml`];
//! everything behind this module works with the types here. [`parse`] is pure;
//! [`source::load`] is the one place that reads files and asks the system.

use std::net::IpAddr;

use ipnet::IpNet;

pub(crate) mod advice;
pub mod azure_ml;
mod cidr;
pub mod error;
pub(crate) mod fields;
#[cfg(test)]
mod golden;
pub mod name;
pub(crate) mod nearest;
pub mod ports;
mod preset;
pub mod query_type;
pub mod service_tag;
pub mod source;
pub(crate) mod yaml;

pub use azure_ml::{extend, parse, parse_catalogue, parse_lists};
pub use error::{Error, Problem, Remarks};
pub use name::Pattern;
pub use ports::{Ports, Protocol, Traffic};
pub(crate) use yaml::scalar;

/// What may leave the machine. Order of `rules` is that of the file, presets first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub mode: Mode,
    /// `None` means `auto`: every interface by which a packet can leave. In names, `*`
    /// stands for any letters.
    pub interfaces: Option<Vec<String>>,
    /// Interfaces that lead to a container or virtual machine that this one forwards for.
    pub workloads: Vec<String>,
    /// Resolvers whose answers are believed, already read from the system when
    /// the policy names none.
    pub resolvers: Vec<IpAddr>,
    pub on_deny: OnDeny,
    pub dns: Dns,
    /// New inbound flows whose replies may leave: protocol and local port.
    pub inbound: Vec<Traffic>,
    pub rules: Vec<Rule>,
    /// Users whose sockets may send past the filter, by number. At most [`netfilter_ebpf::abi::USERS`].
    pub bypass_users: Vec<u32>,
    /// Subnets in which DHCP and neighbour discovery may go to unicast addresses: those
    /// that the machine is in, and what presets know to be as near.
    pub on_link: Vec<IpNet>,
    /// What the tag `VirtualNetwork` stands for.
    pub virtual_network: Vec<IpNet>,
    /// All lists of service tags as one.
    pub catalogue: service_tag::Edition,
    /// Each list.
    pub editions: Vec<service_tag::Edition>,
    pub lists: service_tag::lists::Lists,
    pub remarks: Remarks,
}

/// What a policy's defaults take from the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct System {
    /// The subnets that the machine is in; no loopback, no link-local ones.
    pub connected: Vec<IpNet>,
    pub resolvers: Vec<IpAddr>,
    /// Names and numbers.
    pub users: Vec<(String, u32)>,
}

/// `isolation_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `allow_only_approved_outbound`
    Enforce,
    /// `allow_internet_outbound`: everything passes; what would be dropped is counted and reported.
    Report,
}

/// What the sender of a denied packet sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDeny {
    /// TCP RST or ICMP administratively prohibited, delivered to the local sender.
    Reject,
    Drop,
}

/// The policy's `dns` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The answer to a question that no rule matches.
    pub on_deny: NameRefusal,
    /// Seconds that a learned address lives at least, whatever the record's TTL.
    pub minimum_ttl: u32,
    /// Seconds added to every TTL, for applications that cache a little longer.
    pub grace: u32,
    pub query_types: QueryTypes,
    /// Questions for the names of private addresses may go out (RFC 6303).
    pub private_reverse: bool,
    /// Bytes of the longest name, in wire form without the root, that a wildcard admits.
    pub wildcard_length: u32,
    /// Names that each wildcard admits in a minute and that were not asked for
    /// lately; `None` for any number.
    pub wildcard_rate: Option<u32>,
}

/// What may be asked of a name that may be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryTypes {
    Any,
    Only(Vec<u16>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRefusal {
    Nxdomain,
    Refused,
    Drop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Unique within the policy. A preset's rules are named `azure-ml/AzureActiveDirectory` and
    /// so on, those of a private endpoint by rule and name.
    pub name: String,
    pub action: Action,
    pub destination: Destination,
    /// Protocols and ports; never empty.
    pub traffic: Vec<Traffic>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Allow,
    /// Wins over every allow.
    Deny,
    /// Passes, and is counted and reported as what would have been dropped.
    Audit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The prefixes of a service tag as published (nested ones and all), or of
    /// `address_prefixes` where the rule replaces them.
    Tag { tag: String, prefixes: Vec<IpNet> },
    /// One or more CIDRs of an `ip` rule.
    Prefixes(Vec<IpNet>),
    /// An exact name or a wildcard.
    Name(Pattern),
}
