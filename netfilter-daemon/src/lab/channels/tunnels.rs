//! Packets within packets.

use crate::lab::battery::Channel;

pub(super) const CHANNELS: &[Channel] = &[];
