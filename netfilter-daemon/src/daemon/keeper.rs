//! Keeps every interface that is to be filtered so: those that come, and those where
//! another tool took our place.
//!
//! A thread of its own, which waits for the kernel's word: a reload may keep the
//! daemon's loop busy for seconds, and a new interface carries packets at once.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use tokio::sync::Notify;

use super::{
    repairs::Repairs,
    ways_out::{Report, WayOut},
};
use crate::{
    causes,
    datapath::{self, Hooks, Target, Unguarded},
    interfaces::{self, By, Choice, Coverage, Interface, coverage},
    netlink::Listener,
};

/// Between two looks at everything, for no event tells of a program that is gone.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the daemon and the thread tell each other.
pub(super) struct Shared {
    /// Held while the thread looks; none once it has ended.
    hooks: Mutex<Option<Hooks>>,
    orders: Mutex<Orders>,
    report: Mutex<Seen>,
    wake: EventFd,
    second: Notify,
}

struct Orders {
    choice: Choice,
    /// All but these are left that the choice does not cover.
    leave_but: Option<Vec<u32>>,
    stop: bool,
}

struct Seen {
    report: Report,
    at: Instant,
    error: Option<String>,
}

impl Keeper {
    /// Looks once before it returns, so that there is a report.
    pub(super) fn start(hooks: Hooks, choice: Choice) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            hooks: Mutex::new(Some(hooks)),
            orders: Mutex::new(Orders {
                choice,
                leave_but: None,
                stop: false,
            }),
            report: Mutex::new(Seen {
                report: Report::default(),
                at: Instant::now(),
                error: None,
            }),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            second: Notify::new(),
        });
        let mut keeping = Keeping {
            listener: Listener::of_interfaces()?,
            shared: Arc::clone(&shared),
            known: HashMap::new(),
            repairs: Repairs::default(),
            unguarded: None,
        };
        keeping.look_and_report();
        let thread = thread::Builder::new()
            .name("interfaces".to_owned())
            .spawn(move || keeping.keep())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// What a reload names. The command line goes on winning over it, for what leads to
    /// workloads only if it names any. What is named no longer stays filtered.
    pub(super) fn choose(&self, policy: Option<&[String]>, workloads: &[String]) {
        let mut orders = self.shared.orders();
        if orders.choice.workloads_by != By::CommandLine {
            orders.choice.workloads = workloads.to_vec();
        }
        let (names, by) = match policy {
            _ if orders.choice.by == By::CommandLine => (None, By::CommandLine),
            Some(names) if !(names.is_empty() && workloads.is_empty()) => (Some(names), By::Policy),
            _ => (Some(&[][..]), By::Auto),
        };
        if let Some(names) = names
            && (orders.choice.by != by || by == By::Policy)
        {
            orders.choice.names = names.to_vec();
            orders.choice.by = by;
        }
        drop(orders);
        self.shared.wake();
    }

    /// What was chosen before comes back: `filtered` were, and what came by the other choice
    /// is left.
    pub(super) fn put_back(&self, choice: Choice, filtered: Vec<u32>) {
        let mut orders = self.shared.orders();
        orders.choice = choice;
        orders.leave_but = Some(filtered);
        drop(orders);
        self.shared.wake();
    }

    /// Ends the thread, which lets go of all that keeps programs attached besides their pins.
    pub(super) fn stop(&mut self) {
        self.shared.orders().stop = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("what looks after the interfaces had failed");
        }
        *self.shared.hooks() = None;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// What was seen last, how long ago, and what hindered it.
    pub(super) fn report(&self) -> (Report, Duration, Option<String>) {
        let seen = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.report.clone(), seen.at.elapsed(), seen.error.clone())
    }

    /// Waits for the next look of each second. Whoever works each second does so then: to wake the
    /// processor costs more than most of what is done.
    pub(super) async fn second(&self) {
        self.second.notified().await;
    }

    pub(super) fn choice(&self) -> Choice {
        self.orders().choice.clone()
    }

    /// While this is held, nothing is attached or repaired; other programs may be put in.
    pub(super) fn hooks(&self) -> MutexGuard<'_, Option<Hooks>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It fails only where the thread is about to wake already.
        self.wake.write(1).ok();
    }
}

struct Keeping {
    listener: Listener,
    shared: Arc<Shared>,
    /// What the programs were told, by index; these are covered.
    known: HashMap<u32, Target>,
    repairs: Repairs,
    /// Why sockets can pass by.
    unguarded: Option<Unguarded>,
}

impl Keeping {
    fn keep(mut self) {
        let mut next = Instant::now() + LOOK;
        loop {
            self.wait(next.saturating_duration_since(Instant::now()));
            if self.shared.orders().stop {
                return;
            }
            self.look_and_report();
            if next <= Instant::now() {
                next = Instant::now() + LOOK;
                self.shared.second.notify_one();
            }
        }
    }

