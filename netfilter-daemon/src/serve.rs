//! The read-only HTTP listener: `/metrics`, `/healthz`, and `/` for people.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use axum::{
    Extension, Router,
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{from_fn_with_state, map_response},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::{
    sync::{Mutex, Semaphore},
    task,
    time::Instant,
};

use crate::{
    causes,
    daemon::overview::Overview,
    metrics::{self, Exposition, Snapshot},
};

mod auth;
mod client;
mod connections;
mod headers;
mod host;
mod page;
mod secured;
pub mod web;

use auth::Gate;
use connections::Connections;
use page::Detail;
use secured::{Client, Guarded, Standing};
use web::Guard;

/// Who asks for the health at once; others wait. Each takes a thread and some files.
static READERS: Semaphore = Semaphore::const_new(4);

/// What the pages show. Its methods may block for the time of some system calls.
pub trait Source: Send + Sync + 'static {
    fn snapshot(&self) -> anyhow::Result<Snapshot>;

    fn overview(&self) -> anyhow::Result<Overview>;

    /// Why the filter does not do what it should, as a sentence.
    fn health(&self) -> Result<(), String>;
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot listen on {address}: {source}; {}choose another address with --listen",
        taken(source, address.port())
    )]
    Bind {
        address: SocketAddr,
        source: std::io::Error,
    },
}

/// How to find out by whom.
fn taken(error: &std::io::Error, port: u16) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("`ss -ltnp 'sport = :{port}'` says who has it; end that, or ")
        }
        _ => String::new(),
    }
}

/// Before there is a runtime: a port below 1024 takes a privilege.
pub fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).map_err(|source| Error::Bind { address, source })
}

/// Answers requests of those whom `guard` lets in, for as long as the process lives.
pub async fn serve(
    listener: TcpListener,
    source: Arc<impl Source>,
    guard: Arc<Guard>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let connections = Connections::on(tokio::net::TcpListener::from_std(listener)?);
    serve_on(connections, source, guard).await
}

async fn serve_on(
    connections: Connections,
    source: Arc<impl Source>,
    guard: Arc<Guard>,
) -> std::io::Result<()> {
    let gate = Arc::new(Gate::of(Arc::clone(&guard))?);
    let pages = router(source).layer(from_fn_with_state(gate, auth::check));
    let service = pages.into_make_service_with_connect_info::<Client>();
    axum::serve(Guarded::new(connections, guard), service).await
}

fn router<S: Source>(source: Arc<S>) -> Router {
    Router::new()
        .route("/", get(overview::<S>))
        .route("/metrics", get(metrics::<S>))
        .route("/healthz", get(healthz::<S>))
        .layer(map_response(headers::strict))
        .layer(map_response(close))
        .with_state(Arc::new(Pages {
            source,
            snapshot: Latest::default(),
            overview: Latest::default(),
        }))
}

struct Pages<S> {
    source: Arc<S>,
    snapshot: Latest<Snapshot>,
    overview: Latest<Overview>,
}

/// What was read last, and when that began.
struct Latest<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Whoever has an account here could see the processes anyway; who asks from elsewhere, and has
/// shown neither password nor certificate, could be anybody.
fn detail(client: Client, proven: Option<auth::Proven>) -> Detail {
    let is_known = proven.is_some() || client.1 == Standing::Certified;
    match is_known || client.0.ip().to_canonical().is_loopback() {
        true => Detail::Told,
        false => Detail::Withheld,
    }
}

async fn overview<S: Source>(
    State(pages): State<Arc<Pages<S>>>,
    ConnectInfo(client): ConnectInfo<Client>,
    proven: Option<Extension<auth::Proven>>,
    headers: HeaderMap,
) -> Response {
    // No other website has our certificate, nor is a browser's password for us sent to it.
    if client.1 == Standing::Plain
        && proven.is_none()
        && let Err(refused) = host::check(&headers)
    {
        return refused.into_response();
    }
    let detail = detail(client, proven.map(|Extension(proven)| proven));
    match pages.overview.read(&pages.source, S::overview).await {
        Ok(overview) => Html(page::render(&overview, detail)).into_response(),
        Err(error) => failed("page", &error),
    }
}

async fn metrics<S: Source>(State(pages): State<Arc<Pages<S>>>, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let exposition = Exposition::negotiate(accept.unwrap_or_default());
    match pages.snapshot.read(&pages.source, S::snapshot).await {
        Ok(snapshot) => {
            let content_type = [(header::CONTENT_TYPE, exposition.content_type())];
            (content_type, metrics::render(&snapshot, exposition)).into_response()
        }
        Err(error) => failed("metrics", &error),
    }
}

fn failed(what: &str, error: &anyhow::Error) -> Response {
    let error = causes::told(error);
    tracing::error!("no {what}: {error}");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

impl<T: Send + Sync + 'static> Latest<T> {
    /// What is read while they wait answers all who asked before that began.
    async fn read<S: Source>(
        &self,
        source: &Arc<S>,
        read: fn(&S) -> anyhow::Result<T>,
    ) -> anyhow::Result<Arc<T>> {
        let asked = Instant::now();
        let mut latest = self.0.lock().await;
        if let Some((begun, known)) = &*latest
            && *begun >= asked
        {
            return Ok(Arc::clone(known));
        }
        let source = Arc::clone(source);
        let begun = Instant::now();
        let known = Arc::new(task::spawn_blocking(move || read(&source)).await??);
        *latest = Some((begun, Arc::clone(&known)));
        Ok(known)
    }
}

async fn healthz<S: Source>(State(pages): State<Arc<Pages<S>>>) -> Response {
    let source = Arc::clone(&pages.source);
    let _place = READERS.acquire().await;
    let health = task::spawn_blocking(move || source.health()).await;
    match health
        .map_err(|error| error.to_string())
        .and_then(|health| health)
    {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// One request for each connection, so that a connection's life can be bounded.
async fn close(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests;
