//! Which parts of the lab are wanted.

use std::{collections::BTreeSet, fmt::Write, iter, str::FromStr};

use serde::Serialize;

use crate::policy::nearest::{did_you_mean, nearest};

use super::{
    battery::Channel,
    channels::all,
    report::{Described, WIDTH, wrap},
};

/// The group that the policy's probes make.
pub const POLICY: &str = "policy";

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Whether the policy is probed.
    pub policy: bool,
    /// Places in the list of all channels, in its order.
    pub channels: Vec<usize>,
}

/// What a word stands for: the name of a channel or of a group, or a pattern for such
/// names, in which `*` stands for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Only {
    policy: bool,
    channels: BTreeSet<usize>,
}

#[derive(Debug, thiserror::Error)]
#[error("there is no such channel or group{}; --list shows all", did_you_mean(.near))]
pub struct Unknown {
    near: Vec<&'static str>,
}

impl FromStr for Only {
    type Err = Unknown;

    fn from_str(word: &str) -> Result<Self, Unknown> {
        let chosen = |(group, channel): (&str, &Channel)| {
            matches(word, group) || matches(word, channel.name)
        };
        let channels = all().enumerate();
        let channels = channels
            .filter(|(_, it)| chosen(*it))
            .map(|(index, _)| index);
        let only = Self {
            policy: matches(word, POLICY),
            channels: channels.collect(),
        };
        if only.policy || !only.channels.is_empty() {
            return Ok(only);
        }
        let names = all().flat_map(|(group, channel)| [group, channel.name]);
        let names: BTreeSet<_> = names.chain([POLICY]).collect();
        let near = nearest(word, names);
        Err(Unknown { near })
    }
}

impl Selection {
    /// Everything, if nothing is named.
    pub fn of(only: &[Only]) -> Self {
        if only.is_empty() {
            return Self {
                policy: true,
                channels: (0..all().count()).collect(),
            };
        }
        let channels: BTreeSet<_> = only.iter().flat_map(|it| &it.channels).copied().collect();
        Self {
            policy: only.iter().any(|it| it.policy),
            channels: channels.into_iter().collect(),
        }
    }

    /// With how each channel works and where it was seen, in at most 100 columns.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if self.policy {
            text += "policy\n";
            text += &note(
                "",
                "probes of every rule of the policy, and of what no rule allows",
            );
        }
        let mut last = "";
        for (group, channel) in self.chosen() {
            if group != last {
                let blank = if text.is_empty() { "" } else { "\n" };
                // A string takes everything.
                writeln!(text, "{blank}{group}").ok();
                last = group;
            }
            text += &note(channel.name, channel.how);
            text += &note("", &format!("seen in: {}", channel.seen_in));
        }
        text
    }

    /// What `--list --json` prints.
    pub fn to_json(&self) -> impl Serialize {
        let described = self
            .chosen()
            .map(|(group, channel)| Described::of(group, channel));
        described.collect::<Vec<_>>()
    }

    /// The channels, with their places in the list of all.
    pub(super) fn numbered(&self) -> Vec<(u16, &'static Channel)> {
        let chosen = self.chosen().map(|(_, channel)| channel);
        let places = self.channels.iter().map(|&place| u16::try_from(place));
        iter::zip(places.map(|place| place.unwrap_or(u16::MAX)), chosen).collect()
    }

    /// The channels, with their groups.
    pub(super) fn chosen(&self) -> impl Iterator<Item = (&'static str, &'static Channel)> {
        let mut chosen = self.channels.iter().peekable();
        iter::zip(0.., all())
            .filter(move |(index, _)| chosen.next_if(|next| *next == index).is_some())
            .map(|(_, channel)| channel)
    }
}

/// Lines of a list, with a name before the first.
fn note(mut name: &str, text: &str) -> String {
    const NAME: usize = 24;
    let mut lines = String::new();
    for line in wrap(text, WIDTH - NAME - 3) {
        // A string takes everything.
        writeln!(lines, "  {name:NAME$} {line}").ok();
        name = "";
    }
    lines
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(head) else {
        return false;
    };
    (0..=name.len())
        .filter_map(|at| name.get(at..))
        .any(|tail| matches(rest, tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::channels::GROUPS;

    fn names(words: &[&str]) -> Vec<&'static str> {
        let only: Vec<Only> = words.iter().map(|word| word.parse().unwrap()).collect();
        let selection = Selection::of(&only);
        let policy = selection.policy.then_some(POLICY);
        let channels = selection.chosen().map(|(_, channel)| channel.name);
        policy.into_iter().chain(channels).collect()
    }

    #[test]
    fn a_channel_a_group_or_a_pattern_can_be_chosen_and_each_comes_once() {
        assert_eq!(
            names(&["udp6", "tcp"]),
            ["tcp", "udp6"],
            "in the list's order"
        );
        assert_eq!(names(&["udp*", "udp6"]), names(&["udp*"]));
        assert_eq!(names(&["policy"]), ["policy"]);
        let plain = names(&["plain"]);
        assert!(plain.contains(&"tcp") && !plain.contains(&"policy"));
        let of_group = GROUPS.iter().find(|group| group.name == "plain").unwrap();
        assert_eq!(plain.len(), of_group.channels.len());
        assert_eq!(names(&[]), names(&["*"]), "without a choice, everything");
        assert_eq!(names(&["*"]).len(), 1 + all().count());
    }

    #[test]
    fn a_star_stands_for_anything_and_nothing() {
        for (pattern, name, matching) in [
            ("dns-*", "dns-txt", true),
            ("dns-*", "dns-", true),
            ("dns-*", "dns", false),
            ("*-txt", "dns-txt", true),
            ("d*-*t", "dns-txt", true),
            ("d*-*x", "dns-txt", false),
            ("dns", "dns-txt", false),
        ] {
            assert_eq!(matches(pattern, name), matching, "{pattern} {name}");
        }
    }

    #[test]
    fn for_an_unknown_name_the_nearest_is_proposed() {
        let refused = |word: &str| word.parse::<Only>().unwrap_err().to_string();
        assert_eq!(
            refused("plainn"),
            "there is no such channel or group; did you mean `plain`?; --list shows all"
        );
        assert_eq!(
            refused("nothing-*"),
            "there is no such channel or group; --list shows all"
        );
        assert!("".parse::<Only>().is_err());
    }

    #[test]
    fn the_list_says_how_each_works_and_fits() {
        let list = Selection::of(&[]).to_text();
        for (group, channel) in all() {
            assert!(list.contains(&format!("\n{group}\n")), "{group}");
            assert!(
                list.contains(&format!("\n  {} ", channel.name)),
                "{}",
                channel.name
            );
        }
        let widest = list.lines().map(|line| line.chars().count()).max();
        assert!(widest.unwrap() <= WIDTH, "{list}");
    }

    #[test]
    fn no_channel_is_called_as_a_group_is() {
        let groups: BTreeSet<_> = GROUPS
            .iter()
            .map(|group| group.name)
            .chain([POLICY])
            .collect();
        // But one that is alone in its own.
        for (group, channel) in all().filter(|(group, channel)| *group != channel.name) {
            assert!(!groups.contains(channel.name), "{group}/{}", channel.name);
        }
    }
}
