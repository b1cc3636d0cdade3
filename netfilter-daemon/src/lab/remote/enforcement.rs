//! A filter on the machine itself, for as long as the lab needs it.

use std::{
    io,
    net::SocketAddr,
    os::unix::process::{CommandExt, parent_id},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::sys::{
    prctl::set_pdeathsig,
    signal::{SigSet, Signal},
};

use crate::{
    datapath,
    lab::daemon::{self, Daemon},
};

/// Whatever happens to the lab and its daemon, the kernel's programs let everything
/// pass after this time.
const LONGEST: &str = "10m";

/// Whether there is no filter any more.
pub type Lifted = Result<(), datapath::Error>;

/// Dropping it lifts the filter.
pub(super) struct Enforcement(Arc<Shared>);

struct Shared {
    state_dir: PathBuf,
    /// Locked while it starts and while it ends.
    daemon: Mutex<Option<Daemon>>,
    interrupted: AtomicBool,
}

impl Enforcement {
    /// Nothing yet. To be called where no other thread runs yet: from here on, SIGINT,
    /// SIGTERM and SIGHUP lift the filter, if there is one, before `parting` and `interrupted`.
    pub(super) fn none(
        state_dir: &Path,
        parting: impl FnOnce() + Send + 'static,
        interrupted: fn(Lifted) -> !,
    ) -> io::Result<Self> {
        signals().thread_block()?;
        let shared = Arc::new(Shared {
            state_dir: state_dir.to_owned(),
            daemon: Mutex::new(None),
            interrupted: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            // It fails for signals that do not exist only.
            signals().wait().ok();
            of_thread.interrupted.store(true, Ordering::SeqCst);
            let lifted = of_thread.lift();
            parting();
            interrupted(lifted)
        });
        Ok(Self(shared))
    }

    /// Puts a policy into force. Says what the daemon says.
    pub(super) fn begin(
        &self,
        policy: &Path,
        interface: &str,
        listener: SocketAddr,
    ) -> Result<String, daemon::Error> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("netfilter-daemon");
        command.arg("run").arg("--policy").arg(policy);
        command.arg("--state-dir").arg(&self.0.state_dir);
        command.args(["--interface", interface]);
        command.args(["--listen", &listener.to_string()]);
        command.args(["--detach-on-exit", "--confirm", LONGEST]);
        // Ctrl-C is the lab's, which ends it in order.
        command.process_group(0);
        let parent = process::id();
        // SAFETY: between fork and exec the closure makes system calls only; it neither
        // allocates nor takes locks.
        unsafe {
            command.pre_exec(move || {
                // Which the lab has blocked, and the daemon is to hear.
                signals().thread_unblock()?;
                // By this the daemon lifts the filter when the lab is killed.
                set_pdeathsig(Signal::SIGTERM)?;
                match parent_id() == parent {
                    true => Ok(()),
                    false => Err(io::ErrorKind::BrokenPipe.into()),
                }
            });
        }
        let mut daemon = self.0.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let daemon = daemon.insert(Daemon::start(command)?);
        Ok(daemon.said.clone())
    }

    pub(super) fn lift(&self) -> Lifted {
        self.0.lift()
    }
}

impl Drop for Enforcement {
    fn drop(&mut self) {
        // Whoever wants to hear of errors lifts it before.
        self.0.lift().ok();
        // What failed for that is not to be told: the other thread ends the process.
        while self.0.interrupted.load(Ordering::SeqCst) {
            thread::park();
        }
    }
}

impl Shared {
    fn lift(&self) -> Lifted {
        let mut daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        // It lifts the filter itself. One that is stuck is killed after a while,
        drop(daemon.take());
        // which leaves this.
        datapath::detach(&self.state_dir).map(drop)
    }
}

fn signals() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals
}
