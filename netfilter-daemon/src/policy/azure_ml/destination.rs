//! What a rule says: its destination, what may go there, and whether it may.

use crate::policy::error::{At, Problems};
use crate::policy::fields::{Fields, Shape, choice, list, snake_case, text};
use crate::policy::yaml::{Node, Value};
use crate::policy::{Action, Destination, Pattern, Traffic};

use super::tags::Tags;
use super::traffic;

pub(super) struct Body {
    pub(super) action: Action,
    pub(super) traffic: Traffic,
    /// Several for a private endpoint, or none.
    pub(super) destinations: Vec<Destination>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ServiceTag,
    Fqdn,
    Ip,
    PrivateEndpoint,
}

const KINDS: [(&str, Kind); 4] = [
    ("service_tag", Kind::ServiceTag),
    ("fqdn", Kind::Fqdn),
    ("ip", Kind::Ip),
    ("private_endpoint", Kind::PrivateEndpoint),
];

const DESTINATION: Shape = Shape {
    what: "a destination",
    example: "pypi.org",
    known: &[
        "service_tag",
        "address_prefixes",
        "fqdn",
        "cidr",
        "protocol",
        "port_ranges",
        // In the REST spelling of a service tag's rule.
        "action",
        "service_resource_id",
        "subresource_target",
        "spark_enabled",
        "spark_jobs_enabled",
        "spark_status",
    ],
    ignored: &[],
};

impl Kind {
    /// The one kind whose destination has the key, if it is one.
    fn of_key(key: &str) -> Option<Self> {
        match key {
            "service_tag" | "address_prefixes" => Some(Self::ServiceTag),
            "fqdn" => Some(Self::Fqdn),
            "cidr" => Some(Self::Ip),
            "service_resource_id"
            | "subresource_target"
            | "spark_enabled"
            | "spark_jobs_enabled"
            | "spark_status" => Some(Self::PrivateEndpoint),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        KINDS
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(word, _)| word)
    }

    fn example(self) -> &'static str {
        match self {
            Self::ServiceTag => {
                "{ service_tag: AzureActiveDirectory, protocol: TCP, port_ranges: \"443\" }"
            }
            Self::Fqdn => "pypi.org",
            Self::Ip => "{ cidr: 10.20.0.0/16, protocol: TCP, port_ranges: \"443\" }",
            Self::PrivateEndpoint => {
                "{ service_resource_id: /subscriptions/..., subresource_target: blob }"
            }
        }
    }
}

/// `None` where something is wrong, which is in `problems` then.
pub(super) fn read(
    rule: &Fields<'_, '_>,
    tags: &Tags<'_>,
    problems: &mut Problems,
) -> Option<Body> {
    let kind = kind(rule, problems);
    let action = match rule.get("action") {
        Some(node) => self::action(node, problems),
        None => Some(Action::Allow),
    };
    let example = kind.map_or("pypi.org", Kind::example);
    let node = rule.required("destination", example, problems);
    let (kind, node) = (kind?, node?);
    refuse_stray_fqdns(kind, rule, problems);
    if let (Kind::Fqdn, Value::Scalar { text, .. }) = (kind, &node.value) {
        let destination = name(text, node.at, problems);
        let action = action?;
        return Some(Body {
            action,
            traffic: traffic::of_plain_name(action),
            destinations: vec![destination?],
        });
    }
    let destination = mapping(kind, node, problems)?;
    let action = match (destination.get("action"), rule.get("action")) {
        (Some(inner), Some(_)) => {
            let at = inner.at;
            problems.add(at, "the rule has an `action` of its own; remove this one");
            None
        }
        (Some(inner), None) => self::action(inner, problems),
        (None, _) => action,
    };
    let traffic = match kind {
        Kind::ServiceTag | Kind::Ip => traffic::required(&destination, problems),
        Kind::Fqdn | Kind::PrivateEndpoint => traffic::of_name(action, &destination, problems),
    };
    let destinations = match kind {
        Kind::ServiceTag => service_tag(&destination, tags, problems).map(|tag| vec![tag]),
        Kind::Fqdn => fqdn(&destination, problems).map(|name| vec![name]),
        Kind::Ip => ip(&destination, problems).map(|networks| vec![networks]),
        Kind::PrivateEndpoint => private_endpoint(rule, problems),
    };
    Some(Body {
        action: action?,
        traffic: traffic?,
        destinations: destinations?,
    })
}

pub(super) fn name(written: &str, at: At, problems: &mut Problems) -> Option<Destination> {
    written
        .parse::<Pattern>()
        .inspect_err(|error| problems.add(at, error))
        .ok()
        .map(Destination::Name)
}

