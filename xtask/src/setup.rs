//! Installs what building and testing need, and only what is missing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    command::{self, Output},
    toolchain::{self, Compiler, Missing, Toolchain},
};

/// What is about to be done.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Purpose {
    Demo,
    Tests,
    Bench,
    Vm,
    Deb,
    Package,
}

/// Programs and Debian's packages of them.
const FOR_DEMO: &[(&str, &str)] = &[("ip", "iproute2"), ("tc", "iproute2")];
const FOR_TESTS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    // libFuzzer is compiled with the fuzzers.
    ("c++", "g++"),
    ("busybox", "busybox"),
    // All of Chromium but its windows: the status page in a real browser.
    ("chromium-headless-shell", "chromium-headless-shell"),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    // iodine's way to configure its interface.
    ("ifconfig", "net-tools"),
    ("kresd", "knot-resolver"),
    ("nft", "nftables"),
    ("openssl", "openssl"),
    // scapy takes more than python3-minimal has.
    ("python3", "python3"),
    ("tcpdump", "tcpdump"),
    ("tmux", "tmux"),
    ("unbound", "unbound"),
];
const FOR_BENCH: &[(&str, &str)] = &[("ip", "iproute2"), ("nft", "nftables")];
const FOR_DEB: &[(&str, &str)] = &[
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("strip", "binutils"),
    ("xz", "xz-utils"),
];
const FOR_PACKAGE: &[(&str, &str)] = &[
    ("debootstrap", "debootstrap"),
    ("ip", "iproute2"),
    ("lintian", "lintian"),
    ("nsenter", "util-linux"),
    ("python3", "python3"),
];
const FOR_VM: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("dnsmasq", "dnsmasq-base"),
    ("strip", "binutils"),
    ("xz", "xz-utils"),
];

/// Debian's names for rustc, cargo, the sources and clippy. A stable release has
/// an old `rustc`, and keeps a newer `rustc-web` for its browsers.
const COMPILERS: [[&str; 4]; 2] = [
    ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"],
    ["rustc", "cargo", "rust-src", "rust-clippy"],
];

/// What the package of a server would start, now and at the next boot. The
/// tests start their own.
const SERVICES: &[(&str, &[&str])] = &[
    ("knot-resolver", &["kresd.target", "kres-cache-gc.service"]),
    (
        "unbound",
        &["unbound.service", "unbound-resolvconf.service"],
    ),
];

/// Programs whose packages would change the machine, and those packages: they
/// are unpacked beside what is built, and installed nowhere. systemd-resolved's
/// would take over /etc/resolv.conf, iodine's upgrades systemd by way of udev,
/// bind9's confines named to its own directories, prometheus' would start, systemd is this machine's own
/// choice, as are DHCP clients, firewalls and who may log in, and tunnels belong nowhere.
const UNPACKED: &[(&str, &[&str])] = &[
    ("usr/sbin/named", &["bind9", "bind9-libs"]),
    ("usr/sbin/iodine", &["iodine"]),
    ("usr/bin/dns2tcpc", &["dns2tcp"]),
    ("sbin/dhclient", &["isc-dhcp-client"]),
    ("usr/sbin/dhcpcd", &["dhcpcd-base"]),
    ("usr/bin/ptunnel-ng", &["ptunnel-ng"]),
    ("usr/sbin/hping3", &["hping3", "libpcap0.8", "libtcl8.6"]),
    ("usr/bin/socat", &["socat", "libwrap0"]),
    ("usr/bin/scapy", &["python3-scapy"]),
    ("usr/sbin/sshd", &["openssh-server", "libwrap0"]),
    ("usr/bin/ssh", &["openssh-client"]),
    ("usr/bin/pip3", &["python3-pip"]),
    ("usr/bin/prometheus", &["prometheus"]),
    (
        "usr/sbin/iptables-nft",
        &["iptables", "libip4tc2", "libip6tc2", "libxtables12"],
    ),
    ("usr/sbin/ipset", &["ipset", "libipset13"]),
    ("usr/bin/systemd-analyze", &["systemd", "libsystemd-shared"]),
    (
        "lib/systemd/systemd-resolved",
        &["systemd-resolved", "libsystemd-shared"],
    ),
];

/// Of them, those that the benchmark compares with.
const RIVALS: [&str; 2] = ["iptables-nft", "ipset"];

