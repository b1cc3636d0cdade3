//! What is shown of an overview, and what keys do to that. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    Reading,
    listing::{Listing, Sort},
};
use crate::daemon::overview::Overview;

/// A list that can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Names,
    Processes,
    Reasons,
    Rules,
    Events,
    Tables,
}

impl Pane {
    pub(super) const ALL: [Self; 6] = [
        Self::Names,
        Self::Processes,
        Self::Reasons,
        Self::Rules,
        Self::Events,
        Self::Tables,
    ];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Processes => "processes",
            Self::Reasons => "reasons",
            Self::Rules => "rules",
            Self::Events => "events",
            Self::Tables => "tables",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Screen {
    pub(super) overview: Overview,
    /// Why the overview is old.
    pub(super) trouble: Option<String>,
    pub(super) pane: Pane,
    pub(super) sort: Sort,
    pub(super) filter: String,
    pub(super) typing: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) colours: bool,
    /// Rows before the first that is shown.
    pub(super) offset: usize,
    /// Rows that were shown when it was drawn last.
    pub(super) page: usize,
}

/// What follows a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    /// Draw all of it: something else wrote over it.
    Clear,
    End,
}

impl Screen {
    pub(super) fn new(overview: Overview, colours: bool) -> Self {
        Self {
            overview,
            trouble: None,
            pane: Pane::Names,
            sort: Sort::Most,
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
            colours,
            offset: 0,
            page: 10,
        }
    }

    /// Whether there is something else to be drawn.
    pub(super) fn take(&mut self, reading: Reading) -> bool {
        match reading {
            _ if self.paused => return false,
            Ok(overview) => {
                self.overview = overview;
                self.trouble = None;
            }
            Err(trouble) => self.trouble = Some(trouble),
        }
        true
    }

    /// The rows of a list that the filter admits, sorted.
    pub(super) fn listing(&self, pane: Pane) -> Listing {
        Listing::of(&self.overview, pane, self.sort, &self.filter)
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Next {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Next::End,
            KeyCode::Char('l') if control => return Next::Clear,
            _ if control => {}
            code if self.typing => self.write(code),
            KeyCode::Char('q') => return Next::End,
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc if !self.filter.is_empty() => self.look_for(String::new()),
            KeyCode::Esc => return Next::End,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char(digit @ '1'..='6') => {
                let place = digit.to_digit(10).unwrap_or(1).saturating_sub(1);
                self.turn_to(usize::try_from(place).unwrap_or(0));
            }
            KeyCode::Tab | KeyCode::Right => self.turn_by(1),
            KeyCode::BackTab | KeyCode::Left => self.turn_by(Pane::ALL.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.move_to(self.offset + 1),
            KeyCode::Up | KeyCode::Char('k') => self.move_to(self.offset.saturating_sub(1)),
            KeyCode::PageDown => self.move_to(self.offset + self.page),
            KeyCode::PageUp => self.move_to(self.offset.saturating_sub(self.page)),
            KeyCode::Home => self.move_to(0),
            KeyCode::End => self.move_to(usize::MAX),
            _ => {}
        }
        Next::Stay
    }

    fn write(&mut self, code: KeyCode) {
        let mut filter = self.filter.clone();
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                filter.clear();
            }
            KeyCode::Backspace => {
                filter.pop();
            }
            KeyCode::Char(character) => filter.push(character),
            _ => {}
        }
        self.look_for(filter);
    }

    fn look_for(&mut self, filter: String) {
        self.filter = filter;
        self.offset = 0;
    }

    fn turn_by(&mut self, places: usize) {
        let now = Pane::ALL.iter().position(|pane| *pane == self.pane);
        self.turn_to((now.unwrap_or(0) + places) % Pane::ALL.len());
    }

    fn turn_to(&mut self, place: usize) {
        self.pane = Pane::ALL[place % Pane::ALL.len()];
        self.offset = 0;
    }

    /// The last page is a whole one.
    fn move_to(&mut self, offset: usize) {
        let rows = self.listing(self.pane).rows.len();
        self.offset = offset.min(rows.saturating_sub(self.page.max(1)));
    }
}
