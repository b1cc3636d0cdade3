//! The policy's settings, one by one, with their defaults.

use std::net::IpAddr;

use netfilter_ebpf::abi::USERS;

use crate::policy::error::Problems;
use crate::policy::fields::{Fields, Shape, choice, list, number, seconds, text};
use crate::policy::nearest::{did_you_mean, nearest};
use crate::policy::ports::Traffic;
use crate::policy::yaml::{Node, Value};
use crate::policy::{Dns, Mode, NameRefusal, OnDeny, QueryTypes, System, query_type};

use super::traffic;

/// Seconds in a day: longer than any name needs, and a sign of a slip.
const SECONDS_MAX: u32 = 86_400;
const SSH: u16 = 22;
/// What setuid(2) takes for no user.
const NOBODY: u32 = u32::MAX;
/// As long as any name.
#[expect(clippy::cast_possible_truncation, reason = "254")]
pub(super) const WILDCARD_LENGTH_MAX: u32 = netfilter_ebpf::name::MAX_NAME as u32;
const WILDCARD_RATE_MAX: u32 = 1_000_000;

const DNS: Shape = Shape {
    what: "`dns`",
    example: "dns: { on_deny: nxdomain }",
    known: &[
        "on_deny",
        "minimum_ttl",
        "grace",
        "query_types",
        "private_reverse_zones",
        "wildcard_name_length",
        "wildcard_names_per_minute",
    ],
    ignored: &[],
};

const INBOUND: Shape = Shape {
    what: "an entry of `inbound`",
    example: "{ protocol: TCP, port_ranges: \"22\" }",
    known: &["protocol", "port_ranges"],
    ignored: &[],
};

pub(super) fn mode(settings: &Fields<'_, '_>, problems: &mut Problems) -> Mode {
    const MODES: [(&str, Option<Mode>); 3] = [
        ("allow_only_approved_outbound", Some(Mode::Enforce)),
        ("allow_internet_outbound", Some(Mode::Report)),
        ("disabled", None),
    ];
    let Some(node) = settings.get("isolation_mode") else {
        return Mode::Enforce;
    };
    match choice("isolation_mode", node, &MODES, problems) {
        Some(Some(mode)) => return mode,
        Some(None) => problems.add(
            node.at,
            "`isolation_mode: disabled` means no managed network, so that nothing is filtered; \
             for that, do not run the daemon. To watch without filtering, write \
             `allow_internet_outbound`; to filter, `allow_only_approved_outbound`",
        ),
        None => {}
    }
    Mode::Enforce
}

pub(super) fn resolvers(
    settings: &Fields<'_, '_>,
    system: &System,
    problems: &mut Problems,
) -> Vec<IpAddr> {
    let Some(node) = settings.get("resolvers") else {
        return system.resolvers.clone();
    };
    let mut resolvers = Vec::new();
    for item in list("resolvers", node, problems) {
        let Some(written) = text("resolvers", item, problems) else {
            continue;
        };
        match written.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() || address.is_multicast() => problems.add(
                item.at,
                format!("{address} is no address that answers; write that of a DNS server"),
            ),
            Ok(address) => {
                if !resolvers.contains(&address) {
                    resolvers.push(address);
                }
            }
            Err(_) => problems.add(
                item.at,
                format!(
                    "`{written}` is no address; a resolver is written as one, such as \
                     168.63.129.16, without port or prefix length"
                ),
            ),
        }
    }
    if !resolvers.is_empty() && resolvers.iter().all(IpAddr::is_loopback) {
        problems.note(
            node.at,
            "these resolvers are on this machine; name also the servers that they ask, or their \
             own questions are denied"
                .to_owned(),
        );
    }
    resolvers
}

pub(super) fn on_deny(settings: &Fields<'_, '_>, problems: &mut Problems) -> OnDeny {
    const ANSWERS: [(&str, OnDeny); 2] = [("reject", OnDeny::Reject), ("drop", OnDeny::Drop)];
    settings
        .get("on_deny")
        .and_then(|node| choice("on_deny", node, &ANSWERS, problems))
        .unwrap_or(OnDeny::Reject)
}

