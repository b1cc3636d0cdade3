//! Policies are read beside the loop: a large one takes seconds, in which the daemon
//! answers, and looks after what is in force.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::oneshot,
    task::{JoinError, JoinHandle, block_in_place, spawn_blocking},
};

use super::{
    Daemon, heap,
    loaded::{self, Read},
    watch::Stamp,
};
use crate::control::Reply;

/// Who wants the policy to be read, and how it is to come into force.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) cause: &'static str,
    pub(super) confirm_within: Option<Duration>,
    /// None: nobody waits for an answer.
    pub(super) reply: Option<oneshot::Sender<Reply>>,
}

impl Wanted {
    pub(super) const fn by(cause: &'static str) -> Self {
        Self {
            cause,
            confirm_within: None,
            reply: None,
        }
    }
}

/// One after the other.
#[derive(Debug, Default)]
pub(super) struct Readings {
    waiting: VecDeque<Wanted>,
    current: Option<(Wanted, JoinHandle<Read>)>,
}

impl Readings {
    pub(super) const fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// Many signals that come before it is read are one.
    fn want(&mut self, wanted: Wanted) {
        let same = |other: &Wanted| other.reply.is_none() && other.cause == wanted.cause;
        if wanted.reply.is_some() || !self.waiting.iter().any(same) {
            self.waiting.push_back(wanted);
        }
    }

    /// Waits for ever where nothing is read. Nothing is lost where the future is dropped.
    pub(super) async fn read(&mut self) -> (Wanted, Result<Read, JoinError>) {
        let Some((_, current)) = &mut self.current else {
            return std::future::pending().await;
        };
        let read = current.await;
        match self.current.take() {
            Some((wanted, _)) => (wanted, read),
            None => std::future::pending().await, // never: it was there
        }
    }
}

impl Daemon {
    pub(super) fn want(&mut self, wanted: Wanted) {
        self.readings.want(wanted);
        self.read_next();
    }

    pub(super) fn finish(&mut self, (wanted, read): (Wanted, Result<Read, JoinError>)) {
        let (files, loaded) = match read {
            Ok(Read { files, loaded }) => (files, loaded.map_err(anyhow::Error::from)),
            Err(panic) => (Vec::new(), Err(panic.into())),
        };
        self.health.tell(&files);
        let done = loaded.and_then(|loaded| {
            block_in_place(|| {
                let done = self.put_into_force(&loaded, wanted.confirm_within);
                drop(loaded);
                heap::give_back();
                done
            })
        });
        let answer = self.reloaded(wanted.cause, done, &files);
        self.tell(wanted, answer);
        self.read_next();
    }

    fn read_next(&mut self) {
        while self.readings.is_idle()
            && let Some(wanted) = self.readings.waiting.pop_front()
        {
            if let Some(answer) = self.not_now(wanted.cause) {
                self.tell(wanted, answer);
                continue;
            }
            let (policy, audit) = (self.setup.policy.clone(), self.setup.audit);
            let store = self.setup.tags.clone();
            self.watch.read(Stamp::of(&policy));
            self.subnets.read();
            let read = spawn_blocking(move || loaded::load(&policy, audit, &store));
            self.readings.current = Some((wanted, read));
        }
    }
}
