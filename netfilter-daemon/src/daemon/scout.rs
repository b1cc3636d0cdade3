//! Looks for sockets that had a way past the filter before it came.
//!
//! That takes the privilege to look into other processes, and can only be done once nobody
//! gets such a way any more: after the daemon has given up its privileges. So one thread
//! keeps that one until it has looked, and ends.

use std::{
    io,
    sync::mpsc::{self, Sender},
    thread::{self, JoinHandle},
};

use super::privileges;
use crate::{
    bypass::{self, Look, Rights},
    datapath::guard,
};

/// Whoever drops it ends the thread.
pub(super) struct Scout {
    go: Sender<Rights>,
    thread: JoinHandle<io::Result<Look>>,
}

impl Scout {
    /// To be called before the privileges are given up.
    pub(super) fn keep() -> io::Result<Self> {
        let (go, wait) = mpsc::channel::<Rights>();
        let look = move || {
            privileges::keep_looking().map_err(io::Error::other)?;
            match wait.recv() {
                Ok(rights) => bypass::look(guard::cookie()?, &rights),
                // Nothing is filtered.
                Err(_) => Ok(Look::default()),
            }
        };
        let thread = thread::Builder::new()
            .name("scout".to_owned())
            .spawn(look)?;
        Ok(Self { go, thread })
    }

    /// Says which processes pass by the filter, and takes that from those that may not.
    pub(super) fn look(self, rights: Rights) {
        // The thread can only have failed, and says so below.
        self.go.send(rights).ok();
        match self.thread.join() {
            Ok(Ok(look)) => tell(&look),
            Ok(Err(error)) => {
                tracing::warn!("{}: {error}", unseen("processes could not be looked at"))
            }
            Err(_) => tracing::warn!("{}", unseen("processes could not be looked at")),
        }
    }
}

fn tell(look: &Look) {
    for passing in &look.passing {
        if passing.allowed {
            tracing::info!("{passing}");
        } else {
            tracing::warn!("{passing}");
        }
    }
    if let Some(gap) = look.gap() {
        tracing::warn!("{}", unseen(&gap));
    }
}

fn unseen(gap: &str) -> String {
    format!("{gap} for sockets that pass by the filter; `status`, run as root in a shell, may")
}
