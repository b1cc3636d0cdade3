//! Finds what builds BPF programs in Rust, and builds them.
//!
//! There is no compiled `core` for BPF, so three things must come together: a
//! compiler with the sources of its own library, leave to use its unstable
//! flags on it, and `bpf-linker`, whose LLVM must not be older than the
//! compiler's, for it reads what that one wrote. Compilers of rustup and of the
//! distribution (Debian's `rustc-web`) both will do.
//!
//! The build script of the daemon includes this file, so it uses nothing
//! outside `std`.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

/// The BPF crate, which is also the name of its binary and of the object.
const CRATE: &str = "netfilter-ebpf";

const LINKER: &str = "bpf-linker";

/// A compiler and a linker that fit each other.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
}

/// A Rust compiler that has the sources of `core`.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    /// For people: `rustc 1.96.0 (/usr/bin/rustc)`.
    pub(crate) name: String,
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    /// The major version of its LLVM.
    pub(crate) llvm: u32,
}

/// A `bpf-linker` that starts.
#[derive(Clone, Debug)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    /// The major version of its LLVM, where the file tells: `None` for those
    /// that carry LLVM within themselves, as the published binaries do.
    pub(crate) llvm: Option<u32>,
}

/// What this machine lacks, one sentence each.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) Vec<String>);

/// Finds the first compiler that has a linker: rustup's active toolchain, its
/// others, then the distribution's.
pub(crate) fn find() -> Result<Toolchain, Missing> {
    let mut missing = Vec::new();
    let linker = linker().map_err(|why| missing.push(why)).ok();
    let compilers = compilers();
    let any = compilers.iter().any(Result::is_ok);
    for compiler in compilers {
        match (compiler, &linker) {
            (Ok(compiler), Some(linker)) if linker.reads(&compiler) => {
                return Ok(Toolchain {
                    compiler,
                    linker: linker.clone(),
                });
            }
            (Ok(compiler), Some(linker)) => missing.push(format!(
                "{} is built with LLVM {}, too old for the LLVM {} of {}",
                linker.path.display(),
                linker.llvm.unwrap_or_default(),
                compiler.llvm,
                compiler.name,
            )),
            (Ok(_), None) => {}
            (Err(why), _) if !any => missing.push(why),
            (Err(_), _) => {}
        }
    }
    Err(Missing(missing))
}

/// Every compiler that was found, or why it will not do.
pub(crate) fn compilers() -> Vec<Result<Compiler, String>> {
    let mut compilers: Vec<_> = rustup_toolchains()
        .iter()
        .map(|toolchain| Compiler::of_rustup(toolchain))
        .collect();
    compilers.push(Compiler::of_distribution());
    compilers
}

/// `bpf-linker` from PATH or from where `cargo install` puts it.
pub(crate) fn linker() -> Result<Linker, String> {
    let path = in_path(LINKER)
        .or_else(|| {
            Some(cargo_home()?.join("bin").join(LINKER)).filter(|candidate| candidate.is_file())
        })
        .ok_or_else(|| format!("{LINKER} is neither in PATH nor in ~/.cargo/bin"))?;
    // A linker whose libLLVM was removed since is there, but cannot start.
    output(&path, &["--version"])?;
    let llvm = llvm_of_linker(&path);
    Ok(Linker { path, llvm })
}

/// The first file of that name in PATH.
pub(crate) fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Where the object is once `build` has succeeded.
pub(crate) fn object(target_dir: &Path) -> PathBuf {
    target_dir.join(target()).join("release").join(CRATE)
}

impl Toolchain {
    /// A cargo command (`build`, `clippy`) on the BPF programs.
    ///
    /// `target_dir` must not be that of an outer cargo, which holds its lock.
    pub(crate) fn command(&self, subcommand: &str, workspace: &Path, target_dir: &Path) -> Command {
        let cargo = &self.compiler.cargo;
        let mut command =
            Command::new(self.compiler.external(subcommand).as_ref().unwrap_or(cargo));
        clean(&mut command);
        command
            .current_dir(workspace)
            .args([subcommand, "--locked", "--release"])
            .args(["--package", CRATE, "--bin", CRATE, "--features", "bpf"])
            .args(["--target", target(), "-Zbuild-std=core", "--target-dir"])
            .arg(target_dir)
            .env("CARGO", cargo)
            .env("RUSTC", &self.compiler.rustc)
            .env("RUSTC_WRAPPER", "")
            // Unstable flags on a compiler that is not a nightly.
            .env("RUSTC_BOOTSTRAP", "1")
            .env(
                format!(
                    "CARGO_TARGET_{}_LINKER",
                    target().to_uppercase().replace('-', "_")
                ),
                &self.linker.path,
            )
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                [
                    &format!("--cfg=bpf_target_arch=\"{}\"", machine()),
                    // BTF is made from the debug information.
                    "-Cdebuginfo=2",
                    "-Clink-arg=--btf",
                    // 32-bit registers and jumps: Linux 5.1.
                    "-Ctarget-cpu=v3",
                ]
                .join("\x1f"),
            );
        command
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.compiler.name, self.linker.path.display())
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the BPF programs cannot be built here:")?;
        for sentence in &self.0 {
            writeln!(f, "  - {sentence}")?;
        }
        write!(
            f,
            "On Debian and its kin, `cargo xtask setup` installs what is missing. Elsewhere:\n  \
             rustup component add rust-src\n  \
             cargo binstall {LINKER}    # or https://github.com/aya-rs/bpf-linker/releases"
        )
    }
}

