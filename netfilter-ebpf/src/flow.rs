//! The life of a flow: what leaves and what arrives, segment by segment.
//!
//! Who is not on the path can send anything in the remote's name and sees nothing
//! of ours. So what the remote sends counts only where it names a number that we
//! sent: that opens a flow, and that ends it. What we send ourselves is the truth.

use crate::{
    abi::{
        FLOW_IDLE_CLOSED, FLOW_IDLE_CLOSING, FLOW_IDLE_OPENING, FLOW_IDLE_OTHER, FLOW_IDLE_TCP,
        FLOW_INBOUND, Flow,
    },
    packet::{ACK, FIN, Packet, RST, SYN, TCP},
};

// Of `Flow::local`, which the egress program writes.
/// `sent` holds a number.
const SENT: u16 = 1;
/// We sent a FIN: `our_end` holds a number.
const OURS: u16 = 2;
/// We acknowledged the remote's FIN.
const THEIRS_ACKNOWLEDGED: u16 = 4;
/// It is over.
const CLOSED: u16 = 8;

// Of `Flow::remote`, which the ingress program writes.
/// The remote has proved that it receives ours.
const OPEN: u16 = 1;
/// A FIN came: `their_end` holds a number.
const THEIRS: u16 = 2;
/// Our FIN was acknowledged.
const OURS_ACKNOWLEDGED: u16 = 4;
/// The FIN that came acknowledged ours, so it is the remote's.
const THEIRS_SURE: u16 = 8;
/// It is counted as one that found no room.
const COUNTED: u16 = 16;

/// What becomes of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Goes,
    /// Both ends have closed it.
    Over,
    /// One end has reset it.
    Reset,
}

/// Seconds that a flow without connection may be silent, or a TCP flow that is open.
#[must_use]
#[inline(always)]
pub const fn idle(protocol: u8) -> u32 {
    if protocol == TCP {
        FLOW_IDLE_TCP
    } else {
        FLOW_IDLE_OTHER
    }
}

impl Flow {
    /// One that a packet begins which arrives, and is no reset.
    #[must_use]
    #[inline(always)]
    pub const fn arrived(protocol: u8, now: u32) -> Self {
        let life = if protocol == TCP {
            FLOW_IDLE_OPENING
        } else {
            FLOW_IDLE_OTHER
        };
        Self::new(FLOW_INBOUND, now + life)
    }

    /// One that a packet begins which leaves to an address that a name lent.
    /// A connection that is older than what is remembered counts as open.
    #[must_use]
    #[inline(always)]
    pub const fn left(packet: &Packet, name: u32, granted: u32, now: u32) -> Self {
        let mut flow = Self::new(name, 0);
        flow.granted = granted;
        if packet.protocol != TCP {
            flow.until = granted.saturating_add(FLOW_IDLE_OTHER);
        } else if packet.kind & SYN != 0 {
            flow.sent = packet.next;
            flow.local = SENT;
            flow.until = now + FLOW_IDLE_OPENING;
        } else {
            flow.remote = OPEN;
            flow.until = granted.saturating_add(FLOW_IDLE_TCP);
        }
        flow
    }

    /// One that was open before the filter.
    #[must_use]
    pub const fn adopted(now: u32) -> Self {
        let mut flow = Self::new(FLOW_INBOUND, now.saturating_add(FLOW_IDLE_TCP));
        flow.remote = OPEN;
        flow
    }

    /// What is kept of a flow that ended.
    #[must_use]
    #[inline(always)]
    pub const fn ended(origin: u32, now: u32, next: Next) -> Self {
        let mut flow = Self::new(origin, now + FLOW_IDLE_CLOSED);
        // A reset flow whose ends go on all the same may be open again.
        if matches!(next, Next::Over) {
            flow.local = CLOSED;
        }
        flow
    }

    #[inline(always)]
    const fn new(origin: u32, until: u32) -> Self {
        Self {
            origin,
            until,
            granted: 0,
            sent: 0,
            acknowledged: 0,
            our_end: 0,
            their_end: 0,
            local: 0,
            remote: 0,
        }
    }

    /// Whether the remote has proved that it receives ours, and the flow goes on.
    #[must_use]
    #[inline(always)]
    pub const fn is_open(&self) -> bool {
        self.remote & OPEN != 0 && self.local & CLOSED == 0
    }

