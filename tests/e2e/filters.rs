//! Filters that let the same prefixes pass, and how each is put into force.

use std::{
    error::Error,
    ffi::OsString,
    fs,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use netfilter_daemon::lab::{daemon::Daemon, mounts, namespace::Namespace, topology::WORKLOAD};

use crate::{
    prefixes::Prefixes,
    programs::{self, Place, Says},
    site::{Side, Site},
};

/// Others are measured long after their rules were set. In the first moments the daemon tidies, and the
/// programs look for what is known of an address that nothing is known of.
const SETTLED: Duration = Duration::from_secs(1);

const BINARY: &str = env!("CARGO_BIN_EXE_netfilter-daemon");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    None,
    /// The same again, last in a round: what differs is what the machine's moods are worth.
    NoneAgain,
    Empty,
    Drop,
    Ours,
    NftSet,
    NftPorts,
    NftConntrack,
    Ipset,
}

impl Filter {
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::NoneAgain,
        Self::Empty,
        Self::Drop,
        Self::Ours,
        Self::NftSet,
        Self::NftPorts,
        Self::NftConntrack,
        Self::Ipset,
    ];

    /// In JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NoneAgain => "none_again",
            Self::Empty => "empty_program",
            Self::Drop => "drop_program",
            Self::Ours => "netfilter_daemon",
            Self::NftSet => "nftables_set",
            Self::NftPorts => "nftables_ports",
            Self::NftConntrack => "nftables_ports_conntrack",
            Self::Ipset => "ipset",
        }
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::None => "no filter",
            Self::NoneAgain => "no filter, again",
            Self::Empty => "empty program",
            Self::Drop => "program that drops all",
            Self::Ours => "netfilter-daemon",
            Self::NftSet => "nftables, addresses",
            Self::NftPorts => "nftables, addresses and ports",
            Self::NftConntrack => "nftables, the same, conntrack",
            Self::Ipset => "ipset, addresses",
        }
    }

    /// Whose rules are set once, for they take seconds.
    pub const fn has_rules(self) -> bool {
        matches!(
            self,
            Self::NftSet | Self::NftPorts | Self::NftConntrack | Self::Ipset
        )
    }
}

/// A filter in force. Dropping it lifts what of it costs others: the daemon with its programs,
/// of which some see every socket of the machine, and programs.
pub enum InForce {
    Nothing,
    Daemon(Daemon),
    Program { _link: OwnedFd },
}

/// Sets its rules once, where they stay until its namespace goes.
pub fn prepare(filter: Filter, site: &Site, prefixes: &Prefixes) -> Result<(), Box<dyn Error>> {
    let host = &site.topology.protected;
    let (ports, rules) = match filter {
        Filter::NftSet => (false, ""),
        Filter::NftPorts => (true, ""),
        Filter::NftConntrack => (true, "ct state established,related accept;"),
        Filter::Ipset => return ipset(host, site.side, prefixes),
        _ => return Ok(()),
    };
    let (hook, back) = match site.side {
        Side::Host => ("output", ""),
        Side::Workload => ("forward", RETURNS),
    };
    let matched = if ports {
        "ip daddr . th dport"
    } else {
        "ip daddr"
    };
    let table = format!(
        "table inet bench {{\n{}\nchain bench {{ type filter hook {hook} priority 0; policy drop; \
         {rules} {back} {matched} @allowed accept; }}\n}}\n",
        prefixes.nft_set(ports)
    );
    fed(host.command("nft").args(["-f", "-"]), &table)
}

/// What comes back to the container is none of a filter's business here.
const RETURNS: &str = "iifname != \"w0\" accept;";

/// Puts it into force, if that is not done yet.
pub fn enforce(filter: Filter, site: &Site) -> Result<InForce, Box<dyn Error>> {
    let program = |says| -> Result<InForce, Box<dyn Error>> {
        let place = match site.side {
            Side::Host => Place::Egress,
            Side::Workload => Place::Workload,
        };
        let attach = || programs::attach(place, says, site.side.interface());
        let link = site.topology.protected.run(attach)??;
        Ok(InForce::Program { _link: link })
    };
    match filter {
        Filter::Empty => program(Says::Pass),
        Filter::Drop => program(Says::Drop),
        Filter::Ours => {
            let mut command = site.topology.protected.command(BINARY);
            command.args(["run", "--detach-on-exit", "--policy", mounts::POLICY]);
            command.args(["--tags-dir", mounts::TAGS]);
            command.args(match site.side {
                Side::Host => ["--interface", site.side.interface()],
                Side::Workload => ["--workload", WORKLOAD],
            });
            let daemon = Daemon::start(command)?;
            thread::sleep(SETTLED);
            Ok(InForce::Daemon(daemon))
        }
        _ => Ok(InForce::Nothing),
    }
}

fn ipset(host: &Namespace, side: Side, prefixes: &Prefixes) -> Result<(), Box<dyn Error>> {
    fed(tool(host, "ipset").arg("restore"), &prefixes.ipset())?;
    let (chain, back) = match side {
        Side::Host => ("OUTPUT", None),
        Side::Workload => ("FORWARD", Some("! -i w0 -j ACCEPT")),
    };
    let matched = "-m set --match-set allowed dst -j ACCEPT";
    for rule in back.into_iter().chain([matched]) {
        let rule = format!("-w -A {chain} {rule}");
        fed(
            tool(host, "iptables-legacy").args(rule.split_whitespace()),
            "",
        )?;
    }
    let policy = ["-w", "-P", chain, "DROP"];
    fed(tool(host, "iptables-legacy").args(policy), "")
}

/// A program of the machine, or of the packages that xtask unpacks beside what is built.
fn tool(namespace: &Namespace, program: &str) -> Command {
    let unpacked: PathBuf = Path::new(BINARY)
        .ancestors()
        .nth(2)
        .map(|target| target.join("servers"))
        .unwrap_or_default();
    let path = unpacked.join("usr/sbin").join(program);
    if !path.is_file() {
        return namespace.command(program);
    }
    let libraries = unpacked.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let mut command = namespace.command(path);
    command.env("XTABLES_LIBDIR", libraries.join("xtables"));
    command.env("LD_LIBRARY_PATH", OsString::from(libraries));
    command
}

/// Runs a command that reads this.
fn fed(command: &mut Command, text: &str) -> Result<(), Box<dyn Error>> {
    let name = Path::new(command.get_program());
    let name = name.file_name().unwrap_or_default().display().to_string();
    let missing = |error: io::Error| format!("cannot start `{name}`: {error}");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(missing)?;
    if let Some(mut input) = child.stdin.take() {
        // Who reads nothing says why, below.
        input.write_all(text.as_bytes()).ok();
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(200).collect();
    Err(format!("`{name}` failed: {said}").into())
}

/// Nanoseconds for which threads of a process have run.
pub fn processor_time(process: u32) -> io::Result<u64> {
    let mut time = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next();
        time += first.and_then(|first| first.parse().ok()).unwrap_or(0);
    }
    Ok(time)
}