/// Older files name no type; then the destination tells it.
fn kind(rule: &Fields<'_, '_>, problems: &mut Problems) -> Option<Kind> {
    if let Some(node) = rule.get("type") {
        return choice("type", node, &KINDS, problems);
    }
    let told = match rule.get("destination").map(|node| &node.value) {
        Some(Value::Scalar { .. }) => Some(Kind::Fqdn),
        Some(Value::Mapping(pairs)) => pairs
            .iter()
            .find_map(|(key, _)| Kind::of_key(&snake_case(&key.text))),
        Some(Value::List(_)) | None => None,
    };
    if told.is_none() {
        rule.required("type", "fqdn", problems);
    }
    told
}

fn action(node: &Node<'_>, problems: &mut Problems) -> Option<Action> {
    const ACTIONS: [(&str, Action); 3] = [
        ("allow", Action::Allow),
        ("deny", Action::Deny),
        ("audit", Action::Audit),
    ];
    choice("action", node, &ACTIONS, problems)
}

fn refuse_stray_fqdns(kind: Kind, rule: &Fields<'_, '_>, problems: &mut Problems) {
    let fqdns = rule.get("fqdns").filter(|_| kind != Kind::PrivateEndpoint);
    if let Some(node) = fqdns {
        problems.add(
            node.at,
            format!(
                "a rule of type `{}` has no `fqdns`; write a rule of type `fqdn` for each name",
                kind.word()
            ),
        );
    }
}

/// The destination's keys, if they are those of its kind.
fn mapping<'n, 'a>(
    kind: Kind,
    node: &'n Node<'a>,
    problems: &mut Problems,
) -> Option<Fields<'n, 'a>> {
    if !matches!(node.value, Value::Mapping(_)) {
        problems.add(
            node.at,
            format!(
                "the destination of a rule of type `{}` is a mapping, this is {}; write \
                 `destination: {}`",
                kind.word(),
                node.kind(),
                kind.example()
            ),
        );
        return None;
    }
    let destination = Fields::of(&DESTINATION, node, problems)?;
    for (key, at) in destination.keys() {
        if let Some(owner) = Kind::of_key(key).filter(|owner| *owner != kind) {
            problems.add(
                at,
                format!(
                    "`{key}` belongs to a rule of type `{}`, this one is of type `{}`; write \
                     `type: {}`, or `destination: {}`",
                    owner.word(),
                    kind.word(),
                    owner.word(),
                    kind.example()
                ),
            );
            return None;
        }
    }
    Some(destination)
}

fn service_tag(
    destination: &Fields<'_, '_>,
    tags: &Tags<'_>,
    problems: &mut Problems,
) -> Option<Destination> {
    let replaced = destination
        .get("address_prefixes")
        .filter(|node| !is_empty_list(node));
    let Some(replaced) = replaced else {
        let node = destination.required("service_tag", "AzureActiveDirectory", problems)?;
        return tags.destination(text("service_tag", node, problems)?, node.at, problems);
    };
    let prefixes = traffic::networks("address_prefixes", replaced, problems);
    match destination.get("service_tag") {
        Some(node) => Some(Destination::Tag {
            tag: text("service_tag", node, problems)?.to_owned(),
            prefixes,
        }),
        None => Some(Destination::Prefixes(prefixes)),
    }
}

fn fqdn(destination: &Fields<'_, '_>, problems: &mut Problems) -> Option<Destination> {
    let node = destination.required("fqdn", "pypi.org", problems)?;
    name(text("fqdn", node, problems)?, node.at, problems)
}

fn ip(destination: &Fields<'_, '_>, problems: &mut Problems) -> Option<Destination> {
    let node = destination.required("cidr", "10.20.0.0/16", problems)?;
    if is_empty_list(node) {
        problems.add(
            node.at,
            "`cidr` names no network; write one such as 10.20.0.0/16",
        );
    }
    Some(Destination::Prefixes(traffic::networks(
        "cidr", node, problems,
    )))
}

/// Its names, which is all of it that a machine meets.
fn private_endpoint(rule: &Fields<'_, '_>, problems: &mut Problems) -> Option<Vec<Destination>> {
    let names = rule.get("fqdns").filter(|node| !is_empty_list(node));
    let Some(names) = names else {
        problems.note(
            rule.at(),
            "a private endpoint is reached by its names; write them as `fqdns: \
             [account.blob.core.windows.net]`, for without them this rule does nothing",
        );
        return Some(Vec::new());
    };
    list("fqdns", names, problems)
        .iter()
        .map(|item| name(text("fqdns", item, problems)?, item.at, problems))
        .collect()
}

fn is_empty_list(node: &Node<'_>) -> bool {
    matches!(&node.value, Value::List(items) if items.is_empty())
}
