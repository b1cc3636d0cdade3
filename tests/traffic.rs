//! Traffic on both sides while something happens to the filter, and a witness at the far end.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::tap::Tap;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

use crate::{
    frame::query,
    resolvers::servers::{Data, Host, Server},
    world::{World, echo_tcp, resolve},
};

/// What the policies of these tests have in common; they may go on with other rules.
pub const POLICY: &str = "
inbound: [{ protocol: TCP, port_ranges: '22' }]
outbound_rules:
  - { name: name, type: fqdn, destination: { fqdn: n0.approved.example, protocol: TCP, port_ranges: '443' } }
  - { name: names, type: fqdn, destination: { fqdn: '*.approved.example', protocol: TCP, port_ranges: '443' } }
  - { name: fixed, type: ip, destination: { cidr: 192.0.2.0/24, protocol: TCP, port_ranges: '443' } }
  - { name: fixed6, type: ip, destination: { cidr: '2001:db8::/64', protocol: TCP, port_ranges: '443' } }
";

/// No policy of these tests allows them.
const FORBIDDEN: [&str; 4] = ["203.0.113.1", "203.0.113.200", "2a00::1", "192.0.3.1"];
const FORBIDDEN_NAME: &str = "secret.evil.test";
const NAMES: usize = 20_000;
/// Between two bytes of a connection that is in use.
const PACE: Duration = Duration::from_millis(5);
/// A connection that is silent for so long was cut.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sessions in use, names that are learned, attacks.
pub struct Traffic {
    tap: Tap,
    over: AtomicBool,
    /// Until when nothing was judged, the last time; in the future while that lasts.
    lifted: Mutex<Option<Instant>>,
    faults: Mutex<Vec<String>>,
    pub exchanged: AtomicU64,
    pub learned: AtomicU64,
    pub attacks: AtomicU64,
    /// Microseconds of the slowest exchange.
    slowest: AtomicU64,
}

/// A resolver that knows the names that the learner asks for.
pub fn resolver(world: &World) -> Server {
    let host = |name| Host {
        name: format!("n{name}.approved.example"),
        addresses: vec![IpAddr::from((0xc612_0000 + name as u32).to_be_bytes())],
        ..Host::default()
    };
    let data = Data {
        hosts: (0..NAMES).map(host).collect(),
        ttl: 1,
        datagram: 1232,
    };
    Server::unbound(world, &data)
}

