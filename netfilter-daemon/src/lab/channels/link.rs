//! Frames that are not IP, or hide that they are.

use crate::lab::battery::Channel;

pub(super) const CHANNELS: &[Channel] = &[];
