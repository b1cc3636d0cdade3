//! `cargo xtask package-test`: the Debian package in a Debian with systemd as its first process,
//! in namespaces of its own, which takes seconds where a virtual machine takes minutes. Not in
//! CI: cargo-deb, debootstrap and a release build take longer there than the rest together.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};

use crate::{
    command::{self, Output},
    deb,
    setup::{self, Purpose},
};

const SCRIPTS: [(&str, &str); 6] = [
    ("boot.sh", include_str!("package/boot.sh")),
    ("enter.sh", include_str!("package/enter.sh")),
    ("traffic.py", include_str!("package/traffic.py")),
    ("promise.sh", include_str!("package/promise.sh")),
    ("test.sh", include_str!("package/test.sh")),
    ("examples.sh", include_str!("package/examples.sh")),
];
/// Debian 12, and what a cloud image of it has beyond the least. The directory has its name
/// when it is whole.
const DEBOOTSTRAP: &str = "rm -rf root.part
debootstrap --variant=minbase \
    --include=systemd,systemd-sysv,dbus,init-system-helpers,iproute2 bookworm root.part
mv root.part root
";

/// The same, with what the examples are for.
const FOR_EXAMPLES: &str = "rm -rf root-examples.part
cp -a root root-examples.part
cp /etc/resolv.conf root-examples.part/etc
chroot root-examples.part apt-get update
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 chroot root-examples.part apt-get install -y \
    --no-install-recommends ansible-core cloud-init curl python3-apt
mv root-examples.part root-examples
";

/// Install, upgrade and remove the package in a machine with systemd (as root)
#[derive(clap::Args)]
pub(crate) struct PackageTest {
    /// Run packaging/examples instead
    #[arg(long)]
    examples: bool,
}

pub(crate) fn run(arguments: &PackageTest) -> Result<()> {
    ensure!(
        command::is_root(),
        "this makes namespaces and a machine in them: run it as root"
    );
    setup::run(Purpose::Package)?;
    let package = deb::run()?;
    let directory = command::target_dir()?.join("package");
    fs::create_dir_all(&directory)?;
    for (name, text) in SCRIPTS {
        fs::write(directory.join(name), text)?;
    }
    prepare(&directory, "root", DEBOOTSTRAP)?;
    if arguments.examples {
        prepare(&directory, "root-examples", FOR_EXAMPLES)?;
        let examples = command::workspace().join("packaging/examples");
        return script(
            &directory,
            "examples.sh",
            &[&package, &examples],
            Output::Shown,
        );
    }
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--tag-display-limit", "0"]);
    lintian.arg("--allow-root").arg(&package);
    command::run(lintian, Output::Shown)?.succeeded()?;
    script(&directory, "test.sh", &[&package], Output::Shown)
}

fn prepare(directory: &Path, what: &str, how: &str) -> Result<()> {
    if directory.join(what).exists() {
        return Ok(());
    }
    let name = format!("{what}.sh");
    fs::write(directory.join(&name), how)?;
    script(directory, &name, &[], Output::OnFailure)
}

fn script(directory: &Path, name: &str, arguments: &[&Path], output: Output) -> Result<()> {
    let mut sh = Command::new("sh");
    sh.args(["-eu", name])
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null());
    command::run(sh, output)?.succeeded()
}
