//! A workload on the same link as the host: nothing but the filter reads what it sends.

use std::net::UdpSocket;

use netfilter_daemon::lab::{
    battery::{
        Sink,
        collector::Collector,
        field::hardware,
        ledger::{Pieces, Round, SECRET},
    },
    daemon::Daemon,
    mounts,
    raw::bpf::{self, EXIT, Place, call, set},
    topology::{INTERFACE, Topology, WORKLOAD},
};
use nix::net::if_::if_nametoindex;

use super::site::{ALLOWED, policy};
use crate::world::BINARY;

/// `bpf_skb_vlan_push`, and 0x8100 in network order.
const VLAN_PUSH: u32 = 18;
const VLAN: u32 = 0x8100_u16.to_be() as u32;

fn enforce(topology: &Topology, arguments: &[&str]) -> Daemon {
    let policy = format!("resolvers: [10.99.0.1]\n{}", policy("eth0, "));
    let write = || std::fs::write(mounts::POLICY, &policy);
    topology.protected.run(write).unwrap().unwrap();
    let mut command = topology.protected.command(BINARY);
    command
        .args(["run", "--policy", mounts::POLICY])
        .args(arguments);
    Daemon::start(command).unwrap_or_else(|error| panic!("{error}"))
}

/// How much arrives of a secret in datagrams to an address that is allowed.
fn arrives(topology: &Topology, number: u8) -> usize {
    let sink = Collector::start(&topology.internet, &[], vec![None]).unwrap();
    let round = Round { seed: 7, number };
    sink.begin(round).unwrap();
    let send = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for piece in Pieces::new(round, 0).of(1024) {
            socket.send_to(&piece, (ALLOWED, 443)).unwrap();
        }
    };
    topology.inside().run(send).unwrap();
    sink.arrived().unwrap()[0]
}

#[test]
fn where_the_command_line_names_a_workload_no_uplink_of_the_policy_is_filtered() {
    let topology = Topology::with_workload().unwrap();
    let daemon = enforce(&topology, &["--workload", WORKLOAD]);
    assert!(
        daemon.said.starts_with("enforcing on w0 ("),
        "{}",
        daemon.said
    );
    drop(daemon);
    let daemon = enforce(&topology, &[]);
    assert!(daemon.said.contains("eth0"), "{}", daemon.said);
}

/// Of a tag that the kernel keeps beside the frame the program at the cable's end sees nothing.
#[test]
fn a_tag_beside_a_frame_does_not_come_in() {
    let topology = Topology::with_workload().unwrap();
    let gateway = topology.internet.run(|| hardware(INTERFACE));
    let gateway = gateway.unwrap().unwrap().map(|byte| format!("{byte:02x}"));
    let known = format!(
        "neigh replace 10.99.0.1 lladdr {} dev {INTERFACE}",
        gateway.join(":")
    );
    topology
        .inside()
        .ip(&format!("{known} nud permanent"))
        .unwrap();
    let program = [set(2, VLAN), set(3, 7), call(VLAN_PUSH), set(0, 0), EXIT];
    let tag = || bpf::attach(Place::Egress, if_nametoindex(INTERFACE).unwrap(), &program);
    let tagging = match topology.inside().run(tag).unwrap() {
        Ok(tagging) => tagging,
        // Before Linux 6.6.
        Err(error) => return eprintln!("not tested: this kernel has no tcx: {error}"),
    };
    assert_eq!(arrives(&topology, 0), SECRET, "unfiltered all goes");
    let _daemon = enforce(&topology, &["--workload", WORKLOAD]);
    assert_eq!(arrives(&topology, 1), 0);
    drop(tagging);
    // A child that another test has forked has the descriptor, too, until it executes its program.
    let mut later = (2..20).map(|round| arrives(&topology, round));
    assert!(
        later.any(|arrived| arrived == SECRET),
        "without a tag it is allowed"
    );
}
