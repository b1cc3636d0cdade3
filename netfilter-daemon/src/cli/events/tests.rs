use super::*;
use crate::golden;

const NOW: u64 = 1_790_000_000;

fn connection() -> event::Event {
    event::Event {
        time: NOW,
        audited: false,
        interface: "eth0".to_owned(),
        protocol: Some("TCP".to_owned()),
        source: Some([10, 0, 0, 5].into()),
        source_port: Some(40_000),
        destination: Some([204, 79, 197, 219].into()),
        destination_port: Some(8443),
        name: Some("eastus.data.mcr.microsoft.com".to_owned()),
        resolved_at: Some(NOW - 3),
        question: None,
        socket: None,
        reason: "no_rule".to_owned(),
        rule: None,
        bytes: 74,
        sender: None,
        untold: 0,
    }
}

fn some() -> event::Events {
    let question = event::Event {
        time: NOW + 1,
        protocol: Some("UDP".to_owned()),
        destination: Some([10, 0, 0, 53].into()),
        destination_port: Some(53),
        name: None,
        resolved_at: None,
        question: Some("evil.example".to_owned()),
        reason: "dns_name".to_owned(),
        ..connection()
    };
    let audited = event::Event {
        time: NOW + 2,
        audited: true,
        protocol: Some("UDP".to_owned()),
        destination: Some("2603:1061:f:100::1a".parse().unwrap()),
        source: Some("fd99::2".parse().unwrap()),
        ..connection()
    };
    let frame = event::Event {
        time: NOW + 3,
        protocol: None,
        source: None,
        source_port: None,
        destination: None,
        destination_port: None,
        name: None,
        resolved_at: None,
        reason: "ethertype".to_owned(),
        ..connection()
    };
    let socket = event::Event {
        time: NOW + 4,
        interface: String::new(),
        socket: Some(event::Socket {
            way: "af_xdp".to_owned(),
            process: Some(812),
            program: Some("xsk".to_owned()),
            user: "root".to_owned(),
        }),
        reason: "raw_socket".to_owned(),
        bytes: 0,
        ..frame.clone()
    };
    event::Events {
        skipped: 12,
        events: vec![connection(), question, audited, frame, socket],
    }
}

#[test]
fn events_read_as_written() {
    golden::check("events.txt", &lines(&some(), false).unwrap());
}

#[test]
fn each_event_is_a_line_of_json() {
    let text = lines(&some(), true).unwrap();
    golden::check("events.jsonl", &text);
    for (line, event) in text.lines().skip(1).zip(some().events) {
        assert_eq!(serde_json::from_str::<event::Event>(line).unwrap(), event);
    }
}

#[test]
fn nothing_is_said_to_be_skipped_where_nothing_was() {
    let events = event::Events {
        skipped: 0,
        ..some()
    };
    for json in [true, false] {
        assert!(!lines(&events, json).unwrap().contains("skipped"));
    }
}

#[test]
fn what_the_daemon_sends_is_what_the_command_reads() {
    let sent = Answer::Events(some());
    let line = serde_json::to_string(&sent).unwrap();
    assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), sent);
}
