//! `cargo xtask vmtest`: the lab and the integration tests on another kernel, under qemu.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    build,
    command::{self, Output, Ran},
    setup::{self, Purpose},
};

mod kernel;

/// Debian 12's.
const KERNEL: &str = "6.1";
/// What `timeout` ends with when it had to end the command.
const TIMED_OUT: i32 = 124;

/// By the name that each has there.
const PARTS: [(&str, &str); 3] = [
    ("devices", include_str!("vm/devices.sh")),
    ("clock", include_str!("vm/clock.sh")),
    ("lockdown", include_str!("vm/lockdown.sh")),
];
/// The directory has its name when it is whole.
const FETCH_TOOLS: &str = "rm -rf tools.part && mkdir tools.part && cd tools.part
apt-get download wireguard-tools
dpkg-deb -x *.deb . && rm *.deb
mv ../tools.part ../tools
";
const PACK: &str = include_str!("vm/pack.sh");
const INIT: &str = include_str!("vm/init.sh");

/// Tests that meet a kernel: those that show what differs between kernels, and that
/// an emulated machine runs in minutes. In the words of the test runner.
const SUBSET: &str = "agreement::a_ agreement::malformed agreement::the_kernel_agrees_with_the_host_on_random audited::w \
     bypass::no_other bypass::options::the_option \
     enforcement::two_daemons flows::a_ flows::fragments \
     live::what_is_permitted memo::a_policy names::an_address names::an_answer names::the_verifier \
     plain::frames privileges:: reload::a_reload_is_whole reload::the_filter_outlives streams::a_denied streams::an_a suggest::without \
     upgrade::tables_of workload::a_routed_workload_is_judged_where_the_uplink_is_too \
     workload::life::a_virtual";
/// Without what meets no kernel, or no machine without systemd or without the programs that
/// people work with.
const ALL: &str = "--skip tables_agree --skip service:: --skip ordinary::";
/// What takes as long as it is told, and how patient tests are.
const BRIEFLY: &str =
    "NETFILTER_PATIENCE=5 NETFILTER_CHAOS_SECONDS=10 NETFILTER_AGREEMENT_ROUNDS=2";
const MINUTES: u32 = 30;
const MINUTES_FOR_ALL: u32 = 90;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask vmtest\n  \
    cargo xtask vmtest --all --kernel 6.12\n  \
    cargo xtask vmtest -- forgery::")]
pub(crate) struct Vmtest {
    /// A kernel: a version of which apt has a cloud kernel, or the file of a Debian package
    #[arg(long, value_name = "VERSION|FILE.deb", default_value = KERNEL)]
    kernel: String,
    /// All integration tests, and for as long as they like
    #[arg(long)]
    all: bool,
    /// For the test runner, instead of the lab and what CI runs
    #[arg(last = true, value_name = "ARGS")]
    runner: Vec<String>,
}

impl Vmtest {
    /// What CI runs.
    pub(crate) fn in_ci() -> Self {
        Self {
            kernel: KERNEL.to_owned(),
            all: false,
            runner: Vec::new(),
        }
    }

    /// What the first process gets: its environment, and the test runner's arguments.
    fn words(&self) -> String {
        match (&self.runner[..], self.all) {
            ([], false) => format!("{BRIEFLY} -- {SUBSET}"),
            ([], true) => format!("NETFILTER_PATIENCE=5 -- {ALL}"),
            (runner, _) => format!("{BRIEFLY} only_tests=1 -- {}", runner.join(" ")),
        }
    }
}

/// Returns what the console said.
pub(crate) fn run(arguments: &Vmtest) -> Result<Vec<String>> {
    ensure!(cfg!(target_arch = "x86_64"), "vmtest needs an x86_64");
    let directory = command::target_dir()?.join("vm");
    fs::create_dir_all(&directory)?;
    step("setup: install what is missing", || {
        setup::run(Purpose::Tests)?;
        setup::run(Purpose::Vm)
    })?;
    let tests = step("build: the daemon and its tests", build::tests)?;
    let kernel = step("kernel: unpack Debian's, not install it", || {
        kernel::unpack(&arguments.kernel, &directory)
    })?;
    if !directory.join("tools").exists() {
        step("tools: unpack Debian's `wg`, not install it", || {
            setup::update()?;
            script(&directory, "fetch-tools.sh", FETCH_TOOLS, &[])
        })?;
    }
    step("pack: the initramfs", || {
        fs::write(directory.join("init.sh"), INIT)?;
        for (name, text) in PARTS {
            fs::write(directory.join(name), text)?;
        }
        let daemon = command::target_dir()?.join("debug/netfilter-daemon");
        script(&directory, "pack.sh", PACK, &[&kernel, &daemon, &tests])
    })?;
    let minutes = match arguments.all {
        true => MINUTES_FOR_ALL,
        false => MINUTES,
    };
    let accelerator = accelerator(&directory);
    let promise = format!("boot: that kernel, by {accelerator}, for {minutes} minutes at most");
    step(&promise, || {
        let ran = boot(&directory, accelerator, &arguments.words(), minutes)?;
        judge(&ran.lines, arguments.runner.is_empty())?;
        let console = ran.lines.clone();
        ran.succeeded().map(|()| console)
    })
}

