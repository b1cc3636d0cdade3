//! Outbound rules: their names, and those of the presets.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::policy::error::{At, Problems};
use crate::policy::fields::{Fields, Shape, text};
use crate::policy::yaml::{Key, Node};
use crate::policy::{Action, Destination, Rule};
use crate::policy::{advice, preset};

use super::destination::{self, Body};
use super::tags::Tags;

/// More of them can only be a mistake, for a rule may hold any number of networks.
pub(super) const RULES_MAX: usize = 131_072;
const NAME_MAX: usize = 128;

pub(super) const EXAMPLE: &str = "{ name: pypi, type: fqdn, destination: pypi.org }";

const RULE: Shape = Shape {
    what: "a rule",
    example: EXAMPLE,
    known: &[
        "name",
        "type",
        "action",
        "destination",
        "fqdns",
        // The REST interface puts all but the name in here.
        "properties",
    ],
    // What Azure prints of a rule and nobody writes.
    ignored: &[
        "category",
        "status",
        "parent_rule_names",
        "error_information",
        "id",
        "system_data",
    ],
};

const PROPERTIES: Shape = Shape {
    what: "`properties`",
    ..RULE
};

/// The rules read so far.
pub(super) struct Rules<'c> {
    tags: Tags<'c>,
    rules: Vec<Rule>,
    /// Where each of them is written.
    places: Vec<At>,
    /// Who has each name.
    names: HashMap<String, Owner>,
    /// What presets have on the link.
    near: Vec<IpNet>,
}

enum Owner {
    Preset(String),
    Rule(At),
}

impl<'c> Rules<'c> {
    pub(super) fn new(tags: Tags<'c>) -> Self {
        Self {
            tags,
            rules: Vec::new(),
            places: Vec::new(),
            names: HashMap::new(),
            near: Vec::new(),
        }
    }

    /// All of them, with what there is to say of them, and what presets have on the link.
    pub(super) fn finish(self, problems: &mut Problems) -> (Vec<Rule>, Vec<IpNet>) {
        let told = |index: usize, message: String| {
            let rule = &self.rules.get(index)?.name;
            Some((
                *self.places.get(index)?,
                format!("rule `{rule}`: {message}"),
            ))
        };
        let risks = self.rules.iter().enumerate();
        let risks = risks.filter_map(|(index, rule)| Some((index, advice::on(rule)?)));
        let all = risks.chain(advice::missing(&self.rules));
        for (at, message) in all.filter_map(|(index, message)| told(index, message)) {
            problems.warn(at, message);
        }
        (self.rules, self.near)
    }

    pub(super) fn add_preset(
        &mut self,
        preset: &str,
        rows: Vec<preset::Row>,
        at: At,
        problems: &mut Problems,
    ) {
        self.near.extend(preset::near(preset));
        for row in rows {
            let name = format!("{preset}/{}", row.destination);
            let owner = Owner::Preset(preset.to_owned());
            if self.names.insert(name.clone(), owner).is_some() {
                problems.add(
                    at,
                    format!("the preset `{preset}` is here twice; remove one"),
                );
                return;
            }
            let destination = match row.kind {
                preset::Kind::Tag => {
                    let tags = Tags {
                        preset: Some(preset),
                        ..self.tags
                    };
                    tags.destination(row.destination, at, problems)
                }
                preset::Kind::Name => destination::name(row.destination, at, problems),
            };
            let Some(destination) = destination else {
                continue;
            };
            self.places.push(at);
            self.rules.push(Rule {
                name,
                action: Action::Allow,
                destination,
                traffic: vec![row.traffic],
            });
        }
    }

    /// `key` is the rule's name where rules are a mapping by name.
    pub(super) fn read(&mut self, key: Option<&Key<'_>>, node: &Node<'_>, problems: &mut Problems) {
        let Some(outer) = Fields::of(&RULE, node, problems) else {
            return;
        };
        let name = self.name(key, &outer, problems);
        let inner = match outer.get("properties") {
            Some(node) => Fields::of(&PROPERTIES, node, problems),
            None => Some(outer),
        };
        let body = inner.and_then(|rule| destination::read(&rule, &self.tags, problems));
        if let (Some(name), Some(body)) = (name, body) {
            self.add(&name, node.at, body);
        }
    }

    /// A rule of several destinations becomes as many.
    fn add(&mut self, name: &str, at: At, body: Body) {
        let several = body.destinations.len() > 1;
        for destination in body.destinations {
            let name = match &destination {
                Destination::Name(pattern) if several => format!("{name}/{pattern}"),
                _ => name.to_owned(),
            };
            self.places.push(at);
            self.rules.push(Rule {
                name,
                action: body.action,
                destination,
                traffic: vec![body.traffic.clone()],
            });
        }
    }

    fn name(
        &mut self,
        key: Option<&Key<'_>>,
        rule: &Fields<'_, '_>,
        problems: &mut Problems,
    ) -> Option<String> {
        let (name, at) = match (key, rule.get("name")) {
            (Some(key), None) => (key.text.as_ref(), key.at),
            (_, Some(node)) => (text("name", node, problems)?, node.at),
            (None, None) => {
                rule.required("name", "pypi", problems);
                return None;
            }
        };
        if let Some(key) = key.filter(|key| key.text != name) {
            problems.add(
                at,
                format!(
                    "the rule is `{}` by its key and `{name}` here; remove one",
                    key.text
                ),
            );
        }
        let length = name.chars().count();
        if name.trim().is_empty() || length > NAME_MAX || name.contains(char::is_control) {
            problems.add(
                at,
                format!(
                    "a rule's name has 1 to {NAME_MAX} printable characters, this has {length}; \
                     choose one such as pypi"
                ),
            );
            return None;
        }
        match self.names.get(name) {
            Some(Owner::Rule(first)) => problems.add(
                at,
                format!(
                    "the name `{name}` is taken by the rule in line {}; rename one",
                    first.line
                ),
            ),
            Some(Owner::Preset(preset)) => problems.add(
                at,
                format!("the name `{name}` is taken by the preset {preset}; choose another"),
            ),
            None => {
                self.names.insert(name.to_owned(), Owner::Rule(at));
            }
        }
        Some(name.to_owned())
    }
}
