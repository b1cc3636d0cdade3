//! Data in fields of what passes.

use crate::lab::battery::Channel;

pub(super) const CHANNELS: &[Channel] = &[];