impl Compiler {
    /// The program of an external subcommand (`clippy`) that came with this
    /// compiler. Cargo itself would look for one in PATH, and find rustup's.
    pub(crate) fn external(&self, subcommand: &str) -> Option<PathBuf> {
        let program = format!("cargo-{subcommand}");
        Some(self.cargo.with_file_name(program)).filter(|program| program.is_file())
    }

    fn of_rustup(toolchain: &str) -> Result<Self, String> {
        let which = |program| -> Result<PathBuf, String> {
            let path = output("rustup", &["which", "--toolchain", toolchain, program])?;
            Ok(PathBuf::from(path.trim()))
        };
        Self::new(which("cargo")?, which("rustc")?)
    }

    fn of_distribution() -> Result<Self, String> {
        let (cargo, rustc) = ("/usr/bin/cargo", "/usr/bin/rustc");
        for program in [cargo, rustc] {
            if !Path::new(program).is_file() {
                return Err(format!("there is no {program}"));
            }
        }
        Self::new(cargo.into(), rustc.into())
    }

    fn new(cargo: PathBuf, rustc: PathBuf) -> Result<Self, String> {
        let version = output(&rustc, &["-vV"])?;
        let unclear = || format!("{} -vV says nothing of its version", rustc.display());
        let release = field(&version, "release").ok_or_else(unclear)?;
        let llvm = field(&version, "LLVM version")
            .and_then(|version| number(version.as_bytes()))
            .ok_or_else(unclear)?;
        let name = format!("rustc {release} ({})", rustc.display());
        let oldest = env!("CARGO_PKG_RUST_VERSION");
        if minor(release) < minor(oldest) {
            return Err(format!("{name} is older than {oldest}"));
        }
        let sysroot = output(&rustc, &["--print", "sysroot"])?;
        let sources = "lib/rustlib/src/rust/library/core/src/lib.rs";
        if !Path::new(sysroot.trim()).join(sources).is_file() {
            return Err(format!("{name} is without the sources of its library"));
        }
        Ok(Self {
            name,
            cargo,
            rustc,
            llvm,
        })
    }
}

impl Linker {
    fn reads(&self, compiler: &Compiler) -> bool {
        self.llvm.is_none_or(|llvm| llvm >= compiler.llvm)
    }
}

/// Names of rustup's toolchains, the active one first.
fn rustup_toolchains() -> Vec<String> {
    let list = output("rustup", &["toolchain", "list"]).unwrap_or_default();
    let mut lines: Vec<_> = list.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_by_key(|line| !line.contains("active"));
    lines
        .iter()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Reads the name of the library that the linker is linked to, `libLLVM.so.22.1`
/// or `libLLVM-22.so`, which stands near the start of the file.
fn llvm_of_linker(path: &Path) -> Option<u32> {
    const NAME: &[u8] = b"libLLVM";
    let mut start = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(1 << 18)
        .read_to_end(&mut start)
        .ok()?;
    let at = start.windows(NAME.len()).position(|bytes| bytes == NAME)?;
    let version = start[at + NAME.len()..]
        .iter()
        .position(u8::is_ascii_digit)?;
    // As in `.so.` or `-`: anything longer is another name.
    (version <= 4).then(|| number(&start[at + NAME.len() + version..]))?
}

/// Takes away the variables that an outer cargo, rustup or clippy set for the
/// host, and leaves those that say how to reach the network.
fn clean(command: &mut Command) {
    const ANOTHER_BUILD: [&str; 9] = [
        "CARGO",
        "CLIPPY",
        "LD_LIBRARY_PATH",
        "MAKEFLAGS",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "__CARGO",
    ];
    const KEPT: [&str; 5] = [
        "CARGO_HOME",
        "CARGO_HTTP",
        "CARGO_NET",
        "CARGO_REGISTR",
        "CARGO_TERM",
    ];
    for (name, _) in env::vars_os() {
        let starts = |with: &&str| name.as_encoded_bytes().starts_with(with.as_bytes());
        if ANOTHER_BUILD.iter().any(starts) && !KEPT.iter().any(starts) {
            command.env_remove(name);
        }
    }
}

/// The target of the programs: the byte order is that of the machine which they
/// will run on.
fn target() -> &'static str {
    let big = env::var_os("CARGO_CFG_TARGET_ENDIAN")
        .map_or(cfg!(target_endian = "big"), |endian| endian == "big");
    if big {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    }
}

