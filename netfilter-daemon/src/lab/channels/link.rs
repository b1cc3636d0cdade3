//! Frames that are not IP, or hide that they are.

use crate::lab::battery::{Channel, join};

mod arp;
mod ethertypes;
mod senders;
mod tags;

pub(super) const CHANNELS: &[Channel] = &join::<COUNT>(LISTS);

const LISTS: &[&[Channel]] = &[
    ethertypes::CHANNELS,
    arp::CHANNELS,
    tags::CHANNELS,
    senders::CHANNELS,
];

const COUNT: usize = ethertypes::CHANNELS.len()
    + arp::CHANNELS.len()
    + tags::CHANNELS.len()
    + senders::CHANNELS.len();
