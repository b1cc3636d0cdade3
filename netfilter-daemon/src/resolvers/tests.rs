use std::{net::Ipv4Addr, time::Instant};

use hickory_proto::{
    op::OpCode,
    rr::{
        Record,
        rdata::{A, CNAME, TXT},
    },
};
use tokio::{net::UdpSocket, time};

use super::*;

fn response(code: ResponseCode) -> Message {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let alias = |name, ttl, target| Record::from_rdata(name, ttl, RData::CNAME(CNAME(target)));
    let edge = name("global_Frontend.example.net.");
    let mut message = Message::response(1, OpCode::Query);
    message.metadata.response_code = code;
    message.add_answer(alias(name("a.example."), 0, edge.clone()));
    let text = RData::TXT(TXT::new(vec!["not about addresses".to_owned()]));
    message.add_answer(Record::from_rdata(edge, 7, text));
    let address = RData::A(A::new(192, 0, 2, 1));
    message.add_answer(Record::from_rdata(
        name("elsewhere.example."),
        300_000,
        address,
    ));
    message
}

#[test]
fn an_answer_is_told_as_it_was_answered() {
    let answer = read(&response(ResponseCode::NoError));
    let alias = Alias {
        name: b"\x01a\x07example".to_vec(),
        target: b"\x0fglobal_Frontend\x07example\x03net".to_vec(),
        ttl: 0,
    };
    assert!(!answer.nonexistent);
    assert_eq!(answer.aliases, [alias]);
    assert_eq!(
        answer.addresses,
        [([192, 0, 2, 1].into(), 300_000)],
        "whoever owns it, and beyond hickory's own longest TTL"
    );
}

#[test]
fn an_error_may_carry_aliases_and_lends_no_address() {
    for (code, nonexistent) in [
        (ResponseCode::NXDomain, true),
        (ResponseCode::ServFail, false),
    ] {
        let answer = read(&response(code));
        assert_eq!(answer.nonexistent, nonexistent);
        assert_eq!(answer.aliases.len(), 1);
        assert!(answer.addresses.is_empty());
    }
}

#[test]
fn an_error_cannot_write_on_the_terminal() {
    let error = NetError::from("\u{1b}[2Jclean".to_owned());
    assert_eq!(why(error), "\\u{1b}[2Jclean");
}

/// Answers every question with this code, and with its one address.
async fn server(code: ResponseCode, patience: Duration) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 1500];
        loop {
            let (length, client) = socket.recv_from(&mut bytes).await.unwrap();
            let question = Message::from_vec(&bytes[..length]).unwrap();
            let mut answer = response(code);
            answer.metadata.id = question.metadata.id;
            answer.add_query(question.queries[0].clone());
            time::sleep(patience).await;
            let bytes = answer.to_vec().unwrap();
            socket.send_to(&bytes, client).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_resolver_that_refuses_or_is_silent_does_not_spoil_the_answer_of_another() {
    let refuses = server(ResponseCode::Refused, Duration::ZERO).await;
    let is_silent = server(ResponseCode::NoError, Duration::from_secs(3600)).await;
    let answers = server(ResponseCode::NoError, Duration::from_millis(100)).await;
    let began = Instant::now();
    for answer in ask_all(&[refuses, is_silent, answers], "a.example").await {
        assert_eq!(answer, Ok(read(&response(ResponseCode::NoError))));
    }
    assert!(began.elapsed() < PATIENCE);
    for answer in ask_all(&[refuses, is_silent], "a.example").await {
        assert!(answer.unwrap_err().contains("Refused"), "the first to fail");
    }
}

/// Hickory's own order is random at first, and its patience is for all together.
#[tokio::test]
async fn a_silent_resolver_delays_those_behind_it_and_none_before() {
    let answers = server(ResponseCode::NoError, Duration::ZERO).await;
    let is_silent = server(ResponseCode::NoError, Duration::from_secs(3600)).await;
    let began = Instant::now();
    for _ in 0..20 {
        for answer in ask_in_turn(&[answers, is_silent], "a.example").await {
            answer.unwrap();
        }
    }
    assert!(began.elapsed() < PATIENCE);
    for answer in ask_in_turn(&[is_silent, answers], "a.example").await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn without_resolvers_none_can_be_reached() {
    let answers = ask_all(&[], "a.example").await;
    assert_eq!(
        answers,
        [Err(UNREACHABLE.to_owned()), Err(UNREACHABLE.to_owned())]
    );
}
