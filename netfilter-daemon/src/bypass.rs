//! Sockets that had a way past tc before anybody refused it.

use std::{
    collections::HashMap,
    fmt, fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use netfilter_ebpf::{abi::Users, verdict::Way};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::{datapath::guard::cookie_of, policy::source};

/// A process that has such a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passing {
    pub process: u32,
    pub program: String,
    /// A name, or the number of one that has none here.
    pub user: String,
    /// `packet_qdisc_bypass` or `af_xdp`.
    pub way: String,
    /// The policy's `bypass_users` has the user.
    pub allowed: bool,
    /// The way was closed: from here on the filter sees its packets.
    pub closed: bool,
}

/// Who may have them, and whether others lose what can be taken from them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights {
    pub users: Users,
    pub closes: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    pub passing: Vec<Passing>,
    /// Processes that could not be looked at, for want of `CAP_SYS_PTRACE` for instance.
    pub unseen: Vec<u32>,
}

impl Look {
    /// `2 processes (7, 12) could not be looked at`, if that is so.
    pub fn gap(&self) -> Option<String> {
        const TOLD: usize = 3;
        let told: Vec<String> = self.unseen.iter().take(TOLD).map(u32::to_string).collect();
        let told = told.join(", ");
        let count = self.unseen.len();
        let noun = if count == 1 { "process" } else { "processes" };
        let more = if count > TOLD { ", ..." } else { "" };
        (count > 0).then(|| format!("{count} {noun} ({told}{more}) could not be looked at"))
    }
}

/// Where the kernel lists network cards that programs can write to without it (RDMA).
const CARDS: &str = "/sys/class/infiniband";

/// Which cards send past the filter what programs write to them, over InfiniBand or Ethernet
/// (RoCE), and what to do about it, as a sentence. `None` where there is none.
pub fn rdma() -> Option<String> {
    rdma_cards().map(|cards| format!("{cards}; {RDMA_REMEDY}"))
}

/// The first half of [`rdma`].
pub fn rdma_cards() -> Option<String> {
    cards(Path::new(CARDS))
}

pub const RDMA_REMEDY: &str =
    "let only those open them who need it (a udev rule with GROUP and MODE)";

fn cards(directory: &Path) -> Option<String> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let mut cards: Vec<_> = entries
        .map(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .escape_debug()
                .to_string()
        })
        .collect();
    cards.sort_unstable();
    (!cards.is_empty()).then(|| {
        format!(
            "whoever may open /dev/infiniband/uverbs* sends past the filter (RDMA: {})",
            cards.join(", ")
        )
    })
}

/// Looks at the sockets of all processes, for those in the network namespace with this cookie.
/// Where the rights say so, ways past tc are closed that can be: a packet socket can be made
/// an ordinary one, AF_XDP only ends.
///
/// # Errors
/// Where there is no `/proc`.
pub fn look(network: u64, rights: &Rights) -> io::Result<Look> {
    let mut look = Look::default();
    let users = source::users();
    // A socket can have been handed on.
    let mut known = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let process = entry.file_name();
        let Some(process) = process.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        match ways(process, &entry.path(), network, rights, &mut known) {
            Ok(ways) => look
                .passing
                .extend(ways.into_iter().map(|(way, closed)| Passing {
                    process,
                    program: program(&entry.path()),
                    user: name(&users, user(&entry.path())),
                    allowed: rights.users.contains(user(&entry.path())),
                    way: way.label().to_owned(),
                    closed,
                })),
            // It has ended. What was opened of it before is EACCES then.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            Err(_) if !entry.path().exists() => {}
            Err(_) => look.unseen.push(process),
        }
    }
    Ok(look)
}

/// The ways that a process has, each once.
fn ways(
    process: u32,
    directory: &Path,
    network: u64,
    rights: &Rights,
    known: &mut HashMap<u64, Option<(Way, bool)>>,
) -> io::Result<Vec<(Way, bool)>> {
    let mut found = Vec::new();
    let mut opened = None;
    for descriptor in fs::read_dir(directory.join("fd"))? {
        let descriptor = descriptor?;
        let link = match fs::read_link(descriptor.path()) {
            Ok(link) => link,
            // It is closed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // Root may list them as it is; what they are takes CAP_SYS_PTRACE.
            Err(error) => return Err(error),
        };
        let (Some(number), Some(inode)) = (
            descriptor.file_name().to_str().and_then(|n| n.parse().ok()),
            link.to_str().and_then(inode),
        ) else {
            continue;
        };
        let way = match known.get(&inode) {
            Some(way) => *way,
            None => {
                let process = match &opened {
                    Some(process) => process,
                    None => opened.insert(open(process)?),
                };
                let socket = match copy(process, number) {
                    Ok(socket) => socket,
                    Err(Errno::EBADF | Errno::ESRCH) => continue,
                    Err(errno) => return Err(errno.into()),
                };
                let way = way(&socket, network).map(|way| {
                    let closed = way == Way::QdiscBypass
                        && rights.closes
                        && !rights.users.contains(user(directory))
                        && set_bypass(&socket, false).is_ok();
                    (way, closed)
                });
                known.insert(inode, way);
                way
            }
        };
        found.extend(way.filter(|way| !found.contains(way)));
    }
    Ok(found)
}

/// `socket:[4711]`
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

