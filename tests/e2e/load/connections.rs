//! Connections one after the other, with a request and an answer: how many in a second.

use std::{
    io::{self, Read, Write},
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{Count, Ends, PATIENCE, between, connect, listen};

const REQUEST: [u8; 100] = [b'q'; 100];
const ANSWER: [u8; 500] = [b'a'; 500];

pub fn connections(ends: &Ends<'_>, time: Duration) -> io::Result<f64> {
    let listener = listen(ends.far)?;
    let serve = |done: &AtomicBool| {
        let mut request = [0; REQUEST.len()];
        loop {
            let (mut connection, _) = listener.accept()?;
            if done.load(Ordering::Relaxed) {
                return Ok(());
            }
            connection.set_read_timeout(Some(PATIENCE))?;
            match connection.read_exact(&mut request) {
                // That of who says that all is done.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            }
            connection.write_all(&ANSWER)?;
            // Until the client closes.
            connection.read_exact(&mut [0]).ok();
        }
    };
    let work = || {
        let (mut count, mut done) = (Count::of(time), 0);
        let mut answer = [0; ANSWER.len()];
        let mut destinations = ends.destinations.iter().cycle();
        let mut ask = || {
            let address = *destinations.next().unwrap_or(&Ipv4Addr::LOCALHOST);
            let mut connection = connect(address)?;
            connection.write_all(&REQUEST)?;
            connection.read_exact(&mut answer)
        };
        let result = loop {
            if let Err(error) = ask() {
                break Err(error);
            }
            done += 1;
            if let Some(rate) = count.rate(done) {
                break Ok(rate);
            }
        };
        // The server waits for another one.
        connect(ends.destinations[0])?;
        result
    };
    between((ends.far, 0, serve), (ends.near, 0, work))
}
