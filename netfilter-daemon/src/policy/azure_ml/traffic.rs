//! `protocol`, `port_ranges` and networks, wherever the file has them.

use ipnet::IpNet;

use crate::policy::Action;
use crate::policy::cidr;
use crate::policy::error::Problems;
use crate::policy::fields::{Fields, text};
use crate::policy::ports::{Ports, Protocol, Traffic};
use crate::policy::yaml::{Node, Value};

/// What Azure ML means by a rule with a name.
const WEB: [u16; 2] = [80, 443];

/// Protocol and ports, both to be said; ports not where the protocol has none.
pub(super) fn required(fields: &Fields<'_, '_>, problems: &mut Problems) -> Option<Traffic> {
    let protocol = fields
        .required("protocol", "TCP", problems)
        .and_then(|node| protocol(node, problems));
    let portless = protocol.is_some_and(|protocol| !protocol.has_ports());
    let ports = match fields.get("port_ranges") {
        None if portless => Some(Ports::All),
        _ => fields
            .required("port_ranges", "\"443\"", problems)
            .and_then(|node| ports(node, problems)),
    };
    checked(fields, protocol?, ports?, problems)
}

/// Protocol and ports of a rule with a name: those of [`of_plain_name`] where it says neither.
pub(super) fn of_name(
    action: Option<Action>,
    fields: &Fields<'_, '_>,
    problems: &mut Problems,
) -> Option<Traffic> {
    if fields.get("protocol").is_none() && fields.get("port_ranges").is_none() {
        return action.map(of_plain_name);
    }
    let protocol = match fields.get("protocol") {
        Some(node) => protocol(node, problems),
        None => Some(Protocol::Tcp),
    };
    let ports = match fields.get("port_ranges") {
        Some(node) => ports(node, problems),
        None if protocol.is_some_and(|protocol| !protocol.has_ports()) => Some(Ports::All),
        None => Some(Ports::of(WEB)),
    };
    checked(fields, protocol?, ports?, problems)
}

/// TCP 80 and 443, as Azure ML means it. To deny a name is to deny all of it, for
/// a denial that leaves most ports open would deny little.
pub(super) fn of_plain_name(action: Action) -> Traffic {
    match action {
        Action::Allow | Action::Audit => Traffic::tcp(WEB),
        Action::Deny => Traffic::ANY,
    }
}

/// One network, or a list of them.
pub(super) fn networks(name: &str, node: &Node<'_>, problems: &mut Problems) -> Vec<IpNet> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        Value::Scalar { .. } | Value::Mapping(_) => std::slice::from_ref(node),
    };
    let mut networks = Vec::new();
    for item in items {
        match text(name, item, problems).map(cidr::parse) {
            Some(Ok(more)) => networks.extend(more),
            Some(Err(error)) => problems.add(item.at, error),
            None => {}
        }
    }
    networks
}

fn protocol(node: &Node<'_>, problems: &mut Problems) -> Option<Protocol> {
    Protocol::parse(text("protocol", node, problems)?)
        .inspect_err(|error| problems.add(node.at, error))
        .ok()
}

fn ports(node: &Node<'_>, problems: &mut Problems) -> Option<Ports> {
    if let Some(joined) = as_one_text(node) {
        problems.add(
            node.at,
            format!("`port_ranges` is one text, as in Azure ML; write `port_ranges: \"{joined}\"`"),
        );
        return None;
    }
    Ports::parse(text("port_ranges", node, problems)?)
        .inspect_err(|error| problems.add(node.at, error))
        .ok()
}

/// A list of ports, as it would be right.
fn as_one_text(node: &Node<'_>) -> Option<String> {
    let Value::List(items) = &node.value else {
        return None;
    };
    let texts: Option<Vec<&str>> = items
        .iter()
        .map(|item| match &item.value {
            Value::Scalar { text, .. } => Some(text.as_ref()),
            Value::List(_) | Value::Mapping(_) => None,
        })
        .collect();
    texts.map(|texts| texts.join(", "))
}

fn checked(
    fields: &Fields<'_, '_>,
    protocol: Protocol,
    ports: Ports,
    problems: &mut Problems,
) -> Option<Traffic> {
    let at = fields
        .get("port_ranges")
        .map_or_else(|| fields.at(), |node| node.at);
    Traffic::new(protocol, ports)
        .inspect_err(|error| problems.add(at, error))
        .ok()
}
