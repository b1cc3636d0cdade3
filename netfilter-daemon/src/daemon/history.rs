//! The last denials: each once, in their order, and summed by destination.

use std::collections::VecDeque;

use super::{
    event::{Event, Events},
    status::DeniedLately,
};

/// Events that are kept.
pub const KEPT: usize = 4096;
/// Events that one line of an answer holds.
const BATCH: usize = 256;

/// Events that an overview shows.
const RECENT: usize = 50;

/// Destinations that are counted apart, and those of them that `status` tells.
const DESTINATIONS: usize = 256;
const TOLD: usize = 10;

/// The events since the daemon's start, the last [`KEPT`] of them. Each reader
/// has its own place in it: nothing is stored per reader, and nobody waits for one.
#[derive(Debug, Default)]
pub(super) struct History {
    events: VecDeque<Event>,
    forgotten: u64,
    /// The one denied last comes last.
    destinations: VecDeque<DeniedLately>,
}

/// A reader's place: how many events it has seen or missed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place(u64);

impl History {
    pub(super) fn note(&mut self, event: Event) {
        if self.events.len() == KEPT {
            self.events.pop_front();
            self.forgotten += 1;
        }
        let former = self
            .destinations
            .iter()
            .position(|denied| same(&denied.event, &event));
        let before = former.and_then(|at| self.destinations.remove(at));
        if self.destinations.len() == DESTINATIONS {
            self.destinations.pop_front();
        }
        self.destinations.push_back(DeniedLately {
            event: event.clone(),
            count: before.map_or(0, |denied| denied.count) + 1,
        });
        self.events.push_back(event);
    }

    pub(super) fn all(&self) -> Events {
        self.read(&mut Place::default(), KEPT)
    }

    /// The newest first.
    pub(super) fn recent(&self) -> Vec<Event> {
        self.events.iter().rev().take(RECENT).cloned().collect()
    }

    /// What comes next; `None` where nothing has.
    pub(super) fn next(&self, place: &mut Place) -> Option<Events> {
        let next = self.read(place, BATCH);
        (!next.events.is_empty()).then_some(next)
    }

    fn read(&self, place: &mut Place, limit: usize) -> Events {
        let skipped = self.forgotten.saturating_sub(place.0);
        place.0 += skipped;
        let seen = usize::try_from(place.0 - self.forgotten).unwrap_or(usize::MAX);
        let events: Vec<Event> = self.events.iter().skip(seen).take(limit).cloned().collect();
        place.0 += events.len() as u64;
        Events { skipped, events }
    }

    /// The last one first.
    pub(super) fn lately(&self) -> Vec<DeniedLately> {
        self.destinations.iter().rev().take(TOLD).cloned().collect()
    }
}

/// Clients may write a name in any letter case, to tell forged answers.
fn same(one: &Event, other: &Event) -> bool {
    let destination = |event: &Event| {
        let Event {
            destination,
            destination_port,
            ref protocol,
            ..
        } = *event;
        (destination, destination_port, protocol.clone())
    };
    let who = |event: &Event| {
        let socket = event.socket.as_ref()?;
        Some((
            socket.way.clone(),
            socket.program.clone(),
            socket.user.clone(),
        ))
    };
    if who(one) != who(other) {
        return false;
    }
    match (&one.question, &other.question) {
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        (None, None) => destination(one) == destination(other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netfilter_ebpf::verdict::Way;

    use crate::{
        daemon::event::tests::{attempted, reported},
        datapath,
    };

    fn event(time: u64) -> Event {
        let event = datapath::Event { time, ..reported() };
        Event::new(event, None, None)
    }

    fn question(name: &str) -> Event {
        let event = datapath::Event {
            question: Some(name.to_owned()),
            ..reported()
        };
        Event::new(event, None, None)
    }

    fn times(events: &Events) -> Vec<u64> {
        events.events.iter().map(|event| event.time).collect()
    }

    #[test]
    fn a_reader_gets_what_came_before_it_and_then_each_event_once() {
        let mut history = History::default();
        history.note(event(1));
        history.note(event(2));
        let mut place = Place::default();
        assert_eq!(times(&history.next(&mut place).unwrap()), [1, 2]);
        assert_eq!(history.next(&mut place), None);
        history.note(event(3));
        let next = history.next(&mut place).unwrap();
        assert_eq!((times(&next), next.skipped), (vec![3], 0));
        assert_eq!(times(&history.all()), [1, 2, 3]);
        let recent: Vec<u64> = history.recent().iter().map(|event| event.time).collect();
        assert_eq!(recent, [3, 2, 1]);
    }

    #[test]
    fn what_a_slow_reader_missed_is_counted_and_the_rest_is_told_in_order() {
        let kept = KEPT as u64;
        let mut history = History::default();
        let mut place = Place::default();
        history.note(event(0));
        assert_eq!(times(&history.next(&mut place).unwrap()), [0]);
        for time in 1..=kept + 100 {
            history.note(event(time));
        }
        assert_eq!(history.events.len(), KEPT);
        let mut told = Vec::new();
        let mut skipped = Vec::new();
        while let Some(next) = history.next(&mut place) {
            assert!(next.events.len() <= BATCH);
            told.extend(times(&next));
            skipped.push(next.skipped);
        }
        assert_eq!(told, (101..=kept + 100).collect::<Vec<_>>());
        assert_eq!((skipped[0], skipped.iter().sum::<u64>()), (100, 100));
        assert_eq!(history.all().skipped, 101, "of one that comes now");
    }

    #[test]
    fn denials_of_one_destination_are_summed_and_the_last_destination_is_first() {
        let mut history = History::default();
        history.note(event(1));
        history.note(question("evil.example"));
        history.note(question("eVIL.example"));
        history.note(question("other.example"));
        history.note(event(9));
        let lately = history.lately();
        let told: Vec<_> = lately
            .iter()
            .map(|denied| (denied.event.question.as_deref(), denied.count))
            .collect();
        assert_eq!(
            told,
            [
                (None, 2),
                (Some("other.example"), 1),
                (Some("eVIL.example"), 2)
            ]
        );
        assert_eq!(lately[0].event.time, 9);
    }

    #[test]
    fn another_port_or_protocol_is_another_destination() {
        let mut history = History::default();
        for (protocol, destination_port) in [(6, 443), (6, 80), (17, 443)] {
            let event = datapath::Event {
                protocol,
                destination_port,
                ..reported()
            };
            history.note(Event::new(event, None, None));
        }
        assert_eq!(history.lately().len(), 3);
    }

    #[test]
    fn sockets_are_told_apart_by_who_asked_and_for_what() {
        let mut history = History::default();
        let asked = |program: &str, way| datapath::Attempt {
            program: program.to_owned(),
            way,
            ..attempted()
        };
        history.note(event(1));
        for (program, way) in [
            ("nmap", Way::QdiscBypass),
            ("nmap", Way::QdiscBypass),
            ("nmap", Way::Xdp),
            ("other", Way::Xdp),
        ] {
            history.note(Event::attempt(asked(program, way)));
        }
        let counts: Vec<u64> = history.lately().iter().map(|each| each.count).collect();
        assert_eq!(counts, [1, 1, 2, 1]);
    }

    #[test]
    fn ever_new_destinations_do_not_make_it_grow() {
        let mut history = History::default();
        for number in 0..1000 {
            history.note(question(&format!("{number}.example")));
        }
        assert_eq!(history.destinations.len(), DESTINATIONS);
        let lately = history.lately();
        assert_eq!(lately.len(), TOLD);
        assert_eq!(lately[0].event.question.as_deref(), Some("999.example"));
    }
}