fn way(socket: &OwnedFd, network: u64) -> Option<Way> {
    let way = match option(socket, libc::SOL_SOCKET, libc::SO_DOMAIN)? {
        libc::AF_XDP => Way::Xdp,
        libc::AF_PACKET => {
            let bypass = option(socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS)?;
            (bypass != 0).then_some(Way::QdiscBypass)?
        }
        _ => return None,
    };
    (cookie_of(socket).ok()? == network).then_some(way)
}

fn option(socket: &OwnedFd, level: i32, option: i32) -> Option<i32> {
    let mut value = 0i32;
    let mut length = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0);
    // SAFETY: as much room as is said.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_mut(&mut value).cast(),
            &raw mut length,
        )
    };
    (got == 0).then_some(value)
}

fn set_bypass(socket: &OwnedFd, on: bool) -> io::Result<()> {
    let value = i32::from(on);
    // SAFETY: as long as is said.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            std::ptr::from_ref(&value).cast(),
            libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0),
        )
    };
    Errno::result(set)?;
    Ok(())
}

fn open(process: u32) -> io::Result<OwnedFd> {
    // SAFETY: a system call without pointers.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    Ok(descriptor(opened)?)
}

/// A descriptor of another process as one of ours (pidfd_getfd(2)).
fn copy(process: &OwnedFd, number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: a system call without pointers.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

fn descriptor(returned: libc::c_long) -> Result<OwnedFd, Errno> {
    let returned = Errno::result(returned)?;
    let descriptor = RawFd::try_from(returned).or(Err(Errno::EBADF))?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn program(directory: &Path) -> String {
    let name = fs::read_to_string(directory.join("comm")).unwrap_or_default();
    name.trim_end().escape_debug().to_string()
}

/// The real one. Nobody where the process has ended.
fn user(directory: &Path) -> u32 {
    let status = fs::read_to_string(directory.join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let user = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    user.unwrap_or(u32::MAX)
}

/// The name of a user, or the number.
pub fn name(users: &[(String, u32)], number: u32) -> String {
    let known = users.iter().find(|(_, id)| *id == number);
    known.map_or_else(
        || format!("user {number}"),
        |(name, _)| name.escape_debug().to_string(),
    )
}

/// `nmap (pid 812, root) has a packet socket that passes by the filter; ...`
impl fmt::Display for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            process,
            program,
            user,
            way,
            allowed,
            closed,
        } = self;
        let known = Way::ALL.iter().find(|known| known.label() == way);
        let what = known.map_or(way.as_str(), |known| known.sentence());
        write!(f, "{program} (pid {process}, {user}) ")?;
        match (closed, allowed) {
            (true, _) => write!(f, "had {what}; its packets are filtered from now on"),
            (_, true) => write!(f, "has {what}, as `bypass_users` allows"),
            _ => write!(f, "has {what}; end that process (kill {process})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_that_send_past_the_filter_are_named() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(cards(&directory.path().join("none")), None);
        assert_eq!(cards(directory.path()), None);
        for card in ["mlx5_1", "mlx5_0"] {
            fs::create_dir(directory.path().join(card)).unwrap();
        }
        let told = cards(directory.path()).unwrap();
        assert!(told.ends_with("(RDMA: mlx5_0, mlx5_1)"), "{told}");
    }

    #[test]
    fn who_passes_is_named_with_what_to_do() {
        let passing = |way: Way, allowed, closed| Passing {
            process: 812,
            program: "nmap".to_owned(),
            user: "root".to_owned(),
            way: way.label().to_owned(),
            allowed,
            closed,
        };
        assert_eq!(
            passing(Way::Xdp, false, false).to_string(),
            "nmap (pid 812, root) has an AF_XDP socket, which passes by the filter; end that process (kill 812)"
        );
        assert_eq!(
            passing(Way::Xdp, true, false).to_string(),
            "nmap (pid 812, root) has an AF_XDP socket, which passes by the filter, as `bypass_users` allows"
        );
        assert_eq!(
            passing(Way::QdiscBypass, false, true).to_string(),
            "nmap (pid 812, root) had a packet socket that passes by the filter; its packets are filtered from now on"
        );
    }

    #[test]
    fn a_user_without_a_name_is_told_by_number_and_no_name_writes_over_the_line() {
        let users = [("root".to_owned(), 0), ("a\u{1b}[2K".to_owned(), 7)];
        assert_eq!(name(&users, 0), "root");
        assert_eq!(name(&users, 1001), "user 1001");
        assert_eq!(name(&users, 7), "a\\u{1b}[2K");
    }

    #[test]
    fn what_was_not_seen_is_counted() {
        let gap = |unseen: &[u32]| {
            let (passing, unseen) = (Vec::new(), unseen.to_vec());
            Look { passing, unseen }.gap()
        };
        assert_eq!(gap(&[]), None);
        assert_eq!(gap(&[7]).unwrap(), "1 process (7) could not be looked at");
        let many = "5 processes (1, 2, 3, ...) could not be looked at";
        assert_eq!(gap(&[1, 2, 3, 4, 5]).unwrap(), many);
        assert_eq!(
            gap(&[1, 2, 3]).unwrap(),
            "3 processes (1, 2, 3) could not be looked at"
        );
    }

    #[test]
    fn sockets_are_told_from_other_files() {
        assert_eq!(inode("socket:[4711]"), Some(4711));
        for other in [
            "pipe:[4711]",
            "/tmp/socket:[4711]",
            "socket:[x]",
            "anon_inode:[eventpoll]",
        ] {
            assert_eq!(inode(other), None, "{other}");
        }
    }
}
