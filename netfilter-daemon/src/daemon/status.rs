//! What `status` tells: the shape that crosses the control socket and that
//! `--json` prints.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{event::Event, ways_out::WayOut};
use crate::{
    bypass::{self, Passing, Rights},
    datapath::{self, Attachment, Hook, Unguarded},
    moment::{self, Moment},
    policy::service_tag::{Edition, lists::Source},
    tags::keep::Record,
};

/// Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Where packets are filtered.
    pub attached: Vec<Place>,
    /// Counts the policies that were put into force.
    pub generation: u32,
    /// Seconds until the policy in force gives way to what was before; `null` where it stays.
    #[serde(default)]
    pub gives_way_in: Option<u32>,
    /// `null` when the filter is in force and no daemon looks after it.
    pub daemon: Option<Running>,
    pub learned: Vec<Address>,
    pub tables: Vec<Table>,
    #[serde(default)]
    pub sockets: Sockets,
}

/// Those that would send past the filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sockets {
    /// Why they are not refused; `null` where they are.
    pub unguarded: Option<String>,
    /// Which cards send past the filter without a socket; see [`bypass::rdma`].
    #[serde(default)]
    pub rdma: Option<String>,
    /// Who has some.
    pub passing: Vec<Passing>,
    /// Why some may have been missed.
    pub unseen: Option<String>,
    /// What events do not tell of who sends, and why.
    #[serde(default)]
    pub untold: Vec<String>,
}

/// What only a running daemon knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Running {
    pub pid: u32,
    pub version: String,
    pub since: u64,
    /// False in audit: everything passes, and is counted and reported.
    pub enforcing: bool,
    /// Why `/healthz` is not 200.
    pub complaint: Option<String>,
    /// Every interface of the machine.
    pub interfaces: Vec<Looked>,
    /// What other tools did to the filter, and was put right.
    pub repairs: Vec<Repaired>,
    pub policy: InForce,
    /// All lists as one.
    pub service_tags: ServiceTags,
    #[serde(default)]
    pub service_tag_lists: Vec<ListHealth>,
    pub drops_last_minute: Vec<Drops>,
    pub denied_lately: Vec<DeniedLately>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub interface: String,
    pub hook: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    pub interface: String,
    pub filtered: bool,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    pub interface: String,
    /// As the metric's label.
    pub cause: String,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    pub path: String,
    pub rules: usize,
    pub prefixes: usize,
    pub names: usize,
    pub loaded_at: u64,
    pub failed_reloads: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTags {
    pub source: String,
    pub cloud: String,
    pub change_number: u64,
    pub date: Option<String>,
    /// Since it was published or, where it does not say, fetched or read.
    pub age_seconds: Option<u64>,
}

/// A list of service tags, and how its refreshing goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListHealth {
    #[serde(flatten)]
    pub list: ServiceTags,
    /// When it was last known to be the newest; `null` for the built-in one, and before
    /// the daemon's first attempt.
    pub last_success: Option<u64>,
    pub last_failure: Option<u64>,
    pub last_failure_reason: Option<String>,
    pub failures: u64,
}

/// An address that a DNS answer named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub address: std::net::IpAddr,
    /// The name or wildcard of the policy that admitted it.
    pub pattern: String,
    /// The name that it was last resolved from, if a running daemon saw that.
    pub name: Option<String>,
    /// When it was.
    pub resolved_at: Option<u64>,
    /// Seconds from now.
    pub expires_in: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    pub reason: String,
    /// True where audit let the packets pass.
    pub audited: bool,
    pub packets: u64,
    pub bytes: u64,
}

/// What was denied last at a destination, or for a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedLately {
    #[serde(flatten)]
    pub event: Event,
    /// Events since it is remembered; the kernel reports a bounded number per second.
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub map: String,
    pub entries: u64,
    pub max_entries: u64,
    /// What it forgot to make room, if it is one that does.
    #[serde(default)]
    pub evictions: Option<u64>,
}

impl Table {
    pub fn percent(&self) -> u64 {
        let hundredfold = self.entries.saturating_mul(100);
        hundredfold.checked_div(self.max_entries).unwrap_or(0)
    }

    /// What it cannot take in is denied. One that forgets has room again.
    pub fn is_full(&self) -> bool {
        self.evictions.is_none() && self.max_entries > 0 && self.entries >= self.max_entries
    }
}

