//! Headers of IP that hide what a packet is, or carry data themselves.

use crate::lab::battery::{Channel, join};

mod extensions;
mod fragments;
mod lengths;
mod options;

pub(super) const CHANNELS: &[Channel] = &join::<COUNT>(LISTS);

const LISTS: &[&[Channel]] = &[
    fragments::CHANNELS,
    options::CHANNELS,
    extensions::CHANNELS,
    lengths::CHANNELS,
];

const COUNT: usize = fragments::CHANNELS.len()
    + options::CHANNELS.len()
    + extensions::CHANNELS.len()
    + lengths::CHANNELS.len();
