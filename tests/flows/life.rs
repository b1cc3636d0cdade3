//! From the first segment of a flow to its last, under floods.

use aya::maps::{HashMap, Map, MapData};
use netfilter_ebpf::verdict::LostFlow;

use crate::{
    bpffs::{Kernel, PASS, REDIRECT},
    frame::{self, ACK, FIN, LOCAL, PSH, RST, SYN, carrying, datagram, tcp, to},
};

const POLICY: &str = "
resolvers: [10.0.0.53]
outbound_rules:
  - name: learned
    type: fqdn
    destination: { fqdn: a.example, protocol: TCP, port_ranges: '443' }
";
const CLIENT: &str = "8.8.8.8";
/// What each map of flows holds.
const ROOM: u64 = 65_536;
/// First numbers of both ends.
const THEIRS: u32 = 1_000;
const OURS: u32 = 5_000;

/// One that came in to port 22.
struct Session {
    remote: String,
    port: u16,
}

impl Session {
    fn new(remote: &str, port: u16) -> Self {
        let remote = remote.to_owned();
        Self { remote, port }
    }

    /// One of many.
    fn number(number: u32) -> Self {
        let [a, b, c, _] = number.to_be_bytes();
        let host = number & 0xff;
        Self::new(&format!("30.{a}.{b}.{c}"), 1_000 + host as u16)
    }

    fn arriving(&self, flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
        let data = carrying((self.port, 22), sequence, acknowledged, flags, b"");
        to(LOCAL, frame::TCP, data).from(&self.remote).bytes()
    }

    fn arrives(&self, kernel: &mut Kernel, flags: u8, sequence: u32, acknowledged: u32) {
        let frame = self.arriving(flags, sequence, acknowledged);
        assert_eq!(kernel.ingress(&frame).action, PASS);
    }

    fn leaves(&self, kernel: &mut Kernel, flags: u8, sequence: u32, acknowledged: u32) -> bool {
        let data = carrying((22, self.port), sequence, acknowledged, flags, b"");
        kernel.passes(&to(&self.remote, frame::TCP, data).bytes())
    }

    fn opens(&self, kernel: &mut Kernel) {
        self.arrives(kernel, SYN, THEIRS, 0);
        assert!(self.leaves(kernel, SYN | ACK, OURS, THEIRS + 1));
        self.arrives(kernel, ACK, THEIRS + 1, OURS + 1);
    }

    fn answers(&self, kernel: &mut Kernel) -> bool {
        self.leaves(kernel, PSH | ACK, OURS + 1, THEIRS + 1)
    }

    fn closes(&self, kernel: &mut Kernel) {
        self.arrives(kernel, FIN | ACK, THEIRS + 1, OURS + 1);
        assert!(self.leaves(kernel, FIN | ACK, OURS + 1, THEIRS + 2));
        self.arrives(kernel, ACK, THEIRS + 2, OURS + 2);
    }
}

fn table(kernel: &Kernel, name: &str) -> (u64, u64) {
    let tables = kernel.datapath.state().occupancy().unwrap();
    let table = tables.iter().find(|table| table.map == name).unwrap();
    (table.entries, table.evictions.unwrap_or(0))
}

fn entries(kernel: &Kernel) -> [u64; 3] {
    ["INBOUND", "OUTBOUND", "HALF_OPEN"].map(|name| table(kernel, name).0)
}

fn lost(kernel: &Kernel, wanted: LostFlow) -> u64 {
    let counters = kernel.datapath.state().counters().unwrap();
    let of = |(flow, _): &&(LostFlow, u64)| *flow == wanted;
    counters.lost_flows.iter().find(of).unwrap().1
}

/// As if all flows of this map had been silent for too long.
fn let_expire(kernel: &Kernel, name: &str) {
    let path = kernel.state_dir().join(format!("learned/{name}-1"));
    let data = MapData::from_pin(path).unwrap();
    let map = Map::from_map_data(data).unwrap();
    let mut flows: HashMap<_, [u8; 40], [u8; 32]> = map.try_into().unwrap();
    let all: Vec<_> = flows.iter().map(Result::unwrap).collect();
    assert!(!all.is_empty());
    for (key, mut flow) in all {
        flow[4..8].copy_from_slice(&1u32.to_ne_bytes());
        flows.insert(key, flow, 0).unwrap();
    }
}

/// A SYN from the inside, of many.
fn learned_syn(number: u32) -> Vec<u8> {
    let [_, _, high, low] = number.to_be_bytes();
    let source = format!("10.0.{}.2", number >> 16);
    let segment = frame::segment(u16::from_be_bytes([high, low]), 443, SYN);
    to("192.0.2.1", frame::TCP, segment).from(&source).bytes()
}