/// The kernel's part of the status; needs no daemon.
pub fn of_kernel(state: &datapath::State) -> Result<Status, datapath::Error> {
    let mut learned: Vec<Address> = state.learned()?.into_iter().map(Address::from).collect();
    learned.sort_by(|a, b| (&a.pattern, a.address).cmp(&(&b.pattern, b.address)));
    Ok(Status {
        attached: state.attachments()?.into_iter().map(Place::from).collect(),
        generation: state.generation()?,
        gives_way_in: state.gives_way_in()?,
        daemon: None,
        learned,
        tables: state.occupancy()?.into_iter().map(Table::from).collect(),
        sockets: Sockets {
            unguarded: unguarded(state.guarded().err().as_ref()),
            rdma: bypass::rdma(),
            untold: state.untold(),
            ..Sockets::default()
        },
    })
}

pub(super) fn unguarded(unguarded: Option<&Unguarded>) -> Option<String> {
    unguarded.map(Unguarded::sentence)
}

impl Sockets {
    /// Looks who has some, for which the caller needs root's privileges.
    pub fn look(&mut self, state: &datapath::State) {
        // Before any start of a build that knows.
        let Ok(network) = state.network() else {
            return;
        };
        // Without them, all are told alike.
        let users = state.bypass_users().unwrap_or_default();
        let rights = Rights {
            users,
            closes: false,
        };
        match bypass::look(network, &rights) {
            Ok(look) => {
                self.unseen = look.gap();
                self.passing = look.passing;
            }
            Err(error) => self.unseen = Some(error.to_string()),
        }
    }
}

impl ServiceTags {
    /// `now` in seconds since 1970.
    pub fn of(edition: &Edition, now: u64) -> Self {
        let published = edition.date.as_deref().and_then(moment::start_of_day);
        Self {
            source: edition.source.clone(),
            cloud: edition.cloud.clone(),
            change_number: edition.change_number,
            date: edition.date.clone(),
            age_seconds: published
                .or(edition.fetched.as_ref().map(|fetched| fetched.at))
                .map(|since| now.saturating_sub(since)),
        }
    }
}

impl ListHealth {
    pub fn of(edition: &Edition, record: Record, now: u64) -> Self {
        let Record {
            last_success,
            last_failure,
            failures,
            ..
        } = record;
        let (last_failure, last_failure_reason) = last_failure.unzip();
        let (last_success, last_failure) = (
            last_success.map(Moment::unix),
            last_failure.map(Moment::unix),
        );
        Self {
            list: ServiceTags::of(edition, now),
            last_success,
            last_failure,
            last_failure_reason,
            failures,
        }
    }
}

/// `built-in: Public, change number 405, of 2026-06-01 (112 d old)`
impl fmt::Display for ServiceTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            cloud,
            change_number,
            date,
            age_seconds,
        } = self;
        write!(f, "{source}: {cloud}, change number {change_number}")?;
        match (date, age_seconds) {
            (Some(date), Some(age)) => {
                write!(
                    f,
                    ", of {date} ({} old)",
                    moment::span(Duration::from_secs(*age))
                )
            }
            (None, Some(age)) => {
                let came = match Source::parse(source) {
                    Ok(Source::File(_)) => "read",
                    _ => "fetched",
                };
                let age = moment::span(Duration::from_secs(*age));
                write!(f, ", {came} {age} ago")
            }
            (_, None) => Ok(()),
        }
    }
}

impl From<Attachment> for Place {
    fn from(attachment: Attachment) -> Self {
        let hook = match attachment.hook {
            Hook::Tcx => "tcx",
            Hook::Clsact => "clsact",
            Hook::XdpNative => "xdp-native",
            Hook::XdpGeneric => "xdp-generic",
        };
        Self {
            interface: attachment.interface.escape_debug().to_string(),
            hook: hook.to_owned(),
        }
    }
}

impl From<WayOut> for Looked {
    fn from(way: WayOut) -> Self {
        Self {
            interface: way.interface.escape_debug().to_string(),
            filtered: way.filtered,
            why: way.why,
        }
    }
}

impl From<datapath::Learned> for Address {
    fn from(learned: datapath::Learned) -> Self {
        let datapath::Learned {
            address,
            pattern,
            expires_in,
        } = learned;
        Self {
            address,
            pattern,
            name: None,
            resolved_at: None,
            expires_in,
        }
    }
}

impl From<datapath::Occupancy> for Table {
    fn from(occupancy: datapath::Occupancy) -> Self {
        let datapath::Occupancy {
            map,
            entries,
            max_entries,
            evictions,
        } = occupancy;
        Self {
            map: map.to_owned(),
            entries,
            max_entries,
            evictions,
        }
    }
}
