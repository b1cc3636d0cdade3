//! What a first start finds: connections that are open already.

use std::{io, time::Duration};

use anyhow::Context;

use super::loaded::Loaded;
use crate::{
    policy::Mode,
    refresh::{self, Names},
    sessions::{self, Fate, Lent, Owners, Session},
};

/// For all names: nothing is filtered before.
const PATIENCE: Duration = Duration::from_secs(2);
/// Lines of the log for what is cut.
const LINES: usize = 20;

/// The connections that are open, and what would become of them.
pub struct Opening {
    /// What the exact names lend at once, if any connection needs that.
    pub lent: Vec<Lent>,
    pub kept: usize,
    /// With what has them, and why they end.
    pub cut: Vec<String>,
}

/// Looks at the connections of this machine. Asks for the policy's exact names only if
/// one of them goes where no range allows it.
///
/// # Errors
/// Where the kernel's tables cannot be read.
pub async fn look(loaded: &Loaded, owners: &Owners) -> io::Result<Opening> {
    let sessions = sessions::established()?;
    let is_cut = |session: &&Session, lent: &[Lent]| {
        matches!(session.fate(&loaded.image, lent), Fate::Cut(_))
    };
    let mut lent = Vec::new();
    if sessions.iter().any(|session| is_cut(&session, &lent)) {
        lent = refresh::addresses(&Names::of(&loaded.policy), PATIENCE).await;
    }
    let cut: Vec<&Session> = sessions
        .iter()
        .filter(|session| is_cut(session, &lent))
        .collect();
    let kept = sessions.len() - cut.len();
    let told = cut.into_iter().map(|session| {
        let owner = owners.of(session);
        let reason = match session.fate(&loaded.image, &lent) {
            Fate::Cut(reason) => reason.sentence(),
            Fate::Inbound | Fate::Allowed => "",
        };
        format!(
            "{session} of {}: {reason}",
            owner.unwrap_or("another process")
        )
    });
    let cut = told.collect();
    Ok(Opening { lent, kept, cut })
}

/// Says what a start is about to cut; what the names lend.
pub(super) async fn prepare(loaded: &Loaded, owners: &Owners) -> anyhow::Result<Vec<Lent>> {
    let opening = look(loaded, owners)
        .await
        .context("cannot read the table of connections")?;
    let verb = match loaded.policy.mode {
        Mode::Enforce => "cutting",
        Mode::Report => "would cut",
    };
    for told in opening.cut.iter().take(LINES) {
        tracing::warn!("{verb} {told}");
    }
    if let Some(more) = opening
        .cut
        .len()
        .checked_sub(LINES)
        .filter(|more| *more > 0)
    {
        tracing::warn!("{verb} {more} other connections");
    }
    Ok(opening.lent)
}
