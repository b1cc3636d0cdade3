//! Headers of IP that hide what a packet is, or carry data themselves.

use crate::lab::battery::Channel;

pub(super) const CHANNELS: &[Channel] = &[];
