//! The daemon's side of the control socket.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use super::{Answer, Claim, Error, Fault, Request};
use crate::daemon::denials::Follower;

/// For a request to come, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_REQUEST: u64 = 4096;
const AT_ONCE: usize = 16;

/// A request, and where the reply goes.
#[derive(Debug)]
pub struct Ask {
    pub request: Request,
    pub reply: oneshot::Sender<Reply>,
}

#[derive(Debug)]
pub enum Reply {
    Answer(Answer),
    /// An answer for each batch of events.
    Follow(Follower),
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
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
        let (stopping, stopped) = watch::channel(());
        loop {
            tokio::select! {
                _ = &mut stop => break,
                Some(_) = conversations.join_next() => {}
                accepted = self.listener.accept(), if conversations.len() < AT_ONCE => match accepted {
                    Ok((stream, _)) => {
                        conversations.spawn(converse(stream, asks.clone(), stopped.clone()));
                    }
                    Err(error) => {
                        tracing::warn!("cannot accept on the control socket: {error}");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                },
            }
        }
        drop(stopping);
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

async fn converse(stream: UnixStream, asks: mpsc::Sender<Ask>, mut stopping: watch::Receiver<()>) {
    let (reader, writer) = match root_only(stream) {
        Ok(stream) => stream.into_split(),
        Err(error) => return tracing::warn!("a control request was refused: {error}"),
    };
    let mut line = String::new();
    let mut reader = BufReader::new(reader).take(LONGEST_REQUEST);
    let asked = tokio::select! {
        biased;
        asked = timeout(PATIENCE, reader.read_line(&mut line)) => asked,
        // Who has not asked yet does not keep the daemon from ending.
        _ = stopping.changed() => return,
    };
    if !matches!(asked, Ok(Ok(1..))) {
        return;
    }
    let reply = match serde_json::from_str(&line) {
        Ok(request) => reply(request, &asks).await,
        Err(error) => failed(format!("not a request: {error}")),
    };
    match reply {
        Reply::Answer(answer) => deliver(&answer, writer).await,
        Reply::Follow(follower) => follow(follower, reader, writer, stopping).await,
    }
}

async fn deliver(answer: &Answer, mut writer: OwnedWriteHalf) {
    if !matches!(
        timeout(PATIENCE, write(answer, &mut writer)).await,
        Ok(Ok(()))
    ) {
        tracing::debug!("an answer to a control request was not taken");
    }
}

/// Waits for a reader as long as it likes: only this task does, and no event is
/// stored for it.
async fn follow(
    mut follower: Follower,
    mut reader: Take<BufReader<OwnedReadHalf>>,
    mut writer: OwnedWriteHalf,
    mut stopping: watch::Receiver<()>,
) {
    let told = async {
        loop {
            let events = Answer::Events(follower.next().await);
            if write(&events, &mut writer).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = told => {}
        // It has nothing more to say, so it is gone.
        _ = reader.read_u8() => {}
        _ = stopping.changed() => {}
    }
}

async fn write(answer: &Answer, writer: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writer.write_all(&line).await
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

async fn reply(request: Request, asks: &mpsc::Sender<Ask>) -> Reply {
    let (sender, receiver) = oneshot::channel();
    let stopping = || failed("the daemon is stopping".to_owned());
    if asks
        .send(Ask {
            request,
            reply: sender,
        })
        .await
        .is_err()
    {
        return stopping();
    }
    receiver.await.unwrap_or_else(|_| stopping())
}

fn failed(error: String) -> Reply {
    Reply::Answer(Answer::Failed {
        error,
        fault: Fault::System,
    })
}
