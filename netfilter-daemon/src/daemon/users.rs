//! Who used each destination and name that audit let pass, as events tell it. The kernel
//! keeps the destinations themselves, whole; this is for the comments in a suggestion.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::event::Event;

/// Destinations and names of which users are kept.
const PLACES: usize = 8_192;
/// Users of each.
const USERS: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Users {
    known: BTreeMap<Place, BTreeSet<String>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Address, protocol, port.
    Destination(IpAddr, u8, u16),
    /// As an event writes it, lowercase.
    Name(String),
}

impl Users {
    /// `protocol` is the IP protocol's number.
    pub(super) fn note(&mut self, event: &Event, protocol: u8) {
        let Some(sender) = &event.sender else {
            return;
        };
        let place = match (&event.question, event.destination) {
            (Some(name), _) => Place::Name(name.to_ascii_lowercase()),
            (None, Some(address)) => {
                Place::Destination(address, protocol, port(protocol, event.destination_port))
            }
            (None, None) => return,
        };
        if self.known.len() >= PLACES && !self.known.contains_key(&place) {
            return;
        }
        let users = self.known.entry(place).or_default();
        if users.len() < USERS {
            users.insert(sender.in_short());
        }
    }

    pub(super) fn of_destination(&self, address: IpAddr, protocol: u8, port: u16) -> Vec<String> {
        self.of(&Place::Destination(address, protocol, port))
    }

    /// Of a name as text.
    pub(super) fn of_name(&self, name: String) -> Vec<String> {
        self.of(&Place::Name(name))
    }

    fn of(&self, place: &Place) -> Vec<String> {
        let users = self.known.get(place).into_iter().flatten();
        users.cloned().collect()
    }
}

/// An event tells the identifier of an ICMP echo as one.
fn port(protocol: u8, port: Option<u16>) -> u16 {
    match protocol {
        6 | 17 => port.unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{event::tests::reported, sender::tests::who};

    fn event(last: u8, user: u32) -> Event {
        let mut who = who();
        who.user = user;
        Event::new(
            crate::datapath::Event {
                destination: Some([192, 0, 2, last].into()),
                who: Some(who),
                ..reported()
            },
            None,
            None,
        )
    }

    #[test]
    fn whoever_used_a_destination_is_told_once_and_without_the_number_of_the_process() {
        let mut users = Users::default();
        for user in [7_000_001, 7_000_001, 7_000_002] {
            users.note(&event(1, user), 6);
        }
        assert_eq!(
            users.of_destination([192, 0, 2, 1].into(), 6, 443),
            [
                "/usr/bin/curl (user 7000001, docker 3f2a91c0b1de)",
                "/usr/bin/curl (user 7000002, docker 3f2a91c0b1de)",
            ]
        );
        assert!(
            users
                .of_destination([192, 0, 2, 1].into(), 17, 443)
                .is_empty()
        );
        assert!(
            users
                .of_destination([192, 0, 2, 2].into(), 6, 443)
                .is_empty()
        );
    }

    #[test]
    fn a_name_is_known_in_any_letter_case() {
        let mut users = Users::default();
        users.note(
            &Event {
                question: Some("PyPI.org".to_owned()),
                ..event(1, 7_000_001)
            },
            17,
        );
        assert_eq!(users.of_name("pypi.org".to_owned()).len(), 1);
    }

    #[test]
    fn whoever_makes_up_users_and_places_takes_bounded_room() {
        let mut users = Users::default();
        for user in 0..100 {
            users.note(&event(1, 7_000_000 + user), 6);
        }
        for number in 0..u32::try_from(PLACES).unwrap() + 10 {
            let mut event = event(2, 1);
            event.destination = Some(IpAddr::from(number.to_be_bytes()));
            users.note(&event, 6);
        }
        assert_eq!(
            users.of_destination([192, 0, 2, 1].into(), 6, 443).len(),
            USERS
        );
        assert_eq!(users.known.len(), PLACES);
    }
}