/// Runs `work` under traffic, which must not suffer. The filter must be in force.
pub fn under<T>(world: &World, work: impl FnOnce(&Traffic) -> T) -> T {
    let traffic = Traffic {
        tap: Tap::open(&world.topology.internet).unwrap(),
        over: AtomicBool::new(false),
        lifted: Mutex::default(),
        faults: Mutex::default(),
        exchanged: AtomicU64::new(0),
        learned: AtomicU64::new(0),
        attacks: AtomicU64::new(0),
        slowest: AtomicU64::new(0),
    };
    let listener = world.protected().run(|| TcpListener::bind("[::]:22"));
    let listener = listener.unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let done = thread::scope(|scope| {
        let _ends = Ends(&traffic.over);
        let (traffic, listener) = (&traffic, &listener);
        scope.spawn(|| traffic.serve(scope, listener));
        let sessions = [
            ("we to a range", world.protected(), "192.0.2.1:443"),
            (
                "we to an IPv6 range",
                world.protected(),
                "[2001:db8::1]:443",
            ),
            ("they to us", &world.topology.internet, "10.99.0.2:22"),
            (
                "they to us by IPv6",
                &world.topology.internet,
                "[fd99::2]:22",
            ),
        ];
        for (who, from, to) in sessions {
            let stream = from.run(|| TcpStream::connect(to)).unwrap();
            let stream = stream.unwrap_or_else(|error| panic!("{who}: {error}"));
            scope.spawn(|| traffic.exchange(who, stream));
        }
        let named = world.protected().run(|| {
            let address = resolve("n0.approved.example", 443)?;
            TcpStream::connect(address).ok()
        });
        let named = named.unwrap().expect("no connection by name");
        scope.spawn(|| traffic.exchange("we to a name", named));
        scope.spawn(|| world.protected().run(|| traffic.learn()).unwrap());
        scope.spawn(|| world.protected().run(|| traffic.attack()).unwrap());
        let done = work(traffic);
        traffic.check("at the end");
        done
    });
    eprintln!("{traffic}");
    done
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Traffic {
    /// Fails if anything has suffered, or if anything forbidden got out since the last look.
    pub fn check(&self, when: &str) {
        let escaped = self.escaped();
        assert!(escaped.is_empty(), "got out {when}: {escaped:?}");
        self.check_approved(when);
    }

    /// The filter was lifted. Nobody suffered from that; from now on names may be asked
    /// for before it is there and used when it is, which must fail.
    pub fn lifted(&self) {
        self.check_approved("while the filter was lifted");
        *self.lifted.lock().unwrap() = Some(Instant::now() + Duration::from_secs(3600));
    }

    /// It is in force again. What got out before is forgotten.
    pub fn enforced(&self) {
        self.check_approved("while the filter came back");
        *self.lifted.lock().unwrap() = Some(Instant::now());
    }

    fn check_approved(&self, when: &str) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "{when}: {faults:?}; {self}");
        drop(faults);
        _ = self.escaped();
    }

    fn escaped(&self) -> Vec<String> {
        let seen = self.tap.look().unwrap();
        let mut escaped: Vec<String> = FORBIDDEN
            .iter()
            .filter(|to| {
                let to = to.parse().unwrap();
                seen.packet(to, 6, Some(443)) || seen.packet(to, 17, Some(443))
            })
            .map(ToString::to_string)
            .collect();
        escaped.extend(
            seen.question(FORBIDDEN_NAME)
                .then(|| FORBIDDEN_NAME.to_owned()),
        );
        escaped
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn fault(&self, fault: String) {
        if !self.is_over() {
            self.faults.lock().unwrap().push(fault);
        }
    }

    fn was_lifted(&self, since: Instant) -> bool {
        self.lifted
            .lock()
            .unwrap()
            .is_some_and(|lifted| since < lifted)
    }

    /// Echoes to those who come in.
    fn serve<'s>(&'s self, scope: &'s thread::Scope<'s, '_>, listener: &TcpListener) {
        while !self.is_over() {
            match listener.accept() {
                Ok((stream, _)) => {
                    scope.spawn(|| self.echo(stream));
                }
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn echo(&self, mut stream: TcpStream) {
        stream.set_nonblocking(false).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut bytes = [0; 512];
        while !self.is_over() {
            match stream.read(&mut bytes) {
                Ok(0) => return,
                Ok(length) if stream.write_all(&bytes[..length]).is_err() => return,
                _ => {}
            }
        }
    }

    /// A number there and back, and the next.
    fn exchange(&self, who: &str, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut back = [0; 8];
        for number in 0u64.. {
            if self.is_over() {
                return;
            }
            let began = Instant::now();
            let done = stream
                .write_all(&number.to_be_bytes())
                .and_then(|()| stream.read_exact(&mut back));
            if done.is_err() || u64::from_be_bytes(back) != number {
                return self.fault(format!("{who}, after {number} exchanges: {done:?}"));
            }
            let took = u64::try_from(began.elapsed().as_micros()).unwrap();
            self.slowest.fetch_max(took, Ordering::Relaxed);
            self.exchanged.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PACE);
        }
    }

    /// Names that nobody has asked for, connected to at once.
    fn learn(&self) {
        for name in (1..NAMES).cycle() {
            if self.is_over() {
                return;
            }
            let name = format!("n{name}.approved.example");
            let began = Instant::now();
            let outcome = look_up(&name).map(|address| (address, echo_tcp(address)));
            let took = began.elapsed().as_millis();
            match outcome {
                Ok((_, true)) => _ = self.learned.fetch_add(1, Ordering::Relaxed),
                _ if self.was_lifted(began) => {}
                Ok((address, false)) => self.fault(format!("{name}: no connection to {address}")),
                Err(error) => self.fault(format!("{name}: {error}, after {took} ms")),
            }
            thread::sleep(PACE);
        }
    }

    fn attack(&self) {
        let question = query(7, FORBIDDEN_NAME, 1);
        let sockets = ["0.0.0.0:0", "[::]:0"].map(|local| UdpSocket::bind(local).unwrap());
        while !self.is_over() {
            for to in FORBIDDEN {
                let to = SocketAddr::new(to.parse().unwrap(), 443);
                // Each may be refused, at once or later.
                _ = sockets[usize::from(to.is_ipv6())].send_to(b"secret", to);
                begin(to);
            }
            _ = sockets[0].send_to(&question, "10.99.0.1:53");
            self.attacks
                .fetch_add(2 * FORBIDDEN.len() as u64 + 1, Ordering::Relaxed);
            thread::sleep(Duration::from_micros(500));
        }
    }
}

fn look_up(name: &str) -> io::Result<SocketAddr> {
    let mut found = (name, 443).to_socket_addrs()?;
    found.next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Sends a SYN and waits for nothing.
fn begin(to: SocketAddr) {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    _ = connect(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &SockaddrStorage::from(to),
    );
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        write!(
            f,
            "{} exchanges, the slowest in {} ms; {} names learned and used; {} attacks",
            count(&self.exchanged),
            count(&self.slowest) / 1000,
            count(&self.learned),
            count(&self.attacks)
        )
    }
}