/// The machine's name in aya's `bpf_target_arch`.
fn machine() -> String {
    let name = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
    if name.starts_with("riscv64") {
        "riscv64".to_owned()
    } else {
        name
    }
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// What a program says on its standard output.
fn output<S: AsRef<OsStr>>(program: S, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(&program);
    clean(&mut command);
    // rustup would rather download a toolchain than say that it lacks one.
    command.env("RUSTUP_AUTO_INSTALL", "0");
    let failed = |why: String| {
        let mut line = OsString::from(&program);
        for arg in args {
            line.push(" ");
            line.push(arg);
        }
        format!("`{}` failed: {}", line.display(), why.trim())
    };
    let output = command
        .args(args)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The lines in which cargo tells what it is at, `   Compiling core v0.0.0`, and
/// empty ones.
pub(crate) fn is_progress(line: &str) -> bool {
    let word = line.trim_start();
    word.is_empty()
        || word.len() < line.len() && word.starts_with(|first: char| first.is_ascii_uppercase())
}

/// The value of `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The minor version: Rust has no other that counts.
pub(crate) fn minor(version: &str) -> u32 {
    version
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse().ok())
        .unwrap_or_default()
}

/// The number that the text starts with.
fn number(text: &[u8]) -> Option<u32> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    std::str::from_utf8(&text[..end.unwrap_or(text.len())])
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(llvm: u32) -> Compiler {
        Compiler {
            name: "rustc".into(),
            cargo: "cargo".into(),
            rustc: "rustc".into(),
            llvm,
        }
    }

    #[test]
    fn a_linker_reads_what_its_own_llvm_or_an_older_one_wrote() {
        let linker = Linker {
            path: LINKER.into(),
            llvm: Some(22),
        };
        assert!(linker.reads(&compiler(21)));
        assert!(linker.reads(&compiler(22)));
        assert!(!linker.reads(&compiler(23)));
    }

    #[test]
    fn versions_are_read_as_the_compiler_prints_them() {
        let text = "rustc 1.96.0 (built from a source tarball)\nhost: x86_64-unknown-linux-gnu\n\
                    release: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(field(text, "release"), Some("1.96.0"));
        assert_eq!(field(text, "LLVM version"), Some("22.1.8"));
        assert_eq!(field(text, "LLVM"), None);
        assert_eq!(number(b"22.1.8"), Some(22));
        assert_eq!(number(b".8"), None);
        assert!(minor("1.97.0-nightly") > minor("1.88"));
    }

    #[test]
    fn progress_is_told_from_messages() {
        for line in [
            "   Compiling core v0.0.0",
            "    Finished `release` profile",
            "",
        ] {
            assert!(is_progress(line), "{line}");
        }
        for line in [
            "warning: unused",
            "  --> src/main.rs:1:1",
            "1 | Some(x)",
            "E: no package",
        ] {
            assert!(!is_progress(line), "{line}");
        }
    }

    #[test]
    fn a_nested_cargo_sees_nothing_of_the_outer_one() {
        let toolchain = Toolchain {
            compiler: compiler(22),
            linker: Linker {
                path: LINKER.into(),
                llvm: None,
            },
        };
        // Cargo sets this one for the test itself.
        assert!(env::var_os("CARGO_PKG_NAME").is_some());
        let command = toolchain.command("build", Path::new("/"), Path::new("/tmp"));
        let seen: Vec<_> = command.get_envs().collect();
        assert!(seen.contains(&("CARGO_PKG_NAME".as_ref(), None)));
        assert!(seen.contains(&("RUSTC".as_ref(), Some("rustc".as_ref()))));
        assert!(!seen.iter().any(|(name, _)| *name == "CARGO_HOME"));
    }
}
