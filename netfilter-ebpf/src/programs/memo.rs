//! What passed a moment ago, of this processor: so that the next packet to the same destination
//! is let out without a look at the tables.
//!
//! Within one generation a rule lets out what it let out before, and a grant stays until its
//! time is over. What could be read of a lease that changed hands at that moment is forgotten
//! with the second. Only plain packets come here. Places are few and found by the address: what
//! needs the place takes it.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use netfilter_ebpf::{
    abi::{Address, Grant},
    egress::{self, Tables},
    packet::Packet,
    verdict::{Grounds, Reason, Verdict},
};

use crate::{
    clock,
    flow::ends_soon,
    tables::{Generation, Plain},
};

const PLACES: u32 = 256;

#[repr(C)]
struct Memo {
    address: Address,
    /// By which policy and for which ports, and of a lease when; zero is nobody's.
    about: u64,
    /// Of a lease.
    grant: Grant,
}

/// Of the programs that were loaded with it, so it has no layout that others could know.
#[map]
static MEMOS: PerCpuArray<Memo> = PerCpuArray::with_max_entries(PLACES, 0);

/// As [`egress::decide`], for a plain packet; and whether it is remembered, and so a grant
/// in it is none that [ends soon](crate::flow::ends_soon).
#[inline(always)]
pub(crate) fn decide(packet: &Packet, generation: &Generation) -> (Verdict, bool) {
    let Some(atom) = generation.atom(packet.protocol, packet.destination_port) else {
        return (Verdict::Drop(Reason::Unready), false);
    };
    let place = Place::of(packet, generation, atom);
    if let Some(grounds) = place.as_ref().and_then(Place::recall) {
        return (Verdict::Pass(grounds), true);
    }
    let verdict = egress::decide(packet, &Plain { generation, atom });
    if let (Some(place), Verdict::Pass(grounds)) = (place, verdict) {
        place.keep(grounds);
    }
    (verdict, false)
}

/// Where a packet's like is remembered.
struct Place {
    memo: &'static mut Memo,
    address: Address,
    /// That of what a rule lets out.
    about: u64,
}

impl Place {
    /// `None` for what is looked at each time, for on a question its name decides.
    #[inline(always)]
    fn of(packet: &Packet, generation: &Generation, atom: u8) -> Option<Self> {
        if !generation.is_known() || egress::is_dns(packet.protocol, packet.destination_port) {
            return None;
        }
        let address = packet.destination;
        let hash = (address.high ^ address.low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let memo = MEMOS.get_ptr_mut((hash >> 56) as u32)?;
        Some(Self {
            // SAFETY: a map value of this processor, and none interrupts a tc program but others'.
            memo: unsafe { &mut *memo },
            address,
            about: generation.era() | u64::from(atom),
        })
    }

    #[inline(always)]
    fn recall(&self) -> Option<Grounds> {
        let memo = &self.memo;
        if memo.address.low != self.address.low || memo.address.high != self.address.high {
            return None;
        }
        if memo.about == self.about {
            return Some(Grounds::Rule);
        }
        let now = clock::now();
        (memo.about == self.about | second(now) && !ends_soon(memo.grant, now))
            .then_some(Grounds::Learned(memo.grant))
    }

    #[inline(always)]
    fn keep(self, grounds: Grounds) {
        let about = match grounds {
            Grounds::Rule => self.about,
            Grounds::Learned(grant) => {
                let now = clock::now();
                // What ends soon is looked up each time, for it may have been prolonged.
                if ends_soon(grant, now) {
                    return;
                }
                self.memo.grant = grant;
                self.about | second(now)
            }
            _ => return,
        };
        self.memo.about = about;
        self.memo.address = self.address;
    }
}

/// The second, as far as there is room for it between the other words of `about`. Never zero.
#[inline(always)]
fn second(now: u32) -> u64 {
    u64::from(now & 0x3f_ffff) << 10 | 1 << 9
}
