//! Links of XDP, which judges what a workload sends before the host sees it: in its driver
//! where that can, else generically, on every kind of Ethernet interface.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use super::{Error, Target, attach::hook, tcx, test_run::bpf};
use crate::netlink::{self, Link, XdpMode};

const LINK_CREATE: libc::c_int = 28;
/// `enum bpf_attach_type`
const BPF_XDP: u32 = 37;
// `XDP_FLAGS_` (include/uapi/linux/if_link.h).
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;

/// Attaches the program. Where another one is, the kernel refuses.
pub(super) fn attach(program: BorrowedFd<'_>, target: &Target) -> Result<OwnedFd, Error> {
    let kind = link(target)?.and_then(|link| link.kind);
    // A veth hands back natively only to an end with NAPI, which the workload would have
    // to ask for: refusals would be lost.
    let is_veth = kind.as_deref() == Some("veth");
    let mut refusals = Vec::new();
    let modes = [("its driver", NATIVE), ("the generic one", GENERIC)];
    for (by, mode) in modes {
        if mode == NATIVE && is_veth {
            continue;
        }
        match create(program, target.index, mode) {
            Ok(link) => return Ok(link),
            Err(error) => {
                let rival = matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST));
                refusals.push(format!("{by}: {error}"));
                if rival {
                    refusals.push(format!(
                        "another program hangs there, see `ip link show {}`; \
                         `ip link set {0} xdp off` removes it",
                        target.name
                    ));
                    break;
                }
            }
        }
    }
    Err(Error::Xdp {
        interface: target.name.clone(),
        refusals: refusals.join("; "),
    })
}

fn create(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    let program = u32::try_from(program.as_raw_fd()).unwrap_or(u32::MAX);
    let mut attributes = [program, ifindex, BPF_XDP, flags];
    tcx::descriptor(bpf(LINK_CREATE, &mut attributes)?)
}

/// What is in force on an interface.
pub(super) fn mode(target: &Target) -> Result<Option<XdpMode>, Error> {
    Ok(link(target)?.and_then(|link| link.xdp))
}

fn link(target: &Target) -> Result<Option<Link>, Error> {
    let links = netlink::links().map_err(hook("look at", &target.name))?;
    Ok(links.into_iter().find(|link| link.index == target.index))
}
