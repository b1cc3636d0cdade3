//! What the daemon does when it is asked.

use std::time::Duration;

use tokio::{sync::oneshot, task::block_in_place};

use super::{
    Daemon, End,
    loaded::{self, Loaded},
    on,
    pending::{Former, Pending},
    reading::Wanted,
    status::Place,
};
use crate::{
    causes,
    control::{Answer, Ask, Fault, Refused, Reply, Request},
    datapath::{self, Terms},
    interfaces,
    refresh::Names,
    tags::{Update, keep::InForce},
};

impl Daemon {
    pub(super) fn answer(&mut self, ask: Ask) -> Option<End> {
        let (reply, end): (Reply, _) = match ask.request {
            Request::Status => (self.status().into(), None),
            Request::Overview => (self.overview().into(), None),
            Request::Events => (Answer::Events(self.denials.all()).into(), None),
            Request::Audit => (self.audit().into(), None),
            Request::ForgetAudit => (self.forget_audit().into(), None),
            Request::Follow => (self.follow(), None),
            Request::Reload { confirm } => {
                self.want(Wanted {
                    cause: "`reload`",
                    confirm_within: confirm.map(Duration::from_secs),
                    reply: Some(ask.reply),
                });
                return None;
            }
            Request::Confirm => (self.confirm().into(), None),
            Request::Detach => {
                let (answer, end) = self.detach();
                (answer.into(), end)
            }
        };
        told(ask.reply, reply);
        end
    }

    fn status(&self) -> Answer {
        match block_in_place(|| self.view.status()) {
            Ok(status) => Answer::Status {
                status: Box::new(status),
            },
            Err(error) => failed(&error),
        }
    }

    fn overview(&self) -> Answer {
        match block_in_place(|| self.view.overview()) {
            Ok(overview) => Answer::Overview {
                overview: Box::new(overview),
            },
            Err(error) => Answer::Failed {
                error: causes::told(&error),
                fault: Fault::System,
            },
        }
    }

    fn audit(&self) -> Answer {
        match block_in_place(|| self.view.audit()) {
            Ok(audit) => Answer::Audit {
                audit: Box::new(audit),
            },
            Err(error) => failed(&error),
        }
    }

    fn forget_audit(&self) -> Answer {
        match block_in_place(|| self.view.forget_audit()) {
            Ok(()) => Answer::Forgotten,
            Err(error) => failed(&error),
        }
    }

    fn follow(&self) -> Reply {
        match self.denials.follow() {
            Some(follower) => Reply::Follow(follower),
            None => Reply::Answer(Answer::Failed {
                error: "too many readers follow the events already; end one".to_owned(),
                fault: Fault::System,
            }),
        }
    }

    /// Why no other policy can come into force.
    pub(super) fn not_now(&self, cause: &str) -> Option<Answer> {
        let error = self.pending.as_ref()?.to_string();
        tracing::error!("not reloaded because of {cause}: {error}");
        let fault = Fault::System;
        Some(Answer::Failed { error, fault })
    }

    pub(super) fn tell(&self, wanted: Wanted, answer: Answer) {
        if let Some(reply) = wanted.reply {
            told(reply, answer.into());
        }
    }

    /// All or nothing.
    pub(super) fn reloaded(
        &self,
        cause: &str,
        done: anyhow::Result<(usize, u32)>,
        files: &[Update],
    ) -> Answer {
        let refused = files.iter().filter_map(Refused::of);
        match done {
            Ok((rules, generation)) => {
                tracing::info!(
                    "reloaded because of {cause}: {rules} rules, generation {generation}"
                );
                Answer::Reloaded {
                    rules,
                    generation,
                    refused: refused.collect(),
                }
            }
            Err(error) => {
                self.view.reload_failed();
                let generation = self.datapath.generation();
                let fault = match error.is::<loaded::Error>() {
                    true => Fault::Policy,
                    false => Fault::System,
                };
                let mut error = causes::told(&error);
                tracing::error!("not reloaded; generation {generation} remains in force:\n{error}");
                // It may be why: a tag of the new list is not in the stored one.
                for refused in refused {
                    if !error.contains(&refused.reason) {
                        error.push_str(&format!("\n{refused}"));
                    }
                }
                Answer::Failed { error, fault }
            }
        }
    }

