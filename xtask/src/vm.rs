//! `cargo xtask vmtest`: the lab on Debian 12's kernel, under qemu's software emulation.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    build,
    command::{self, Output},
    setup::{self, Purpose},
};

const KERNEL: &str = "linux-image-6.1.";
const MINUTES: u32 = 10;
/// What `timeout` ends with when it had to end the command.
const TIMED_OUT: i32 = 124;
/// Stands before the lab's exit code on the console.
const MARKER: &str = "vmtest: exit ";

/// The directory has its name when it is whole.
const FETCH: &str = "rm -rf kernel.part && mkdir kernel.part && cd kernel.part
apt-get download $1
dpkg-deb -x *.deb . && rm *.deb
mv ../kernel.part ../kernel
";
/// As above. WireGuard's own tool, unpacked and not installed.
const FETCH_TOOLS: &str = "rm -rf tools.part && mkdir tools.part && cd tools.part
apt-get download $1
dpkg-deb -x *.deb . && rm *.deb
mv ../tools.part ../tools
";
const PACK: &str = "PATH=$PATH:/usr/sbin:/sbin
rm -rf root && mkdir root && cd root
mkdir bin dev etc modules proc run sbin sys tmp
touch etc/hosts etc/resolv.conf etc/nsswitch.conf
echo root:x:0:0::/:/bin/sh >etc/passwd
echo root:x:0: >etc/group
cp ../init . && chmod +x init
# A module's file has the names of those that it needs; the number is the order.
add() {
    file=$(find ../kernel/lib/modules -name $1.ko -o -name $(echo $1 | tr _ -).ko)
    for needed in $(tr '\\0' '\\n' <$file | sed -n 's/^depends=//p' | tr , ' '); do add $needed; done
    ls modules | grep -q -- -$1.ko || cp $(find ../kernel/lib/modules -name $1.ko -o -name \
        $(echo $1 | tr _ -).ko) modules/$((100 + $(ls modules | wc -l)))-$1.ko
}
for module in veth sch_ingress cls_bpf 8021q bonding bridge wireguard; do add $module; done
cp $(command -v busybox) $(command -v ip) $(command -v tc) $(command -v dnsmasq) bin
cp ../tools/usr/bin/wg ../devices bin && chmod +x bin/devices
cp \"$1\" bin/netfilter-daemon && chmod +x bin/netfilter-daemon
cp -L --parents $(ldd bin/* 2>/dev/null | grep -o '[[:space:]]/[^ ]*' | sort -u) .
find . | cpio -o -H newc --quiet -R 0:0 >../initrd.cpio
cp ../kernel/boot/vmlinuz-6.1.* ../vmlinuz
";
const DEVICES: &str = include_str!("vm/devices.sh");
/// Through `cat`, the lab writes as to a file, without colours.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /sbin
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
stty -onlcr
for module in /modules/*; do insmod $module; done
ip link set lo up
uname -sr
{ netfilter-daemon lab; echo \"vmtest: exit $?\"; } 2>&1 | cat
devices 2>&1 | cat
# What the lab has not: a local resolver, whose answers a program of its own
# reads, and a suspension, in which an address that it lent expires (by a wildcard:
# exact names the daemon asks for again).
cat >/tmp/policy.yaml <<END
resolvers: [127.0.0.53, 192.0.2.53]
dns: { minimum_ttl: 0, grace: 0 }
outbound_rules: [{ name: host, type: fqdn, destination: { fqdn: '*.example', protocol: TCP, port_ranges: '443' } }]
END
/bin/ip link add v0 type veth peer name v1
/bin/ip addr add 10.9.0.1/24 dev v0
/bin/ip link set v0 up
/bin/ip link set v1 up
/bin/ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev v0
/bin/ip route add default via 10.9.0.2
dnsmasq -k -R -h -a 127.0.0.53 -z -A /host.example/198.18.0.7 -T 8 -u root --pid-file= &
(sleep 120; poweroff -f) &
netfilter-daemon run --policy /tmp/policy.yaml --interface v0 2>&1 | {
    grep -m 1 -e '^enforcing on v0' -e '^error'
    cat >/dev/null &
    netfilter-daemon explain --policy /tmp/policy.yaml host.example:443 --resolve | grep TTL
    nc -w 2 198.18.0.7 443 </dev/null 2>&1 | sed 's/^/vmtest: awake: /'
    echo +12 >/sys/class/rtc/rtc0/wakealarm
    echo mem >/sys/power/state
    nc -w 2 198.18.0.7 443 </dev/null 2>&1 | sed 's/^/vmtest: later: /'
    running=$(sed -n 's/^now at \\([0-9]*\\) nsecs$/\\1/p' /proc/timer_list)
    read up rest </proc/uptime
    echo \"vmtest: slept $((${up%.*} - running / 1000000000))\"
    poweroff -f
}
";

#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask vmtest")]
pub(crate) struct Vmtest {
    /// Run this binary's lab, instead of building the daemon
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Vmtest) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "vmtest needs an x86_64");
    let directory = command::target_dir()?.join("vm");
    fs::create_dir_all(&directory)?;
    step("setup: install what is missing", || setup::run(Purpose::Vm))?;
    let binary = if let Some(binary) = &arguments.binary {
        fs::canonicalize(binary).with_context(|| format!("cannot read {}", binary.display()))?
    } else {
        step("build: the daemon", build::daemon)?;
        build::binary()?
    };
    if !directory.join("kernel").exists() {
        step("kernel: unpack Debian's, not install it", || {
            fetch(&directory)
        })?;
    }
    if !directory.join("tools").exists() {
        step("tools: unpack Debian's `wg`, not install it", || {
            setup::update()?;
            let package = Path::new("wireguard-tools");
            script(&directory, "fetch-tools.sh", FETCH_TOOLS, package)
        })?;
    }
    step("pack: the initramfs", || {
        fs::write(directory.join("init"), INIT)?;
        fs::write(directory.join("devices"), DEVICES)?;
        script(&directory, "pack.sh", PACK, &binary)
    })?;
    let promise = format!("lab: run it on that kernel, for {MINUTES} minutes at most");
    step(&promise, || boot(&directory))
}

fn step(promise: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("\n== {promise}");
    let start = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "ok" } else { "FAILED" };
    eprintln!("   {verdict:7}{}", command::seconds(start.elapsed()));
    result
}

fn fetch(directory: &Path) -> Result<()> {
    setup::update()?;
    let depends = setup::asked("apt-cache", &["depends", "linux-image-cloud-amd64"]);
    let package = depends
        .iter()
        .flat_map(|depends| depends.split_whitespace())
        .find(|word| word.starts_with(KERNEL))
        .context("apt has no linux-image-6.1*-cloud-amd64, which Debian 12 has")?;
    script(directory, "fetch.sh", FETCH, Path::new(package))
}

fn script(directory: &Path, name: &str, text: &str, argument: &Path) -> Result<()> {
    fs::write(directory.join(name), text)?;
    let mut sh = Command::new("sh");
    sh.args(["-eu", name]).arg(argument).current_dir(directory);
    command::run(sh, Output::OnFailure)?.succeeded()
}

fn boot(directory: &Path) -> Result<()> {
    // Should this program end early, `timeout` is told, and ends qemu.
    let line = format!(
        "--pdeathsig TERM timeout --kill-after=5 {MINUTES}m nice qemu-system-x86_64 \
         -display none -serial stdio -monitor none -no-reboot -m 1024 -cpu max -net none \
         -kernel vmlinuz -initrd initrd.cpio -append"
    );
    let mut qemu = Command::new("setpriv");
    qemu.args(line.split_whitespace())
        .arg("console=ttyS0 panic=-1 quiet")
        .current_dir(directory)
        .stdin(Stdio::null());
    let ran = command::run(qemu, Output::Shown)?;
    if ran.status.code() == Some(TIMED_OUT) {
        bail!("the lab had not ended after {MINUTES} minutes");
    }
    judge(&ran.lines)?;
    ran.succeeded()
}

/// What else the console says, a name's TTL of 8 seconds being shorter than the sleep.
const PROMISES: [(&str, &str, &str); 13] = [
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

/// Asks for the exit code and for probes, lest a lab without any passes.
fn judge(console: &[String]) -> Result<()> {
    let code = console
        .iter()
        .find_map(|line| line.trim().strip_prefix(MARKER))
        .context("the machine stopped before the lab ended")?;
    ensure!(code == "0", "the lab ended with exit code {code}");
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
