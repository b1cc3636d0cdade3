//! Who comes in by SSH works as ever, and nobody goes out by it.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use netfilter_daemon::lab::namespace::Namespace;

use crate::{
    plumbing::said,
    resolvers::servers::{command, servers},
    world::{World, eventually},
};

const RULES: &str = "outbound_rules: [{ name: range, type: ip, destination: { cidr: 192.0.2.0/24, protocol: TCP, port_ranges: '443' } }]";

const LARGE: usize = 5 << 20;

/// It needs a user `sshd`, a directory below /run, and root in /etc/passwd.
const SERVER: &str = "mount -t tmpfs none /run && mkdir /run/sshd \
    && mount --bind DIR/passwd /etc/passwd && mount --bind DIR/shadow /etc/shadow \
    && exec \"$0\" -D -e -f DIR/sshd_config";

/// A server in a namespace for root with the key DIR/key.
struct Server {
    process: Child,
    directory: tempfile::TempDir,
}

impl Server {
    fn start(namespace: &Namespace, port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        for name in ["host", "key"] {
            let mut keygen = command(namespace, "ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]);
            let made = keygen.arg(directory.path().join(name)).output().unwrap();
            assert!(made.status.success(), "{}", said(&made));
        }
        for (name, content) in [
            (
                "passwd",
                "root:x:0:0::/root:/bin/sh\nsshd:x:107:65534::/run/sshd:/bin/false\n",
            ),
            (
                "shadow",
                "root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n",
            ),
            (
                "sshd_config",
                "Port PORT\nHostKey DIR/host\nPidFile none\n\
                 AuthorizedKeysFile DIR/key.pub\nStrictModes no\nPermitRootLogin prohibit-password\n\
                 UsePAM no\nUseDNS no\nSubsystem sftp internal-sftp\n",
            ),
        ] {
            let content = content
                .replace("DIR", path)
                .replace("PORT", &port.to_string());
            fs::write(directory.path().join(name), content).unwrap();
        }
        // It starts itself anew, by its whole path.
        let unpacked = servers().join("usr/sbin/sshd");
        let sshd = if unpacked.is_file() {
            unpacked
        } else {
            PathBuf::from("/usr/sbin/sshd")
        };
        let mut shell = command(namespace, "unshare");
        shell.args(["--mount", "sh", "-c", &SERVER.replace("DIR", path)]);
        let libraries = servers().join("usr/lib/x86_64-linux-gnu");
        shell.arg(sshd).env("LD_LIBRARY_PATH", libraries);
        let log = File::create(directory.path().join("log")).unwrap();
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = shell.spawn().unwrap();
        let server = Self { process, directory };
        let listens = || namespace.run(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert!(eventually(|| listens().unwrap()), "{}", server.log());
        server
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap()
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// `ssh` or `scp` of who has the key.
    fn client(&self, namespace: &Namespace, program: &str) -> Command {
        let mut client = command(namespace, program);
        client.args(["-F", "/dev/null", "-i", &self.file("key")]);
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "BatchMode=yes",
            "ConnectTimeout=5",
            "LogLevel=ERROR",
        ] {
            client.args(["-o", option]);
        }
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A session in which `cat` says again what it is told.
struct Session {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Session {
    fn open(mut ssh: Command) -> Self {
        ssh.args(["root@10.99.0.2", "cat"]);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = ssh.spawn().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self { process, said }
    }

    fn says_again(&mut self, line: &str) -> bool {
        let mut stdin = self.process.stdin.as_ref().unwrap();
        let mut back = String::new();
        writeln!(stdin, "{line}").is_ok()
            && self.said.read_line(&mut back).is_ok()
            && back.trim_end() == line
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn who_comes_in_works_as_ever_and_a_session_from_before_goes_on() {
    let world = World::new(None);
    let (inside, outside) = (world.protected(), &world.topology.internet);
    let server = Server::start(inside, 22);
    let mut before = Session::open(server.client(outside, "ssh"));
    assert!(before.says_again("before"), "{}", server.log());
    let _daemon = world.enforce(RULES);
    assert!(before.says_again("after"));

    for host in ["root@10.99.0.2", "root@fd99::2"] {
        let mut ssh = server.client(outside, "ssh");
        let output = ssh.args([host, "echo $((6 * 7))"]).output().unwrap();
        assert_eq!(output.stdout, b"42\n", "{}{}", said(&output), server.log());
    }
    let bytes: Vec<u8> = (0..LARGE as u32).map(|at| (at >> 7 ^ at) as u8).collect();
    fs::write(server.file("large"), &bytes).unwrap();
    let there = format!("root@10.99.0.2:{}", server.file("there"));
    let back = server.file("back");
    for (from, to) in [(&server.file("large"), &there), (&there, &back)] {
        let mut scp = server.client(outside, "scp");
        let output = scp.args(["-q", from, to]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    assert!(fs::read(back).unwrap() == bytes);
    // Through it, too, only to where rules allow.
    let mut ssh = server.client(outside, "ssh");
    ssh.args(["-W", "203.0.113.9:443", "root@10.99.0.2"]);
    let output = ssh.output().unwrap();
    assert!(
        said(&output).contains("forwarding failed"),
        "{}",
        said(&output)
    );
    assert!(before.says_again("at the end"));
    world.dropped_only(&[("no_rule", 1)]);
}

/// The far end has a server and the key, so that only the filter is in the way.
#[test]
fn nobody_goes_out_and_no_tunnel_leads_back() {
    let world = World::new(None);
    let (inside, outside) = (world.protected(), &world.topology.internet);
    let server = Server::start(outside, 2200);
    let attempt = |arguments: &[&str]| {
        let begin = Instant::now();
        let mut ssh = server.client(inside, "ssh");
        let output = ssh.args(["-p2200"]).args(arguments).output().unwrap();
        (output.status.success(), said(&output), begin.elapsed())
    };
    let tunnel = [
        "-o",
        "ExitOnForwardFailure=yes",
        "-R",
        "2222:127.0.0.1:2200",
    ];
    let tunnel = [&tunnel[..], &["root@10.99.0.1", "true"]].concat();
    let attempts: [&[&str]; 3] = [
        &["root@10.99.0.1", "true"],
        &["root@fd99::1", "true"],
        &tunnel,
    ];
    for arguments in attempts {
        let (succeeded, said, _) = attempt(arguments);
        assert!(succeeded, "without the filter: {said}{}", server.log());
    }
    let _daemon = world.enforce(RULES);
    for arguments in attempts {
        let (succeeded, said, took) = attempt(arguments);
        assert!(!succeeded && said.contains("Connection refused"), "{said}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    world.dropped_only(&[("no_rule", 3)]);
}
