//! The interfaces, whether each is filtered, and why; and what other tools did to that.

use std::collections::BTreeMap;

use crate::{
    datapath::{Cause, Unguarded},
    interfaces::{Coverage, Interface},
};

/// What the keeper saw last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) ways_out: Vec<WayOut>,
    /// How often a place was taken back, by interface.
    pub(super) repairs: BTreeMap<(String, Cause), u64>,
    /// Why sockets are not kept from passing by the filter.
    pub(super) unguarded: Option<Unguarded>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WayOut {
    pub(super) interface: String,
    pub(super) filtered: bool,
    /// It should be filtered.
    pub(super) covered: bool,
    pub(super) why: String,
}

impl WayOut {
    /// `filtered`: a program hangs there, and is the first.
    pub(super) fn of(interface: &Interface, coverage: Coverage, filtered: bool) -> Self {
        let covered = coverage.is_covered();
        let why = if filtered && !covered {
            format!("{}, and filtered before", coverage.reason())
        } else {
            coverage.reason()
        };
        Self {
            interface: interface.name.clone(),
            filtered,
            covered,
            why,
        }
    }

    /// Whether it is one to count as enforced upon or not.
    pub(super) const fn is_watched(&self) -> bool {
        self.covered || self.filtered
    }
}

pub(super) fn complaint(ways_out: &[WayOut]) -> Option<String> {
    let unfiltered = ways_out.iter().filter(|way| way.covered && !way.filtered);
    let names: Vec<&str> = unfiltered.map(|way| way.interface.as_str()).collect();
    (!names.is_empty()).then(|| format!("packets are not filtered on {}", names.join(", ")))
}

/// What the log was told of, so that it is told once.
#[derive(Debug, Default)]
pub(super) struct Told(Option<String>);

impl Told {
    pub(super) fn log_changes(&mut self, ways_out: &[WayOut]) {
        let complaint = complaint(ways_out);
        if self.0 != complaint {
            match &complaint {
                Some(complaint) => tracing::error!("{complaint}"),
                None => tracing::info!("packets are filtered on every interface again"),
            }
            self.0 = complaint;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces::By;

    fn way(name: &str, coverage: Coverage, filtered: bool) -> WayOut {
        let interface = Interface {
            name: name.to_owned(),
            ..Interface::default()
        };
        WayOut::of(&interface, coverage, filtered)
    }

    #[test]
    fn an_interface_to_be_filtered_that_is_not_is_a_complaint() {
        let eth0 = |filtered| [way("eth0", Coverage::DefaultRoute, filtered)];
        assert_eq!(complaint(&eth0(true)), None);
        let complaint = complaint(&eth0(false));
        assert_eq!(complaint.unwrap(), "packets are not filtered on eth0");
    }

    #[test]
    fn what_leads_inward_or_was_not_named_is_none() {
        let ways_out = [
            way("docker0", Coverage::InwardBridge, false),
            way("wg0", Coverage::NotNamed(By::Policy), false),
        ];
        assert_eq!(complaint(&ways_out), None);
        assert!(!ways_out[0].is_watched());
    }

    #[test]
    fn what_an_earlier_daemon_filtered_still_counts() {
        let old = way("old0", Coverage::NotNamed(By::Policy), true);
        assert!(old.is_watched());
        assert_eq!(old.why, "not named by the policy, and filtered before");
    }
}
