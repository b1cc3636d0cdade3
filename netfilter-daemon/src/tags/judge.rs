//! Whether a list may replace the one before it. Pure.
//!
//! Who speaks TLS for the right name may still send the wrong list: a page of errors
//! in JSON, another cloud's, half of one, last year's from a cache.

use std::fmt;

use ipnet::IpNet;

use crate::policy::service_tag::{Catalogue, Edition};

/// No cloud has more in one piece: the widest published ones are a /11 of Amazon's
/// and a /29 of GitHub's. A wider one would open the filter.
const WIDEST_IPV4: u8 = 8;
const WIDEST_IPV6: u8 = 16;

/// Why a list is refused; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals(Vec<Refusal>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "its tag {tag} has {prefix}, which is far more than any cloud owns; if that is meant, \
         write a rule of `type: ip`"
    )]
    TooWide { tag: String, prefix: IpNet },
    #[error("it is a list of {now}, and the one before it of {before}")]
    OtherCloud { before: String, now: String },
    #[error("it is older ({now}) than the one before it ({before})")]
    Older { before: String, now: String },
    #[error("it has {now} prefixes, less than half of the former {before}")]
    FewerPrefixes { before: usize, now: usize },
    #[error("of the former {before} tags, it has {now}, less than half")]
    FewerTags { before: usize, now: usize },
    #[error("the tag {0}, which the policy uses, is no longer in it")]
    TagGone(String),
    #[error("the tag {tag}, which the policy uses, has {now} prefixes, less than half of {before}")]
    TagShrank {
        tag: String,
        before: usize,
        now: usize,
    },
}

impl Refusal {
    /// Shrinking and going back can be meant.
    fn can_be_meant(&self) -> bool {
        !matches!(self, Self::TooWide { .. } | Self::OtherCloud { .. })
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let Self(refusals) = self;
        let shown: Vec<String> = refusals
            .iter()
            .take(SHOWN)
            .map(Refusal::to_string)
            .collect();
        write!(f, "refused: {}", shown.join("; "))?;
        if refusals.len() > SHOWN {
            write!(f, "; and {} more", refusals.len() - SHOWN)?;
        }
        match refusals.iter().all(Refusal::can_be_meant) {
            true => f.write_str(". If that is meant, `tags update --force` accepts it"),
            false => Ok(()),
        }
    }
}

/// `used` are the tags of the policy's rules; those that `former` does not have are
/// another list's. `force` accepts what can be meant.
///
/// # Errors
/// All that speaks against it.
pub fn judge(
    former: Option<&Catalogue>,
    new: &Catalogue,
    used: &[String],
    force: bool,
) -> Result<(), Refusals> {
    let mut refusals = too_wide(new);
    if let Some(former) = former {
        let (before, now) = (former.edition(), new.edition());
        if before.cloud != now.cloud {
            refusals.push(Refusal::OtherCloud {
                before: before.cloud.clone(),
                now: now.cloud.clone(),
            });
        } else if is_older(now, before) {
            refusals.push(Refusal::Older {
                before: version(before),
                now: version(now),
            });
        }
        refusals.extend(shrunk(former, new, used));
    }
    refusals.retain(|refusal| !(force && refusal.can_be_meant()));
    match refusals.is_empty() {
        true => Ok(()),
        false => Err(Refusals(refusals)),
    }
}

fn too_wide(new: &Catalogue) -> Vec<Refusal> {
    let widest = |prefix: &IpNet| match prefix {
        IpNet::V4(_) => WIDEST_IPV4,
        IpNet::V6(_) => WIDEST_IPV6,
    };
    let tags = new.tags().filter_map(|tag| {
        let is_wide = |prefix: &&IpNet| prefix.prefix_len() < widest(prefix);
        let prefix = *tag.prefixes.iter().find(is_wide)?;
        let tag = tag.name.clone();
        Some(Refusal::TooWide { tag, prefix })
    });
    tags.collect()
}

/// By each cloud's own notion: Azure counts changes, the tokens of Amazon and Google
/// are times, GitHub has nothing. Dates tell editions of one number apart.
fn is_older(now: &Edition, before: &Edition) -> bool {
    let by_date = || match (&now.date, &before.date) {
        (Some(now), Some(before)) => now < before,
        _ => false,
    };
    now.change_number < before.change_number
        || now.change_number == before.change_number && by_date()
}

fn version(edition: &Edition) -> String {
    let of = edition.date.as_ref().map(|date| format!(" of {date}"));
    format!(
        "change number {}{}",
        edition.change_number,
        of.unwrap_or_default()
    )
}

fn shrunk(former: &Catalogue, new: &Catalogue, used: &[String]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let prefixes = |list: &Catalogue| list.tags().map(|tag| tag.prefixes.len()).sum();
    let (before, now): (usize, usize) = (prefixes(former), prefixes(new));
    if is_less_than_half(now, before) {
        refusals.push(Refusal::FewerPrefixes { before, now });
    }
    let before = former.tags().count();
    let still = former.tags().filter(|tag| new.tag(&tag.name).is_some());
    let now = still.count();
    if is_less_than_half(now, before) {
        refusals.push(Refusal::FewerTags { before, now });
    }
    let mut used: Vec<&String> = used.iter().collect();
    used.sort();
    used.dedup();
    for name in used {
        let Some(former) = former.tag(name) else {
            continue;
        };
        let before = former.prefixes.len();
        match new.tag(name).map(|tag| tag.prefixes.len()) {
            None => refusals.push(Refusal::TagGone(name.clone())),
            Some(now) if is_less_than_half(now, before) => refusals.push(Refusal::TagShrank {
                tag: name.clone(),
                before,
                now,
            }),
            Some(_) => {}
        }
    }
    refusals
}

fn is_less_than_half(now: usize, before: usize) -> bool {
    now * 2 < before
}

#[cfg(test)]
mod tests;
