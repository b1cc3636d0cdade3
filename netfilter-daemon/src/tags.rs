//! Lists of service tags from the web: fetched, judged, kept on disk.
//!
//! A list is put into force in one way only: it is stored, and then the policy is
//! loaded, which reads the store and never the network. So what a restart finds is
//! what was in force, and a list that cannot be stored is not used at all.

use std::{
    path::Path,
    thread,
    time::{Instant, SystemTime},
};

use crate::{
    compile, moment,
    policy::{
        self, Destination,
        service_tag::{Catalogue, lists::Lists},
        source,
    },
};

pub mod fetch;
pub mod judge;
pub mod keep;
pub mod store;

use fetch::{Client, Known, Patience, Reply};
use store::{Store, Stored};

/// What became of one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    pub url: String,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it was.
    Fresh,
    /// It is stored, for the next load of the policy to use.
    New,
    /// What was stored stays; why.
    Failed(String),
}

/// Fetches what has changed, judges it, and stores what is good. `which` says for
/// which addresses of the policy. `force` accepts what shrank or is older.
///
/// # Errors
/// Where the policy does not say where its lists come from.
pub fn update(
    policy: &Path,
    store: &Store,
    which: impl Fn(&str) -> bool,
    force: bool,
) -> Result<Vec<Update>, policy::Error> {
    let lists = source::lists(policy)?;
    let urls: Vec<&str> = lists.urls().filter(|url| which(url)).collect();
    if urls.is_empty() {
        return Ok(Vec::new());
    }
    let fetched = fetch_all(&urls, &lists, store, force);
    let policy = InUse::of(policy, store);
    let outcomes = policy.keep(store, fetched, force);
    let named = urls.into_iter().zip(outcomes);
    Ok(named
        .map(|(url, outcome)| Update {
            url: url.to_owned(),
            outcome,
        })
        .collect())
}

/// The addresses of the policy from which nothing usable is stored.
///
/// # Errors
/// Where the policy does not say where its lists come from.
pub fn missing(policy: &Path, store: &Store) -> Result<Vec<String>, policy::Error> {
    let lists = source::lists(policy)?;
    let missing = lists.urls().filter(|url| store.catalogue(url).is_err());
    Ok(missing.map(str::to_owned).collect())
}

/// A list that came, beside the one that it would replace.
struct Candidate {
    list: Stored,
    catalogue: Catalogue,
    former: Option<Stored>,
}

/// What fetching one list ended in.
enum Came {
    Unchanged(Stored),
    Changed(Box<Candidate>),
    Nothing(String),
}

/// All at once, so that a slow one does not add to the others' time.
fn fetch_all(urls: &[&str], lists: &Lists, store: &Store, force: bool) -> Vec<Came> {
    let client = match Client::new(lists.ca.as_deref().map(Path::new), Patience::default()) {
        Ok(client) => client,
        Err(error) => {
            return urls
                .iter()
                .map(|_| Came::Nothing(error.to_string()))
                .collect();
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = urls
            .iter()
            .map(|url| scope.spawn(|| fetch_one(&client, url, store, force)))
            .collect();
        let came = threads.into_iter().map(|thread| {
            let panicked = |_| Came::Nothing("fetching it failed unexpectedly".to_owned());
            thread.join().unwrap_or_else(panicked)
        });
        came.collect()
    })
}

fn fetch_one(client: &Client, url: &str, store: &Store, force: bool) -> Came {
    // A broken one is as good as none: its successor has nothing to be compared with.
    let former = store.load(url).unwrap_or_else(|error| {
        tracing::error!("{error}");
        None
    });
    let known = former.as_ref().filter(|_| !force).map(Known::of);
    let list = match client.fetch(url, known, Instant::now()) {
        Ok(Reply::Unchanged) => match former {
            Some(former) => return Came::Unchanged(former),
            None => return Came::Nothing(format!("{url} was not sent, though nothing is stored")),
        },
        Ok(Reply::List(list)) => list.stored(url, now()),
        Err(error) => return Came::Nothing(error.to_string()),
    };
    if let Some(former) = former
        .as_ref()
        .filter(|former| former.sha256 == list.sha256)
    {
        return Came::Unchanged(Stored {
            fetched: former.fetched,
            ..list
        });
    }
    match list.catalogue() {
        Ok(catalogue) => Came::Changed(Box::new(Candidate {
            list,
            catalogue,
            former,
        })),
        Err(error) => Came::Nothing(error.to_string()),
    }
}

/// The policy that the lists are for.
struct InUse<'p> {
    path: &'p Path,
    /// Names of the tags that its rules are about; empty where it cannot be loaded.
    tags: Vec<String>,
    /// Whether it can be, with what is stored.
    loads: bool,
}

impl<'p> InUse<'p> {
    fn of(path: &'p Path, store: &Store) -> Self {
        let policy = source::load(path, &|url| store.catalogue(url));
        let rules = policy.as_ref().map_or(&[][..], |policy| &policy.rules);
        let tags = rules.iter().filter_map(|rule| match &rule.destination {
            Destination::Tag { tag, .. } => Some(tag.clone()),
            Destination::Prefixes(_) | Destination::Name(_) => None,
        });
        let tags = tags.collect();
        let loads = policy.is_ok_and(|policy| compile::compile(&policy).is_ok());
        Self { path, tags, loads }
    }

    /// Stores what passes. The judgement of each does not depend on the others'.
    fn keep(&self, store: &Store, came: Vec<Came>, force: bool) -> Vec<Outcome> {
        let kept = came.into_iter().map(|came| match came {
            Came::Nothing(why) => Outcome::Failed(why),
            Came::Unchanged(list) => match store.save(&list.checked(now())) {
                Ok(()) => Outcome::Fresh,
                Err(error) => Outcome::Failed(error.to_string()),
            },
            Came::Changed(candidate) => match self.accept(store, &candidate, force) {
                Ok(()) => Outcome::New,
                Err(why) => Outcome::Failed(why),
            },
        });
        kept.collect()
    }

    fn accept(&self, store: &Store, candidate: &Candidate, force: bool) -> Result<(), String> {
        let Candidate {
            list,
            catalogue,
            former,
        } = candidate;
        let former = former.as_ref().and_then(|former| former.catalogue().ok());
        judge::judge(former.as_ref(), catalogue, &self.tags, force)
            .map_err(|refusals| refusals.to_string())?;
        // A policy that is wrong already does not make the list wrong.
        if self.loads {
            self.compiles_with(store, list, catalogue)
                .map_err(|error| format!("the policy cannot be put into force with it: {error}"))?;
        }
        store.save(list).map_err(|error| error.to_string())
    }

    fn compiles_with(
        &self,
        store: &Store,
        list: &Stored,
        catalogue: &Catalogue,
    ) -> Result<(), String> {
        let fetched = |url: &str| match url == list.url {
            true => Ok(catalogue.clone()),
            false => store.catalogue(url),
        };
        let policy = source::load(self.path, &fetched).map_err(|error| error.to_string())?;
        compile::compile(&policy).map_err(|error| error.to_string())?;
        Ok(())
    }
}

fn now() -> u64 {
    moment::unix_seconds(SystemTime::now())
}
