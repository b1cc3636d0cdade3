//! The interfaces by which something could leave, and whether they are filtered.

use crate::{
    datapath::Attachment,
    interfaces::{By, Choice, Interface},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WayOut {
    pub(super) interface: String,
    pub(super) filtered: bool,
    /// The filter is of no use while this one is not filtered.
    essential: bool,
}

/// Every interface that is there and was chosen or is filtered. Where nobody
/// named them, also those that came up since, so that they show as not filtered.
pub(super) fn of(choice: &Choice, present: &[Interface], attached: &[Attachment]) -> Vec<WayOut> {
    let automatic = choice.by == By::Auto;
    let ways_out = present.iter().filter_map(|interface| {
        let Interface {
            name,
            up,
            loopback,
            default_route,
        } = interface;
        let filtered = attached.iter().any(|place| place.interface == *name);
        let chosen = choice.names.contains(name);
        let newcomer = automatic && *up && !*loopback;
        (filtered || chosen || newcomer).then(|| WayOut {
            interface: name.clone(),
            filtered,
            essential: chosen || (automatic && *default_route),
        })
    });
    ways_out.collect()
}

pub(super) fn complaint(ways_out: &[WayOut]) -> Option<String> {
    let unfiltered = ways_out.iter().filter(|way| !way.filtered && way.essential);
    let names: Vec<&str> = unfiltered.map(|way| way.interface.as_str()).collect();
    (!names.is_empty()).then(|| format!("packets are not filtered on {}", names.join(", ")))
}

/// What the log was told of, so that it is told once.
#[derive(Debug, Default)]
pub(super) struct Told {
    complaint: Option<String>,
    newcomers: Vec<String>,
}

impl Told {
    pub(super) fn log_changes(&mut self, ways_out: &[WayOut]) {
        let complaint = complaint(ways_out);
        if self.complaint != complaint {
            match &complaint {
                Some(complaint) => tracing::error!("{complaint}"),
                None => tracing::info!("packets are filtered on every interface again"),
            }
            self.complaint = complaint;
        }
        for name in self.news(ways_out) {
            tracing::warn!(
                "{name} came up and is not filtered; start the daemon anew to filter it too"
            );
        }
    }

    fn news(&mut self, ways_out: &[WayOut]) -> Vec<String> {
        let newcomers = ways_out
            .iter()
            .filter(|way| !way.filtered && !way.essential);
        let newcomers: Vec<String> = newcomers.map(|way| way.interface.clone()).collect();
        let known = std::mem::replace(&mut self.newcomers, newcomers.clone());
        newcomers
            .into_iter()
            .filter(|name| !known.contains(name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::Hook;

    fn interface(name: &str, default_route: bool) -> Interface {
        Interface {
            name: name.to_owned(),
            up: true,
            loopback: name == "lo",
            default_route,
        }
    }

    fn choice(names: &[&str], by: By) -> Choice {
        Choice {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            by,
        }
    }

    fn attached(names: &[&str]) -> Vec<Attachment> {
        let attachment = |name: &&str| Attachment {
            interface: (*name).to_owned(),
            ifindex: 1,
            hook: Hook::Tcx,
        };
        names.iter().map(attachment).collect()
    }

    fn names(ways_out: &[WayOut]) -> Vec<&str> {
        ways_out.iter().map(|way| way.interface.as_str()).collect()
    }

    #[test]
    fn a_chosen_interface_that_lost_its_filter_is_a_complaint() {
        let present = [interface("lo", false), interface("eth0", true)];
        let eth0 = choice(&["eth0"], By::CommandLine);
        assert_eq!(complaint(&of(&eth0, &present, &attached(&["eth0"]))), None);
        let complaint = complaint(&of(&eth0, &present, &[]));
        assert_eq!(complaint.unwrap(), "packets are not filtered on eth0");
    }

    #[test]
    fn a_chosen_interface_that_is_unplugged_is_none() {
        let eth0 = choice(&["eth0", "eth1"], By::Policy);
        let ways_out = of(&eth0, &[interface("eth0", true)], &attached(&["eth0"]));
        assert_eq!(complaint(&ways_out), None);
        assert_eq!(names(&ways_out), ["eth0"]);
    }

    #[test]
    fn a_newcomer_is_a_complaint_only_if_a_default_route_leaves_by_it() {
        let auto = choice(&["eth0"], By::Auto);
        let eth0 = attached(&["eth0"]);
        let present = [interface("eth0", true), interface("veth7", false)];
        let ways_out = of(&auto, &present, &eth0);
        assert_eq!(names(&ways_out), ["eth0", "veth7"]);
        assert_eq!(complaint(&ways_out), None);
        let present = [interface("eth0", true), interface("wg0", true)];
        assert!(complaint(&of(&auto, &present, &eth0)).is_some());
    }

    #[test]
    fn nobody_asked_for_newcomers_where_interfaces_are_named() {
        let named = choice(&["eth0"], By::Policy);
        let present = [interface("eth0", true), interface("wg0", true)];
        assert_eq!(names(&of(&named, &present, &attached(&["eth0"]))), ["eth0"]);
    }

    #[test]
    fn what_an_earlier_daemon_filtered_still_counts() {
        let named = choice(&["eth0"], By::Policy);
        let present = [interface("eth0", true), interface("old0", false)];
        assert_eq!(
            names(&of(&named, &present, &attached(&["eth0", "old0"]))),
            ["eth0", "old0"]
        );
    }

    #[test]
    fn a_newcomer_is_told_once_and_again_after_it_was_gone() {
        let auto = choice(&["eth0"], By::Auto);
        let eth0 = attached(&["eth0"]);
        let with = of(
            &auto,
            &[interface("eth0", true), interface("veth7", false)],
            &eth0,
        );
        let without = of(&auto, &[interface("eth0", true)], &eth0);
        let mut told = Told::default();
        assert_eq!(told.news(&with), ["veth7"]);
        assert!(told.news(&with).is_empty());
        assert!(told.news(&without).is_empty());
        assert_eq!(told.news(&with), ["veth7"]);
    }
}
