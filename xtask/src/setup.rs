//! Installs what building and testing need, and only what is missing.

use std::{path::Path, process::Command};

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
    Vm,
}

/// Programs and Debian's packages of them.
const FOR_DEMO: &[(&str, &str)] = &[("ip", "iproute2"), ("tc", "iproute2")];
const FOR_TESTS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("tcpdump", "tcpdump"),
    ("unbound", "unbound"),
];
const FOR_VM: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
];

/// Debian's names for rustc, cargo, the sources and clippy. A stable release has
/// an old `rustc`, and keeps a newer `rustc-web` for its browsers.
const COMPILERS: [[&str; 4]; 2] = [
    ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"],
    ["rustc", "cargo", "rust-src", "rust-clippy"],
];

/// What the package of a server would start, now and at the next boot. The
/// tests start their own.
const SERVICES: [&str; 2] = ["unbound.service", "unbound-resolvconf.service"];

/// The newest `bpf-linker` that was tried, and the LLVMs that it can be built
/// with.
const LINKER: (&str, std::ops::RangeInclusive<u32>) = ("0.13.0", 21..=23);

pub(crate) fn run(purpose: Purpose) -> Result<()> {
    let found = toolchain::find();
    let tools = purpose.missing_tools();
    if let Ok(toolchain) = &found
        && tools.is_empty()
        && purpose.is_served_by(&toolchain.compiler)
    {
        eprintln!("   nothing to install; the BPF programs are built by {toolchain}");
        return Ok(());
    }
    if toolchain::in_path("apt-get").is_none() {
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
            Self::Vm => FOR_VM,
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
    let serves = packages.contains(&"unbound") && toolchain::in_path("systemctl").is_some();
    if !serves {
        return command::run(install, Output::OnFailure)?.succeeded();
    }
    // A masked service cannot be started by its package's script, nor can it be
    // disabled.
    services("mask")?;
    let installed = command::run(install, Output::OnFailure);
    services("unmask")?;
    installed?.succeeded()?;
    services("disable")
}

fn services(verb: &str) -> Result<()> {
    let mut systemctl = command::as_root("systemctl")?;
    systemctl.arg(verb).args(SERVICES);
    command::run(systemctl, Output::OnFailure)?.succeeded()
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
