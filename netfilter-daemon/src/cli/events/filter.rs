//! Which events `events` shows.

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use netfilter_ebpf::verdict::Reason;

use crate::{daemon::event::Event, policy::Pattern};

/// Those that match something of each kind that is named.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Filter {
    /// Only these reasons, as `no_rule`; several with commas or again
    #[arg(long, value_name = "REASON", value_delimiter = ',', value_parser = reason)]
    reason: Vec<&'static str>,

    /// Only to this address, subnet (CIDR), or name and what is below it
    #[arg(long, value_name = "DESTINATION", value_parser = destination)]
    destination: Vec<Destination>,

    /// Only by this process (its number), or program: its name, the name or the path of its file
    #[arg(long, value_name = "PROCESS")]
    process: Vec<String>,

    /// Only what the rule with this name denies, or has audited
    #[arg(long, value_name = "RULE")]
    rule: Vec<String>,
}

#[derive(Debug, Clone)]
enum Destination {
    Subnet(IpNet),
    /// The wire form of a name, without the root.
    Name(Vec<u8>),
}

impl Filter {
    pub(super) fn admits(&self, event: &Event) -> bool {
        let reasons = self.reason.iter().any(|reason| event.reason == *reason);
        let destinations = self.destination.iter().any(|to| to.is_of(event));
        let processes = self.process.iter().any(|process| is_by(event, process));
        let rules = self
            .rule
            .iter()
            .any(|rule| event.rule.as_ref() == Some(rule));
        (reasons || self.reason.is_empty())
            && (destinations || self.destination.is_empty())
            && (processes || self.process.is_empty())
            && (rules || self.rule.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reason.is_empty()
            && self.destination.is_empty()
            && self.process.is_empty()
            && self.rule.is_empty()
    }
}

impl Destination {
    fn is_of(&self, event: &Event) -> bool {
        match self {
            // A question goes to a resolver, and is for a name.
            Self::Subnet(subnet) => {
                event.question.is_none() && event.destination.is_some_and(|ip| subnet.contains(&ip))
            }
            Self::Name(name) => {
                let of_event = event.question.as_ref().or(event.name.as_ref());
                let of_event = of_event.and_then(|name| name.parse::<Pattern>().ok());
                of_event.is_some_and(|of_event| is_below(of_event.wire(), name))
            }
        }
    }
}

/// Whether a name is this one or below it; both in wire form.
fn is_below(name: &[u8], this: &[u8]) -> bool {
    let mut rest = name;
    loop {
        if rest.eq_ignore_ascii_case(this) {
            return true;
        }
        let Some((length, behind)) = rest.split_first() else {
            return false;
        };
        rest = behind.get(usize::from(*length)..).unwrap_or_default();
    }
}

fn is_by(event: &Event, process: &str) -> bool {
    let (pid, program, executable) = match (&event.sender, &event.socket) {
        (Some(sender), _) => (sender.pid, &sender.program, &sender.executable),
        (None, Some(socket)) => (socket.process, &socket.program, &None),
        (None, None) => return false,
    };
    if pid.is_some_and(|pid| pid.to_string() == process) || program.as_deref() == Some(process) {
        return true;
    }
    executable
        .as_deref()
        .is_some_and(|path| path == process || path.rsplit('/').next() == Some(process))
}

fn reason(text: &str) -> Result<&'static str, String> {
    let known = || Reason::ALL.iter().map(|reason| reason.label());
    known().find(|label| *label == text).ok_or_else(|| {
        let known: Vec<&str> = known().collect();
        format!("no such reason; there are {}", known.join(", "))
    })
}

fn destination(text: &str) -> Result<Destination, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Destination::Subnet(address.into()));
    }
    if let Ok(subnet) = text.parse() {
        return Ok(Destination::Subnet(subnet));
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    match name.parse::<Pattern>() {
        Ok(name) => Ok(Destination::Name(name.wire().to_vec())),
        Err(error) => Err(format!(
            "neither an address nor a subnet, and as a name: {error}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::events::tests::some;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    /// The places of those in the test's list that are shown.
    fn shown(arguments: &[&str]) -> Vec<usize> {
        let line = Line::try_parse_from([&["events"], arguments].concat()).unwrap();
        let events = some().events;
        let admitted = events.iter().enumerate();
        admitted
            .filter(|(_, event)| line.filter.admits(event))
            .map(|(place, _)| place)
            .collect()
    }

    #[test]
    fn what_is_named_is_shown_and_kinds_narrow_each_other() {
        assert_eq!(shown(&[]), [0, 1, 2, 3, 4, 5]);
        for (arguments, expected) in [
            (&["--reason", "dns_name"][..], &[1][..]),
            (&["--reason", "dns_name,ethertype"], &[1, 3]),
            (&["--destination", "204.79.197.219"], &[0]),
            (&["--destination", "204.79.196.0/22"], &[0]),
            (&["--destination", "10.0.0.0/8"], &[]),
            (&["--destination", "2603:1061:f:100::/64"], &[2]),
            (&["--destination", "mcr.microsoft.com"], &[0, 2]),
            (&["--destination", "*.MCR.microsoft.com"], &[0, 2]),
            (&["--destination", "r.microsoft.com"], &[]),
            (&["--destination", "evil.example"], &[1]),
            (&["--process", "812"], &[4, 5]),
            (&["--process", "81"], &[]),
            (&["--process", "curl"], &[5]),
            (&["--process", "/usr/bin/curl"], &[5]),
            (&["--process", "xsk"], &[4]),
            (&["--rule", "no-metadata"], &[5]),
            (&["--rule", "no-meta"], &[]),
            (&["--process", "812", "--reason", "raw_socket"], &[4]),
            (&["--process", "xsk", "--process", "curl"], &[4, 5]),
        ] {
            assert_eq!(shown(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_reason_that_there_is_not_is_refused_with_those_that_there_are() {
        let refused = Line::try_parse_from(["events", "--reason", "moon_phase"]);
        let said = refused.unwrap_err().to_string();
        assert!(
            said.contains("no such reason; there are no_rule, denied_by_rule, "),
            "{said}"
        );
        let refused = Line::try_parse_from(["events", "--destination", "a..b"]);
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("neither an address nor a subnet"), "{said}");
    }
}
