//! The daemon's side of the control socket.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::{Answer, Claim, Error, Fault, Request};

/// For a request to come, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_REQUEST: u64 = 4096;
const AT_ONCE: usize = 16;

/// A request, and where its answer goes.
#[derive(Debug)]
pub struct Ask {
    pub request: Request,
    pub answer: oneshot::Sender<Answer>,
}

/// The socket of a claimed state directory; removed when dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    claim: Claim,
}

impl Socket {
    /// Replaces what a killed daemon left. The claim makes sure that it is dead.
    pub fn bind(claim: Claim) -> Result<Self, Error> {
        let path = &claim.socket;
        let fail = |operation| {
            move |source| Error::File {
                operation,
                path: path.clone(),
                source,
            }
        };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fail("remove")(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(fail("listen on"))?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(fail("protect"))?;
        Ok(Self { listener, claim })
    }

    /// Hands every request over to `asks`, until `stop`; then waits for the
    /// answers under way to be delivered.
    pub async fn serve(self, asks: mpsc::Sender<Ask>, mut stop: oneshot::Receiver<()>) {
        let mut conversations = JoinSet::new();
        loop {
            tokio::select! {
                _ = &mut stop => break,
                Some(_) = conversations.join_next() => {}
                accepted = self.listener.accept(), if conversations.len() < AT_ONCE => match accepted {
                    Ok((stream, _)) => {
                        conversations.spawn(converse(stream, asks.clone()));
                    }
                    Err(error) => {
                        tracing::warn!("cannot accept on the control socket: {error}");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                },
            }
        }
        let delivered = async { while conversations.join_next().await.is_some() {} };
        if timeout(PATIENCE, delivered).await.is_err() {
            tracing::warn!("somebody did not take the answer to a control request");
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.claim.socket) {
            tracing::warn!("cannot remove {}: {error}", self.claim.socket.display());
        }
    }
}

async fn converse(stream: UnixStream, asks: mpsc::Sender<Ask>) {
    let (reader, mut writer) = match root_only(stream) {
        Ok(stream) => stream.into_split(),
        Err(error) => return tracing::warn!("a control request was refused: {error}"),
    };
    let mut line = String::new();
    let mut reader = BufReader::new(reader).take(LONGEST_REQUEST);
    if !matches!(
        timeout(PATIENCE, reader.read_line(&mut line)).await,
        Ok(Ok(1..))
    ) {
        return;
    }
    let answer = match serde_json::from_str(&line) {
        Ok(request) => answer(request, &asks).await,
        Err(error) => failed(format!("not a request: {error}")),
    };
    let Ok(mut line) = serde_json::to_string(&answer) else {
        return;
    };
    line.push('\n');
    if !matches!(
        timeout(PATIENCE, writer.write_all(line.as_bytes())).await,
        Ok(Ok(()))
    ) {
        tracing::debug!("an answer to a control request was not taken");
    }
}

/// The directory's mode keeps others out; this holds even if somebody changed it.
fn root_only(stream: UnixStream) -> io::Result<UnixStream> {
    match stream.peer_cred()?.uid() {
        0 => Ok(stream),
        uid => Err(io::Error::other(format!(
            "it came from user {uid}, and only root may"
        ))),
    }
}

async fn answer(request: Request, asks: &mpsc::Sender<Ask>) -> Answer {
    let (sender, receiver) = oneshot::channel();
    let stopping = || failed("the daemon is stopping".to_owned());
    if asks
        .send(Ask {
            request,
            answer: sender,
        })
        .await
        .is_err()
    {
        return stopping();
    }
    receiver.await.unwrap_or_else(|_| stopping())
}

fn failed(error: String) -> Answer {
    Answer::Failed {
        error,
        fault: Fault::System,
    }
}
