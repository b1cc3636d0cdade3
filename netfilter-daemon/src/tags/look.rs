//! Has a list changed? Lists are fetched, and files read.

use std::{
    path::Path,
    thread,
    time::{Instant, SystemTime},
};

use super::{
    fetch::{Client, Known, Patience, Reply},
    file,
    kept::Kept,
    store::{self, Stored},
};
use crate::{
    moment,
    policy::service_tag::{
        self, Catalogue,
        lists::{Lists, Source},
    },
};

/// A list that came, beside the one that it would replace.
pub(super) struct Candidate {
    pub(super) list: Stored,
    pub(super) catalogue: Catalogue,
    pub(super) former: Option<Stored>,
}

/// What looking at one list ended in.
pub(super) enum Came {
    Unchanged(Stored),
    Changed(Box<Candidate>),
    Nothing(String),
}

/// At all at once, so that a slow one does not add to the others' time. `force` looks
/// at the list itself, whatever is known of it.
pub(super) fn look(sources: &[Source], lists: &Lists, kept: &Kept<'_>, force: bool) -> Vec<Came> {
    let is_fetched = |source: &Source| matches!(source, Source::Url(_));
    let client = sources.iter().any(is_fetched).then(|| {
        let ca = lists.ca.as_deref().map(Path::new);
        Client::new(ca, Patience::default()).map_err(|error| error.to_string())
    });
    thread::scope(|scope| {
        let client = client.as_ref();
        let look = |source| move || one(source, client, kept, force);
        let threads: Vec<_> = sources
            .iter()
            .map(|source| scope.spawn(look(source)))
            .collect();
        let came = threads.into_iter().map(|thread| {
            let panicked = |_| Came::Nothing("looking at it failed unexpectedly".to_owned());
            thread.join().unwrap_or_else(panicked)
        });
        came.collect()
    })
}

fn one(
    source: &Source,
    client: Option<&Result<Client, String>>,
    kept: &Kept<'_>,
    force: bool,
) -> Came {
    // A broken one is as good as none: its successor has nothing to be compared with.
    let former = kept.load(source).unwrap_or_else(|error| {
        tracing::error!("{error}");
        None
    });
    let known = former.as_ref().filter(|_| !force);
    let list = match (source, client) {
        (Source::File(written), _) => read(written, known, kept),
        (_, Some(Ok(client))) => fetch(source.as_str(), known, client),
        (_, Some(Err(error))) => Err(error.clone()),
        (_, None) => Ok(None), // never: it is fetched, or built in
    };
    match list {
        Err(why) => Came::Nothing(why),
        Ok(None) => former.map_or_else(
            || {
                Came::Nothing(format!(
                    "{} was not sent, though nothing is stored",
                    source.as_str()
                ))
            },
            Came::Unchanged,
        ),
        Ok(Some(list)) => compare(source, list, former),
    }
}

/// None where it is as it is known.
fn fetch(url: &str, known: Option<&Stored>, client: &Client) -> Result<Option<Stored>, String> {
    match client.fetch(url, known.map(Known::of), Instant::now()) {
        Ok(Reply::Unchanged) => Ok(None),
        Ok(Reply::List(list)) => Ok(Some(list.stored(url, now()))),
        Err(error) => Err(error.to_string()),
    }
}

/// None where it is as it is known. What the web calls an entity tag is a file's mark.
fn read(written: &str, known: Option<&Stored>, kept: &Kept<'_>) -> Result<Option<Stored>, String> {
    let path = kept.path(written);
    let mark = file::mark(&path).ok();
    if mark.is_some() && known.is_some_and(|known| known.etag == mark) {
        return Ok(None);
    }
    match file::read(&path) {
        Ok(file::Edition { mark, body }) => Ok(Some(Stored {
            url: path.display().to_string(),
            from: written.to_owned(),
            sha256: store::sha256(body.as_bytes()),
            etag: Some(mark),
            last_modified: None,
            fetched: now(),
            checked: now(),
            body,
        })),
        Err(source) => Err(service_tag::Error::Unreadable { path, source }.to_string()),
    }
}

fn compare(source: &Source, list: Stored, former: Option<Stored>) -> Came {
    if let Some(former) = former
        .as_ref()
        .filter(|former| former.sha256 == list.sha256)
    {
        return Came::Unchanged(Stored {
            fetched: former.fetched,
            ..list
        });
    }
    match list.catalogue(source) {
        Ok(catalogue) => Came::Changed(Box::new(Candidate {
            list,
            catalogue,
            former,
        })),
        Err(error) => Came::Nothing(error.to_string()),
    }
}

pub(super) fn now() -> u64 {
    moment::unix_seconds(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tags::store::Store;

    const LIST: &str = r#"{"changeNumber": 1, "values": [
        {"name": "A", "properties": {"addressPrefixes": ["192.0.2.0/24"]}}]}"#;

    #[test]
    fn a_file_with_the_mark_that_is_known_is_not_read_unless_that_is_forced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.json");
        fs::write(&path, LIST).unwrap();
        let store = Store::new(folder.path().join("store"));
        let kept = Kept::of(&folder.path().join("policy.yaml"), &store);
        let source = Source::File("own.json".to_owned());
        let look = |force| one(&source, None, &kept, force);
        let Came::Changed(candidate) = look(false) else {
            panic!("the first one")
        };
        kept.save(&candidate.list).unwrap();
        assert!(matches!(look(false), Came::Unchanged(_)));
        // Another one was read when the file had this mark.
        let body = LIST.replace("192.0.2.0/24", "192.0.2.0/25");
        let sha256 = store::sha256(body.as_bytes());
        let other = Stored {
            body,
            sha256,
            ..candidate.list
        };
        kept.save(&other).unwrap();
        assert!(matches!(look(false), Came::Unchanged(list) if list == other));
        assert!(matches!(look(true), Came::Changed(_)));
        fs::remove_file(path).unwrap();
        assert!(matches!(look(false), Came::Nothing(_)));
    }
}
