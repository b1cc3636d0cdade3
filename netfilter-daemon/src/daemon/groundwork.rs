//! What a start does with all the privileges that it was given, before it gives them up.

use std::net::TcpListener;

use anyhow::Context;
use nix::sys::stat::{Mode, umask};

use super::{Setup, bpffs, files, privileges, scout::Scout};
use crate::{
    control::{self, Claim},
    datapath::{Ground, State},
    serve,
    sessions::Owners,
    tags,
};

/// The state directory is claimed, and the daemon has the privileges that it keeps.
pub struct Groundwork {
    pub(super) claim: Claim,
    pub(super) listener: TcpListener,
    /// Who has the connections that a first start may cut.
    pub(super) owners: Owners,
    /// Where sockets are kept from passing by.
    pub(super) ground: Ground,
    pub(super) scout: Scout,
}

impl Groundwork {
    /// To be called while there is one thread: others would keep all. The scout keeps what it
    /// needs, and ends before anything is announced.
    ///
    /// # Errors
    /// Where another daemon runs, or the system refuses.
    pub fn lay(setup: &Setup) -> anyhow::Result<Self> {
        // Nothing that it makes is anybody else's business, and all is its own: root that
        // has given up its capabilities is bound by modes, too.
        umask(Mode::from_bits_truncate(0o077));
        files::make_room()?;
        let claim = control::claim(&setup.state_dir)?;
        if bpffs::mount_usual(&setup.state_dir)? {
            tracing::info!("mounted a BPF file system on /sys/fs/bpf");
        }
        let listener = serve::bind(setup.listen)?;
        let is_first = State::at(&setup.state_dir).attachments()?.is_empty();
        let owners = match is_first {
            true => Owners::look(),
            false => Owners::default(),
        };
        let reads = || tags::can_be_read(&setup.policy, &setup.tags) && setup.web.can_be_read();
        let ground = Ground::find();
        let scout = Scout::keep().context("cannot start a thread")?;
        let kept = privileges::shed(reads).context("cannot give up privileges")?;
        tracing::info!("keeping {kept}, and no other privilege");
        Ok(Self {
            claim,
            listener,
            owners,
            ground,
            scout,
        })
    }
}