fn step<T>(promise: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("\n== {promise}");
    let start = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "ok" } else { "FAILED" };
    eprintln!("   {verdict:7}{}", command::seconds(start.elapsed()));
    result
}

fn script(directory: &Path, name: &str, text: &str, arguments: &[&Path]) -> Result<()> {
    fs::write(directory.join(name), text)?;
    let mut sh = Command::new("sh");
    sh.args(["-eu", name])
        .args(arguments)
        .current_dir(directory);
    command::run(sh, Output::OnFailure)?.succeeded()
}

/// Where a virtual machine has a /dev/kvm, a guest of it may hang for ever. One that
/// has nothing to start ends at once where it does not.
fn accelerator(directory: &Path) -> &'static str {
    const PATIENCE: Duration = Duration::from_secs(10);
    if !Path::new("/dev/kvm").exists() {
        return "tcg";
    }
    let line = format!(
        "--pdeathsig KILL timeout --signal=KILL {} {} -accel kvm -cpu host -m 256 -kernel vmlinuz -append panic=-1",
        PATIENCE.as_secs(),
        qemu()
    );
    let mut probe = Command::new("setpriv");
    probe
        .args(line.split_whitespace())
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match probe.status() {
        Ok(status) if status.success() => "kvm",
        _ => "tcg",
    }
}

fn qemu() -> &'static str {
    "qemu-system-x86_64 -display none -serial stdio -monitor none -no-reboot -net none"
}

fn boot(directory: &Path, accelerator: &str, words: &str, minutes: u32) -> Result<Ran> {
    let cpu = if accelerator == "kvm" { "host" } else { "max" };
    // Should this program end early, `timeout` is told, and ends qemu.
    let line = format!(
        "--pdeathsig TERM timeout --kill-after=5 {minutes}m nice {} -accel {accelerator} -cpu {cpu} \
         -m 3072 -smp 2 -kernel vmlinuz -initrd initrd.cpio -append",
        qemu()
    );
    let mut machine = Command::new("setpriv");
    machine
        .args(line.split_whitespace())
        .arg(format!("console=ttyS0 panic=-1 quiet {words}"))
        .current_dir(directory)
        .stdin(Stdio::null());
    let ran = command::run(machine, Output::Shown)?;
    if ran.status.code() == Some(TIMED_OUT) {
        bail!("the machine had not ended after {minutes} minutes");
    }
    Ok(ran)
}