/// The newest `bpf-linker` that was tried, and the LLVMs that it can be built
/// with.
const LINKER: (&str, std::ops::RangeInclusive<u32>) = ("0.13.0", 21..=23);

pub(crate) fn run(purpose: Purpose) -> Result<()> {
    let found = toolchain::find();
    let mut tools = purpose.missing_tools();
    let (programs, archives) = purpose.not_unpacked()?;
    if let Ok(toolchain) = &found
        && tools.is_empty()
        && archives.is_empty()
        && purpose.is_served_by(&toolchain.compiler)
    {
        eprintln!("   nothing to install; the BPF programs are built by {toolchain}");
        return Ok(());
    }
    if toolchain::in_path("apt-get").is_none() {
        tools.extend(programs.into_iter().map(|program| (program, program)));
        return name_what_is_missing(found, &tools);
    }
    update()?;
    let compiler = match found {
        Ok(toolchain) => Some(toolchain.compiler),
        Err(_) => compiler(),
    };
    let mut packages: Vec<_> = tools.iter().map(|(_, package)| *package).collect();
    if !compiler.is_some_and(|compiler| purpose.is_served_by(&compiler)) {
        packages.extend(compiler_packages()?);
    }
    install(&packages)?;
    unpack(&archives)?;
    if toolchain::find().is_err() {
        install_linker()?;
    }
    let toolchain = toolchain::find().map_err(|missing| anyhow!("{missing}"))?;
    eprintln!("   the BPF programs are built by {toolchain}");
    Ok(())
}

impl Purpose {
    fn missing_tools(self) -> Vec<(&'static str, &'static str)> {
        let tools = match self {
            Self::Demo => FOR_DEMO,
            Self::Tests => FOR_TESTS,
            Self::Bench => FOR_BENCH,
            Self::Vm => FOR_VM,
            Self::Deb => FOR_DEB,
            Self::Package => FOR_PACKAGE,
        };
        tools
            .iter()
            .filter(|(program, _)| {
                // Only root has it in PATH.
                let sbin = Path::new("/usr/sbin").join(program);
                toolchain::in_path(program).is_none() && !sbin.is_file()
            })
            .copied()
            .collect()
    }

    /// The programs that are yet to be unpacked, and the packages that they are in.
    fn not_unpacked(self) -> Result<(Vec<&'static str>, Vec<&'static str>)> {
        let directory = servers()?;
        let missing = UNPACKED.iter().filter_map(|(program, packages)| {
            let name = program.rsplit('/').next()?;
            let there = directory.join(program).is_file()
                || Path::new("/").join(program).is_file()
                || toolchain::in_path(name).is_some();
            let wanted = match self {
                Self::Tests => name != "ipset",
                Self::Bench => RIVALS.contains(&name),
                _ => false,
            };
            (wanted && !there).then_some((name, *packages))
        });
        let (programs, packages): (Vec<_>, Vec<_>) = missing.unzip();
        Ok((programs, packages.concat()))
    }

    /// Tests lint the programs. Debian packs clippy apart from its compiler; where
    /// rustup's was left out, that was somebody's choice.
    fn is_served_by(self, compiler: &Compiler) -> bool {
        let packaged = compiler.rustc.starts_with("/usr/bin");
        self != Self::Tests || compiler.external("clippy").is_some() || !packaged
    }
}

/// A compiler whose LLVM the archive has, to build the linker with: the
/// distribution's, else one of rustup's.
fn compiler() -> Option<Compiler> {
    toolchain::compilers()
        .into_iter()
        .rev()
        .flatten()
        .find(|compiler| offered(&format!("llvm-{}-dev", compiler.llvm)).is_some())
}

/// The packages of the distribution's compiler that are not installed.
fn compiler_packages() -> Result<Vec<&'static str>> {
    let family = COMPILERS
        .into_iter()
        .find(|family| is_installed(family[0]))
        .or_else(|| {
            COMPILERS
                .into_iter()
                .find(|family| is_new_enough(family[0]))
        })
        .context(
            "this release has no compiler that is new enough; with rustup:\n  \
             rustup component add rust-src\nthen run this again",
        )?;
    Ok(family
        .into_iter()
        .filter(|package| !is_installed(package))
        .collect())
}

fn is_installed(package: &str) -> bool {
    asked("dpkg-query", &["-W", "-f", "${db:Status-Status}", package])
        .is_some_and(|status| status == "installed")
}