    fn wait(&self, at_most: Duration) {
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::from(1000u16));
        let mut descriptors = [
            PollFd::new(self.listener.descriptor(), PollFlags::POLLIN),
            PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN),
        ];
        // Interrupted, it looks too early.
        poll(&mut descriptors, timeout).ok();
        self.shared.wake.read().ok();
    }

    fn look_and_report(&mut self) {
        let heard = self.listener.hear().map_err(anyhow::Error::from);
        let looked = heard.and_then(|_| self.look());
        let mut seen = self
            .shared
            .report
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match looked {
            Ok(ways_out) => {
                seen.report.ways_out = ways_out;
                seen.error = None;
            }
            Err(error) => seen.error = Some(causes::told(&error)),
        }
        seen.report.repairs = self.repairs.counts();
        seen.report.unguarded = self.unguarded.clone();
        seen.at = Instant::now();
    }

    /// Covers what came, puts right what is wrong, and says how things stand.
    fn look(&mut self) -> anyhow::Result<Vec<WayOut>> {
        let shared = Arc::clone(&self.shared);
        let mut hooks = shared.hooks();
        let hooks = hooks.as_mut().context("the programs are gone")?;
        let guarded = self.look_at_guard(hooks);
        self.unguarded = hooks.unguarded().cloned();
        let mut present = interfaces::present()?;
        let (choice, leave_but) = {
            let orders = self.shared.orders();
            (orders.choice.clone(), orders.leave_but.clone())
        };
        let is_there = |ifindex| present.iter().any(|each| each.index == ifindex);
        if let Some(stays) = leave_but {
            self.leave(hooks, &present, &choice, &stays)?;
            self.shared.orders().leave_but = None;
        }
        let filtered = hooks.filtered()?;
        if filtered.iter().any(|ifindex| !is_there(*ifindex))
            || self.known.keys().any(|ifindex| !is_there(*ifindex))
        {
            hooks.retire(is_there)?;
            self.known.retain(|ifindex, _| is_there(*ifindex));
        }
        let coverage: BTreeMap<u32, _> = present
            .iter()
            .map(|each| (each.index, coverage(each, &present, &choice)))
            .collect();
        let wanted: Vec<u32> = present
            .iter()
            .map(|each| each.index)
            .filter(|index| {
                coverage[index].is_covered()
                    || filtered.contains(index)
                    || self.known.contains_key(index)
            })
            .collect();
        let earlier = hooks.workloads()?;
        let workloads: Vec<u32> = wanted
            .iter()
            .copied()
            .filter(|index| match coverage[index] {
                Coverage::Workload(_) => true,
                coverage => !coverage.is_covered() && earlier.contains(index),
            })
            .collect();
        let targets: Vec<Target> = present
            .iter()
            .filter(|each| wanted.contains(&each.index))
            .map(|each| Target::of(each, &present, &wanted, &workloads))
            .collect();
        let mut failed = HashMap::new();
        // Newcomers first. All are described before any is attached: what is below another
        // must know it when the first answer comes.
        let mut newcomers = Vec::new();
        for target in &targets {
            if self.known.get(&target.index) == Some(target) {
                continue;
            }
            let other_side = filtered.contains(&target.index)
                && earlier.contains(&target.index) != workloads.contains(&target.index);
            let is_new = !self.known.contains_key(&target.index)
                && !filtered.contains(&target.index)
                || other_side;
            match hooks.describe(target) {
                Ok(()) => {
                    self.known.insert(target.index, target.clone());
                }
                // Attached all the same: without an entry nothing leaves by it.
                Err(error) => {
                    failed.insert(target.index, error);
                }
            }
            if is_new {
                newcomers.push(target);
            }
        }
        for target in newcomers {
            match hooks.cover(target) {
                Ok(()) => tracing::info!(
                    "filtering {}, which came: {}{}",
                    target.name,
                    coverage[&target.index].reason(),
                    hooks.told(target)
                ),
                Err(error) => {
                    self.known.remove(&target.index);
                    failed.insert(target.index, error);
                }
            }
        }
        for target in &targets {
            if !failed.contains_key(&target.index)
                && let Err(error) = self.look_at(target, hooks)
            {
                failed.insert(target.index, error);
            }
        }
        guarded?;
        // One may have gone while this looked. What is to be heard stays for the next look.
        if !self.listener.is_silent()? {
            let now_there = interfaces::present()?;
            present.retain(|each| now_there.iter().any(|now| now.index == each.index));
        }
        Ok(present
            .iter()
            .map(|each| {
                let error = failed.get(&each.index);
                let filtered = error.is_none() && wanted.contains(&each.index);
                let mut way = WayOut::of(each, coverage[&each.index], filtered);
                if let Some(error) = error {
                    way.why = format!("{}, but {error}", way.why);
                }
                way
            })
            .collect())
    }

    fn leave(
        &mut self,
        hooks: &mut Hooks,
        present: &[Interface],
        choice: &Choice,
        stays: &[u32],
    ) -> Result<(), datapath::Error> {
        let filtered = hooks.filtered()?;
        let leaves = |each: &&Interface| {
            filtered.contains(&each.index)
                && !stays.contains(&each.index)
                && !coverage(each, present, choice).is_covered()
        };
        for each in present.iter().filter(leaves) {
            hooks.leave(each.index)?;
            self.known.remove(&each.index);
            tracing::warn!("{} is not filtered any more", each.name);
        }
        Ok(())
    }

    /// The root cgroup, which has no number among the interfaces.
    fn look_at_guard(&mut self, hooks: &mut Hooks) -> Result<(), datapath::Error> {
        const NO_INTERFACE: u32 = 0;
        let Some(cause) = hooks.check_guard()? else {
            return Ok(());
        };
        if self.repairs.is_due(NO_INTERFACE, Instant::now()) {
            self.repairs.note(NO_INTERFACE, "", cause, Instant::now());
            hooks.repair_guard()?;
        }
        Ok(())
    }

    fn look_at(&mut self, target: &Target, hooks: &mut Hooks) -> Result<(), datapath::Error> {
        let Some(cause) = hooks.check(target)? else {
            return Ok(());
        };
        if !self.repairs.is_due(target.index, Instant::now()) {
            return Err(datapath::Error::Rival {
                interface: target.name.clone(),
                cause,
            });
        }
        self.repairs
            .note(target.index, &target.name, cause, Instant::now());
        hooks.repair(target)
    }
}
