//! The channels that the battery tries: a file for each kind.

use super::battery::{Channel, Group, Reader};

mod around;
mod dns;
mod hiding;
mod ip;
mod link;
mod plain;
mod raw;
mod tunnels;

/// In the order of the report.
pub(super) const GROUPS: &[Group] = &[
    Group {
        name: "plain",
        channels: plain::CHANNELS,
    },
    Group {
        name: "dns",
        channels: dns::CHANNELS,
    },
    Group {
        name: "ip",
        channels: ip::CHANNELS,
    },
    Group {
        name: "link",
        channels: link::CHANNELS,
    },
    Group {
        name: "tunnels",
        channels: tunnels::CHANNELS,
    },
    Group {
        name: "hiding",
        channels: hiding::CHANNELS,
    },
    Group {
        name: "around",
        channels: around::CHANNELS,
    },
];

/// All channels there are, with their groups.
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static Channel)> {
    let of = |group: &'static Group| group.channels.iter().map(|channel| (group.name, channel));
    GROUPS.iter().flat_map(of)
}

/// What the sink reads frames by, channel by channel.
pub(super) fn readers() -> Vec<Option<Reader>> {
    all().map(|(_, channel)| channel.read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_channels_are_unique_and_can_be_typed() {
        let mut names: Vec<_> = all().map(|(_, channel)| channel.name).collect();
        let typed = |name: &&str| {
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        assert!(names.iter().all(typed), "{names:?}");
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
