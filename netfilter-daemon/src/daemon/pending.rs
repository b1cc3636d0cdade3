//! A policy that is in force until a moment, unless somebody confirms it: whoever has
//! locked himself out only has to wait.
//!
//! The kernel keeps that moment too (`Settings::expires`): the former policy comes back
//! on time also if the daemon is dead by then.

use std::{fmt, time::Duration};

use tokio::{task::block_in_place, time::Instant};

use super::{Daemon, End, view::PolicyInForce};
use crate::{
    causes,
    control::{Answer, Fault},
    datapath::{self, Attachment},
    interfaces::Choice,
    moment,
    refresh::Names,
    tags::keep::InForce,
};

pub(super) struct Pending {
    until: Instant,
    former: Former,
}

/// What comes back.
pub(super) enum Former {
    /// What was attached before this daemon started.
    Start(Vec<Attachment>),
    Policy {
        policy: Box<PolicyInForce>,
        names: Names,
        lists: InForce,
        choice: Choice,
        /// The indexes of the interfaces that were filtered.
        filtered: Vec<u32>,
    },
}

impl Pending {
    pub(super) fn new(within: Duration, former: Former) -> Self {
        let until = Instant::now() + within;
        Self { until, former }
    }

    pub(super) const fn until(&self) -> Instant {
        self.until
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.until.saturating_duration_since(Instant::now());
        write!(
            f,
            "the policy in force waits for `netfilter-daemon confirm`; without it the state \
             before comes back in {}",
            moment::span(left)
        )
    }
}

impl Daemon {
    pub(super) fn confirm(&mut self) -> Answer {
        let generation = self.datapath.generation();
        if self.pending.is_none() {
            return Answer::Failed {
                error: "nothing waits to be confirmed".to_owned(),
                fault: Fault::Nothing,
            };
        }
        match self.datapath.confirm() {
            Ok(()) => {
                self.pending = None;
                tracing::info!("generation {generation} is confirmed");
                Answer::Confirmed { generation }
            }
            Err(error) => Answer::Failed {
                error: error.to_string(),
                fault: Fault::Nothing,
            },
        }
    }

    /// Nobody confirmed it.
    pub(super) fn put_back(&mut self) -> Option<End> {
        let pending = self.pending.take()?;
        let generation = self.datapath.generation();
        match block_in_place(|| self.former(pending.former)) {
            Ok(end) => {
                tracing::error!(
                    "generation {generation} was not confirmed in time; the state before is back"
                );
                end
            }
            Err(error) => {
                tracing::error!(
                    "generation {generation} was not confirmed in time, and the state before \
                     could not be put back whole: {}",
                    causes::told(&error.into())
                );
                None
            }
        }
    }

    fn former(&mut self, former: Former) -> Result<Option<End>, datapath::Error> {
        match former {
            Former::Policy {
                policy,
                names,
                lists,
                choice,
                filtered,
            } => {
                let generation = self.datapath.revert()?;
                self.view.put_back(*policy, generation);
                self.names.send_replace(names);
                self.lists.send_replace(lists);
                self.keeper.put_back(choice, filtered);
                Ok(None)
            }
            Former::Start(attached) if attached.is_empty() => {
                // It would put everything back.
                self.keeper.stop();
                datapath::detach(&self.setup.state_dir)?;
                Ok(Some(End::Unconfirmed))
            }
            Former::Start(attached) => {
                self.keeper.stop();
                self.datapath.revert()?;
                self.datapath.withdraw(&attached)?;
                Ok(Some(End::Unconfirmed))
            }
        }
    }
}
