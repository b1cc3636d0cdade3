//! Which probes show what a policy does: some for each rule, some for what no
//! rule allows.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::policy::{Action, Destination, Pattern, Policy, Rule};

use super::{
    battery::field::OTHERS,
    pick::{self, Pool},
    probe::{Family, Knock, Moment, Probe, Target},
    reading::Reading,
    topology::routable,
};

const OTHER_TRAFFIC: &str = "other port or protocol";

/// The DNS port, which the filter treats in its own way towards resolvers.
const DNS: u16 = 53;

/// What is probed, and which names must be known for it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) probes: Vec<Probe>,
    pub(super) hosts: Vec<Host>,
    /// Addresses that nobody speaks of, one of each family.
    pub(super) strangers: Option<[IpAddr; 2]>,
    /// More of them, for those who try to have them allowed.
    pub(super) others: Option<[[IpAddr; 2]; OTHERS]>,
}

/// A name and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) addresses: [IpAddr; 2],
    /// Whether CNAME records lead from the name to the addresses.
    pub(super) aliased: bool,
}

impl Plan {
    pub(super) fn of(policy: &Policy) -> Self {
        let reading = Reading(policy);
        let pool = Pool::new(reading);
        let mut planner = Planner {
            policy,
            reading,
            pool,
            turn: 0,
            group: String::new(),
            plan: Self::default(),
        };
        for rule in &policy.rules {
            planner.group = heading(rule);
            match &rule.destination {
                Destination::Tag { prefixes, .. } | Destination::Prefixes(prefixes) => {
                    planner.prefixes(rule, prefixes);
                }
                Destination::Name(pattern) => planner.names(rule, pattern),
            }
            planner.turn += 1;
        }
        planner.group = "What no rule allows".into();
        planner.beyond();
        let mut strangers = || Family::ALL.map(|family| planner.pool.next(family));
        let (first, others) = (strangers(), [(); OTHERS].map(|()| strangers()));
        planner.plan.strangers = Some(first);
        planner.plan.others = Some(others);
        planner.plan
    }

    /// The TCP and the UDP ports at which somebody must answer.
    pub(super) fn ports(&self) -> (Vec<u16>, Vec<u16>) {
        let (mut tcp, mut udp) = (BTreeSet::new(), BTreeSet::new());
        for probe in &self.probes {
            match probe.knock {
                Knock::Tcp(port) => tcp.insert(port),
                Knock::Udp(port) => udp.insert(port),
                Knock::Icmp => false,
            };
        }
        (tcp.into_iter().collect(), udp.into_iter().collect())
    }
}

struct Planner<'a> {
    policy: &'a Policy,
    reading: Reading<'a>,
    pool: Pool<'a>,
    /// How many rules came before: what is shown in one family only takes turns.
    turn: usize,
    /// Of the probes that follow.
    group: String,
    plan: Plan,
}