/// Whether the archive's version is one that builds this workspace.
fn is_new_enough(package: &str) -> bool {
    offered(package).is_some_and(|version| {
        toolchain::minor(&version) >= toolchain::minor(env!("CARGO_PKG_RUST_VERSION"))
    })
}

/// The version that the archive has of a package.
fn offered(package: &str) -> Option<String> {
    asked("apt-cache", &["policy", package])?
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
        .map(str::to_owned)
}

pub(crate) fn asked(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn update() -> Result<()> {
    let mut update = command::as_root("apt-get")?;
    update.arg("update");
    // One source of several may be out of reach, and not be needed.
    if !command::run(update, Output::OnFailure)?.status.success() {
        eprintln!("   going on with the package lists at hand");
    }
    Ok(())
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let mut install = command::as_root("env")?;
    install
        .args(["DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1"])
        // In this runlevel invoke-rc.d starts nothing.
        .args(["RUNLEVEL=1", "apt-get", "install", "-y"])
        .arg("--no-install-recommends")
        .args(packages);
    let units: Vec<_> = SERVICES
        .iter()
        .filter(|(package, _)| packages.contains(package))
        .flat_map(|(_, units)| *units)
        .copied()
        .collect();
    if units.is_empty() || toolchain::in_path("systemctl").is_none() {
        return command::run(install, Output::OnFailure)?.succeeded();
    }
    // A masked service cannot be started by its package's script, nor can it be
    // disabled.
    services("mask", &units)?;
    let installed = command::run(install, Output::OnFailure);
    services("unmask", &units)?;
    installed?.succeeded()?;
    services("disable", &units)
}

fn services(verb: &str, units: &[&str]) -> Result<()> {
    let mut systemctl = command::as_root("systemctl")?;
    systemctl.arg(verb).args(units);
    command::run(systemctl, Output::OnFailure)?.succeeded()
}

/// Where packages are unpacked: the tests look there.
fn servers() -> Result<PathBuf> {
    Ok(command::target_dir()?.join("servers"))
}

fn unpack(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let directory = servers()?;
    fs::create_dir_all(&directory)?;
    let mut download = Command::new("apt-get");
    download.arg("download").args(packages);
    download.current_dir(&directory);
    command::run(download, Output::OnFailure)?.succeeded()?;
    for file in fs::read_dir(&directory)? {
        let archive = file?.path();
        if archive
            .extension()
            .is_none_or(|extension| extension != "deb")
        {
            continue;
        }
        let mut extract = Command::new("dpkg-deb");
        extract.arg("--extract").args([&archive, &directory]);
        command::run(extract, Output::OnFailure)?.succeeded()?;
        fs::remove_file(archive)?;
    }
    Ok(())
}

/// Builds `bpf-linker` with the LLVM of the compiler.
fn install_linker() -> Result<()> {
    let llvm = compiler()
        .context("the archive has no LLVM of the version that the compiler has")?
        .llvm;
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let (dev, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
    let mut packages = vec![dev.as_str(), polly.as_str()];
    if toolchain::in_path("c++").is_none() {
        packages.push("g++");
    }
    packages.retain(|package| !is_installed(package));
    install(&packages)?;

    let mut cargo = command::cargo();
    cargo.env("LLVM_PREFIX", &prefix);
    // LLVM does the work: its caller builds faster without these.
    cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    cargo.args([
        "install",
        "bpf-linker",
        "--locked",
        // Over one whose LLVM is too old or gone.
        "--force",
        "--no-default-features",
        "--features",
        &format!("llvm-{llvm}"),
    ]);
    if LINKER.1.contains(&llvm) {
        cargo.args(["--version", LINKER.0]);
    }
    command::run(cargo, Output::OnFailure)?
        .succeeded()
        .with_context(|| format!("bpf-linker does not build with {prefix}"))
}

fn name_what_is_missing(found: Result<Toolchain, Missing>, tools: &[(&str, &str)]) -> Result<()> {
    let mut sentences: Vec<_> = found.err().iter().map(ToString::to_string).collect();
    if !tools.is_empty() {
        let programs: Vec<_> = tools.iter().map(|(program, _)| *program).collect();
        sentences.push(format!("missing programs: {}", programs.join(", ")));
    }
    if sentences.is_empty() {
        return Ok(());
    }
    bail!(
        "{}\nThere is no apt-get here: install them in this system's own way",
        sentences.join("\n")
    )
}
