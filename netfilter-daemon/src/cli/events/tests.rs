use serde_json::Value;

use super::*;
use crate::{
    daemon::{container::Container, sender::Sender},
    golden,
};

mod schema;

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

pub(super) fn some() -> event::Events {
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
    let id = "3f2a91c0b1de";
    let attributed = event::Event {
        time: NOW + 5,
        name: None,
        resolved_at: None,
        reason: "denied_by_rule".to_owned(),
        rule: Some("no-metadata".to_owned()),
        sender: Some(Sender {
            seen_at: "connect".to_owned(),
            pid: Some(812),
            program: Some("curl".to_owned()),
            executable: Some("/usr/bin/curl".to_owned()),
            uid: 1000,
            user: "alice".to_owned(),
            cgroup: Some(format!("/docker/{id}")),
            container: Some(Container {
                runtime: "docker".to_owned(),
                id: id.to_owned(),
                pod: None,
            }),
            shared: false,
        }),
        untold: 37,
        ..connection()
    };
    let attributed = event::Event {
        destination: Some([169, 254, 169, 254].into()),
        destination_port: Some(80),
        ..attributed
    };
    event::Events {
        skipped: 12,
        events: vec![connection(), question, audited, frame, socket, attributed],
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

#[test]
fn the_schema_describes_every_line_and_every_field_of_it() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let text = lines(&some(), true).unwrap();
    assert_eq!(text.lines().count(), 7);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        schema::check(&schema, &line).unwrap();
    }
    let (_, event) = text.rsplit_once("{\"time\"").unwrap();
    let event: Value = serde_json::from_str(&format!("{{\"time\"{event}")).unwrap();
    for (place, wrong) in [
        ("/time", Value::from("now")),
        ("/sender/seen_at", "later".into()),
        ("/sender/pid", 0.into()),
        ("/sender/container/runtime", Value::Null),
        ("/destination_port", 65_536.into()),
    ] {
        let mut changed = event.clone();
        *changed.pointer_mut(place).unwrap() = wrong;
        assert!(schema::check(&schema, &changed).is_err(), "{place}");
    }
    let mut undescribed = event.clone();
    undescribed["sender"]["moon"] = 1.into();
    assert!(schema::check(&schema, &undescribed).is_err());
}
