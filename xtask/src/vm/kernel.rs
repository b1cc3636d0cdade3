//! Kernels of Debian's packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command::{self, Output},
    setup,
};

/// The directory into which the kernel is unpacked: `version` is one of which apt has a
/// cloud kernel, or the file of a package.
pub(super) fn unpack(version: &str, directory: &Path) -> Result<PathBuf> {
    if version.ends_with(".deb") {
        let file = fs::canonicalize(version).with_context(|| format!("cannot read {version}"))?;
        let name = file.file_stem().context("the package has no name")?;
        let kernel = directory.join(name);
        if !kernel.exists() {
            extract(&file, &kernel)?;
        }
        return Ok(kernel);
    }
    if let Some(kernel) = unpacked(version, directory)? {
        return Ok(kernel);
    }
    setup::update()?;
    let names = setup::asked("apt-cache", &["pkgnames", "linux-image-"]).unwrap_or_default();
    let package = newest(&names, version)
        .with_context(|| format!("apt has no linux-image-{version}*-cloud-amd64"))?;
    let mut download = Command::new("apt-get");
    download.args(["download", package]).current_dir(directory);
    command::run(download, Output::OnFailure)?.succeeded()?;
    let is_it = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&format!("{package}_")) && name.ends_with(".deb"))
    };
    let file = list(directory)?.into_iter().find(is_it);
    let file = file.with_context(|| format!("apt-get left no file of {package}"))?;
    let kernel = directory.join(package);
    extract(&file, &kernel)?;
    fs::remove_file(file)?;
    Ok(kernel)
}

/// What an earlier call left.
fn unpacked(version: &str, directory: &Path) -> Result<Option<PathBuf>> {
    let names: Vec<PathBuf> = list(directory)?;
    let names: Vec<&str> = names
        .iter()
        .filter_map(|path| path.file_name()?.to_str())
        .collect();
    Ok(newest(&names.join("\n"), version).map(|name| directory.join(name)))
}

/// Of these packages, one a line, the newest of a version: 6.1 is not 6.12.
fn newest<'a>(names: &'a str, version: &str) -> Option<&'a str> {
    let prefix = format!("linux-image-{version}");
    let of_version = |name: &&str| {
        let rest = name.strip_prefix(&prefix);
        let rest = rest.and_then(|rest| rest.strip_suffix("-cloud-amd64"));
        // With nothing between, it is a package that names another.
        rest.is_some_and(|rest| {
            rest.starts_with('.') || rest.starts_with('-') || rest.starts_with('+')
        })
    };
    let numbers = |name: &&str| -> Vec<u32> {
        let numbers = name.split(|char: char| !char.is_ascii_digit());
        numbers.filter_map(|number| number.parse().ok()).collect()
    };
    names.lines().filter(of_version).max_by_key(numbers)
}

/// The directory has its name when it is whole.
fn extract(package: &Path, kernel: &Path) -> Result<()> {
    let part = kernel.with_file_name("unpacking");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    let mut extract = Command::new("dpkg-deb");
    extract.arg("--extract").args([package, &part]);
    command::run(extract, Output::OnFailure)?.succeeded()?;
    Ok(fs::rename(part, kernel)?)
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.map(|entry| Ok(entry?.path()));
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &str = "linux-image-6.1.0-9-cloud-amd64
linux-image-6.1.0-56-cloud-amd64
linux-image-6.1.0-57-cloud-amd64-unsigned
linux-image-6.1.0-58-amd64
linux-image-6.12-cloud-amd64
linux-image-6.12.9+deb12-cloud-amd64
linux-image-6.12.117+deb12-cloud-amd64";

    #[test]
    fn the_newest_kernel_of_a_version_is_taken() {
        let newest = |version| newest(NAMES, version);
        assert_eq!(newest("6.1"), Some("linux-image-6.1.0-56-cloud-amd64"));
        let twelfth = Some("linux-image-6.12.117+deb12-cloud-amd64");
        assert_eq!(newest("6.12"), twelfth);
        assert_eq!(newest("6.12.117"), twelfth);
        assert_eq!(newest("6"), twelfth);
        assert_eq!(newest("5.15"), None);
    }
}
