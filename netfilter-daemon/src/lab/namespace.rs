//! Network namespaces that only this process holds.
//!
//! A namespace is a file descriptor here and has no name in `/run/netns`, so
//! it vanishes with the process, however the process ends. That holds for its
//! private mounts too.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::{CommandExt, parent_id},
    },
    panic,
    process::{self, Command},
    sync::Arc,
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl::set_pdeathsig, signal::Signal},
};

/// A network namespace and, where it has one, a mount namespace of its own.
#[derive(Debug, Clone)]
pub struct Namespace {
    network: Arc<OwnedFd>,
    mounts: Option<Arc<OwnedFd>>,
}

impl Namespace {
    /// Makes a namespace in which only `lo` is, and is up. IPv6 addresses that
    /// are added later are usable at once: nothing here can be a duplicate.
    pub fn new() -> Result<Self, Error> {
        let network = on_fresh_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })
        .map_err(|source| Error::System {
            operation: "make a network namespace",
            source,
        })?;
        let namespace = Self {
            network: Arc::new(network.into()),
            mounts: None,
        };
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// That of the calling thread. Nothing in it is changed.
    pub fn own() -> Result<Self, Error> {
        let network = File::open("/proc/thread-self/ns/net").map_err(|source| Error::System {
            operation: "open the network namespace",
            source,
        })?;
        Ok(Self {
            network: Arc::new(network.into()),
            mounts: None,
        })
    }

    /// Gives the namespace mounts that nobody else sees: what `prepare` mounts
    /// is there for [`run`](Self::run) and [`command`](Self::command) only.
    pub fn with_private_mounts(
        self,
        prepare: impl FnOnce() -> io::Result<()> + Send,
    ) -> Result<Self, Error> {
        let mounts = on_fresh_thread(|| {
            setns(&self.network, CloneFlags::CLONE_NEWNET)?;
            unshare(CloneFlags::CLONE_NEWNS)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount::<str, _, str, str>(None, "/", None, private, None)?;
            prepare()?;
            File::open("/proc/thread-self/ns/mnt")
        })
        .map_err(|source| Error::System {
            operation: "prepare a mount namespace",
            source,
        })?;
        Ok(Self {
            mounts: Some(Arc::new(mounts.into())),
            ..self
        })
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. Sockets
    /// stay in the namespace they were made in, so they may be handed out.
    ///
    /// Threads that `work` starts are inside too. With private mounts, the
    /// working directory is `/`. Do not start lasting children from `work`:
    /// those of [`command`](Self::command) end with the thread that started them.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_fresh_thread(|| self.enter().map(|()| work())).map_err(|source| Error::System {
            operation: "enter a namespace",
            source,
        })
    }

    /// A command that will run inside. It is killed when the thread that
    /// starts it ends, so that no child outlives this process. With private
    /// mounts, its working directory is `/`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let namespace = self.clone();
        let parent = process::id();
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes system calls only; it neither
        // allocates nor takes locks.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                if parent_id() != parent {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                namespace.enter()
            });
        }
        command
    }

    /// Runs `ip` inside, for instance `ip("address add 10.0.0.1/24 dev eth0")`.
    ///
    /// Not by `ip netns exec`: that remounts `/sys` and so hides bpffs.
    pub fn ip(&self, arguments: &str) -> Result<(), Error> {
        let output = self
            .command("ip")
            .args(arguments.split_whitespace())
            .output()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::NoIp,
                _ => Error::System {
                    operation: "run `ip` in a namespace",
                    source,
                },
            })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Ip {
            arguments: arguments.to_owned(),
            said,
        })
    }

    /// Sets `/proc/sys/<key>` inside. What the kernel does not have is left alone.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        match self.run(|| fs::write(format!("/proc/sys/{key}"), value))? {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::System {
                operation: "set a kernel parameter",
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Where `ip` finds it, as long as this process holds it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.network.as_raw_fd())
    }

    fn enter(&self) -> io::Result<()> {
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        if let Some(mounts) = &self.mounts {
            // A thread that shares its root and working directory may not change mounts.
            unshare(CloneFlags::CLONE_FS)?;
            setns(mounts, CloneFlags::CLONE_NEWNS)?;
        }
        Ok(())
    }
}

/// Connects two namespaces with a cable whose ends are up.
pub fn veth(a: &Namespace, a_end: &str, b: &Namespace, b_end: &str) -> Result<(), Error> {
    let there = b.path();
    a.ip(&format!(
        "link add {a_end} type veth peer name {b_end} netns {there}"
    ))?;
    a.ip(&format!("link set {a_end} up"))?;
    b.ip(&format!("link set {b_end} up"))
}

/// Why a namespace could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {operation}: {source}")]
    System {
        operation: &'static str,
        source: io::Error,
    },
    #[error("the command `ip` is missing; install iproute2")]
    NoIp,
    #[error("`ip {arguments}` failed: {said}")]
    Ip { arguments: String, said: String },
}

/// Namespaces belong to threads: one that has changed its own is of no further use.
fn on_fresh_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn two_namespaces_talk_over_their_cable_and_to_nobody_else() {
        let [a, b, c] = [(); 3].map(|()| Namespace::new().unwrap());
        veth(&a, "eth0", &b, "eth1").unwrap();
        a.ip("address add 10.0.0.1/24 dev eth0").unwrap();
        b.ip("address add 10.0.0.2/24 dev eth1").unwrap();

        let listener = b.run(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
        let knock = || TcpStream::connect("10.0.0.2:80");
        a.run(knock).unwrap().unwrap();
        listener.accept().unwrap();
        let unreachable = c.run(knock).unwrap().unwrap_err();
        assert_eq!(unreachable.kind(), io::ErrorKind::NetworkUnreachable);
    }

    #[test]
    #[ignore = "needs root"]
    fn private_mounts_are_seen_inside_only() {
        let cover = || {
            Ok(mount::<_, _, _, str>(
                Some("lab"),
                "/sys/fs/bpf",
                Some("tmpfs"),
                MsFlags::empty(),
                None,
            )?)
        };
        let namespace = Namespace::new()
            .unwrap()
            .with_private_mounts(cover)
            .unwrap();
        namespace
            .run(|| fs::write("/sys/fs/bpf/here", ""))
            .unwrap()
            .unwrap();
        assert!(
            namespace
                .run(|| fs::exists("/sys/fs/bpf/here").unwrap())
                .unwrap()
        );
        assert!(!fs::exists("/sys/fs/bpf/here").unwrap());
        let status = namespace
            .command("test")
            .args(["-e", "/sys/fs/bpf/here"])
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    #[ignore = "needs root"]
    fn a_failing_ip_command_says_what_failed() {
        let error = Namespace::new()
            .unwrap()
            .ip("link set nowhere up")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`ip link set nowhere up` failed: Cannot find device \"nowhere\""
        );
    }
}
