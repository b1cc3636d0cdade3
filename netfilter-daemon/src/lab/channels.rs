//! The channels that the battery tries: a file for each kind.

use super::battery::Group;

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
