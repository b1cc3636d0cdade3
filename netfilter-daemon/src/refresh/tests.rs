use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};
use tokio::net::UdpSocket;

use super::*;
use crate::resolvers::Alias;

/// A resolver on the loopback interface: every name has one address, except
/// those that begin with `absent`. Counts the questions that arrive.
#[derive(Clone, Default)]
struct Resolver {
    questions: Arc<Mutex<BTreeMap<(String, RecordType), usize>>>,
}

impl Resolver {
    async fn start(&self, ttl: u32) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(self.clone().answer(socket, ttl));
        address
    }

    async fn answer(self, socket: UdpSocket, ttl: u32) {
        let mut bytes = [0; 1500];
        loop {
            let (length, client) = socket.recv_from(&mut bytes).await.unwrap();
            let question = Message::from_vec(&bytes[..length]).unwrap();
            let query = question.queries[0].clone();
            let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
            let key = (query.name().to_ascii(), query.query_type());
            *self.questions.lock().unwrap().entry(key).or_default() += 1;
            if query.name().to_ascii().starts_with("absent") {
                answer.metadata.response_code = ResponseCode::NXDomain;
            } else if query.query_type() == RecordType::A {
                let address = RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
                answer.add_answer(Record::from_rdata(query.name().clone(), ttl, address));
            }
            answer.add_query(query);
            socket
                .send_to(&answer.to_vec().unwrap(), client)
                .await
                .unwrap();
        }
    }

    fn asked(&self, name: &str) -> [usize; 2] {
        let questions = self.questions.lock().unwrap();
        [RecordType::A, RecordType::AAAA].map(|kind| {
            questions
                .get(&(name.to_owned(), kind))
                .copied()
                .unwrap_or_default()
        })
    }
}

fn only(server: SocketAddr) -> Arc<[SocketAddr]> {
    [server].into()
}

async fn eventually(mut happens: impl FnMut() -> bool) {
    for _ in 0..500 {
        if happens() {
            return;
        }
        time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within 5 s");
}

#[tokio::test]
async fn every_question_goes_out_although_the_last_answer_is_still_fresh() {
    let server = Resolver::default();
    let resolver = only(server.start(300).await);
    for _ in 0..3 {
        let ttl = ask(resolver.clone(), "mcr.microsoft.com".to_owned()).await;
        assert_eq!(ttl, Ok(Duration::from_secs(300)));
    }
    assert_eq!(server.asked("mcr.microsoft.com."), [3, 3]);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_an_error_that_says_so() {
    let server = Resolver::default();
    let resolver = only(server.start(300).await);
    let answer = ask(resolver, "absent.example".to_owned()).await;
    assert_eq!(answer, Err("there is no such name".to_owned()));
    assert_eq!(
        server.asked("absent.example."),
        [1, 1],
        "no search list, no second try"
    );
}

#[tokio::test]
async fn a_name_is_asked_for_as_it_is_even_with_underscores_or_one_label() {
    let server = Resolver::default();
    let resolver = only(server.start(60).await);
    for name in ["_ldap._tcp.corp.example", "intranet"] {
        assert_eq!(
            ask(resolver.clone(), name.to_owned()).await,
            Ok(Duration::from_secs(60))
        );
        assert_eq!(server.asked(&format!("{name}.")), [1, 1]);
    }
}

#[tokio::test]
async fn all_names_are_asked_for_at_the_start_and_again_after_a_change() {
    let server = Resolver::default();
    let resolvers = vec![server.start(300).await];
    let mut names: Vec<String> = (0..200).map(|name| format!("n{name}.example")).collect();
    let (sender, wanted) = watch::channel(Names {
        resolvers: resolvers.clone(),
        names: names.clone(),
    });
    let keeper = tokio::spawn(keep(wanted));
    eventually(|| (0..200).all(|name| server.asked(&format!("n{name}.example.")) == [1, 1])).await;

    names.push("new.example".to_owned());
    sender.send(Names { resolvers, names }).unwrap();
    eventually(|| server.asked("new.example.") == [1, 1]).await;
    eventually(|| server.asked("n199.example.") == [2, 2]).await;

    drop(sender);
    keeper.await.unwrap();
}

#[test]
fn half_an_answer_is_asked_for_again_soon() {
    let long = Duration::from_secs(3600);
    let failed = || Err("request timed out".to_owned());
    assert_eq!(smallest(Ok(Some(long)), failed()), Ok(HALF_ANSWERED));
    assert_eq!(smallest(failed(), Ok(Some(long))), Ok(HALF_ANSWERED));
    assert_eq!(smallest(Ok(Some(long)), Ok(None)), Ok(long));
    assert_eq!(smallest(Ok(Some(long)), Ok(Some(long / 2))), Ok(long / 2));
}

#[test]
fn no_answer_at_all_is_a_failure() {
    assert!(smallest(Ok(None), Ok(None)).is_err());
    assert_eq!(
        smallest(Ok(None), Err("busy".to_owned())),
        Err("busy".to_owned())
    );
}

#[test]
fn the_shortest_ttl_counts_and_aliases_alone_are_no_address() {
    let alias = Alias {
        name: b"\x01a".to_vec(),
        target: b"\x01b".to_vec(),
        ttl: 20,
    };
    let mut answer = Answer {
        aliases: vec![alias],
        ..Answer::default()
    };
    assert_eq!(ttl(Ok(answer.clone())), Ok(None));
    answer.addresses.push(([192, 0, 2, 1].into(), 300));
    assert_eq!(ttl(Ok(answer.clone())), Ok(Some(Duration::from_secs(20))));
    answer.addresses.push(([192, 0, 2, 2].into(), 5));
    assert_eq!(ttl(Ok(answer)), Ok(Some(Duration::from_secs(5))));
}
