//! What hands packets on inside the kernel, from an interface beside to the one that leads out.

use std::{io, process::Command};

use nix::net::if_::if_nametoindex;

use crate::lab::{
    battery::{
        Aim, Channel,
        field::{Field, missing},
        ledger::Pieces,
    },
    namespace::{Namespace, veth},
    raw::{
        bpf::{self, EXIT, Place, call, set},
        bypass,
    },
};

use super::{BEHIND, Link, NEW, frames, own};

// Helpers of programs (`enum bpf_func_id`).
const REDIRECT: u32 = 23;
const REDIRECT_NEIGHBOUR: u32 = 152;
const REDIRECT_PEER: u32 = 155;

pub(super) const CHANNELS: &[Channel] = &[
    Channel::stop(
        "tc-mirred",
        "frames that come in elsewhere, which a tc action puts out at the interface",
        "tc mirred, with which port mirrors are built",
        |field, pieces| {
            between(field, pieces, || {
                let out = format!("action mirred egress redirect dev {}", field.interface);
                tc(&format!("qdisc add dev {NEW} clsact"))?;
                tc(&format!(
                    "filter add dev {NEW} ingress protocol all u32 match u32 0 0 {out}"
                ))
            })
        },
    ),
    Channel::stop(
        "bpf-redirect",
        "frames that come in elsewhere, which another's tc program puts out at the interface",
        "bpf_redirect: Cilium, Calico's eBPF mode; eBPF rootkits",
        |field, pieces| redirected(field, pieces, Place::Ingress, REDIRECT),
    ),
    Channel::stop(
        "bpf-redirect-neigh",
        "as bpf-redirect, with the hardware addresses of the next hop",
        "bpf_redirect_neigh: Cilium's host routing",
        |field, pieces| redirected(field, pieces, Place::Ingress, REDIRECT_NEIGHBOUR),
    ),
    Channel {
        aim: Aim::OutOfScope {
            why: "another's tc program hands frames to the far end of the interface's cable, where there \
                  is one (veth, netkit): they never leave by the interface. That takes CAP_BPF and \
                  CAP_NET_ADMIN here, with which every filter can be lifted",
            remedy: "keep these capabilities from workloads; filter on the host's interface, too",
        },
        ..Channel::stop(
            "bpf-redirect-peer",
            "frames that come in elsewhere, which another's tc program puts behind the interface",
            "bpf_redirect_peer: Cilium, between pods of a node",
            |field, pieces| redirected(field, pieces, Place::Ingress, REDIRECT_PEER),
        )
    },
    Channel {
        aim: Aim::OutOfScope {
            why: "another's XDP program hands frames to the driver, which tc does not see. That takes CAP_BPF \
                  and CAP_NET_ADMIN here, with which every filter can be lifted",
            remedy: "keep these capabilities from workloads; `bpftool net` shows who has a program where",
        },
        ..Channel::stop(
            "xdp-redirect",
            "frames that come in elsewhere, which an XDP program puts out at the interface",
            "XDP_REDIRECT: load balancers, eBPF rootkits",
            |field, pieces| redirected(field, pieces, Place::Xdp, REDIRECT),
        )
    },
];

/// A program on the interface between sends all on.
fn redirected(field: &Field, pieces: &Pieces, place: Place, helper: u32) -> io::Result<()> {
    // Of the helpers some have four parameters, all but the first of them flags or none.
    let [first, others @ ..] = [field.index, 0, 0, 0];
    let mut program = vec![set(1, first)];
    program.extend(
        (2..)
            .zip(others)
            .map(|(register, number)| set(register, number)),
    );
    program.extend([call(helper), EXIT]);
    between(field, pieces, || {
        bpf::attach(place, if_nametoindex(NEW)?, &program)
    })
}

/// Sends from another namespace, when `hand_on` has seen to it that what comes from
/// there goes on.
fn between<T>(
    field: &Field,
    pieces: &Pieces,
    hand_on: impl FnOnce() -> io::Result<T>,
) -> io::Result<()> {
    let own = own(field)?;
    let child = Namespace::new().map_err(io::Error::other)?;
    veth(&own, NEW, &child, BEHIND).map_err(io::Error::other)?;
    let _cable = Link {
        namespace: &own,
        name: NEW,
    };
    let _held = hand_on()?;
    let send = || {
        let mut sender = bypass::open(BEHIND)?;
        frames(field, pieces, |frame| sender.send(&frame))
    };
    child.run(send).map_err(io::Error::other)?
}

/// Runs `tc` in the calling thread's namespace.
pub(super) fn tc(arguments: &str) -> io::Result<()> {
    let run = Command::new("tc").args(arguments.split(' ')).output();
    let output = run.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing("the command `tc` is missing"),
        _ => error,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "`tc {arguments}` failed: {}",
        said.trim()
    )))
}