#[test]
fn an_established_session_survives_every_flood_and_all_that_is_lost_is_counted() {
    const SYNS: u32 = 200_000;
    let mut kernel = Kernel::new(POLICY);
    kernel.learn("a.example", 60, &["192.0.2.1"]);
    let (session, waiting) = (Session::new(CLIENT, 5_000), Session::new(CLIENT, 5_001));
    session.opens(&mut kernel);
    waiting.arrives(&mut kernel, SYN, THEIRS, 0);
    assert_eq!(entries(&kernel), [1, 0, 1]);
    for number in 0..SYNS {
        Session::number(number).arrives(&mut kernel, SYN, THEIRS, 0);
    }
    let (present, evicted) = table(&kernel, "HALF_OPEN");
    assert_eq!(
        present + evicted,
        u64::from(SYNS) + 1,
        "{present} {evicted}"
    );
    assert!(!waiting.answers(&mut kernel), "the flood is one");
    for number in (0..20_000u32).map(|number| number.wrapping_mul(0x9e37_79b9) | 1 << 20) {
        for flags in [
            ACK,
            RST,
            RST | ACK,
            FIN | ACK,
            FIN,
            SYN,
            SYN | ACK,
            RST | FIN | SYN,
        ] {
            session.arrives(&mut kernel, flags, number, number.swap_bytes() | 1 << 20);
        }
    }
    for number in 0..70_000 {
        assert!(kernel.passes(&learned_syn(number)));
    }
    assert!(session.answers(&mut kernel));
    assert_eq!(entries(&kernel)[..2], [1, ROOM]);
    assert_eq!(lost(&kernel, LostFlow::Outbound), 70_000 - ROOM);
    assert_eq!(lost(&kernel, LostFlow::Inbound), 0);
    session.closes(&mut kernel);
    assert_eq!(entries(&kernel)[0], 0, "it can still be closed");
}

#[test]
fn a_connection_without_room_lives_among_the_half_open_and_is_counted_once() {
    let mut kernel = Kernel::new(POLICY);
    for number in 0..ROOM as u32 {
        Session::number(number).opens(&mut kernel);
    }
    assert_eq!(entries(&kernel), [ROOM, 0, 0]);
    let late = Session::new(CLIENT, 5_000);
    late.opens(&mut kernel);
    for _ in 0..3 {
        assert!(late.answers(&mut kernel));
        late.arrives(&mut kernel, ACK, THEIRS + 1, OURS + 1);
    }
    assert_eq!(entries(&kernel), [ROOM, 0, 1]);
    assert_eq!(lost(&kernel, LostFlow::Inbound), 1);
    let first = Session::number(0);
    first.closes(&mut kernel);
    late.arrives(&mut kernel, ACK, THEIRS + 1, OURS + 1);
    assert_eq!(entries(&kernel), [ROOM, 0, 1], "it takes the room");
    assert!(late.answers(&mut kernel));
}

#[test]
fn a_closed_connection_leaves_room_and_its_last_segments_may_be_sent_again() {
    let mut kernel = Kernel::new(POLICY);
    let session = Session::new(CLIENT, 5_000);
    session.opens(&mut kernel);
    session.closes(&mut kernel);
    assert_eq!(entries(&kernel), [0, 0, 1]);
    assert!(session.leaves(&mut kernel, FIN | ACK, OURS + 1, THEIRS + 2));
    session.arrives(&mut kernel, ACK, THEIRS + 2, OURS + 2);
    assert_eq!(entries(&kernel), [0, 0, 1], "it does not open again");
    session.opens(&mut kernel);
    assert_eq!(entries(&kernel), [1, 0, 0], "by a SYN it does");
    // A reset of ours; one of the remote's, with the very number.
    assert!(session.leaves(&mut kernel, RST, OURS + 1, 0));
    assert_eq!(entries(&kernel), [0, 0, 1]);
    session.opens(&mut kernel);
    session.arrives(&mut kernel, RST, THEIRS + 2, 0);
    assert_eq!(entries(&kernel), [1, 0, 0], "nearly the number");
    session.arrives(&mut kernel, RST, THEIRS + 1, 0);
    assert_eq!(entries(&kernel), [0, 0, 1]);
}

#[test]
fn a_simultaneous_open_is_proven() {
    let mut kernel = Kernel::new(POLICY);
    let session = Session::new(CLIENT, 5_000);
    assert!(!session.leaves(&mut kernel, SYN, OURS, 0), "nobody came");
    session.arrives(&mut kernel, SYN, THEIRS, 0);
    assert!(session.leaves(&mut kernel, SYN, OURS, 0));
    session.arrives(&mut kernel, SYN | ACK, THEIRS, OURS + 1);
    assert_eq!(entries(&kernel), [1, 0, 0]);
}

