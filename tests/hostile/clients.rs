//! Clients of the HTTP listener and of the control socket that mean no good.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::daemon::Daemon;

use super::{POLICY, files, in_force, of_process, world};
use crate::world::World;

const SILENT: usize = 5000;
const THREADS: usize = 4;
/// What the daemon has open without clients, those of the listener, and some readers.
const FILES: usize = 110 + 256 + 40;
/// KiB that clients may cost, of which each has a request of 16 KiB and its task.
const MEMORY: u64 = 32 << 10;

fn listener() -> SocketAddr {
    ([127, 0, 0, 1], 9477).into()
}

fn connect() -> Option<TcpStream> {
    TcpStream::connect_timeout(&listener(), Duration::from_millis(200)).ok()
}

fn room_for_files() {
    let limit = libc::rlimit {
        rlim_cur: 16_384,
        rlim_max: 1 << 19,
    };
    // SAFETY: a system call, and the pointer is valid for it.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

/// What a scraper gets meanwhile, and what all this costs.
fn served(world: &World, daemon: &Daemon, memory: u64, who: &str) {
    let begun = Instant::now();
    let page = world.metrics();
    let took = begun.elapsed();
    assert!(
        page.contains("netfilter_enforcing{interface=\"eth0\"} 1"),
        "{who}: {page}"
    );
    // With the start of a process, on a machine that does other things.
    assert!(took < Duration::from_secs(1), "{who}: {took:?}");
    assert!(files(daemon) <= FILES, "{who}: {} files", files(daemon));
    let now = of_process(daemon, "VmRSS");
    assert!(now < memory + MEMORY, "{who}: {memory} and then {now} KiB");
    eprintln!(
        "{who}: {took:?}, {} files, {memory} then {now} KiB",
        files(daemon)
    );
}

#[test]
fn clients_that_hold_connections_give_way_to_those_that_ask() {
    room_for_files();
    let world = world();
    let daemon = world.enforce(POLICY);
    world.metrics();
    let memory = of_process(&daemon, "VmRSS");
    let over = AtomicBool::new(false);

    let flood = |_| {
        (0..SILENT / THREADS)
            .filter_map(|_| connect())
            .collect::<Vec<_>>()
    };
    let silent: Vec<TcpStream> = world
        .protected()
        .run(|| {
            thread::scope(|scope| {
                let floods: Vec<_> = (0..THREADS)
                    .map(|n| scope.spawn(move || flood(n)))
                    .collect();
                floods
                    .into_iter()
                    .flat_map(|flood| flood.join().unwrap())
                    .collect()
            })
        })
        .unwrap();
    assert!(silent.len() > SILENT / 2, "only {} connected", silent.len());
    served(&world, &daemon, memory, "silent");
    assert!(world.daemon(&["status"]).status.success());

    let drip = || {
        let mut slow: Vec<TcpStream> = (0..400).filter_map(|_| connect()).collect();
        for stream in &mut slow {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").ok();
        }
        while !over.load(Ordering::Relaxed) {
            for stream in &mut slow {
                stream.write_all(b"x").ok();
            }
            thread::sleep(Duration::from_millis(10));
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| world.protected().run(drip).unwrap());
        thread::sleep(Duration::from_millis(300));
        served(&world, &daemon, memory, "dripping");
        over.store(true, Ordering::Relaxed);
    });
    drop(silent);
    in_force(&world);
}

#[test]
fn clients_that_say_too_much_or_never_read_cost_little() {
    let world = world();
    let daemon = world.enforce(POLICY);
    world.metrics();
    let memory = of_process(&daemon, "VmRSS");
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n";
    let header = [b"X-Large: ", [b'x'; 4000].as_slice(), b"\r\n"].concat();
    let garbage: Vec<u8> = (0..200_000u32).map(|n| ((n * 7919) >> 3) as u8).collect();
    let talk = || {
        let large: Vec<TcpStream> = (0..200)
            .filter_map(|_| {
                let mut stream = connect()?;
                stream.write_all(request).ok()?;
                // Cut off after the first few.
                (0..250).try_for_each(|_| stream.write_all(&header)).ok();
                Some(stream)
            })
            .collect();
        let pipelined: Vec<TcpStream> = (0..100)
            .filter_map(|_| {
                let mut stream = connect()?;
                stream
                    .write_all(&[request, b"\r\n".as_slice(), &garbage].concat())
                    .ok();
                Some(stream)
            })
            .collect();
        let unread: Vec<TcpStream> = (0..300)
            .filter_map(|_| {
                let mut stream = connect()?;
                stream.write_all(request).ok()?;
                stream.write_all(b"\r\n").ok()?;
                Some(stream)
            })
            .collect();
        (large, pipelined, unread)
    };
    let held = world.protected().run(talk).unwrap();
    served(&world, &daemon, memory, "talking");
    assert!(world.daemon(&["status"]).status.success());
    drop(held);
    in_force(&world);
}

#[test]
fn who_holds_the_control_socket_is_cut_off_and_what_is_no_request_is_told_so() {
    let world = world();
    let _daemon = world.enforce(POLICY);
    let socket = || UnixStream::connect("/run/netfilter-daemon/sys-fs-bpf-netfilter.sock").unwrap();
    let silent: Vec<UnixStream> = world
        .protected()
        .run(|| (0..15).map(|_| socket()).collect())
        .unwrap();
    assert!(
        world.daemon(&["status"]).status.success(),
        "with a place left"
    );
    let mut garbage = world.protected().run(socket).unwrap();
    garbage.write_all(b"\xff\xfe nonsense\n").ok();
    let mut endless = world.protected().run(socket).unwrap();
    endless.write_all(&[b'x'; 8192]).ok();
    let begun = Instant::now();
    let mut answer = String::new();
    endless.read_to_string(&mut answer).ok();
    assert!(begun.elapsed() < Duration::from_secs(12));
    assert!(world.daemon(&["reload"]).status.success());
    drop(silent);
    in_force(&world);
}
