//! Whose packet was denied, as events tell it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::container::{self, Container};
use crate::{
    bypass,
    datapath::{self, Written},
};

/// Who used the socket that sent a packet, as the kernel saw it then. Texts that processes,
/// users and runtimes choose are escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// When that was: at its `connect`, `send` or (`socket`) when it was made. `owner`: only
    /// the user and cgroup that made it are known.
    pub seen_at: String,
    /// As the host numbers it.
    pub pid: Option<u32>,
    /// The thread's name, which it can choose.
    pub program: Option<String>,
    /// The file that it executes. Without a `/` in front it is the end of a longer path.
    pub executable: Option<String>,
    pub uid: u32,
    /// A name, or the number of one that has none here.
    pub user: String,
    /// As `executable`.
    pub cgroup: Option<String>,
    pub container: Option<Container>,
    /// Another process used the same socket in the seconds before, and may have sent it.
    pub shared: bool,
}

impl Sender {
    pub(super) fn new(who: datapath::Who, users: &[(String, u32)]) -> Self {
        let (pid, program, executable) = match who.process {
            Some(process) => (
                Some(process.id),
                Some(process.program.escape_debug().to_string()),
                process.executable.as_ref().map(shown),
            ),
            None => (None, None, None),
        };
        let container = who
            .cgroup
            .as_ref()
            .and_then(|path| container::of(&path.text));
        Self {
            seen_at: who.moment.label().to_owned(),
            pid,
            program,
            executable,
            uid: who.user,
            user: bypass::name(users, who.user),
            cgroup: who.cgroup.as_ref().map(shown),
            container,
            shared: who.shared,
        }
    }

    /// `/usr/bin/curl (alice, docker 3f2a91c0b1de)`: what stays the same from one process to
    /// the next.
    pub(super) fn in_short(&self) -> String {
        let program = self.executable.as_ref().or(self.program.as_ref());
        let program = program.filter(|program| !program.is_empty());
        let by = match &self.container {
            Some(container) => format!("{}, {container}", self.user),
            None => self.user.clone(),
        };
        match (program, &self.container) {
            (Some(program), _) => format!("{program} ({by})"),
            (None, Some(container)) => format!("a process of {} ({container})", self.user),
            (None, None) => format!("a process of {by}"),
        }
    }

    /// The file's name, or where it is not known the thread's.
    fn file(&self) -> Option<&str> {
        let executable = self.executable.as_deref()?;
        executable.rsplit('/').next()
    }
}

fn shown(path: &Written) -> String {
    path.text.escape_debug().to_string()
}

/// `/usr/bin/curl (pid 812, alice, docker 3f2a91c0b1de)`
impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(pid) = self.pid else {
            write!(f, "a process of {}", self.user)?;
            return match &self.container {
                Some(container) => write!(f, " ({container})"),
                None => Ok(()),
            };
        };
        let program = self.program.as_deref().unwrap_or_default();
        match (&self.executable, self.file()) {
            (Some(executable), Some(file)) => {
                f.write_str(executable)?;
                // `python3` is a link to `python3.11`.
                if program.is_empty() || !file.starts_with(program) {
                    write!(f, " as `{program}`")?;
                }
            }
            _ => f.write_str(program)?,
        }
        write!(f, " (pid {pid}, {}", self.user)?;
        if let Some(container) = &self.container {
            write!(f, ", {container}")?;
        }
        f.write_str(")")?;
        if self.shared {
            f.write_str(" or another with its socket")?;
        }
        Ok(())
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.runtime, self.id)?;
        match &self.pod {
            Some(pod) => write!(f, ", pod {pod}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use datapath::{Process, Who};
    use netfilter_ebpf::verdict::Moment;

    pub(crate) fn who() -> Who {
        let id = "3f2a91c0b1de".repeat(6);
        Who {
            moment: Moment::Connect,
            process: Some(Process {
                id: 812,
                program: "curl".to_owned(),
                executable: Some(written("/usr/bin/curl")),
            }),
            user: 1000,
            cgroup_id: 77,
            cgroup: Some(written(&format!(
                "/system.slice/docker-{}.scope",
                &id[..64]
            ))),
            shared: false,
        }
    }

    fn written(text: &str) -> Written {
        Written {
            text: text.to_owned(),
            cut: false,
        }
    }

    fn told(who: Who) -> String {
        Sender::new(who, &[("alice".to_owned(), 1000)]).to_string()
    }

    fn with(change: impl Fn(&mut Process)) -> Who {
        let mut who = who();
        who.cgroup = None;
        who.process.iter_mut().for_each(change);
        who
    }

    #[test]
    fn a_process_is_told_by_its_file_number_user_and_container() {
        assert_eq!(
            told(who()),
            "/usr/bin/curl (pid 812, alice, docker 3f2a91c0b1de)"
        );
        let unread = with(|process| process.executable = None);
        assert_eq!(told(unread), "curl (pid 812, alice)");
        let shared = Who {
            shared: true,
            ..with(|_| ())
        };
        assert_eq!(
            told(shared),
            "/usr/bin/curl (pid 812, alice) or another with its socket"
        );
        let owner = Who {
            process: None,
            user: 7,
            ..who()
        };
        assert_eq!(told(owner), "a process of user 7 (docker 3f2a91c0b1de)");
    }

    #[test]
    fn one_that_calls_itself_otherwise_is_told_with_both_names() {
        let renamed = with(|process| process.program = "sshd".to_owned());
        assert_eq!(told(renamed), "/usr/bin/curl as `sshd` (pid 812, alice)");
        let long = with(|process| {
            process.program = "systemd-resolve".to_owned();
            process.executable = Some(written("/usr/lib/systemd/systemd-resolved"));
        });
        assert_eq!(
            told(long),
            "/usr/lib/systemd/systemd-resolved (pid 812, alice)"
        );
    }

    #[test]
    fn nothing_that_a_process_chooses_writes_over_the_line() {
        let hostile = with(|process| {
            process.program = "x\r\u{1b}[2K".to_owned();
            process.executable = Some(written("/tmp/\u{202e}\n"));
        });
        assert_eq!(
            told(hostile),
            "/tmp/\\u{202e}\\n as `x\\r\\u{1b}[2K` (pid 812, alice)"
        );
    }
}
