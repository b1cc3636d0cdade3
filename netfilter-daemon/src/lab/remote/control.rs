//! What a lab and a sink elsewhere say to each other: a line of JSON each, on a
//! connection for every question, so that none must outlive a filter.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::lab::{
    battery::{Sink, ledger::Round},
    channels::all,
};

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// More than the names of all channels need, and what arrived of them.
pub(super) const LINE: u64 = 64 << 10;

const PATIENCE: Duration = Duration::from_secs(5);
/// The sink waits until nothing more arrives.
const COUNTING: Duration = Duration::from_secs(20);
/// Nobody waits for good manners.
const PARTING: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Question {
    /// Whether these channels are known.
    Greet {
        version: String,
        channels: Vec<String>,
    },
    /// Begins the run with this seed, or its next round.
    Begin {
        seed: u64,
        round: u8,
    },
    Arrived {
        seed: u64,
    },
    /// The run is over.
    End {
        seed: u64,
    },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(super) enum Answer {
    Done,
    Arrived { bytes: Vec<usize> },
    Refused { why: String },
}

/// The names of the channels, by which two versions of the program can be told apart.
pub(super) fn channels() -> Vec<String> {
    let names = all().map(|(_, channel)| channel.name.to_owned());
    names.collect()
}

/// A sink on another machine.
#[derive(Clone)]
pub(super) struct Remote {
    /// At least one.
    addresses: Vec<SocketAddr>,
    seed: u64,
}

impl Remote {
    pub(super) fn new(addresses: Vec<SocketAddr>, seed: u64) -> Self {
        Self { addresses, seed }
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(super) fn round(&self, number: u8) -> Round {
        let seed = self.seed;
        Round { seed, number }
    }

    /// At each of its addresses, so that it is known how to get there.
    pub(super) fn greet(&self) -> Result<(), Error> {
        for &address in &self.addresses {
            let greeting = Question::Greet {
                version: VERSION.to_owned(),
                channels: channels(),
            };
            match ask(address, &greeting, PATIENCE) {
                Ok(Answer::Refused { why }) => return Err(Error::Refused { address, why }),
                Ok(_) => {}
                Err(source) => return Err(Error::Sink { address, source }),
            }
        }
        Ok(())
    }

    /// Leaves the sink to others.
    pub(super) fn end(&self) {
        let seed = self.seed;
        // It notices by itself, later.
        self.ask(&Question::End { seed }, PARTING).ok();
    }

    fn ask(&self, question: &Question, patience: Duration) -> io::Result<Answer> {
        let address = self.addresses.first();
        let address = address.ok_or_else(|| io::Error::other("the sink has no address"))?;
        match ask(*address, question, patience)? {
            Answer::Refused { why } => Err(io::Error::other(why)),
            answer => Ok(answer),
        }
    }
}

impl Sink for Remote {
    fn begin(&self, round: Round) -> io::Result<()> {
        let Round { seed, number } = round;
        let round = number;
        self.ask(&Question::Begin { seed, round }, PATIENCE)
            .map(drop)
    }

    fn arrived(&self) -> io::Result<Vec<usize>> {
        let seed = self.seed;
        match self.ask(&Question::Arrived { seed }, COUNTING)? {
            Answer::Arrived { bytes } => Ok(bytes),
            _ => Err(io::Error::other("it does not say what arrived")),
        }
    }
}

fn ask(address: SocketAddr, question: &Question, patience: Duration) -> io::Result<Answer> {
    let mut connection =
        TcpStream::connect_timeout(&address, patience.min(PATIENCE)).map_err(|error| {
            let remedy = "is `netfilter-daemon lab sink` running there?";
            io::Error::new(error.kind(), format!("{error}; {remedy}"))
        })?;
    connection.set_read_timeout(Some(patience))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    connection.write_all(&line(question)?)?;
    match hear(&connection)? {
        // It is shown on a terminal.
        Answer::Refused { why } => Ok(Answer::Refused {
            why: why.escape_debug().to_string(),
        }),
        answer => Ok(answer),
    }
}

pub(super) fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

pub(super) fn hear<T: for<'a> Deserialize<'a>>(connection: &TcpStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(connection.take(LINE)).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|error| {
        let why = format!("it cannot be understood ({error}); is it another version?");
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}
