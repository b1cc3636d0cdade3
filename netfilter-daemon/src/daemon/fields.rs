//! An event as an entry of systemd's journal.

use super::event::Event;

/// `info`, as syslog numbers it.
const PRIORITY: &str = "6";

/// Names and values; what is not known has none. The names that do not begin with
/// `NETFILTER_` are the journal's own.
pub(super) fn of(event: &Event) -> Vec<(&'static str, String)> {
    let verdict = if event.audited { "audited" } else { "denied" };
    let mut fields = vec![
        ("MESSAGE", event.to_string()),
        ("PRIORITY", PRIORITY.to_owned()),
        ("SYSLOG_IDENTIFIER", env!("CARGO_PKG_NAME").to_owned()),
        ("NETFILTER_VERDICT", verdict.to_owned()),
        ("NETFILTER_REASON", event.reason.clone()),
    ];
    let mut add = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    add("NETFILTER_INTERFACE", text(&event.interface));
    add("NETFILTER_PROTOCOL", event.protocol.clone());
    add("NETFILTER_SOURCE", event.source.map(|ip| ip.to_string()));
    add(
        "NETFILTER_DESTINATION",
        event.destination.map(|ip| ip.to_string()),
    );
    let port = event.destination_port.map(|port| port.to_string());
    add("NETFILTER_DESTINATION_PORT", port);
    add("NETFILTER_NAME", event.name.clone());
    add("NETFILTER_QUESTION", event.question.clone());
    add("NETFILTER_RULE", event.rule.clone());
    let untold = (event.untold > 0).then(|| event.untold.to_string());
    add("NETFILTER_UNTOLD", untold);
    if let Some(socket) = &event.socket {
        add(
            "NETFILTER_PROCESS",
            socket.process.map(|pid| pid.to_string()),
        );
        add("NETFILTER_PROGRAM", socket.program.clone());
        add("NETFILTER_USER", Some(socket.user.clone()));
    }
    if let Some(sender) = &event.sender {
        add("NETFILTER_PROCESS", sender.pid.map(|pid| pid.to_string()));
        add("NETFILTER_PROGRAM", sender.program.clone());
        add("NETFILTER_EXECUTABLE", sender.executable.clone());
        add("NETFILTER_USER", Some(sender.user.clone()));
        add("NETFILTER_CGROUP", sender.cgroup.clone());
        let container = sender.container.as_ref();
        add("NETFILTER_CONTAINER", container.map(|of| of.id.clone()));
        add("NETFILTER_POD", container.and_then(|of| of.pod.clone()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        daemon::{
            event::tests::{attempted, reported},
            sender::tests::who,
        },
        datapath,
    };

    #[test]
    fn an_entry_has_a_field_for_all_that_is_known_and_none_for_the_rest() {
        let reported = datapath::Event {
            who: Some(who()),
            ..reported()
        };
        let event = Event::new(reported, None, Some("no-metadata".to_owned()));
        let fields = of(&event);
        let field = |name| {
            let mut found = fields.iter().filter(|(known, _)| *known == name);
            found.next().map(|(_, value)| value.as_str())
        };
        for (name, value) in [
            ("PRIORITY", "6"),
            ("NETFILTER_VERDICT", "denied"),
            ("NETFILTER_REASON", "no_rule"),
            ("NETFILTER_DESTINATION", "192.0.2.1"),
            ("NETFILTER_DESTINATION_PORT", "443"),
            ("NETFILTER_RULE", "no-metadata"),
            ("NETFILTER_PROCESS", "812"),
            ("NETFILTER_EXECUTABLE", "/usr/bin/curl"),
            ("NETFILTER_CONTAINER", "3f2a91c0b1de"),
        ] {
            assert_eq!(field(name), Some(value), "{name}");
        }
        assert_eq!(field("MESSAGE"), Some(event.to_string().as_str()));
        for name in [
            "NETFILTER_NAME",
            "NETFILTER_QUESTION",
            "NETFILTER_POD",
            "NETFILTER_UNTOLD",
        ] {
            assert_eq!(field(name), None, "{name}");
        }
        let socket = of(&Event::attempt(attempted()));
        assert!(socket.contains(&("NETFILTER_PROCESS", "812".to_owned())));
        assert!(
            socket
                .iter()
                .all(|(name, _)| *name != "NETFILTER_INTERFACE")
        );
    }
}
