use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{listing::Sort, screen::Pane, *};
use crate::{
    daemon::overview::tests::{nothing, some},
    golden,
};

fn screen() -> Screen {
    Screen::new(some(), false)
}

fn drawn(screen: &Screen, size: (u16, u16)) -> String {
    picture(screen, size).unwrap()
}

fn press(screen: &mut Screen, codes: &[KeyCode]) -> Next {
    let mut next = Next::Stay;
    for code in codes {
        next = screen.press(KeyEvent::new(*code, KeyModifiers::NONE));
    }
    next
}

fn typed(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

#[test]
fn a_small_terminal_shows_one_list_and_how_to_see_the_others() {
    golden::check("top-small.txt", &drawn(&screen(), SIZE));
}

#[test]
fn a_large_terminal_shows_four_lists() {
    golden::check("top-large.txt", &drawn(&screen(), (160, 44)));
}

#[test]
fn every_list_has_its_place() {
    let mut screen = screen();
    let mut all = String::new();
    for pane in Pane::ALL {
        assert_eq!(screen.pane, pane);
        all.push_str(&format!(
            "--- {}\n{}",
            pane.title(),
            drawn(&screen, (100, 20))
        ));
        press(&mut screen, &[KeyCode::Tab]);
    }
    assert_eq!(screen.pane, Pane::Names, "and around");
    press(&mut screen, &[KeyCode::Left]);
    assert_eq!(screen.pane, Pane::Tables);
    press(&mut screen, &typed("4"));
    assert_eq!(screen.pane, Pane::Rules);
    golden::check("top-lists.txt", &all);
}

#[test]
fn a_daemon_with_nothing_to_show_says_so() {
    let mut screen = Screen::new(nothing(), false);
    assert!(drawn(&screen, SIZE).contains("nothing was reported in the last hour"));
    press(&mut screen, &typed("4"));
    assert!(drawn(&screen, SIZE).contains("the policy has no rule: it allows nothing"));
}

#[test]
fn what_is_wrong_stands_in_the_second_line() {
    let mut screen = screen();
    screen.overview.daemon.complaint = Some("packets are not filtered on eth1".to_owned());
    let picture = drawn(&screen, SIZE);
    let line = picture.lines().nth(1);
    assert_eq!(line, Some("PROBLEM packets are not filtered on eth1"));
    assert!(screen.take(Err(
        "the daemon has ended; its filter stays in force".to_owned()
    )));
    let picture = drawn(&screen, SIZE);
    assert!(
        picture.contains("PROBLEM the daemon has ended"),
        "{picture}"
    );
    assert!(screen.take(Ok(some())));
    assert!(!drawn(&screen, SIZE).contains("PROBLEM"));
}

#[test]
fn no_terminal_is_too_small_and_none_too_large() {
    for help in [false, true] {
        for width in (1..40).chain([79, 80, 129, 130, 131, 300]) {
            for height in [1, 2, 5, 6, 7, 10, 19, 20, 33, 34, 35, 100] {
                for pane in ["1", "3", "5", "6"] {
                    let mut screen = screen();
                    screen.help = help;
                    press(&mut screen, &typed(pane));
                    drawn(&screen, (width, height));
                }
            }
        }
    }
}

#[test]
fn nothing_that_others_choose_reaches_the_terminal() {
    let mut screen = screen();
    for pane in ["1", "2", "4", "5", "6"] {
        press(&mut screen, &typed(pane));
        let picture = drawn(&screen, (300, 60));
        let hostile = |character: char| {
            (character.is_control() && character != '\n') || "\u{202e}\u{2066}".contains(character)
        };
        assert!(!picture.contains(hostile), "{picture}");
    }
    assert!(drawn(&screen, (300, 60)).contains("gpj.exe\\u{1b}[2J\\r\\n"));
}

#[test]
fn keys_sort_sift_pause_and_end() {
    let mut screen = screen();
    let first = |screen: &Screen| screen.listing(screen.pane).rows[0].cells[0].clone();
    assert_eq!(first(&screen), "pypi.org");
    press(&mut screen, &typed("ss"));
    assert_eq!(
        (screen.sort, first(&screen).as_str()),
        (Sort::Name, "\"><img src=x onerror=document.title='canary'>")
    );
    press(&mut screen, &typed("s"));

    press(&mut screen, &typed("/EVIL.q"));
    press(&mut screen, &[KeyCode::Backspace, KeyCode::Backspace]);
    assert_eq!(screen.filter, "EVIL", "q is a letter here");
    assert!(drawn(&screen, SIZE).contains("find: EVIL_"));
    press(&mut screen, &[KeyCode::Enter]);
    let rows = screen.listing(Pane::Names).rows;
    assert!(!rows.is_empty() && rows.len() < 8);
    assert!(rows.iter().all(|row| {
        row.cells
            .iter()
            .any(|cell| cell.to_lowercase().contains("evil"))
    }));
    press(&mut screen, &typed("/nowhere"));
    press(&mut screen, &[KeyCode::Enter]);
    assert!(drawn(&screen, SIZE).contains("Esc shows all"));
    assert_eq!(press(&mut screen, &[KeyCode::Esc]), Next::Stay);
    assert_eq!(screen.listing(Pane::Names).rows.len(), 9);

    press(&mut screen, &typed("p"));
    let mut newer = some();
    newer.host = "other".to_owned();
    assert!(!screen.take(Ok(newer.clone())));
    assert!(drawn(&screen, SIZE).contains("PAUSED at 14:13:20 UTC"));
    press(&mut screen, &typed("p"));
    assert!(screen.take(Ok(newer)));
    assert!(drawn(&screen, SIZE).starts_with("other: enforcing"));

    press(&mut screen, &typed("?"));
    assert!(drawn(&screen, SIZE).contains("are those that it left out"));
    assert_eq!(press(&mut screen, &[KeyCode::Esc]), Next::Stay);
    assert_eq!(press(&mut screen, &[KeyCode::Esc]), Next::End);
    assert_eq!(press(&mut screen, &typed("q")), Next::End);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.press(interrupt), Next::End);
}

#[test]
fn moving_ends_with_a_whole_page() {
    let mut screen = screen();
    screen.page = 4;
    press(&mut screen, &[KeyCode::End]);
    assert_eq!(screen.offset, 5, "of nine rows");
    press(&mut screen, &[KeyCode::Down, KeyCode::PageDown]);
    assert_eq!(screen.offset, 5);
    press(&mut screen, &[KeyCode::PageUp, KeyCode::Up, KeyCode::Up]);
    assert_eq!(screen.offset, 0);
}

#[test]
fn without_colours_there_are_none() {
    let colours = |colours| {
        let mut screen = Screen::new(some(), colours);
        screen.overview.daemon.complaint = Some("ill".to_owned());
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal
            .draw(|frame| draw::draw(&mut screen, frame.buffer_mut()))
            .unwrap();
        let cells = terminal.backend().buffer().content.iter();
        let is_coloured = |cell: &&ratatui::buffer::Cell| {
            cell.fg != ratatui::style::Color::Reset || cell.bg != ratatui::style::Color::Reset
        };
        cells.filter(is_coloured).count()
    };
    assert_eq!(colours(false), 0);
    assert!(colours(true) > 0);
}