/// What else the console says, a name's TTL of 8 seconds being shorter than the sleep.
const PROMISES: [(&str, &str, &str); 29] = [
    (
        "  ✓ packet-bypass ",
        " raw_socket ",
        "a packet socket was let past the filter",
    ),
    (
        "  ✓ af-xdp ",
        " raw_socket ",
        "an AF_XDP socket was let past the filter",
    ),
    (
        "enforcing on v0",
        "",
        "the daemon did not start with a local resolver",
    ),
    (
        "vmtest: awake: ",
        "timed out",
        "what a local resolver answered was not learned",
    ),
    ("vmtest: slept 1", "", "the machine did not suspend"),
    (
        "vmtest: later: ",
        "refused",
        "an address outlived its time in a suspension",
    ),
    (
        "vmtest: clock: ahead: passed",
        "",
        "a clock that was set ahead ended a learned address",
    ),
    (
        "vmtest: clock: behind: passed",
        "",
        "a clock that was set back ended a learned address",
    ),
    (
        "vmtest: clock: later: denied",
        "",
        "a clock that was set back prolonged a learned address",
    ),
    (
        "vmtest: clock: asked for again: passed",
        "",
        "a clock that was set kept an exact name from being asked for in time",
    ),
    (
        "vmtest: clock: denied lately",
        "",
        "an event has an implausible time after the clock was set back",
    ),
    (
        "vmtest: clock: enforcing since lately",
        "",
        "the status has an implausible time after the clock was set back",
    ),
    (
        "vmtest: clock: ahead: enforcing since lately",
        "",
        "the status has an implausible time after the clock was set ahead",
    ),
    (
        "vmtest: clock: +: confirmed in time",
        "",
        "a clock that was set ahead ended a policy that waited to be confirmed",
    ),
    (
        "vmtest: clock: +: too late to confirm",
        "",
        "a policy outlived its time while the clock was set ahead",
    ),
    (
        "vmtest: clock: -: confirmed in time",
        "",
        "a clock that was set back ended a policy that waited to be confirmed",
    ),
    (
        "vmtest: clock: -: too late to confirm",
        "",
        "a clock that was set back gave more time to a policy that waited to be confirmed",
    ),
    (
        "vmtest: lockdown: integrity: reloaded, ",
        "learned passed, other denied",
        "a daemon did not go on when the kernel was locked down (integrity)",
    ),
    (
        "vmtest: lockdown: confidentiality: reloaded, ",
        "learned passed, other denied",
        "a daemon did not go on when the kernel was locked down (confidentiality)",
    ),
    (
        "vmtest: lockdown: enforcing on v0 ",
        "learned passed, other denied",
        "a daemon did not start on a kernel that is locked down (confidentiality)",
    ),
    (
        "vmtest: vlan5: before denied, ",
        "learned passed, other denied",
        "a VLAN device did not carry what is allowed and nothing else",
    ),
    (
        "vmtest: bond6: before denied, ",
        "learned passed, other denied",
        "a bond device did not carry what is allowed and nothing else",
    ),
    (
        "vmtest: bridge7: before denied, ",
        "learned passed, other denied",
        "a bridge device did not carry what is allowed and nothing else",
    ),
    (
        "vmtest: wg8: before denied, ",
        "learned passed, other denied",
        "a WireGuard device did not carry what is allowed and nothing else",
    ),
    (
        "vmtest: bond6: LACP negotiated",
        "",
        "a bond could not negotiate",
    ),
    (
        "vmtest: clsact: detached, ",
        "other denied",
        "a qdisc that was deleted was not put back",
    ),
    (
        "vmtest: clsact: displaced, ",
        "other denied",
        "a filter that stood before ours was left there",
    ),
    (
        "vmtest: clsact: 1 of ours",
        "",
        "a filter was put back twice",
    ),
    (
        "vmtest: devices: healthy",
        "",
        "the daemon complained about a device",
    ),
];

/// Asks for exit codes, and for tests and probes, lest a machine without any passes.
fn judge(console: &[String], with_lab: bool) -> Result<()> {
    ended_well(console, "tests")?;
    let passed = console.iter().any(|line| {
        let result = line.trim().strip_prefix("test result: ok. ");
        result.is_some_and(|result| !result.starts_with("0 "))
    });
    ensure!(passed, "no test ran");
    if !with_lab {
        return Ok(());
    }
    ended_well(console, "lab")?;
    let all_right = console.iter().any(|line| {
        let words: Vec<_> = line.split_whitespace().take(4).collect();
        matches!(words[..], [right, "of", all, "probes"] if right == all && all != "0")
    });
    ensure!(all_right, "the lab did not say that all probes came out");
    for (begins, has, otherwise) in PROMISES {
        let kept = |line: &String| line.starts_with(begins) && line.contains(has);
        ensure!(console.iter().any(kept), "{otherwise}");
    }
    Ok(())
}

fn ended_well(console: &[String], what: &str) -> Result<()> {
    let marker = format!("vmtest: {what} exit ");
    let code = console
        .iter()
        .find_map(|line| line.trim().strip_prefix(&marker))
        .with_context(|| format!("the machine stopped before the {what} ended"))?;
    ensure!(code == "0", "the {what} ended with exit code {code}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(lines: &str) -> Vec<String> {
        lines.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_machine_that_ran_no_test_has_failed() {
        let ran = "test result: ok. 3 passed; 0 failed\nvmtest: tests exit 0";
        judge(&console(ran), false).unwrap();
        assert!(judge(&console(&ran.replace("3 passed", "0 passed")), false).is_err());
        assert!(judge(&console(&ran.replace("exit 0", "exit 101")), false).is_err());
        assert!(judge(&console("test result: ok. 3 passed; 0 failed"), false).is_err());
        assert!(judge(&console(ran), true).is_err(), "no lab");
    }
}
