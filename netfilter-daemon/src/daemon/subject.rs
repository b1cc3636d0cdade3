//! What an event is about, as it is summed up: its destination, and who sent it.

use std::fmt;

use super::{event::Event, overview::Subject, tally::Last};

/// The name that was asked for, or that the destination was last resolved from; else the address.
pub(super) fn destination(event: &Event) -> Subject {
    let name = match (&event.question, &event.name, event.destination) {
        // Clients may write it in any letter case.
        (Some(name), _, _) | (None, Some(name), _) => name.to_ascii_lowercase(),
        (None, None, Some(address)) => address.to_string(),
        (None, None, None) => match &event.socket {
            Some(socket) => socket.what().to_owned(),
            None => "a frame without addresses".to_owned(),
        },
    };
    Subject {
        what: name,
        whose: String::new(),
    }
}

/// Not by the names that threads give themselves, nor by numbers: those are ever new.
pub(super) fn process(event: &Event) -> Subject {
    if let Some(socket) = &event.socket {
        return Subject {
            what: socket.program.clone().unwrap_or_else(unknown),
            whose: socket.user.clone(),
        };
    }
    let Some(sender) = &event.sender else {
        return Subject {
            what: "no socket of this machine".to_owned(),
            whose: format!("on {}", event.interface),
        };
    };
    let file = sender.executable.as_ref().or(sender.program.as_ref());
    let whose = match &sender.container {
        Some(container) => format!("{}, {container}", sender.user),
        None => sender.user.clone(),
    };
    Subject {
        what: file.cloned().unwrap_or_else(unknown),
        whose,
    }
}

pub(super) fn last(event: &Event, other: String) -> Last {
    Last {
        time: event.time,
        reason: event.reason.clone(),
        audited: event.audited,
        other,
        untold: event.untold,
    }
}

fn unknown() -> String {
    "a process".to_owned()
}

/// `/usr/bin/curl (alice)`
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, whose } = self;
        f.write_str(what)?;
        match whose.as_str() {
            "" => Ok(()),
            whose => write!(f, " ({whose})"),
        }
    }
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

    fn told(event: &Event) -> (String, String) {
        (destination(event).to_string(), process(event).to_string())
    }

    #[test]
    fn a_destination_is_its_name_in_small_letters_or_else_its_address() {
        let name = |name: &str| Some((name.to_owned(), 1));
        let event = |name| Event::new(reported(), name, None);
        assert_eq!(destination(&event(None)).what, "192.0.2.1");
        assert_eq!(destination(&event(name("pyPI.org"))).what, "pypi.org");
        let question = datapath::Event {
            question: Some("eVIL.example".to_owned()),
            ..reported()
        };
        let question = Event::new(question, name("other.example"), None);
        assert_eq!(destination(&question).what, "evil.example");
        let frame = datapath::Event {
            destination: None,
            ..reported()
        };
        let frame = Event::new(frame, None, None);
        assert_eq!(destination(&frame).what, "a frame without addresses");
    }

    #[test]
    fn a_process_is_its_file_user_and_container_whatever_it_calls_itself() {
        let with = |program: &str| {
            let mut who = who();
            who.process.as_mut().unwrap().program = program.to_owned();
            let event = datapath::Event {
                who: Some(who),
                ..reported()
            };
            Event::new(event, None, None)
        };
        for program in ["curl", "1", "2"] {
            let told = told(&with(program)).1;
            assert!(told.starts_with("/usr/bin/curl ("), "{told}");
            assert!(told.ends_with(", docker 3f2a91c0b1de)"), "{told}");
        }
    }

    #[test]
    fn what_no_socket_here_has_sent_is_told_by_its_interface() {
        let forwarded = Event::new(reported(), None, None);
        assert_eq!(told(&forwarded).1, "no socket of this machine (on eth0)");
        let refused = Event::attempt(attempted());
        assert_eq!(
            told(&refused),
            (
                "a packet socket that passes by the filter".to_owned(),
                "nmap (root)".to_owned()
            )
        );
    }
}
