//! What the ranges do not let out: learned addresses, flows, questions, what is denied; and
//! what arrives.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
};

use netfilter_daemon::datapath::{
    bench::Walk,
    test_run::{self, Context},
};

use crate::{
    bpffs::Kernel,
    frame::{self, ACK, SYN, answer, datagram, query, segment, tcp, to, udp},
    ground::{self, Family, Random},
    run::{self, Cache, Effort, Row, Task},
};

const BASE: &str = "
presets: [azure-ml]
resolvers: [10.0.0.53]
on_deny: drop
dns: { on_deny: drop }
inbound: [{ protocol: TCP, port_ranges: '22' }]
outbound_rules:
  - { name: quic, type: fqdn, destination: { fqdn: mcr.microsoft.com, protocol: UDP, port_ranges: '443' } }
";
const PREFIXES: usize = 10_000;

/// Where the addresses are that names lend, and from where connections come.
const LEARNED: u32 = 0x0b00_0000;
const REMOTE: u32 = 0x0a80_0000;
/// What a table of leases or flows holds of them.
const MANY: u32 = 1 << 15;

const EGRESS: &str = "netfilter_egress";
const INGRESS: &str = "netfilter_ingress";

pub fn measure(effort: Effort, quick: bool, add: &mut impl FnMut(Vec<Row>)) {
    let mut random = Random::new();
    let mut prefixes = ground::prefixes(Family::Ipv4, PREFIXES, &mut random);
    // 10.0.0.0/7 stays free.
    prefixes.retain(
        |net| !matches!(net.addr(), IpAddr::V4(address) if address.octets()[0] & 0xfe == 10),
    );
    let image = ground::image(BASE, &prefixes, false);
    let mut kernel = Kernel::of(&image);
    kernel.datapath.bench().loopback().unwrap();
    learn(&mut kernel);
    come_in(&mut kernel);

    let scattered = |base: u32| -> Vec<IpAddr> {
        // In another order than that in which they were learned.
        let places = (0..MANY).map(|number| number.wrapping_mul(40_503) % MANY);
        places
            .map(|place| Ipv4Addr::from(base | place).into())
            .collect()
    };
    let destinations = |kernel: &mut Kernel, base| {
        let list = scattered(base);
        kernel.datapath.bench().destinations(&list).unwrap();
    };
    let ack = to("11.0.0.0", frame::TCP, segment(40_000, 443, ACK)).bytes();
    let reply = to("10.128.0.0", frame::TCP, segment(22, 5000, ACK)).bytes();

    destinations(&mut kernel, LEARNED);
    let mut tasks = vec![
        task("learned", EGRESS, &ack, effort).walking(16),
        task("learned/repeat", EGRESS, &ack, effort),
    ];
    if !quick {
        tasks.push(task("learned", EGRESS, &ack, effort).walking(MANY));
    }
    tasks.push(task(
        "learned/first",
        EGRESS,
        &tcp("11.0.0.0", 443).bytes(),
        effort,
    ));
    let datagram = udp("11.0.0.0", 443).bytes();
    assert!(kernel.passes(&ack) && kernel.passes(&datagram));
    tasks.push(task("learned/datagram", EGRESS, &datagram, effort));
    add(run::measure(&mut kernel, tasks, effort));

    destinations(&mut kernel, REMOTE);
    let mut tasks = vec![task("flow", EGRESS, &reply, effort)];
    if !quick {
        tasks.push(task("flow", EGRESS, &reply, effort).walking(1 << 10));
        tasks.push(task("flow", EGRESS, &reply, effort).walking(MANY));
    }
    add(run::measure(&mut kernel, tasks, effort));

    let denied = udp("8.8.8.8", 9).bytes();
    let mut reported = task("denied/reported", EGRESS, &denied, effort);
    // One source may report 150 at once. All that empties the tables leaves the caches cold.
    reported.repeat = 100;
    reported.before = |kernel| {
        let mut bench = kernel.datapath.bench();
        bench.forget_reports().unwrap();
        let program = bench.program(EGRESS).unwrap();
        let denied = udp("8.8.8.8", 9).bytes();
        test_run::run(program.as_raw_fd(), &denied, Context::default(), 40).unwrap();
    };
    let forged = answers(&query(8, "mcr.microsoft.com", 1), 0);
    let data = to(frame::LOCAL, frame::TCP, segment(443, 40_000, ACK));
    let tasks = vec![
        reported,
        task("denied/silent", EGRESS, &denied, effort),
        task(
            "question/permitted",
            EGRESS,
            &asks("mcr.microsoft.com"),
            effort,
        ),
        task("question/denied", EGRESS, &asks("secret.evil.test"), effort),
        task("answer/forged", INGRESS, &forged, effort),
        task("ingress", INGRESS, &data.from("11.0.0.0").bytes(), effort),
    ];
    add(run::measure(&mut kernel, tasks, effort));
}

fn task(name: &'static str, program: &'static str, frame: &[u8], effort: Effort) -> Task {
    Task {
        row: Row {
            name,
            family: Family::Ipv4,
            prefixes: PREFIXES,
            flows: 1,
            cache: Cache::Hot,
            times: Vec::new(),
        },
        program,
        frame: frame.to_vec(),
        walk: None,
        repeat: effort.hot,
        before: |_| {},
    }
}

impl Task {
    /// To as many destinations in turn.
    fn walking(mut self, destinations: u32) -> Self {
        self.walk = Some(Walk {
            destinations,
            sources: 1,
        });
        self.row.flows = destinations;
        if destinations >= MANY {
            self.row.cache = Cache::Cold;
        }
        self
    }
}

pub fn asks(name: &str) -> Vec<u8> {
    to(
        "10.0.0.53",
        frame::UDP,
        datagram(40_000, 53, &query(7, name, 1)),
    )
    .bytes()
}

/// Sixteen addresses, which follow the `set`-th sixteen.
pub fn answers(question: &[u8], set: u32) -> Vec<u8> {
    answering(question, 0xc612_0000 + set * 16, 16)
}

fn answering(question: &[u8], first: u32, count: u32) -> Vec<u8> {
    let addresses: Vec<String> = (first..first + count)
        .map(|address| Ipv4Addr::from(address).to_string())
        .collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let message = answer(question, 36_000, &addresses);
    to(frame::LOCAL, frame::UDP, datagram(53, 40_000, &message))
        .from("10.0.0.53")
        .bytes()
}

fn learn(kernel: &mut Kernel) {
    const AT_ONCE: u32 = 64;
    for set in 0..MANY / AT_ONCE {
        kernel.egress(&asks("mcr.microsoft.com"));
        let question = query(7, "mcr.microsoft.com", 1);
        kernel.ingress(&answering(&question, LEARNED + set * AT_ONCE, AT_ONCE));
    }
    let learned = kernel.datapath.state().learned().unwrap().len();
    assert_eq!(learned, MANY as usize);
}

fn come_in(kernel: &mut Kernel) {
    let local = frame::LOCAL.parse().unwrap();
    let flows = (0..MANY).map(|number| (local, 22, Ipv4Addr::from(REMOTE | number).into(), 5000));
    kernel.datapath.bench().flows(flows).unwrap();
}

/// From another address each.
pub fn syn_of_flood(number: u32) -> Vec<u8> {
    let source = Ipv4Addr::from(0x1e00_0000 + number).to_string();
    to(frame::LOCAL, frame::TCP, segment(5000, 22, SYN))
        .from(&source)
        .bytes()
}
