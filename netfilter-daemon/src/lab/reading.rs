//! What a policy means, read rule by rule.
//!
//! Nothing here is shared with the compiler and the programs, so that what the
//! lab expects is a second opinion on them.

use std::net::IpAddr;

use crate::policy::{Action, Destination, Mode, Policy, Rule};

use super::{
    pick,
    probe::{Family, Knock},
};

#[derive(Clone, Copy)]
pub(super) struct Reading<'a>(pub(super) &'a Policy);

impl<'a> Reading<'a> {
    /// Whether the rules on addresses allow it.
    pub(super) fn allows(self, address: IpAddr, knock: Knock) -> bool {
        self.at(address, knock).any(allows) && !self.at(address, knock).any(denies)
    }

    /// Whether it is allowed to an address that an answer for `name` has just lent.
    pub(super) fn allows_lent(self, name: &str, address: IpAddr, knock: Knock) -> bool {
        let lent =
            self.lends(name, knock, Family::of(address)) && !self.at(address, knock).any(denies);
        lent || self.allows(address, knock)
    }

    /// Whether a question for the name is answered: some use of its addresses must be allowed.
    pub(super) fn answers(self, name: &str) -> bool {
        let wire = wire(name);
        let allowing = self
            .0
            .rules
            .iter()
            .filter(|rule| allows(rule) && names(rule, &wire));
        let mut uses = allowing.flat_map(|rule| pick::knocks(&rule.traffic));
        uses.any(|knock| {
            Family::ALL
                .iter()
                .any(|&family| self.lends(name, knock, family))
        })
    }

    /// Whether the policy lets pass, as a whole, what its rules allow or not.
    pub(super) fn passes(self, allowed: bool) -> bool {
        allowed || self.0.mode == Mode::Report
    }

    /// Whether any rule on addresses covers it, for whatever traffic.
    pub(super) fn mentions(self, address: IpAddr) -> bool {
        self.0
            .rules
            .iter()
            .any(|rule| covers(&rule.destination, address))
    }

    fn at(self, address: IpAddr, knock: Knock) -> impl Iterator<Item = &'a Rule> {
        self.speaking_of(knock, Family::of(address))
            .filter(move |rule| covers(&rule.destination, address))
    }

    fn lends(self, name: &str, knock: Knock, family: Family) -> bool {
        let wire = wire(name);
        let named = || {
            self.speaking_of(knock, family)
                .filter(|rule| names(rule, &wire))
        };
        named().any(allows) && !named().any(denies)
    }

    fn speaking_of(self, knock: Knock, family: Family) -> impl Iterator<Item = &'a Rule> {
        let (protocol, port) = knock.numbers(family);
        let speaks = move |rule: &&Rule| {
            rule.traffic
                .iter()
                .any(|traffic| traffic.covers(protocol, port))
        };
        self.0.rules.iter().filter(speaks)
    }
}

fn allows(rule: &Rule) -> bool {
    matches!(rule.action, Action::Allow | Action::Audit)
}

fn denies(rule: &Rule) -> bool {
    rule.action == Action::Deny
}

fn names(rule: &Rule, wire: &[u8]) -> bool {
    matches!(&rule.destination, Destination::Name(pattern) if pattern.matches(wire))
}

fn covers(destination: &Destination, address: IpAddr) -> bool {
    match destination {
        Destination::Tag { prefixes, .. } | Destination::Prefixes(prefixes) => {
            prefixes.iter().any(|prefix| prefix.contains(&address))
        }
        Destination::Name(_) => false,
    }
}

/// DNS wire form without the root byte, as of [`Pattern::wire`](crate::policy::Pattern::wire).
fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 1);
    for label in name.split('.') {
        wire.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        wire.extend_from_slice(label.as_bytes());
    }
    wire
}
