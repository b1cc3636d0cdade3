//! Real TCP stacks with a server that cuts its answers as no good server would.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use super::matrix::drops;
use crate::{
    frame::{self, framed},
    world::{World, echo_tcp},
};

const RESOLVER: (&str, u16) = ("10.99.0.1", 53);
const A: u16 = 1;

/// A message with its length before it.
fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// The n-th name's addresses.
fn addresses(n: u16, count: u16) -> Vec<String> {
    (0..count)
        .map(|host| {
            Ipv4Addr::from_bits(0xc612_0000 + u32::from(n) * 4096 + u32::from(host)).to_string()
        })
        .collect()
}

/// Serves `count` addresses for each question's id, in writes of `size` bytes.
fn serve(listener: TcpListener, count: u16, size: usize) {
    while let Ok((mut client, _)) = listener.accept() {
        client.set_nodelay(true).unwrap();
        let Ok(question) = receive(&mut client) else {
            return;
        };
        let id = u16::from_be_bytes([question[0], question[1]]);
        let addresses = addresses(id, count);
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        for part in framed(&frame::answer(&question, 60, &addresses)).chunks(size) {
            client.write_all(part).unwrap();
            if size < 100 {
                thread::sleep(Duration::from_micros(200)); // or they travel together
            }
        }
    }
}

/// Reads the answer and connects at once to its last address: how often it worked.
fn ask_and_connect(rounds: u16, count: u16) -> usize {
    let round = |id: u16| -> Option<bool> {
        let mut stream = TcpStream::connect(RESOLVER).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let question = framed(&frame::query(id, "x.data.mcr.microsoft.com", A));
        stream.write_all(&question).ok()?;
        let answer = receive(&mut stream).ok()?;
        let [.., a, b, c, d] = answer[..] else {
            return None;
        };
        let last = Ipv4Addr::new(a, b, c, d);
        assert_eq!(last.to_string(), *addresses(id, count).last().unwrap());
        Some(echo_tcp((last, 443).into()))
    };
    (0..rounds).filter(|id| round(*id) == Some(true)).count()
}

fn every_answer_is_learned_before_it_is_read(rounds: u16, count: u16, size: usize) {
    let world = World::new(None);
    let listener = world
        .topology
        .internet
        .run(|| TcpListener::bind(RESOLVER).unwrap())
        .unwrap();
    let closer = listener.try_clone().unwrap();
    let server = thread::spawn(move || serve(listener, count, size));
    let _daemon = world.enforce(super::POLICY);
    let connected = world
        .protected()
        .run(|| ask_and_connect(rounds, count))
        .unwrap();
    assert_eq!(
        (connected, drops(&world)),
        (usize::from(rounds), String::new())
    );
    // Ends the server's wait.
    nix::sys::socket::shutdown(
        std::os::fd::AsRawFd::as_raw_fd(&closer),
        nix::sys::socket::Shutdown::Both,
    )
    .unwrap();
    server.join().unwrap();
}

#[test]
fn a_server_that_sends_byte_by_byte() {
    every_answer_is_learned_before_it_is_read(20, 8, 1);
}

#[test]
fn a_server_that_sends_seven_bytes_at_a_time() {
    every_answer_is_learned_before_it_is_read(20, 60, 7);
}

/// 64 KiB, which the kernel hands on in buffers of as much.
#[test]
fn a_server_that_sends_the_largest_answer_at_once() {
    every_answer_is_learned_before_it_is_read(12, 4000, usize::MAX);
}
