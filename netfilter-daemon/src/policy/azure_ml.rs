//! The policy file, in the words of Azure ML's managed network and those added to them.

use ipnet::IpNet;

use super::error::{Error, Problems, Remarks};
use super::fields::{Fields, list, text};
use super::service_tag::lists::Lists;
use super::service_tag::{self, Catalogue, Edition};
use super::yaml::{self, Node};
use super::{Destination, Dns, NameRefusal, Policy, QueryTypes, Rule, System, preset, query_type};

use rule::{RULES_MAX, Rules};
use tags::Tags;

mod destination;
pub mod extend;
mod interfaces;
mod layout;
mod lists;
mod rule;
mod settings;
mod tags;
mod traffic;

impl Default for Dns {
    fn default() -> Self {
        Self {
            on_deny: NameRefusal::Nxdomain,
            minimum_ttl: 60,
            grace: 30,
            query_types: QueryTypes::Only(
                query_type::USUAL
                    .iter()
                    .filter_map(|name| query_type::parse(name).ok())
                    .collect(),
            ),
            private_reverse: false,
            wildcard_length: settings::WILDCARD_LENGTH_MAX,
            wildcard_rate: None,
        }
    }
}

/// Reads a policy. `file` names it in errors; `read_tags` reads the list of service
/// tags of that path, as the policy writes it.
///
/// # Errors
/// [`Error::Wrong`] with all that is wrong, as far as reading on made sense.
pub fn parse(
    text: &str,
    file: &str,
    system: &System,
    read_tags: &dyn Fn(&str) -> Result<Catalogue, service_tag::Error>,
) -> Result<Policy, Error> {
    let mut problems = Problems::new(file);
    let document = yaml::read(text, &mut problems).unwrap_or_else(Node::nothing);
    let policy = read(&document, system, read_tags, &mut problems);
    let remarks = problems.finish()?;
    Ok(Policy { remarks, ..policy })
}

/// Where the policy's service tags come from. Of what else it says, nothing is looked at.
///
/// # Errors
/// [`Error::Wrong`] where the policy is no YAML, or names lists that cannot be.
pub fn parse_lists(text: &str, file: &str) -> Result<Lists, Error> {
    let mut problems = Problems::new(file);
    let document = yaml::read(text, &mut problems).unwrap_or_else(Node::nothing);
    // What else is wrong is told by who reads all of it.
    let fields = layout::settings(&document, &mut Problems::new(file));
    let written = lists::read(&fields, &mut problems);
    problems.finish()?;
    Ok(written.map(|written| written.lists).unwrap_or_default())
}

/// The service tags that a policy names, all of them. Of what else it says, nothing
/// is looked at.
///
/// # Errors
/// [`Error::Wrong`] where the policy is no YAML, or a list cannot be read.
pub fn parse_catalogue(
    text: &str,
    file: &str,
    read_tags: &dyn Fn(&str) -> Result<Catalogue, service_tag::Error>,
) -> Result<Catalogue, Error> {
    let mut problems = Problems::new(file);
    let document = yaml::read(text, &mut problems).unwrap_or_else(Node::nothing);
    let fields = layout::settings(&document, &mut problems);
    let written = lists::read(&fields, &mut problems);
    let catalogue = written.and_then(|written| written.catalogue(read_tags, &mut problems));
    match (catalogue, problems.finish()) {
        (Some(catalogue), Ok(_)) => Ok(catalogue),
        (_, Err(error)) => Err(error),
        (None, Ok(remarks)) => Err(Error::Wrong {
            problems: remarks.notes,
            uncounted: 0,
        }),
    }
}

/// What is wrong is left at its default here, and in `problems` for good.
fn read(
    document: &Node<'_>,
    system: &System,
    read_tags: &dyn Fn(&str) -> Result<Catalogue, service_tag::Error>,
    problems: &mut Problems,
) -> Policy {
    let fields = layout::settings(document, problems);
    let virtual_network = match fields.get("virtual_network") {
        Some(node) => traffic::networks("virtual_network", node, problems),
        None => system.connected.clone(),
    };
    let written = lists::read(&fields, problems);
    let catalogue = written
        .as_ref()
        .and_then(|written| written.catalogue(read_tags, problems));
    let tags = Tags {
        catalogue: catalogue.as_ref(),
        virtual_network: &virtual_network,
        preset: None,
    };
    let (rules, mut on_link) = rules(&fields, tags, problems);
    on_link.extend(&system.connected);
    if let Some(written) = &written {
        written.note_what_cannot_be_fetched(&rules, problems);
    }
    let resolvers = settings::resolvers(&fields, system, problems);
    let has_names = rules
        .iter()
        .any(|rule| matches!(rule.destination, Destination::Name(_)));
    if has_names && resolvers.is_empty() {
        problems.note(
            fields.at(),
            "no resolver is known, so no rule with a name can take effect; name one: `resolvers: \
             [168.63.129.16]`",
        );
    }
    let editions = catalogue
        .as_ref()
        .map_or(&[][..], Catalogue::editions)
        .to_vec();
    let interfaces = interfaces::read(&fields, problems);
    Policy {
        mode: settings::mode(&fields, problems),
        interfaces: interfaces.uplinks,
        workloads: interfaces.workloads,
        resolvers,
        on_deny: settings::on_deny(&fields, problems),
        dns: settings::dns(&fields, problems),
        inbound: settings::inbound(&fields, problems),
        bypass_users: settings::bypass_users(&fields, system, problems),
        rules,
        catalogue: catalogue.map_or_else(Edition::default, |catalogue| catalogue.edition().clone()),
        editions,
        lists: written.map(|written| written.lists).unwrap_or_default(),
        on_link,
        virtual_network,
        remarks: Remarks::default(),
    }
}

/// And what presets have on the link.
fn rules(
    settings: &Fields<'_, '_>,
    tags: Tags<'_>,
    problems: &mut Problems,
) -> (Vec<Rule>, Vec<IpNet>) {
    let mut rules = Rules::new(tags);
    if let Some(node) = settings.get("presets") {
        for item in list("presets", node, problems) {
            preset(item, &mut rules, problems);
        }
    }
    let written = layout::rules(settings, problems);
    if let Some((_, excess)) = written.get(RULES_MAX) {
        problems.add(
            excess.at,
            format!(
                "more than {RULES_MAX} rules; join those of one purpose, for `cidr` takes a list"
            ),
        );
    }
    for (name, rule) in written.into_iter().take(RULES_MAX) {
        if problems.are_enough() {
            break;
        }
        rules.read(name, rule, problems);
    }
    rules.finish(problems)
}

fn preset(item: &Node<'_>, rules: &mut Rules<'_>, problems: &mut Problems) {
    let Some(name) = text("presets", item, problems) else {
        return;
    };
    match preset::rows(name) {
        Some(rows) => rules.add_preset(name, rows, item.at, problems),
        None => problems.add(
            item.at,
            format!(
                "there is no preset `{name}`; there is `{}`",
                preset::NAMES.join("`, `")
            ),
        ),
    }
}

#[cfg(test)]
mod tests;
