//! What the protected namespace sees other than the machine does.

use std::{fs, io, net::IpAddr, path::Path};

use nix::mount::{MsFlags, mount};

/// Where the daemon's control socket is. The lab's files are on the file system
/// that hides the machine's own sockets, so that none of them can be left
/// behind: only this directory, empty, where there was none.
const RUN: &str = "/run/netfilter-daemon";
const RESOLV_CONF: &str = "/run/netfilter-daemon/resolv.conf";

/// The daemon's state directory, on a bpffs of its own.
pub const STATE_DIR: &str = "/sys/fs/bpf/netfilter";

/// The lists of service tags of the daemon under test.
pub const TAGS: &str = "/run/netfilter-daemon/tags";

/// Where the lab's own policy is.
pub const POLICY: &str = "/run/netfilter-daemon/demonstration.yaml";

/// Mounts a bpffs, and covers what decides how names are looked up. To be
/// called in a mount namespace of its own.
pub fn prepare() -> io::Result<()> {
    blank("bpf", "/sys/fs/bpf")?;
    fs::create_dir_all(RUN)?;
    blank("tmpfs", RUN)?;
    cover("/etc/resolv.conf", RESOLV_CONF, "")?;
    for (file, with, content) in [
        ("/etc/nsswitch.conf", "nsswitch.conf", "hosts: files dns\n"),
        (
            "/etc/hosts",
            "hosts",
            "127.0.0.1 localhost\n::1 localhost\n",
        ),
    ] {
        if fs::exists(file)? {
            cover(file, &format!("{RUN}/{with}"), content)?;
        }
    }
    // The cache daemon of the C library would ask the machine's resolver.
    if fs::exists("/run/nscd")? {
        blank("tmpfs", "/run/nscd")?;
    }
    Ok(())
}

/// Makes the C library ask these resolvers. To be called inside.
pub fn ask(resolvers: &[IpAddr]) -> io::Result<()> {
    let mut content = String::from("options timeout:1 attempts:1\nsearch .\n");
    for resolver in resolvers {
        content.push_str(&format!("nameserver {resolver}\n"));
    }
    fs::write(RESOLV_CONF, content)
}

fn blank(kind: &str, directory: &str) -> io::Result<()> {
    mount::<str, str, str, str>(Some("lab"), directory, Some(kind), MsFlags::empty(), None)
        .map_err(|error| naming(directory, error.into()))
}

fn cover(file: &str, with: &str, content: &str) -> io::Result<()> {
    fs::write(with, content)?;
    mount::<_, _, str, str>(Some(Path::new(with)), file, None, MsFlags::MS_BIND, None)
        .map_err(|error| naming(file, error.into()))
}

fn naming(path: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot mount over {path}: {error}"))
}
