//! Flows that each rule let out or denied, by the rule's name: the kernel keeps them through
//! reloads, restarts and upgrades.

use std::collections::{HashMap, HashSet};

use aya::maps::MapError;

use netfilter_ebpf::abi::HIT_RULES;

use super::{
    Error, State,
    fill::Writer,
    maps::{self, HashOf, Plain},
};
use crate::compile::{Image, deciders};

const BPF_NOEXIST: u64 = 1;

/// A rule, and the flows that it let out or, if it denies, kept in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleHits {
    pub rule: String,
    pub hits: u64,
}

impl Writer {
    /// Makes room for the policy's rules, as far as there is, and takes away that of those which
    /// are neither in it nor in the one in force.
    pub(super) fn count_rules(&mut self, copy: u32, image: &Image) -> Result<(), Error> {
        let in_force = 1 - copy as usize;
        let in_force = self.deciders.half(in_force, self.deciders.len() / 2)?;
        // The first is nobody, and so is who comes behind the last.
        let in_force = in_force.skip(1).map(|decider| decider.rule);
        let in_force = in_force.take_while(|rule| *rule != 0);
        let kept: HashSet<u64> = image.rule_keys.iter().copied().chain(in_force).collect();
        let counted: Result<Vec<_>, MapError> = self.hits.keys().collect();
        let counted = counted.map_err(maps::failed("list", maps::HITS))?;
        let counted: HashSet<u64> = counted.into_iter().map(|Plain(rule)| rule).collect();
        // Where these tables are new, what is in force is in others.
        let are_new = self.active.load(0).unwrap_or(0) == 0;
        let gone = counted.difference(&kept).filter(|_| !are_new);
        for gone in gone {
            self.hits
                .remove(&Plain(*gone))
                .map_err(maps::failed("clear", maps::HITS))?;
        }
        for rule in &image.rule_keys {
            if !counted.contains(rule) {
                match self.hits.insert(Plain(*rule), Plain(0), BPF_NOEXIST) {
                    Ok(()) => {}
                    // Two rules of one name: there are none.
                    Err(MapError::SyscallError(error))
                        if error.io_error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    // That its flows are not counted keeps no policy out of force.
                    Err(MapError::SyscallError(error))
                        if error.io_error.raw_os_error() == Some(libc::E2BIG) =>
                    {
                        tracing::warn!(
                            "there is room to count the flows of {HIT_RULES} rules; those of the others are not counted"
                        );
                        return Ok(());
                    }
                    Err(error) => return Err(maps::failed("write", maps::HITS)(error)),
                }
            }
        }
        Ok(())
    }
}

impl State {
    /// The flows that rules of these names let out or denied, in their order. Those that are
    /// not counted are left out.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn rule_hits(&self, rules: &[String]) -> Result<Vec<RuleHits>, Error> {
        let map: HashOf<u64, u64> = maps::open(self.pins(), maps::HITS)?;
        let listed: Result<HashMap<u64, u64>, MapError> = map
            .iter()
            .map(|entry| entry.map(|(Plain(rule), Plain(hits))| (rule, hits)))
            .collect();
        let listed = listed.map_err(maps::failed("read", maps::HITS))?;
        let hits = rules.iter().filter_map(|rule| {
            let hits = *listed.get(&deciders::key(rule))?;
            let rule = rule.clone();
            Some(RuleHits { rule, hits })
        });
        Ok(hits.collect())
    }
}
