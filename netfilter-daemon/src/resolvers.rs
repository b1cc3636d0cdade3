//! Asks resolvers, past every cache and the hosts file: each question goes out, and
//! what comes back is told as it was answered, no alias followed and no TTL changed.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{NameServerConfig, ResolverOpts},
    net::{
        NetError,
        runtime::TokioRuntimeProvider,
        xfer::{DnsHandle, FirstAnswer},
    },
    proto::{
        op::{DnsRequestOptions, Message, Query, ResponseCode},
        rr::{Name, RData, RecordType},
    },
};
use netfilter_ebpf::packet::DNS_PORT;
use tokio::task::JoinSet;

/// What NXDOMAIN means.
pub const NO_SUCH_NAME: &str = "there is no such name";
const UNREACHABLE: &str = "no resolver can be reached";

/// For one question.
const PATIENCE: Duration = Duration::from_secs(2);

/// A resolver, asked over TCP where an answer is truncated.
struct Resolver(NameServerPool<TokioRuntimeProvider>);

/// Of addresses.
#[derive(Debug, Clone, Copy)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// To the A and the AAAA question.
pub type Answers = [Result<Answer, String>; 2];

/// The answer section of a response, as far as it is about addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// NXDOMAIN, which may carry the aliases that led to it, and lends no address.
    pub nonexistent: bool,
    pub aliases: Vec<Alias>,
    /// With their TTLs in seconds; whoever owns them, for the kernel does not look either.
    pub addresses: Vec<(IpAddr, u32)>,
}

/// A CNAME record. Names are in wire form, without the root byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    pub name: Vec<u8>,
    pub target: Vec<u8>,
    /// Seconds.
    pub ttl: u32,
}

/// Resolvers as policies name them.
pub fn at_their_port(resolvers: &[IpAddr]) -> Vec<SocketAddr> {
    let socket = |ip: &IpAddr| (*ip, DNS_PORT).into();
    resolvers.iter().map(socket).collect()
}

/// Asks one of them after another, in their order, until each question is answered.
/// A silent one costs two seconds for each. One question at a time: hickory gives up
/// when two answers are truncated at once.
pub async fn ask_in_turn(resolvers: &[SocketAddr], name: &str) -> Answers {
    let ipv4 = ask(resolvers, name, Family::Ipv4).await;
    [ipv4, ask(resolvers, name, Family::Ipv6).await]
}

/// Asks one of them after another for the addresses of one family.
pub async fn ask(resolvers: &[SocketAddr], name: &str, family: Family) -> Result<Answer, String> {
    let name = Name::from_ascii(format!("{name}.")).map_err(|error| error.to_string())?;
    let kind = match family {
        Family::Ipv4 => RecordType::A,
        Family::Ipv6 => RecordType::AAAA,
    };
    let mut answer = Err(UNREACHABLE.to_owned());
    for resolver in resolvers {
        let query = Query::query(name.clone(), kind);
        answer = Resolver::new(*resolver)?.answer(query).await;
        if answer.is_ok() {
            break;
        }
    }
    answer
}

/// Asks all of them, and takes the first that answers both questions.
pub async fn ask_all(resolvers: &[SocketAddr], name: &str) -> Answers {
    let mut asking = JoinSet::new();
    for resolver in resolvers {
        let (resolver, name) = ([*resolver], name.to_owned());
        asking.spawn(async move { ask_in_turn(&resolver, &name).await });
    }
    let answered = |answers: &Answers| answers.iter().filter(|answer| answer.is_ok()).count();
    let mut best: Option<Answers> = None;
    while let Some(Ok(answers)) = asking.join_next().await {
        if answered(&answers) == answers.len() {
            return answers;
        }
        if best
            .as_ref()
            .is_none_or(|best| answered(best) < answered(&answers))
        {
            best = Some(answers);
        }
    }
    best.unwrap_or_else(|| [(); 2].map(|()| Err(UNREACHABLE.to_owned())))
}

impl Resolver {
    fn new(resolver: SocketAddr) -> Result<Self, String> {
        let mut server = NameServerConfig::udp_and_tcp(resolver.ip());
        for connection in &mut server.connections {
            connection.port = resolver.port();
        }
        let mut options = ResolverOpts::default();
        options.timeout = PATIENCE;
        let tls = TlsConfig::new().map_err(why)?;
        Ok(Self(NameServerPool::from_config(
            [server],
            Arc::new(PoolContext::new(options, tls)),
            TokioRuntimeProvider::default(),
        )))
    }

    async fn answer(&self, query: Query) -> Result<Answer, String> {
        let asked = self.0.lookup(query, DnsRequestOptions::default());
        match asked.first_answer().await {
            Ok(response) => Ok(read(&response)),
            Err(error) if error.is_nx_domain() => Ok(Answer {
                nonexistent: true,
                ..Answer::default()
            }),
            Err(error) if error.is_no_records_found() => Ok(Answer::default()),
            Err(error) => Err(why(error)),
        }
    }
}

fn read(response: &Message) -> Answer {
    let mut answer = Answer {
        nonexistent: response.metadata.response_code == ResponseCode::NXDomain,
        ..Answer::default()
    };
    for record in &response.answers {
        let address: IpAddr = match &record.data {
            RData::CNAME(target) => {
                answer.aliases.push(Alias {
                    name: wire(&record.name),
                    target: wire(target),
                    ttl: record.ttl,
                });
                continue;
            }
            RData::A(address) => address.0.into(),
            RData::AAAA(address) => address.0.into(),
            _ => continue,
        };
        if response.metadata.response_code == ResponseCode::NoError {
            answer.addresses.push((address, record.ttl));
        }
    }
    answer
}

fn wire(name: &Name) -> Vec<u8> {
    let label = |label: &[u8]| [&[u8::try_from(label.len()).unwrap_or(0)], label].concat();
    name.iter().flat_map(label).collect()
}

/// An error may quote what a stranger sent.
fn why(error: NetError) -> String {
    match error {
        NetError::NoConnections => UNREACHABLE.to_owned(),
        error => error.to_string().escape_debug().to_string(),
    }
}

#[cfg(test)]
mod tests;