/// One that a router forwards, or that is older than the filter.
#[test]
fn a_connection_that_is_seen_from_its_middle_is_proven_too() {
    let mut kernel = Kernel::new(POLICY);
    let session = Session::new(CLIENT, 5_000);
    session.arrives(&mut kernel, ACK, THEIRS, 0);
    assert!(session.leaves(&mut kernel, ACK, OURS, THEIRS));
    session.arrives(&mut kernel, ACK, THEIRS, OURS + 1);
    assert_eq!(entries(&kernel), [0, 0, 1], "another number");
    session.arrives(&mut kernel, ACK, THEIRS, OURS);
    assert_eq!(entries(&kernel), [1, 0, 0]);
}

#[test]
fn a_silent_flow_expires() {
    let mut kernel = Kernel::new(POLICY);
    let session = Session::new(CLIENT, 5_000);
    session.arrives(&mut kernel, SYN, THEIRS, 0);
    let_expire(&kernel, "HALF_OPEN");
    assert!(!session.answers(&mut kernel));
    session.opens(&mut kernel);
    kernel.datapath.state().forget_expired().unwrap();
    assert_eq!(entries(&kernel), [1, 0, 0], "its time has not passed");
    let_expire(&kernel, "INBOUND");
    assert!(!session.answers(&mut kernel));
    kernel.datapath.state().forget_expired().unwrap();
    assert_eq!(entries(&kernel), [0, 0, 0]);
}

#[test]
fn a_connection_to_a_learned_address_is_forgotten_when_it_ends() {
    let mut kernel = Kernel::new(POLICY);
    kernel.learn("a.example", 60, &["192.0.2.1"]);
    let leaves = |kernel: &mut Kernel, flags, sequence, acknowledged| {
        let data = carrying((40_000, 443), sequence, acknowledged, flags, b"");
        assert!(kernel.passes(&to("192.0.2.1", frame::TCP, data).bytes()));
    };
    let arrives = |kernel: &mut Kernel, flags, sequence, acknowledged| {
        let data = carrying((443, 40_000), sequence, acknowledged, flags, b"");
        let frame = to(LOCAL, frame::TCP, data).from("192.0.2.1").bytes();
        assert_eq!(kernel.ingress(&frame).action, PASS);
    };
    for closes_first in [true, false] {
        leaves(&mut kernel, SYN, OURS, 0);
        arrives(&mut kernel, SYN | ACK, THEIRS, OURS + 1);
        assert_eq!(entries(&kernel)[1], 1);
        if closes_first {
            leaves(&mut kernel, FIN | ACK, OURS + 1, THEIRS + 1);
            arrives(&mut kernel, FIN | ACK, THEIRS + 1, OURS + 2);
        } else {
            arrives(&mut kernel, FIN | ACK, THEIRS + 1, OURS + 1);
            leaves(&mut kernel, FIN | ACK, OURS + 1, THEIRS + 2);
        }
        assert_eq!(entries(&kernel)[1], 0, "{closes_first}");
    }
    leaves(&mut kernel, SYN, OURS, 0);
    arrives(&mut kernel, RST | ACK, 0, OURS + 1);
    assert_eq!(entries(&kernel)[1], 0, "refused");
    assert_eq!(
        kernel.egress(&tcp("192.0.2.2", 443).bytes()).action,
        REDIRECT
    );
}

#[test]
fn hundreds_of_peers_of_one_socket_are_answered() {
    let mut kernel = Kernel::new(&format!(
        "inbound: [{{ protocol: UDP, port_ranges: '5000' }}]\n{POLICY}"
    ));
    let peers: Vec<String> = (0..600)
        .map(|peer| format!("30.0.{}.{}", peer >> 8, peer & 255))
        .collect();
    for peer in &peers {
        let frame = to(LOCAL, frame::UDP, datagram(9, 5_000, b"?")).from(peer);
        assert_eq!(kernel.ingress(&frame.bytes()).action, PASS);
    }
    let mut answers = |peer: &str, port| {
        kernel.passes(&to(peer, frame::UDP, datagram(5_000, port, b"!")).bytes())
    };
    assert!(peers.iter().all(|peer| answers(peer, 9)));
    assert!(!answers("30.1.0.0", 9) && !answers(&peers[0], 10));
    assert_eq!(entries(&kernel), [0, 0, 600]);
}