    /// Notes that it found no room. False: that was noted before.
    #[inline(always)]
    pub const fn note_lost(&mut self) -> bool {
        let fresh = self.remote & COUNTED == 0;
        self.remote |= COUNTED;
        fresh
    }

    /// Takes in a TCP segment that leaves.
    #[inline(always)]
    pub fn leaves(&mut self, segment: &Packet, now: u32) -> Next {
        let flags = segment.kind;
        if flags & RST != 0 {
            // What it says is the other end's own number, so nothing of it is noted.
            return Next::Reset;
        }
        if flags & SYN != 0 && !(self.local & SENT != 0 && self.sent == segment.next) {
            (self.local, self.remote) = (0, self.remote & COUNTED);
        }
        if self.local & CLOSED != 0 {
            return Next::Goes; // sent again: its time is not prolonged
        }
        self.sent = segment.next;
        let mut local = self.local | SENT;
        if flags & ACK != 0 {
            self.acknowledged = segment.acknowledged;
            if self.remote & THEIRS != 0 && self.their_end == segment.acknowledged {
                local |= THEIRS_ACKNOWLEDGED;
            }
        }
        if flags & FIN != 0 {
            self.our_end = segment.next;
            local |= OURS;
        }
        self.local = local;
        self.live(now);
        self.next()
    }

    /// Takes in a TCP segment that arrives.
    #[inline(always)]
    pub fn arrives(&mut self, segment: &Packet, now: u32) -> Next {
        let flags = segment.kind;
        let acknowledges = |number: u32| flags & ACK != 0 && segment.acknowledged == number;
        let ours = self.local & SENT != 0 && acknowledges(self.sent);
        if flags & RST != 0 {
            // RFC 9293 section 3.10.7.4; a refusal acknowledges the SYN.
            let exact = self.local & SENT != 0
                && self.acknowledged != 0
                && segment.sequence == self.acknowledged;
            let refused = self.remote & OPEN == 0 && ours;
            return if self.local & CLOSED == 0 && (exact || refused) {
                Next::Reset
            } else {
                Next::Goes
            };
        }
        if flags & (SYN | ACK) == SYN {
            if self.local & CLOSED != 0 {
                // The same ends begin anew.
                (self.local, self.remote) = (0, 0);
            }
            if self.remote & OPEN == 0 {
                self.live(now);
            }
            return Next::Goes;
        }
        if self.local & CLOSED != 0 {
            return Next::Goes;
        }
        let mut remote = self.remote;
        if ours {
            remote |= OPEN;
        }
        let ours_ended = self.local & OURS != 0 && acknowledges(self.our_end);
        if ours_ended {
            remote |= OURS_ACKNOWLEDGED;
        }
        if flags & FIN != 0 {
            self.their_end = segment.next;
            remote |= THEIRS;
            if ours_ended {
                remote |= THEIRS_SURE;
            }
        }
        self.remote = remote;
        self.live(now);
        self.next()
    }

    /// Without a write where the time hardly changes.
    #[inline(always)]
    fn live(&mut self, now: u32) {
        let life = if self.local & OURS != 0 {
            FLOW_IDLE_CLOSING
        } else if self.remote & OPEN != 0 {
            FLOW_IDLE_TCP
        } else {
            FLOW_IDLE_OPENING
        };
        let from = if self.granted > now && self.remote & OPEN != 0 {
            self.granted
        } else {
            now
        };
        let until = from.saturating_add(life);
        if until < self.until || until - self.until >= REFRESH {
            self.until = until;
        }
    }

    /// Of a flow that went out, nobody reads the last acknowledgement.
    #[inline(always)]
    const fn next(&self) -> Next {
        let ended = self.local & OURS != 0
            && (self.remote & THEIRS_SURE != 0
                || self.local & THEIRS_ACKNOWLEDGED != 0
                    && (self.remote & OURS_ACKNOWLEDGED != 0 || self.origin != FLOW_INBOUND));
        if ended { Next::Over } else { Next::Goes }
    }
}

/// Seconds by which a flow's end may lag, to spare most packets the write.
pub const REFRESH: u32 = 8;

#[cfg(test)]
mod tests;
