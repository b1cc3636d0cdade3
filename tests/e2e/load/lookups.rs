//! Look-ups of names as a C library does them, each by a socket of its own: how many in a
//! second. The server does nothing but answer.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{Count, Ends, PATIENCE, between};
use crate::prefixes::{DESTINATIONS, ZONE, resolver};

/// Of header and question: the name has a first label of five bytes.
const QUESTION: usize = 12 + 6 + ZONE.len() + 2 + 4;

pub fn lookups(ends: &Ends<'_>, time: Duration) -> io::Result<f64> {
    let listen = || UdpSocket::bind((resolver(), 53));
    let socket = ends.far.run(listen).map_err(io::Error::other)??;
    let serve = |done: &AtomicBool| {
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut message = [0; 512];
        while !done.load(Ordering::Relaxed) {
            match socket.recv_from(&mut message) {
                Ok((length, from)) => {
                    let length = answer(&mut message, length);
                    socket.send_to(&message[..length], from)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    let work = || {
        let (mut count, mut done) = (Count::of(time), 0);
        let mut message = [0; 512];
        loop {
            let question = question(done);
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((resolver(), 53))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(&question)?;
            let length = socket.recv(&mut message)?;
            if length != QUESTION + 16 || message[..2] != question[..2] {
                return Err(io::Error::other("an answer to no question"));
            }
            done += 1;
            if let Some(rate) = count.rate(done) {
                return Ok(rate);
            }
        }
    };
    between((ends.far, 0, serve), (ends.near, 0, work))
}

/// For the address of one of the names.
fn question(number: u64) -> [u8; QUESTION] {
    let mut message = [0; QUESTION];
    let [.., high, low] = number.to_be_bytes();
    message[..12].copy_from_slice(&[high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let name = format!("n{:04}.{ZONE}", number % DESTINATIONS as u64);
    let mut at = 12;
    for label in name.split('.') {
        message[at] = u8::try_from(label.len()).unwrap_or(0);
        message[at + 1..][..label.len()].copy_from_slice(label.as_bytes());
        at += 1 + label.len();
    }
    message[at..].copy_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// Makes an answer of a question in its place, with one address: that of the number in the
/// name. Returns its length.
fn answer(message: &mut [u8; 512], length: usize) -> usize {
    let digits = message[14..18].iter();
    let number = digits.fold(0, |number, digit| number * 10 + u16::from(digit & 15));
    let [high, low] = number.to_be_bytes();
    message[2..4].copy_from_slice(&[0x81, 0x80]);
    message[7] = 1;
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 18, high, low];
    message[length..length + record.len()].copy_from_slice(&record);
    length + record.len()
}
