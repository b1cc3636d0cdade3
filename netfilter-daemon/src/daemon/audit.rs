//! What audit let pass, as it crosses the control socket to `suggest`.

use std::{net::IpAddr, path::Path};

use netfilter_ebpf::verdict::Reason;
use serde::{Deserialize, Serialize};

use super::users::Users;
use crate::{
    bypass,
    datapath::{self, Counters, wanted},
    policy::{name, source},
};

/// Times are seconds since 1970. Texts that processes choose are escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// False where the policy in force stops what it does not allow: then this is of before.
    pub auditing: bool,
    /// The whole path of the policy in force.
    pub policy: String,
    pub wanted: Vec<Wanted>,
    pub asked: Vec<Asked>,
    pub named: Vec<Named>,
    /// Packets and questions of which the destination or name found no room.
    pub lost: u64,
    /// Packets that no rule can let out, by their reason.
    pub others: Vec<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Where packets went; of those that answer, where the first did.
    pub address: IpAddr,
    /// They answer whoever began, from `port`; of ICMP, `port` is the type.
    pub answers: bool,
    /// IP protocol number.
    pub protocol: u8,
    pub port: u16,
    pub packets: u64,
    /// Connections of TCP that they begin.
    pub begun: u64,
    pub first: u64,
    pub last: u64,
    pub users: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// DNS wire form without the root, lowercase.
    pub name: Vec<u8>,
    /// The kernel's.
    pub hash: u64,
    pub qtype: u16,
    /// It did not leave: a client asked a resolver on this machine.
    pub inside: bool,
    pub questions: u64,
    pub first: u64,
    pub last: u64,
    pub users: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// As in [`Asked`].
    pub name: Vec<u8>,
    pub target: Target,
    pub first: u64,
    pub last: u64,
}

/// What a name led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Address(IpAddr),
    /// The hash of another name.
    Alias(u64),
}

impl Audit {
    pub(super) fn new(
        auditing: bool,
        policy: &Path,
        seen: datapath::Audit,
        counters: &Counters,
        users: &Users,
    ) -> Self {
        let accounts = source::users();
        Self {
            auditing,
            policy: policy.display().to_string(),
            wanted: seen
                .wanted
                .into_iter()
                .map(|it| Wanted::new(it, users, &accounts))
                .collect(),
            asked: seen
                .asked
                .into_iter()
                .map(|it| Asked::new(it, users))
                .collect(),
            named: seen.named.into_iter().map(Named::from).collect(),
            lost: seen.lost,
            others: others(counters),
        }
    }
}

impl Wanted {
    fn new(wanted: wanted::Wanted, users: &Users, accounts: &[(String, u32)]) -> Self {
        let wanted::Wanted {
            address,
            answers,
            protocol,
            port,
            packets,
            begun,
            first,
            last,
            user,
            program,
        } = wanted;
        let mut known = match answers {
            true => Vec::new(),
            false => users.of_destination(address, protocol, port),
        };
        if known.is_empty() {
            // What the kernel noted, for no event was told.
            known.extend(user.map(|user| {
                let user = bypass::name(accounts, user);
                match program.filter(|program| !program.is_empty()) {
                    Some(program) => format!("{} ({user})", program.escape_debug()),
                    None => format!("a process of {user}"),
                }
            }));
        }
        Self {
            address,
            answers,
            protocol,
            port,
            packets,
            begun,
            first,
            last,
            users: known,
        }
    }
}

impl Asked {
    fn new(asked: wanted::Asked, users: &Users) -> Self {
        let wanted::Asked {
            name,
            hash,
            qtype,
            inside,
            questions,
            first,
            last,
        } = asked;
        Self {
            users: users.of_name(name::dotted(&name)),
            name,
            hash,
            qtype,
            inside,
            questions,
            first,
            last,
        }
    }
}

impl From<wanted::Named> for Named {
    fn from(named: wanted::Named) -> Self {
        let wanted::Named {
            name,
            target,
            first,
            last,
        } = named;
        Self {
            name,
            target: match target {
                wanted::Target::Address(address) => Target::Address(address),
                wanted::Target::Alias(hash) => Target::Alias(hash),
            },
            first,
            last,
        }
    }
}

/// Fragments go where their first goes.
fn others(counters: &Counters) -> Vec<(String, u64)> {
    let by_rules = [
        Reason::NoRule,
        Reason::DeniedByRule,
        Reason::DnsName,
        Reason::DnsType,
        Reason::DnsLimit,
        Reason::Fragment,
    ];
    let of = |reason: Reason| {
        let dropped = counters.dropped.iter();
        let dropped = dropped.filter(|dropped| dropped.audited && dropped.reason == reason);
        dropped.map(|dropped| dropped.packets).sum::<u64>()
    };
    let reasons = Reason::ALL
        .iter()
        .filter(|reason| !by_rules.contains(reason));
    let counted = reasons.map(|&reason| (reason.label().to_owned(), of(reason)));
    counted.filter(|(_, packets)| *packets > 0).collect()
}
