//! How something was used: by whom, how often, when.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use super::Flow;
use crate::{
    daemon::audit::{Asked, Wanted},
    moment,
};

/// More help nobody who reads a comment.
const SHOWN: usize = 3;
const TCP: u8 = 6;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    pub users: BTreeSet<String>,
    pub connections: u64,
    /// Of other protocols, and of connections from before.
    pub packets: u64,
    pub questions: u64,
    /// Seconds since 1970.
    pub first: Option<u64>,
    pub last: Option<u64>,
    /// What it was.
    pub flows: Vec<(IpAddr, Flow)>,
}

impl Used {
    pub(super) fn packets(wanted: &Wanted) -> Self {
        let begun = wanted.protocol == TCP && wanted.begun > 0;
        Self {
            users: wanted.users.iter().cloned().collect(),
            connections: if begun { wanted.begun } else { 0 },
            packets: if begun { 0 } else { wanted.packets },
            questions: 0,
            first: Some(wanted.first),
            last: Some(wanted.last),
            flows: vec![(wanted.address, (wanted.protocol, wanted.port))],
        }
    }

    pub(super) fn questions(asked: &Asked) -> Self {
        Self {
            users: asked.users.iter().cloned().collect(),
            questions: asked.questions,
            first: Some(asked.first),
            last: Some(asked.last),
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.users.extend(other.users.iter().cloned());
        self.connections += other.connections;
        self.packets += other.packets;
        self.questions += other.questions;
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = [self.last, other.last].into_iter().flatten().max();
        self.flows.extend(&other.flows);
    }

    fn whom(&self) -> Option<String> {
        let mut shown: Vec<&str> = self.users.iter().map(String::as_str).take(SHOWN).collect();
        let more = format!("{} more", self.users.len().saturating_sub(SHOWN));
        if self.users.len() > SHOWN {
            shown.push(&more);
        }
        (!shown.is_empty()).then(|| shown.join(", "))
    }

    fn how_often(&self) -> Option<String> {
        let counted = |count: u64, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        };
        let sent = [
            counted(self.connections, "connection", "connections"),
            counted(self.packets, "packet", "packets"),
        ];
        let sent: Vec<String> = sent.into_iter().flatten().collect();
        match sent.is_empty() {
            false => Some(sent.join(" and ")),
            true => counted(self.questions, "question", "questions"),
        }
    }

    fn when(&self) -> Option<String> {
        let day = |time: u64| moment::utc(time).chars().take(10).collect::<String>();
        let (first, last) = (day(self.first?), day(self.last?));
        Some(match first == last {
            true => first,
            false => format!("{first} to {last}"),
        })
    }
}

/// `/usr/bin/curl (alice, docker 3f2a91c0b1de), 12 connections, 2026-09-21 to 2026-09-23`
impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [self.whom(), self.how_often(), self.when()];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}
