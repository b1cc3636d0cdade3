//! The forms in which a policy comes: bare, under `managed_network:` in a
//! workspace's file, or as the list of rules that `az` prints.

use crate::policy::error::Problems;
use crate::policy::fields::{Fields, Shape, list, pairs};
use crate::policy::yaml::{Key, Node, Value};

use super::rule::EXAMPLE;

pub(super) const SETTINGS: &[&str] = &[
    "isolation_mode",
    "outbound_rules",
    "presets",
    "interfaces",
    "resolvers",
    "service_tags",
    "on_deny",
    "inbound",
    "bypass_users",
    "virtual_network",
    "dns",
];
const SETTINGS_AND_BLOCK: &[&str] = &[
    "managed_network",
    "isolation_mode",
    "outbound_rules",
    "presets",
    "interfaces",
    "resolvers",
    "service_tags",
    "on_deny",
    "inbound",
    "bypass_users",
    "virtual_network",
    "dns",
];

/// What Azure ML says of a managed network and this machine has no use for.
const MANAGED_NETWORK_ONLY: &[&str] = &[
    "network_id",
    "status",
    "firewall_sku",
    "firewall_public_ip_address",
    "changeable_isolation_modes",
    "managed_network_kind",
    "enable_network_monitor",
    "enable_firewall_log",
];

/// What else is in the file of a workspace or hub.
const WORKSPACE_ONLY: &[&str] = &[
    "$schema",
    "name",
    "id",
    "kind",
    "type",
    "location",
    "resource_group",
    "subscription_id",
    "description",
    "display_name",
    "friendly_name",
    "tags",
    "identity",
    "primary_user_assigned_identity",
    "hbi_workspace",
    "storage_account",
    "container_registry",
    "key_vault",
    "application_insights",
    "customer_managed_key",
    "image_build_compute",
    "public_network_access",
    "network_acls",
    "provision_network_now",
    "serverless_compute",
    "system_datastores_auth_mode",
    "allow_roleassignment_on_rg",
    "enable_data_isolation",
    "discovery_url",
    "mlflow_tracking_uri",
    "notebook_info",
    "workspace_id",
    "hub_id",
    "hub_resource_id",
    "workspace_hub",
    "workspace_hub_config",
    "feature_store_settings",
    "soft_delete_retention_in_days",
    "private_link_count",
    "private_endpoint_connections",
    "creation_context",
];

const BARE: Shape = Shape {
    what: "the policy",
    example: "isolation_mode: allow_only_approved_outbound",
    known: SETTINGS,
    ignored: MANAGED_NETWORK_ONLY,
};

const WORKSPACE: Shape = Shape {
    known: SETTINGS_AND_BLOCK,
    ignored: WORKSPACE_ONLY,
    ..BARE
};

const MANAGED_NETWORK: Shape = Shape {
    what: "`managed_network`",
    ..BARE
};

/// The keys of the policy, from wherever the form has them.
pub(super) fn settings<'n, 'a>(document: &'n Node<'a>, problems: &mut Problems) -> Fields<'n, 'a> {
    let mut settings = Fields::empty(BARE.what, document.at);
    if document.is_null() {
        if problems.none_so_far() {
            problems.add(
                document.at,
                "the policy is empty; the smallest one is `isolation_mode: \
                 allow_only_approved_outbound`, which lets nothing out",
            );
        }
        return settings;
    }
    if is_list_of_rules(document) {
        settings.put("outbound_rules", document);
        return settings;
    }
    let Some(top) = pairs(&BARE, document, problems) else {
        return settings;
    };
    if !top.iter().any(|(key, _)| is_managed_network(key)) {
        settings.extend(&BARE, top, problems);
        return settings;
    }
    settings.extend(&WORKSPACE, top, problems);
    if let Some(block) = settings.get("managed_network")
        && let Some(inner) = pairs(&MANAGED_NETWORK, block, problems)
    {
        settings.extend(&MANAGED_NETWORK, inner, problems);
    }
    settings
}

/// Each rule with its name, if it has one outside: of a list, or of a mapping by
/// name, which `az` printed formerly.
pub(super) fn rules<'n, 'a>(
    settings: &Fields<'n, 'a>,
    problems: &mut Problems,
) -> Vec<(Option<&'n Key<'a>>, &'n Node<'a>)> {
    let Some(node) = settings.get("outbound_rules") else {
        return Vec::new();
    };
    let items = match &node.value {
        Value::Mapping(pairs) => match rest_page(pairs) {
            Some(page) => list("value", page, problems),
            None => {
                return pairs
                    .iter()
                    .map(|(name, rule)| (Some(name), rule))
                    .collect();
            }
        },
        Value::List(items) => items,
        Value::Scalar { .. } => {
            problems.add(
                node.at,
                format!(
                    "`outbound_rules` is a list of rules, this is {}; write for instance \
                     `outbound_rules: [{EXAMPLE}]`",
                    node.kind()
                ),
            );
            return Vec::new();
        }
    };
    items.iter().map(|rule| (None, rule)).collect()
}

/// Whether the document is rules and nothing else.
fn is_list_of_rules(document: &Node<'_>) -> bool {
    match &document.value {
        Value::List(_) => true,
        Value::Scalar { .. } => false,
        Value::Mapping(pairs) if rest_page(pairs).is_some() => true,
        Value::Mapping(pairs) => pairs.iter().any(|(_, rule)| has_destination(rule)),
    }
}

/// The `value` of a page of the REST interface.
fn rest_page<'n, 'a>(pairs: &'n [(Key<'a>, Node<'a>)]) -> Option<&'n Node<'a>> {
    let (_, page) = pairs.iter().find(|(key, _)| key.text == "value")?;
    matches!(page.value, Value::List(_)).then_some(page)
}

fn has_destination(rule: &Node<'_>) -> bool {
    match &rule.value {
        Value::Mapping(pairs) => pairs.iter().any(|(key, _)| key.text == "destination"),
        Value::List(_) | Value::Scalar { .. } => false,
    }
}

fn is_managed_network(key: &Key<'_>) -> bool {
    matches!(key.text.as_ref(), "managed_network" | "managedNetwork")
}