    pub(super) fn put_into_force(
        &mut self,
        loaded: &Loaded,
        confirm_within: Option<Duration>,
    ) -> anyhow::Result<(usize, u32)> {
        let terms = Terms {
            confirm_within,
            ..Terms::default()
        };
        let choice = self.keeper.shared().choice();
        let attached = self.datapath.state().attachments()?;
        let generation = if self.datapath.fits(&loaded.image) {
            self.datapath.replace_on(&loaded.image, terms)?
        } else {
            // Other programs come with larger tables: nobody hangs up the former ones meanwhile.
            let keeper = self.keeper.shared();
            let mut hooks = keeper.hooks();
            let generation = self.datapath.replace_on(&loaded.image, terms)?;
            *hooks = Some(self.datapath.hooks()?);
            generation
        };
        self.view.judged_by(&self.datapath);
        let former = self.view.replaced(loaded, generation);
        let former_names = self.names.send_replace(Names::of(&loaded.policy));
        let former_lists = self.lists.send_replace(InForce::of(&loaded.policy));
        self.pending = confirm_within.map(|within| {
            Pending::new(
                within,
                Former::Policy {
                    policy: Box::new(former),
                    names: former_names,
                    lists: former_lists,
                    choice,
                    filtered: attached.iter().map(|place| place.ifindex).collect(),
                },
            )
        });
        let remarks = &loaded.policy.remarks;
        for note in remarks.notes.iter().chain(&remarks.warnings) {
            tracing::warn!("{note}");
        }
        let filtered = self.view.filtered();
        let (uplinks, workloads) = (&loaded.policy.interfaces, &loaded.policy.workloads);
        self.keeper.choose(uplinks.as_deref(), workloads);
        if let Some(uplinks) = uplinks {
            let is_named = |name: &&String| {
                let mut named = uplinks.iter().chain(workloads);
                named.any(|each| interfaces::matches(each, name))
            };
            let dropped = filtered.iter().filter(|name| !is_named(name));
            let dropped: Vec<&str> = dropped.map(String::as_str).collect();
            if !dropped.is_empty() {
                tracing::warn!(
                    "the policy does not name {} any more, which remains filtered; \
                     `netfilter-daemon detach`, then `run`, to change that",
                    dropped.join(", ")
                );
            }
        }
        Ok((loaded.policy.rules.len(), generation))
    }

    fn detach(&mut self) -> (Answer, Option<End>) {
        // It would put everything back.
        block_in_place(|| self.keeper.stop());
        match block_in_place(|| datapath::detach(&self.setup.state_dir)) {
            Ok(lifted) => {
                let lifted: Vec<Place> = lifted.into_iter().map(Place::from).collect();
                tracing::warn!("the filter is lifted{}", on(&lifted));
                (Answer::Detached { lifted }, Some(End::Detached))
            }
            Err(error) => {
                // What could not be lifted is looked after again.
                let choice = self.keeper.shared().choice();
                match block_in_place(|| super::keep(&mut self.datapath, choice)) {
                    Ok(keeper) => {
                        self.view.kept_by(keeper.shared());
                        self.keeper = keeper;
                    }
                    Err(error) => tracing::error!("{}", causes::told(&error)),
                }
                (failed(&error), None)
            }
        }
    }
}

fn told(reply: oneshot::Sender<Reply>, answer: Reply) {
    if reply.send(answer).is_err() {
        tracing::debug!("nobody waits for the answer to a control request");
    }
}

fn failed(error: &datapath::Error) -> Answer {
    Answer::Failed {
        error: error.to_string(),
        fault: Fault::System,
    }
}
