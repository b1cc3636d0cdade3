//! What the page and `top` show: the shape that crosses the control socket, and that
//! `top --json` prints.

use serde::{Deserialize, Serialize};

use super::{
    event::Event,
    status::{Drops, Place, Running, Sockets, Table},
};

/// Times are seconds since 1970. Texts that come from outside are escaped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    pub time: u64,
    pub host: String,
    /// Where packets are filtered.
    pub attached: Vec<Place>,
    pub generation: u32,
    pub daemon: Running,
    pub sockets: Sockets,
    pub tables: Vec<Table>,
    /// Denied in each second of the last minute, the oldest first; also what audit let pass.
    pub seconds: Vec<u64>,
    pub hour: InAnHour,
    /// From reports, as `names` and `processes`: how many there were in the last hour.
    pub reports: u64,
    /// By the name of the destination, or else its address.
    pub names: Tallies,
    pub processes: Tallies,
    pub rules: Rules,
    pub learned: Learned,
    /// The newest first.
    pub recent: Vec<Event>,
}

/// What the kernel counted in the last hour, or since the daemon came. Nothing that did not
/// happen, but for what is counted by a list that is always whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InAnHour {
    /// Of the last sixty minutes; the last is under way.
    pub minutes: Vec<Vec<Drops>>,
    /// Most packets first.
    pub by_reason: Vec<Drops>,
    /// What became of DNS questions and answers, and of the reports of what was denied.
    pub questions: Vec<Counted>,
    pub answers: Vec<Counted>,
    pub lost_reports: Vec<Counted>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// As the metric's label.
    pub what: String,
    pub count: u64,
}

/// Of whom, or of what, there were most reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tallies {
    pub rows: Vec<Tallied>,
    /// Reports of all others.
    pub others: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tallied {
    #[serde(flatten)]
    pub subject: Subject,
    /// At least so many: it may have been among the others before.
    pub reports: u64,
    /// That the kernel did not report, of the sources of these.
    pub untold: u64,
    /// When the last was.
    pub last: u64,
    /// Of the last one, as what follows.
    pub reason: String,
    pub audited: bool,
    /// Who it was, of a destination; where to, of a process.
    pub other: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// A name or an address; an executable.
    pub what: String,
    /// Of a process: its user, and container.
    pub whose: String,
}

/// Addresses learned from DNS answers, by the name or wildcard of the policy that admitted them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    pub addresses: u64,
    /// Those with most addresses first.
    pub patterns: Vec<Pattern>,
    /// Names of the policy without an address now.
    pub without: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    pub pattern: String,
    pub addresses: u64,
    /// Seconds until the last of them is forgotten.
    pub expires_in: u32,
}

/// The rules of the policy in force, and the flows that each decided on since it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Most hits first.
    pub hit: Vec<Rule>,
    /// In the policy's order.
    pub never: Vec<Rule>,
    /// All of those, of which `hit` and `never` may hold only the first.
    pub hit_in_all: u64,
    pub never_in_all: u64,
    /// For want of room in the kernel.
    pub uncounted: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub rule: String,
    /// `allow`, `deny` or `audit`.
    pub action: String,
    /// `Storage.WestUS2: TCP 443`
    pub what: String,
    pub hits: u64,
}

#[cfg(test)]
pub(crate) mod tests;
