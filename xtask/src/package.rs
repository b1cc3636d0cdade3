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

const SCRIPTS: [(&str, &str); 4] = [
    ("boot.sh", include_str!("package/boot.sh")),
    ("enter.sh", include_str!("package/enter.sh")),
    ("traffic.py", include_str!("package/traffic.py")),
    ("test.sh", include_str!("package/test.sh")),
];
/// Debian 12, and what a cloud image of it has beyond the least. The directory has its name
/// when it is whole.
const DEBOOTSTRAP: &str = "rm -rf root.part
debootstrap --variant=minbase \
    --include=systemd,systemd-sysv,dbus,init-system-helpers,iproute2 bookworm root.part
mv root.part root
";

pub(crate) fn run() -> Result<()> {
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
    if !directory.join("root").exists() {
        fs::write(directory.join("debootstrap.sh"), DEBOOTSTRAP)?;
        script(&directory, "debootstrap.sh", &[], Output::OnFailure)?;
    }
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--tag-display-limit", "0"]);
    // What it finds is no worse for root's being the one who asks.
    lintian.arg("--allow-root").arg(&package);
    command::run(lintian, Output::Shown)?.succeeded()?;
    script(&directory, "test.sh", &[&package], Output::Shown)
}

fn script(directory: &Path, name: &str, arguments: &[&Path], output: Output) -> Result<()> {
    let mut sh = Command::new("sh");
    sh.args(["-eu", name])
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null());
    command::run(sh, output)?.succeeded()
}
