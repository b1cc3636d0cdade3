//! One connection, as fast as it goes: bytes per second. The ends have a processor each.

use std::{
    io::{self, Read, Write},
    sync::atomic::AtomicBool,
    time::Duration,
};

use super::{Count, Ends, PATIENCE, between, connect, listen};

const PIECE: usize = 128 << 10;

pub fn stream(ends: &Ends<'_>, time: Duration) -> io::Result<f64> {
    let listener = listen(ends.far)?;
    let serve = |_: &AtomicBool| {
        let (mut connection, _) = listener.accept()?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let mut bytes = vec![0; PIECE];
        while connection.read(&mut bytes)? > 0 {}
        Ok(())
    };
    let work = || {
        let mut connection = connect(ends.destinations[0])?;
        let bytes = vec![0; PIECE];
        let (mut count, mut done) = (Count::of(time), 0);
        loop {
            connection.write_all(&bytes)?;
            done += PIECE as u64;
            if let Some(rate) = count.rate(done) {
                return Ok(rate);
            }
        }
    };
    between((ends.far, 1, serve), (ends.near, 0, work))
}
