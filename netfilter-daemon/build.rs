//! Builds the BPF object that the daemon carries.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let mut workspace = directory("CARGO_MANIFEST_DIR")?;
    workspace.pop();
    for source in [
        "Cargo.lock",
        "Cargo.toml",
        "netfilter-daemon/build.rs",
        "netfilter-ebpf/Cargo.toml",
        "netfilter-ebpf/src",
        "xtask/src/toolchain.rs",
    ] {
        rerun_if_changed(&workspace.join(source));
    }
    let toolchain = toolchain::find().map_err(|missing| missing.to_string())?;
    rerun_if_changed(&toolchain.compiler.rustc);
    rerun_if_changed(&toolchain.linker.path);

    // Without where it is, for whom compares what it makes.
    let compiler = &toolchain.compiler.name;
    let compiler = compiler.split(" (").next().unwrap_or(compiler);
    println!("cargo:rustc-env=NETFILTER_EBPF_COMPILER={compiler}");

    let out_dir = directory("OUT_DIR")?;
    // Two objects, which are not to be built anew each time the other was.
    let (name, features): (_, &[&str]) = match env::var_os("CARGO_FEATURE_BENCH") {
        Some(_) => ("bpf-bench", &["--features", "bench"]),
        None => ("bpf", &[]),
    };
    let target_dir = shared(&out_dir).join(name);
    let output = toolchain
        .command("build", &workspace, &target_dir)
        .args(features)
        .env("CARGO_TERM_COLOR", "never")
        .output()
        .map_err(|error| format!("{} does not start: {error}", toolchain.compiler.name))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!(
            "{said}\nThe BPF programs do not build ({toolchain})."
        ));
    }
    for line in said.lines().filter(|line| !toolchain::is_progress(line)) {
        println!("cargo:warning={line}");
    }

    let object = out_dir.join("netfilter-ebpf.o");
    copy_if_changed(&toolchain::object(&target_dir), &object)
        .map_err(|error| format!("{}: {error}", object.display()))?;
    println!("cargo:rustc-env=NETFILTER_EBPF_OBJECT={}", object.display());
    Ok(())
}

/// The target directory of this build, from `target/debug/build/PACKAGE/out`:
/// every profile shares one object, and the outer cargo locks `target/debug`
/// only.
fn shared(out_dir: &Path) -> &Path {
    out_dir
        .ancestors()
        .find(|ancestor| ancestor.ends_with("build"))
        .and_then(|build| build.parent()?.parent())
        .unwrap_or(out_dir)
}

/// Leaves the old file's time alone, and with it all that was built from it.
fn copy_if_changed(from: &Path, to: &Path) -> io::Result<()> {
    let new = fs::read(from)?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(to, new)
}

fn rerun_if_changed(path: &Path) {
    println!("cargo:rerun-if-changed={}", path.display());
}

fn directory(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable)
        .map(PathBuf::from)
        .ok_or_else(|| format!("cargo did not set {variable}"))
}
