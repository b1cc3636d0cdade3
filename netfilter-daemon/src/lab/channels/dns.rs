//! Names, questions and answers that carry data, and DNS elsewhere.

use crate::lab::battery::Channel;

pub(super) const CHANNELS: &[Channel] = &[];
