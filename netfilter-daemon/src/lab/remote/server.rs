//! The sink elsewhere: `netfilter-daemon lab sink`.

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use nix::net::if_::if_nametoindex;

use super::control::{Answer, Question, VERSION, channels, hear, line};
use crate::lab::{
    battery::{
        Sink,
        collector::Collector,
        ledger::{Round, SECRET},
    },
    channels::readers,
    namespace::Namespace,
    sink::tcp_listener,
};

/// Where it is asked, if nothing else is said.
pub const PORT: u16 = 9478;

/// A question comes at once, and nothing else does.
const PATIENCE: Duration = Duration::from_secs(3);

/// A run that has said nothing for so long is over.
const SILENCE: Duration = Duration::from_secs(10 * 60);

/// Collects what arrives at this machine, for one run at a time.
pub struct Server {
    listener: TcpListener,
    collector: Collector,
    run: Option<Run>,
}

struct Run {
    seed: u64,
    round: u8,
    by: IpAddr,
    last: Instant,
}

impl Server {
    /// Of the ports at which channels try to connect, those that others have here are
    /// told, with the reason.
    pub fn start(
        address: SocketAddr,
        interface: Option<&str>,
    ) -> io::Result<(Self, Vec<(u16, io::Error)>)> {
        let listener = tcp_listener(address).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen at {address}: {error}"))
        })?;
        listener.set_nonblocking(false)?;
        let index = interface.map(|name| {
            if_nametoindex(name)
                .map_err(|error| io::Error::other(format!("cannot find interface {name}: {error}")))
        });
        let own = Namespace::own().map_err(io::Error::other)?;
        let (collector, refused) =
            Collector::beside_others(&own, index.transpose()?, &[], readers())?;
        let server = Self {
            listener,
            collector,
            run: None,
        };
        Ok((server, refused))
    }

    /// Where it is asked.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers as long as the process lives. `tell` is told what happens.
    pub fn serve(mut self, tell: &dyn Fn(&str)) -> io::Error {
        loop {
            let (connection, peer) = match self.listener.accept() {
                Ok(accepted) => accepted,
                // It was gone before it was taken.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return error,
            };
            if let Err(error) = self.answer(&connection, peer.ip().to_canonical(), tell) {
                tell(&format!("{}: {error}", peer.ip().to_canonical()));
            }
        }
    }

    fn answer(
        &mut self,
        mut connection: &TcpStream,
        peer: IpAddr,
        tell: &dyn Fn(&str),
    ) -> io::Result<()> {
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        let answer = match hear(connection) {
            Ok(question) => self.consider(question, peer, tell),
            Err(error) => Err(error.to_string()),
        };
        let answer = answer.unwrap_or_else(|why| {
            tell(&format!("{peer}: refused: {why}"));
            Answer::Refused { why }
        });
        connection.write_all(&line(&answer)?)
    }

    fn consider(
        &mut self,
        question: Question,
        peer: IpAddr,
        tell: &dyn Fn(&str),
    ) -> Result<Answer, String> {
        let failed = |error: io::Error| error.to_string();
        match question {
            Question::Greet {
                version,
                channels: theirs,
            } => {
                agree(&version, &theirs)?;
                Ok(Answer::Done)
            }
            Question::Begin { seed, round } => {
                self.free_for(seed, peer)?;
                let number = round;
                let begun = self.collector.begin(Round { seed, number });
                begun.map_err(failed)?;
                tell(&format!("{peer}: round {} begins", u32::from(round) + 1));
                self.run = Some(Run {
                    seed,
                    round,
                    by: peer,
                    last: Instant::now(),
                });
                Ok(Answer::Done)
            }
            Question::Arrived { seed } => {
                let run = self.run.as_mut().filter(|run| run.seed == seed);
                let run = run.ok_or("this run is not the one that is counted here")?;
                run.last = Instant::now();
                let bytes = self.collector.arrived().map_err(failed)?;
                let whole = bytes.iter().filter(|bytes| **bytes == SECRET).count();
                let some = bytes.iter().filter(|bytes| **bytes > 0).count();
                tell(&format!(
                    "{peer}: round {}: of {} channels {some} brought something, {whole} of them all, \
                     {} bytes together",
                    u32::from(run.round) + 1,
                    bytes.len(),
                    bytes.iter().sum::<usize>()
                ));
                Ok(Answer::Arrived { bytes })
            }
            Question::End { seed } => {
                if self.run.take_if(|run| run.seed == seed).is_some() {
                    tell(&format!("{peer}: the run is over"));
                }
                Ok(Answer::Done)
            }
        }
    }

    /// Whoever begins anew ends a run of his own.
    fn free_for(&self, seed: u64, peer: IpAddr) -> Result<(), String> {
        let run = self.run.as_ref();
        let run = run.filter(|run| run.seed != seed && run.by != peer);
        match run.filter(|run| run.last.elapsed() < SILENCE) {
            Some(run) => Err(format!(
                "it is busy with a run by {}; try again later",
                run.by
            )),
            None => Ok(()),
        }
    }
}

fn agree(version: &str, theirs: &[String]) -> Result<(), String> {
    if version == VERSION && theirs == channels() {
        return Ok(());
    }
    Err(format!(
        "it has version {VERSION} with {} channels, the lab {version} with {}; run the same program on both machines",
        channels().len(),
        theirs.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_channels_in_the_same_order_agree() {
        agree(VERSION, &channels()).unwrap();
        let mut fewer = channels();
        fewer.pop();
        assert!(agree(VERSION, &fewer).is_err());
        let mut turned = channels();
        turned.reverse();
        assert!(agree(VERSION, &turned).is_err());
        let why = agree("0.0.9", &channels()).unwrap_err();
        assert!(
            why.ends_with("run the same program on both machines"),
            "{why}"
        );
    }
}
