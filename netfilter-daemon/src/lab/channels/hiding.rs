//! Data in fields of what passes, and in what a machine says to live on its network.

use crate::lab::battery::{Channel, join};

mod approved;
mod dhcp;
mod fields;
mod group;
mod icmp;
mod neighbour;
mod tcp;

pub(super) const CHANNELS: &[Channel] = &join::<COUNT>(LISTS);

const LISTS: &[&[Channel]] = &[
    tcp::CHANNELS,
    fields::CHANNELS,
    icmp::CHANNELS,
    dhcp::CHANNELS,
    neighbour::CHANNELS,
    group::CHANNELS,
    approved::CHANNELS,
];

const COUNT: usize = tcp::CHANNELS.len()
    + fields::CHANNELS.len()
    + icmp::CHANNELS.len()
    + dhcp::CHANNELS.len()
    + neighbour::CHANNELS.len()
    + group::CHANNELS.len()
    + approved::CHANNELS.len();
