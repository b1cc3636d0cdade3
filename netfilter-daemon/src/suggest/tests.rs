use std::{cell::RefCell, net::IpAddr};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    daemon::audit::{Asked, Named, Target, Wanted},
    policy::{self, Error, Mode, QueryTypes, System, name::dotted},
};

mod hostile;
mod property;
mod rules;

pub(super) const DAY: u64 = 1_790_000_000;

pub(super) fn parse(text: &str) -> Result<Policy, Error> {
    let system = System {
        connected: vec!["10.0.0.0/24".parse().unwrap()],
        resolvers: vec!["10.99.0.1".parse().unwrap()],
        users: Vec::new(),
    };
    policy::parse(text, "policy.yaml", &system, &|_| Catalogue::built_in())
}

pub(super) fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let labels = labels.flat_map(|label| {
        let mut wire = vec![u8::try_from(label.len()).unwrap()];
        wire.extend(label.bytes());
        wire
    });
    labels.collect()
}

pub(super) fn wanted(address: &str, protocol: u8, port: u16) -> Wanted {
    Wanted {
        address: address.parse().unwrap(),
        answers: false,
        protocol,
        port,
        packets: 9,
        begun: if protocol == 6 { 3 } else { 0 },
        first: DAY,
        last: DAY + 60,
        users: vec!["/usr/bin/curl (alice)".to_owned()],
    }
}

/// The kernel's hash stands for the name.
pub(super) fn hash(name: &[u8]) -> u64 {
    netfilter_ebpf::packet::hash(name, 0, name.len(), 7) | 1
}

pub(super) fn asked(name: &[u8], qtype: u16) -> Asked {
    Asked {
        name: name.to_vec(),
        hash: hash(name),
        qtype,
        inside: false,
        questions: 2,
        first: DAY,
        last: DAY + 60,
        users: vec!["/usr/bin/curl (alice)".to_owned()],
    }
}

pub(super) fn named(name: &[u8], address: &str) -> Named {
    Named {
        name: name.to_vec(),
        target: Target::Address(address.parse().unwrap()),
        first: DAY,
        last: DAY,
    }
}

/// What was suggested, and the policy that came of it, as text and read again.
pub(super) struct Outcome {
    pub(super) suggestion: Suggestion,
    pub(super) text: String,
    pub(super) policy: Policy,
    pub(super) image: Image,
}

pub(super) fn outcome(policy: &str, audit: &Audit) -> Outcome {
    let in_force = parse(policy).unwrap();
    let image = compile::compile(&in_force).unwrap();
    let catalogue = Catalogue::built_in().unwrap();
    let tried = RefCell::new(Vec::new());
    let suggestion = suggest(audit, &in_force, &image, &catalogue);
    let text = written::policy(policy, &in_force, audit, &suggestion, |text| {
        tried.borrow_mut().push(text.to_owned());
        parse(text).ok()
    });
    let text = text.unwrap_or_else(|| {
        let tried = tried.take();
        let error = tried.last().and_then(|text| parse(text).err());
        panic!("{error:?}\n{}", tried.join("\n"))
    });
    let policy = parse(&text).unwrap();
    let image = compile::compile(&policy).unwrap();
    Outcome {
        suggestion,
        text,
        policy,
        image,
    }
}

impl Outcome {
    /// Whether a flow is left to the reader.
    pub(super) fn leaves(&self, address: IpAddr, flow: Flow) -> bool {
        let mut left = self.suggestion.left.iter();
        left.any(|left| left.flows.contains(&(address, flow)))
    }

    pub(super) fn leaves_name(&self, name: &[u8]) -> bool {
        let written = dotted(name);
        self.suggestion
            .left
            .iter()
            .any(|left| left.names.contains(&written))
    }

    pub(super) fn may_ask(&self, name: &[u8], qtype: u16) -> bool {
        let listed = match &self.policy.dns.query_types {
            QueryTypes::Any => true,
            QueryTypes::Only(types) => types.contains(&qtype),
        };
        let length = usize::try_from(self.policy.dns.wildcard_length).unwrap();
        listed
            && self
                .image
                .judge_name(name)
                .is_some_and(|pattern| !pattern.is_wildcard() || name.len() <= length)
    }

    /// The lines of the text that are no comments.
    pub(super) fn rules(&self) -> Vec<&str> {
        let lines = self.text.lines();
        lines
            .filter(|line| !line.trim_start().starts_with('#'))
            .collect()
    }
}
