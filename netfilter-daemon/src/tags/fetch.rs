//! The one module that knows the HTTP client.
//!
//! HTTPS only, on redirects too; the body as it is, without compression; and an end to
//! everything: time, bytes, redirects. Certificate authorities are compiled in (those
//! that browsers believe), so that a minimal image without `ca-certificates` can
//! fetch, and nobody who may write to the system's store speaks for a cloud.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ureq::{
    Agent, ResponseExt,
    http::{Response, header},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::store::{self, Stored};
use crate::policy::service_tag::{lists::host, page};

/// How much is borne.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To look a name up, and again to connect, TLS included.
    pub connect: Duration,
    /// Until all headers of the answer are there.
    pub headers: Duration,
    /// For all of it: a page, redirects, and the body to its end.
    pub whole: Duration,
    pub bytes: u64,
    pub redirects: u32,
}

impl Default for Patience {
    /// Azure's list has 4 MB, and was the largest.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            headers: Duration::from_secs(20),
            whole: Duration::from_secs(90),
            bytes: 64 << 20,
            redirects: 5,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the certificate authorities {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} has no certificate; a PEM file is expected", .0.display())]
    NoCertificate(PathBuf),
    #[error("cannot fetch {url}: {reason}")]
    Failed { url: String, reason: String },
    #[error("{url} links to no list of its cloud on download.microsoft.com")]
    NoLink { url: String },
}

/// What is known of a list, so that it is sent only if it changed.
#[derive(Debug, Clone, Copy)]
pub struct Known<'s> {
    from: &'s str,
    etag: Option<&'s str>,
    last_modified: Option<&'s str>,
}

#[derive(Debug)]
pub enum Reply {
    Unchanged,
    List(List),
}

/// A list as it came.
#[derive(Debug)]
pub struct List {
    pub body: String,
    /// Where redirects and pages led.
    pub from: String,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

#[derive(Debug)]
pub struct Client {
    agent: Agent,
    patience: Patience,
}

impl<'s> Known<'s> {
    pub fn of(stored: &'s Stored) -> Self {
        Self {
            from: &stored.from,
            etag: stored.etag.as_deref(),
            last_modified: stored.last_modified.as_deref(),
        }
    }
}

impl List {
    pub fn stored(self, url: &str, now: u64) -> Stored {
        Stored {
            url: url.to_owned(),
            sha256: store::sha256(self.body.as_bytes()),
            from: self.from,
            etag: self.etag,
            last_modified: self.last_modified,
            fetched: now,
            checked: now,
            body: self.body,
        }
    }
}

impl Client {
    /// `ca` is a PEM file whose authorities are believed instead of those compiled in.
    ///
    /// # Errors
    /// Where the file cannot be read, or has none.
    pub fn new(ca: Option<&Path>, patience: Patience) -> Result<Self, Error> {
        let roots = match ca {
            Some(path) => RootCerts::Specific(Arc::new(certificates(path)?)),
            None => RootCerts::WebPki,
        };
        let config = Agent::config_builder()
            .https_only(true)
            .http_status_as_error(false)
            // Whom the machine talks to is what the policy says, not the environment.
            .proxy(None)
            .max_redirects(patience.redirects)
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.headers))
            .user_agent(concat!("netfilter-daemon/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        Ok(Self {
            agent: config.new_agent(),
            patience,
        })
    }

    /// Fetches the list, or, from one of Microsoft's download pages, the one that it
    /// links to. Blocks, for [`Patience::whole`] after `start` at most.
    ///
    /// # Errors
    /// With the address, and what was wrong with what came.
    pub fn fetch(
        &self,
        url: &str,
        known: Option<Known<'_>>,
        start: Instant,
    ) -> Result<Reply, Error> {
        let Some(linked_host) = page::links_to(url) else {
            return self.get(url, known, start);
        };
        let Reply::List(page) = self.get(url, None, start)? else {
            return Err(failed(url, "the page was not sent"));
        };
        stays_on(url, host(url).0, &page.from)?;
        let link = page::link(url, &page.body).ok_or_else(|| Error::NoLink {
            url: url.to_owned(),
        })?;
        // Another edition has another address, and tags of its own.
        let known = known.filter(|known| known.from == link);
        let reply = self.get(link, known, start)?;
        if let Reply::List(list) = &reply {
            stays_on(link, linked_host, &list.from)?;
        }
        Ok(reply)
    }

    fn get(&self, url: &str, known: Option<Known<'_>>, start: Instant) -> Result<Reply, Error> {
        let left = self.patience.whole.saturating_sub(start.elapsed());
        // Zero would mean no limit.
        let left = left.max(Duration::from_millis(1));
        let request = self.agent.get(url).config().timeout_global(Some(left));
        let mut request = request.build();
        if let Some(Known {
            etag,
            last_modified,
            ..
        }) = known
        {
            let conditions = [
                (header::IF_NONE_MATCH, etag),
                (header::IF_MODIFIED_SINCE, last_modified),
            ];
            for (name, value) in conditions {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
        }
        let response = request.call().map_err(|error| failed(url, error))?;
        match response.status().as_u16() {
            200 => self.list(url, response).map(Reply::List),
            304 if known.is_some() => Ok(Reply::Unchanged),
            _ => Err(failed(url, format!("it answered {}", response.status()))),
        }
    }

    fn list(&self, url: &str, mut response: Response<ureq::Body>) -> Result<List, Error> {
        let header = |name| {
            let value = response.headers().get(name);
            value.and_then(|value: &header::HeaderValue| value.to_str().ok())
        };
        if let Some(encoding) = header(header::CONTENT_ENCODING)
            && !encoding.eq_ignore_ascii_case("identity")
        {
            let why = format!("it came encoded as `{encoding}`, which was not asked for");
            return Err(failed(url, why));
        }
        let promised = header(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        let (etag, last_modified) = (header(header::ETAG), header(header::LAST_MODIFIED));
        let (etag, last_modified) = (etag.map(str::to_owned), last_modified.map(str::to_owned));
        let from = response.get_uri().to_string();
        let most = self.patience.bytes;
        let too_large = || {
            let why = format!(
                "it has more than {} MB; is it the right address?",
                most >> 20
            );
            failed(url, why)
        };
        if promised.is_some_and(|promised| promised > most) {
            return Err(too_large());
        }
        let body = response.body_mut().with_config().limit(most).read_to_vec();
        let body = body.map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => too_large(),
            error => failed(url, error),
        })?;
        if promised.is_some_and(|promised| promised != body.len() as u64) {
            return Err(failed(url, "it was cut off"));
        }
        let body = String::from_utf8(body).map_err(|error| failed(url, error.utf8_error()))?;
        Ok(List {
            body,
            from,
            etag,
            last_modified,
        })
    }
}

fn stays_on(url: &str, expected: &str, from: &str) -> Result<(), Error> {
    let (host, port) = host(from);
    match host.eq_ignore_ascii_case(expected) && port == 443 {
        true => Ok(()),
        false => Err(failed(url, format!("it led to {from}, another host"))),
    }
}

fn failed(url: &str, reason: impl ToString) -> Error {
    Error::Failed {
        url: url.to_owned(),
        reason: reason.to_string(),
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    let pem = fs::read(path).map_err(unreadable)?;
    let items = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = items.collect();
    match certificates.is_empty() {
        true => Err(Error::NoCertificate(path.to_owned())),
        false => Ok(certificates),
    }
}
