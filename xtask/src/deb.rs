//! `cargo xtask deb`: the Debian package, made by cargo-deb as `netfilter-daemon/Cargo.toml` says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command::{self, Output},
    setup::{self, Purpose},
};

/// The one that was tried.
const CARGO_DEB: &str = "3.8.0";

/// Builds the package. Returns where it is.
pub(crate) fn run() -> Result<PathBuf> {
    setup::run(Purpose::Deb)?;
    let target = command::target_dir()?;
    let packer = target.join("tools/bin/cargo-deb");
    if !packer.is_file() {
        install(&target.join("tools"))?;
    }
    let mut build = command::cargo();
    build.args(["build", "--locked", "--release"]);
    build.args(["--package", "netfilter-daemon"]);
    // Together, so that they share their crates.
    build.args(["--bin", "netfilter-daemon", "--example", "manual"]);
    build.arg("--target-dir").arg(&target);
    command::run(build, Output::OnFailure)?.succeeded()?;

    let release = target.join("release");
    let pages = release.join("manual");
    if pages.exists() {
        fs::remove_dir_all(&pages)?;
    }
    let mut manual = Command::new(release.join("examples/manual"));
    manual.arg(&pages);
    command::run(manual, Output::OnFailure)?.succeeded()?;

    // By their time stamps no two packages would be the same.
    let mut compress = Command::new("sh");
    compress.args(["-ec", "gzip -9n *.8"]).current_dir(&pages);
    command::run(compress, Output::OnFailure)?.succeeded()?;

    let packages = target.join("debian");
    if packages.exists() {
        fs::remove_dir_all(&packages)?;
    }
    fs::create_dir_all(&packages)?;
    let mut pack = Command::new(packer);
    pack.args(["--no-build", "--locked", "--package", "netfilter-daemon"]);
    pack.arg("--compress-system");
    // It finds what was built there.
    pack.env("CARGO_TARGET_DIR", &target);
    pack.arg("--output").arg(&packages);
    pack.current_dir(command::workspace());
    command::run(pack, Output::OnFailure)?.succeeded()?;
    let package = fs::read_dir(&packages)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|kind| kind == "deb"))
        .context("cargo-deb left no package")?;
    eprintln!("{}", package.display());
    Ok(package)
}

fn install(root: &Path) -> Result<()> {
    let mut install = command::cargo();
    // It has xz do the work.
    install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    install.env("CARGO_PROFILE_RELEASE_LTO", "off");
    install.args(["install", "cargo-deb", "--locked", "--version", CARGO_DEB]);
    install.arg("--root").arg(root);
    command::run(install, Output::OnFailure)?.succeeded()
}
