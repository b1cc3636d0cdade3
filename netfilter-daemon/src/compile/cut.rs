//! (protocol, port) space cut into atoms: two points are one atom if no rule
//! tells them apart.

use std::collections::HashMap;

use netfilter_ebpf::{
    abi::{ATOM_LINK, ATOM_NONE, ATOMS, AtomSet, Atoms},
    packet::{TCP, UDP},
};

use crate::policy::{Traffic, ports::Ports};

/// Atoms that no policy cuts: nothing, and plumbing on the link.
pub(super) const RESERVED: usize = ATOM_LINK as usize + 1;

pub(super) struct Cut {
    pub(super) atoms: Box<Atoms>,
    sets: HashMap<Traffic, AtomSet>,
    used: usize,
}

impl Cut {
    /// `None` where there are more atoms than fit.
    pub(super) fn new<'a>(traffic: impl Iterator<Item = &'a Traffic>) -> Option<Self> {
        let mut distinct: Vec<&Traffic> = Vec::new();
        let mut sets = HashMap::new();
        for traffic in traffic {
            sets.entry(traffic.clone()).or_insert_with(|| {
                distinct.push(traffic);
                AtomSet::EMPTY
            });
        }
        let mut cut = Self {
            atoms: empty(),
            sets,
            used: RESERVED,
        };
        let mut known = HashMap::new();
        for (protocol, first, last) in pieces(&distinct) {
            let port = (protocol == TCP || protocol == UDP).then_some(first);
            let covering: Vec<usize> = (0..distinct.len())
                .filter(|&index| distinct[index].covers(protocol, port))
                .collect();
            let atom = if covering.is_empty() {
                ATOM_NONE
            } else {
                cut.atom_of(covering, &distinct, &mut known)?
            };
            match protocol {
                TCP => cut.atoms.tcp[usize::from(first)..=usize::from(last)].fill(atom),
                UDP => cut.atoms.udp[usize::from(first)..=usize::from(last)].fill(atom),
                _ => cut.atoms.other[usize::from(protocol)] = atom,
            }
        }
        Some(cut)
    }

    fn atom_of(
        &mut self,
        covering: Vec<usize>,
        distinct: &[&Traffic],
        known: &mut HashMap<Vec<usize>, u8>,
    ) -> Option<u8> {
        if let Some(&atom) = known.get(&covering) {
            return Some(atom);
        }
        if self.used == ATOMS {
            return None;
        }
        let atom = u8::try_from(self.used).ok()?;
        self.used += 1;
        for &index in &covering {
            if let Some(set) = self.sets.get_mut(distinct[index]) {
                set.insert(atom);
            }
        }
        known.insert(covering, atom);
        Some(atom)
    }

    /// The atoms of a rule's or an inbound entry's traffic.
    pub(super) fn set(&self, traffic: &Traffic) -> &AtomSet {
        self.sets.get(traffic).unwrap_or(&AtomSet::EMPTY)
    }

    /// Atoms that rules mention.
    pub(super) fn len(&self) -> usize {
        self.used - RESERVED
    }
}

/// The atom of a packet.
pub(super) fn atom(atoms: &Atoms, protocol: u8, port: u16) -> u8 {
    match protocol {
        TCP => atoms.tcp[usize::from(port)],
        UDP => atoms.udp[usize::from(port)],
        _ => atoms.other[usize::from(protocol)],
    }
}

fn empty() -> Box<Atoms> {
    Box::new(Atoms {
        tcp: [ATOM_NONE; 65_536],
        udp: [ATOM_NONE; 65_536],
        other: [ATOM_NONE; 256],
    })
}

/// Protocols with runs of ports (0 to 0 for those without) that no rule divides.
fn pieces(distinct: &[&Traffic]) -> Vec<(u8, u16, u16)> {
    let mut pieces = Vec::new();
    for protocol in 0..=u8::MAX {
        if protocol != TCP && protocol != UDP {
            pieces.push((protocol, 0, 0));
            continue;
        }
        let mut starts = vec![0u16];
        for traffic in distinct {
            for (_, ports) in traffic
                .parts()
                .filter(|(part, _)| part.is_none_or(|part| part == protocol))
            {
                if let Ports::Ranges(ranges) = ports {
                    starts.extend(ranges.iter().map(|range| *range.start()));
                    starts.extend(ranges.iter().filter_map(|range| range.end().checked_add(1)));
                }
            }
        }
        starts.sort_unstable();
        starts.dedup();
        let ends = starts
            .iter()
            .skip(1)
            .map(|start| start - 1)
            .chain([u16::MAX]);
        pieces.extend(
            starts
                .iter()
                .zip(ends)
                .map(|(&first, last)| (protocol, first, last)),
        );
    }
    pieces
}