impl Planner<'_> {
    fn prefixes(&mut self, rule: &Rule, prefixes: &[IpNet]) {
        let knocks = pick::knocks(&rule.traffic);
        let sides = [self.family(0), self.family(1)].map(|family| pick::ends(prefixes, family));
        let sides: Vec<_> = sides.into_iter().filter(|ends| !ends.is_empty()).collect();
        let (Some(&knock), Some(ends), Some(others)) =
            (knocks.first(), sides.first(), sides.last())
        else {
            return;
        };
        for index in 0..knocks.len().max(sides.len()).max(ends.len()) {
            let ends = &sides[index % sides.len()];
            let (what, address) = ends[index % ends.len()];
            self.address(what, address, knocks[index % knocks.len()]);
        }
        if rule.action == Action::Deny {
            return;
        }
        let (_, inside) = ends[0];
        let outside = pick::neighbours(prefixes, Family::of(inside))
            .find(|address| !self.reading.allows(*address, knock));
        if let Some(address) = outside {
            self.address("just outside", address, knock);
        }
        let (_, inside) = others[0];
        if let Some(knock) = self.strange(|knock| self.reading.allows(inside, knock)) {
            self.address(OTHER_TRAFFIC, inside, knock);
        }
    }

    fn names(&mut self, rule: &Rule, pattern: &Pattern) {
        let knocks = pick::knocks(&rule.traffic);
        let Some(&knock) = knocks.first() else { return };
        let text = pattern.to_string();
        let (what, name, decoys) = match text.strip_prefix("*.") {
            Some(base) => (
                "a name below",
                format!("eastus.{base}"),
                vec![
                    ("two labels below", format!("lab.eastus.{base}")),
                    ("what the * is below", base.to_owned()),
                    ("a name that ends alike", format!("un{base}")),
                ],
            ),
            None => (
                "the name",
                text.clone(),
                vec![
                    ("a name below", format!("lab.{text}")),
                    ("a name that ends alike", format!("un{text}")),
                ],
            ),
        };
        let [address, other_address] =
            [self.family(0), self.family(1)].map(|family| self.host(&name, true)[family as usize]);
        if pattern.is_wildcard() {
            // Of exact names, the daemon itself keeps the addresses learned.
            self.address("its address, unasked", address, knock);
        }
        for index in 0..knocks.len().max(2) {
            self.name(
                what,
                &name,
                self.family(index),
                knocks[index % knocks.len()],
            );
        }
        if rule.action == Action::Deny {
            return;
        }
        let allows = |knock| self.reading.allows_lent(&name, other_address, knock);
        if let Some(knock) = self.strange(allows) {
            let target = Target::Address(other_address);
            self.push(Moment::AfterNames, OTHER_TRAFFIC, knock, target, false);
        }
        for (index, (what, name)) in decoys.into_iter().enumerate() {
            self.name(what, &name, self.family(index), knock);
        }
    }

    /// What no rule mentions, whatever the policy.
    fn beyond(&mut self) {
        let fixed = [
            ("instance metadata", "169.254.169.254", Knock::Tcp(80)),
            ("the platform's address", "168.63.129.16", Knock::Tcp(80)),
            ("another resolver", "8.8.8.8", Knock::Udp(DNS)),
            ("another resolver", "2001:4860:4860::8888", Knock::Udp(DNS)),
            ("DNS over TLS", "9.9.9.9", Knock::Tcp(853)),
        ];
        let fixed = fixed
            .into_iter()
            .filter_map(|(what, text, knock)| Some((what, text.parse::<IpAddr>().ok()?, knock)));
        let anywhere = Family::ALL.map(|family| self.pool.next(family)).into_iter();
        let anywhere = anywhere.flat_map(|address| {
            [
                ("a bare address", Knock::Tcp(443)),
                ("QUIC", Knock::Udp(443)),
                ("ping", Knock::Icmp),
            ]
            .map(|(what, knock)| (what, address, knock))
        });
        for (what, address, knock) in fixed.chain(anywhere).collect::<Vec<_>>() {
            let resolver = self.policy.resolvers.contains(&address);
            if !resolver && !self.reading.allows(address, knock) {
                self.address(what, address, knock);
            }
        }
        for family in Family::ALL {
            self.name(
                "a name",
                "secrets.exfiltration.example",
                family,
                Knock::Tcp(443),
            );
        }
    }

    fn address(&mut self, what: &'static str, address: IpAddr, knock: Knock) {
        let allowed = self.reading.allows(address, knock);
        let target = Target::Address(address);
        self.push(Moment::BeforeNames, what, knock, target, allowed);
    }

    fn name(&mut self, what: &'static str, name: &str, family: Family, knock: Knock) {
        if name.parse::<Pattern>().is_err() {
            return; // What was put before it made it too long.
        }
        let address = self.host(name, false)[family as usize];
        let lent = self.reading.allows_lent(name, address, knock);
        let allowed = self.reading.answers(name) && lent;
        let name = name.to_owned();
        let target = Target::Name { name, family };
        self.push(Moment::WithNames, what, knock, target, allowed);
    }

    fn push(
        &mut self,
        moment: Moment,
        what: &'static str,
        knock: Knock,
        target: Target,
        allowed: bool,
    ) {
        if let Target::Address(address) = target {
            let asks = knock.port() == Some(DNS) && self.policy.resolvers.contains(&address);
            if asks || !routable(address) {
                return;
            }
        }
        let allowed = self.reading.passes(allowed);
        let group = self.group.clone();
        self.plan.probes.push(Probe {
            group,
            what,
            moment,
            knock,
            target,
            allowed,
        });
    }

    /// The addresses of a name, which becomes known with it.
    fn host(&mut self, name: &str, aliased: bool) -> [IpAddr; 2] {
        if let Some(host) = self.plan.hosts.iter().find(|host| host.name == name) {
            return host.addresses;
        }
        let addresses = Family::ALL.map(|family| self.pool.next(family));
        let name = name.to_owned();
        self.plan.hosts.push(Host {
            name,
            addresses,
            aliased,
        });
        addresses
    }

    fn family(&self, index: usize) -> Family {
        Family::ALL[(self.turn + index) % 2]
    }

    fn strange(&self, allows: impl Fn(Knock) -> bool) -> Option<Knock> {
        let mut knocks = pick::STRANGE;
        knocks.rotate_left(self.turn % 2);
        knocks.into_iter().find(|&knock| !allows(knock))
    }
}

fn heading(rule: &Rule) -> String {
    let action = match rule.action {
        Action::Allow => "",
        Action::Deny => "denies ",
        Action::Audit => "audits ",
    };
    let destination = match &rule.destination {
        Destination::Tag { tag, .. } => tag.clone(),
        Destination::Prefixes(prefixes) => match &prefixes[..] {
            [prefix] => prefix.to_string(),
            prefixes => format!("{} prefixes", prefixes.len()),
        },
        Destination::Name(pattern) => pattern.to_string(),
    };
    let traffic: Vec<_> = rule.traffic.iter().map(ToString::to_string).collect();
    let traffic = traffic.join(" and ");
    if rule.name.ends_with(&destination) {
        return format!("{}: {action}{traffic}", rule.name);
    }
    format!("{}: {action}{destination}, {traffic}", rule.name)
}

#[cfg(test)]
mod tests;