pub(super) fn dns(settings: &Fields<'_, '_>, problems: &mut Problems) -> Dns {
    const ANSWERS: [(&str, NameRefusal); 3] = [
        ("nxdomain", NameRefusal::Nxdomain),
        ("refused", NameRefusal::Refused),
        ("drop", NameRefusal::Drop),
    ];
    let mut dns = Dns::default();
    let Some(fields) = settings
        .get("dns")
        .and_then(|node| Fields::of(&DNS, node, problems))
    else {
        return dns;
    };
    if let Some(node) = fields.get("on_deny") {
        dns.on_deny = choice("on_deny", node, &ANSWERS, problems).unwrap_or(dns.on_deny);
    }
    if let Some(node) = fields.get("minimum_ttl") {
        dns.minimum_ttl =
            seconds("minimum_ttl", node, SECONDS_MAX, problems).unwrap_or(dns.minimum_ttl);
    }
    if let Some(node) = fields.get("grace") {
        dns.grace = seconds("grace", node, SECONDS_MAX, problems).unwrap_or(dns.grace);
    }
    if let Some(node) = fields.get("query_types") {
        dns.query_types = query_types(node, problems);
    }
    if let Some(node) = fields.get("private_reverse_zones") {
        const SWITCH: [(&str, bool); 2] = [("true", true), ("false", false)];
        dns.private_reverse =
            choice("private_reverse_zones", node, &SWITCH, problems).unwrap_or(false);
    }
    if let Some(node) = fields.get("wildcard_name_length") {
        let range = 1..=WILDCARD_LENGTH_MAX;
        dns.wildcard_length = number("wildcard_name_length", node, "bytes", range, problems)
            .unwrap_or(dns.wildcard_length);
    }
    if let Some(node) = fields.get("wildcard_names_per_minute") {
        dns.wildcard_rate = match &node.value {
            Value::Scalar { text, .. } if text == "*" => None,
            _ => {
                let range = 0..=WILDCARD_RATE_MAX;
                number("wildcard_names_per_minute", node, "names", range, problems)
                    .or(dns.wildcard_rate)
            }
        };
    }
    dns
}

fn query_types(node: &Node<'_>, problems: &mut Problems) -> QueryTypes {
    if let Value::Scalar { text, .. } = &node.value
        && text == "*"
    {
        return QueryTypes::Any;
    }
    let items = list("query_types", node, problems);
    let types = items.iter().filter_map(|item| {
        let written = text("query_types", item, problems)?;
        query_type::parse(written)
            .map_err(|problem| problems.add(item.at, problem))
            .ok()
    });
    QueryTypes::Only(types.collect())
}

pub(super) fn inbound(settings: &Fields<'_, '_>, problems: &mut Problems) -> Vec<Traffic> {
    let Some(node) = settings.get("inbound") else {
        return vec![Traffic::tcp([SSH])];
    };
    list("inbound", node, problems)
        .iter()
        .filter_map(|item| {
            let fields = Fields::of(&INBOUND, item, problems)?;
            traffic::required(&fields, problems)
        })
        .collect()
}

/// Names, which are looked up, or numbers.
pub(super) fn bypass_users(
    settings: &Fields<'_, '_>,
    system: &System,
    problems: &mut Problems,
) -> Vec<u32> {
    let Some(node) = settings.get("bypass_users") else {
        return Vec::new();
    };
    let mut users = Vec::new();
    for item in list("bypass_users", node, problems) {
        let Some(written) = text("bypass_users", item, problems) else {
            continue;
        };
        let named = system.users.iter().find(|(name, _)| name == written);
        let number = || written.parse().ok().filter(|id| *id != NOBODY);
        match named.map(|(_, id)| *id).or_else(number) {
            Some(id) if !users.contains(&id) => users.push(id),
            Some(_) => {}
            None => {
                let names = system.users.iter().map(|(name, _)| name.as_str());
                let near = did_you_mean(&nearest(written, names));
                problems.add(
                    item.at,
                    format!(
                        "no user `{written}` is in /etc/passwd{near}{} write the number of one \
                         that is elsewhere, as `id -u` tells it",
                        if near.is_empty() { ";" } else { "" }
                    ),
                );
            }
        }
    }
    if users.len() > USERS {
        problems.add(
            node.at,
            format!("`bypass_users` names more than {USERS} users; run their programs as one"),
        );
    }
    users
}
