//! What lifts the filter, until the daemon puts it back.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use crate::{
    lab::{
        battery::{Aim, Channel, field::Field, ledger::Pieces},
        raw::bpf::{self, EXIT, Place, set},
    },
    netlink::{self, Direction},
};

use super::{datagrams, own, programs::tc};

/// The daemon looks once a second.
const PATIENCE: Duration = Duration::from_secs(10);

const REMEDY: &str =
    "keep CAP_NET_ADMIN and CAP_BPF from workloads; alert on netfilter_repairs_total";

pub(super) const CHANNELS: &[Channel] = &[
    Channel {
        aim: Aim::OutOfScope {
            why: "before Linux 6.6 the programs hang on the qdisc, and go with it: what root sends until \
                  the daemon puts them back, within a second, is judged by nothing",
            remedy: REMEDY,
        },
        ..Channel::stop(
            "qdisc-deleted",
            "datagrams after `tc qdisc del dev ... clsact`",
            "scripts that clean up an interface; attackers with root",
            |field, pieces| {
                lifting(field, pieces, || {
                    // There may be none.
                    tc(&format!("qdisc del dev {} clsact", field.interface)).ok();
                    Ok(())
                })
            },
        )
    },
    Channel {
        aim: Aim::OutOfScope {
            why: "a program that another hangs before the filter decides, until the daemon goes before it \
                  again, within a second. That takes root",
            remedy: REMEDY,
        },
        ..Channel::stop(
            "program-before",
            "datagrams behind another's tc program, which lets all pass before the filter is asked",
            "bpftool net attach; eBPF rootkits",
            |field, pieces| {
                own(field)?;
                const TCX_PASS: u32 = 0;
                let program = [set(0, TCX_PASS), EXIT];
                let _before = bpf::attach(Place::Egress, field.index, &program)?;
                datagrams(field, pieces)
            },
        )
    },
    Channel {
        aim: Aim::OutOfScope {
            why: "whoever has root detaches every program of the kernel: what is sent until the daemon \
                  puts the filter back, within a second, is judged by nothing",
            remedy: REMEDY,
        },
        ..Channel::stop(
            "link-detached",
            "datagrams after the links of the filter's programs were detached",
            "bpftool link detach; attackers with root",
            |field, pieces| {
                lifting(field, pieces, || {
                    let links = bpf::links(Place::Egress, field.index)?;
                    links.into_iter().try_for_each(bpf::detach)
                })
            },
        )
    },
];

/// Sends when the filter is lifted, and waits until it is back.
fn lifting(
    field: &Field,
    pieces: &Pieces,
    lift: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    own(field)?;
    field.host_only("the filter hangs on the host, and a workload has nothing of it to detach")?;
    let before = hanging(field);
    let sent = lift().and_then(|()| datagrams(field, pieces));
    let latest = Instant::now() + PATIENCE;
    while hanging(field) < before {
        if Instant::now() > latest {
            return Err(io::Error::other("the daemon does not put the filter back"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    sent
}

/// How many programs judge what leaves.
fn hanging(field: &Field) -> usize {
    let filters = netlink::filters(field.index, Direction::Egress).unwrap_or_default();
    // Before Linux 6.6 there are no others.
    let links = bpf::links(Place::Egress, field.index).unwrap_or_default();
    filters.len() + links.len()
}
