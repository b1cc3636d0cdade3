//! The listener over TLS and with passwords, by Prometheus' web configuration: real clients.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::{daemon::Daemon, mounts};
use tempfile::TempDir;

use crate::world::{BINARY, World, eventually};

const POLICY: &str = "outbound_rules: []";
const PASSWORD: &str = "correct horse";

/// Certificates of two authorities, made for each test, and a place for the configuration.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for (authority, others) in [
            ("ca", ["server", "client"]),
            ("rogue", ["server2", "client2"]),
        ] {
            files.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN={authority} \
                 -keyout {authority}.key -out {authority}.pem"
            ));
            for name in others {
                files.openssl(&format!(
                    "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} \
                     -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout {name}.key -out {name}.csr"
                ));
                files.openssl(&format!(
                    "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -days 30 \
                     -copy_extensions copy -out {name}.pem"
                ));
            }
        }
        files
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command
            .args(arguments.split_whitespace())
            .current_dir(self.0.path());
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    pub fn configure(&self, text: &str) {
        // As editors and configuration management do it.
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path("web.yml")).unwrap();
    }

    fn replace(&self, name: &str, with: &str) {
        fs::copy(self.path(with), self.path("new")).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }
}

/// The hash of a password, of so little cost as there can be.
pub fn hashed(password: &str, cost: u32) -> String {
    bcrypt::hash_with_salt(password, cost, *b"sixteen letters!")
        .unwrap()
        .format_for_version(bcrypt::Version::TwoY)
}

pub const TLS: &str = "tls_server_config: { cert_file: server.pem, key_file: server.key }\n";

pub fn users() -> String {
    format!(
        "basic_auth_users: {{ prometheus: '{}' }}\n",
        hashed(PASSWORD, 6)
    )
}

pub fn start(world: &World, files: &Files, text: &str) -> Daemon {
    files.configure(text);
    start_as_it_is(world, files)
}

fn start_as_it_is(world: &World, files: &Files) -> Daemon {
    world.write_policy(POLICY);
    let mut command = world.protected().command(BINARY);
    command.args(["run", "--interface", "eth0", "--policy", mounts::POLICY]);
    command.args(["--web-config", &files.path("web.yml")]);
    Daemon::start(command).unwrap_or_else(|error| panic!("{error}"))
}

/// The status that curl is given, or why it is given none.
fn curl(world: &World, arguments: &[&str]) -> Result<u16, String> {
    let mut command = world.protected().command("curl");
    command.args([
        "-sS",
        "--max-time",
        "5",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    ]);
    let output = command.args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap().parse().unwrap()),
        false => Err(said),
    }
}

const PLAIN: &str = "http://127.0.0.1:9477/metrics";
const SECURE: &str = "https://127.0.0.1:9477/metrics";

#[test]
fn without_the_password_nobody_reads_anything() {
    let (world, files) = (World::new(None), Files::new());
    let _daemon = start(&world, &files, &users());
    let right = format!("prometheus:{PASSWORD}");
    for path in ["", "metrics", "healthz", "nowhere"] {
        let url = format!("http://127.0.0.1:9477/{path}");
        assert_eq!(curl(&world, &[&url]), Ok(401), "{path}");
    }
    for wrong in [
        "prometheus:wrong",
        "nobody:correct horse",
        "prometheus:",
        ":correct horse",
    ] {
        assert_eq!(curl(&world, &["-u", wrong, PLAIN]), Ok(401), "{wrong}");
    }
    for _ in 0..3 {
        assert_eq!(curl(&world, &["-u", &right, PLAIN]), Ok(200));
    }
    assert_eq!(
        curl(&world, &["-u", "prometheus:wrong", PLAIN]),
        Ok(401),
        "after a right one"
    );
    let asked = world.get("/metrics");
    assert!(
        asked.contains("www-authenticate: Basic realm=\"netfilter-daemon\""),
        "{asked}"
    );
    assert!(!asked.contains("netfilter_build_info"), "{asked}");
}

#[test]
fn certificates_are_shown_and_asked_for() {
    let (world, files) = (World::new(None), Files::new());
    let asks = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  \
        client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  min_version: TLS13\n\
        http_server_config: { headers: { Strict-Transport-Security: max-age=600 } }\n";
    let _daemon = start(&world, &files, asks);
    let (ca, rogue) = (files.path("ca.pem"), files.path("rogue.pem"));
    let (client, key) = (files.path("client.pem"), files.path("client.key"));
    let (client2, key2) = (files.path("client2.pem"), files.path("client2.key"));
    let with =
        |ca: &str, more: &[&str]| curl(&world, &[&["--cacert", ca], more, &[SECURE]].concat());
    assert_eq!(with(&ca, &["--cert", &client, "--key", &key]), Ok(200));
    assert!(with(&ca, &[]).is_err(), "no certificate");
    assert!(
        with(&ca, &["--cert", &client2, "--key", &key2]).is_err(),
        "another authority's"
    );
    let other = with(&rogue, &["--cert", &client, "--key", &key]).unwrap_err();
    assert!(other.contains("certificate"), "{other}");
    assert!(with(&ca, &["--cert", &client, "--key", &key, "--tls-max", "1.2"]).is_err());
    assert!(curl(&world, &[PLAIN]).is_err(), "without TLS");
    let mut head = world.protected().command("curl");
    head.args([
        "-sI", "-X", "GET", "--cacert", &ca, "--cert", &client, "--key", &key, SECURE,
    ]);
    let head = String::from_utf8(head.output().unwrap().stdout).unwrap();
    assert!(
        head.contains("strict-transport-security: max-age=600"),
        "{head}"
    );
}

#[test]
fn who_may_read_changes_with_the_files_and_a_wrong_one_changes_nothing() {
    let (world, files) = (World::new(None), Files::new());
    let _daemon = start(&world, &files, &format!("{TLS}{}", users()));
    let (ca, rogue) = (files.path("ca.pem"), files.path("rogue.pem"));
    let asks = |ca: &str, user: &str| curl(&world, &["--cacert", ca, "-u", user, SECURE]);
    let right = format!("prometheus:{PASSWORD}");
    assert_eq!(asks(&ca, &right), Ok(200));

    // Half a renewal: the key does not belong to the certificate yet.
    files.replace("server.pem", "server2.pem");
    thread::sleep(Duration::from_secs(4));
    assert_eq!(asks(&ca, &right), Ok(200));
    files.replace("server.key", "server2.key");
    assert!(
        eventually(|| asks(&rogue, &right) == Ok(200)),
        "{:?}",
        asks(&rogue, &right)
    );
    assert!(asks(&ca, &right).is_err());

    let other = hashed("another", 6);
    files.configure(&format!(
        "{TLS}basic_auth_users: {{ prometheus: '{other}' }}\n"
    ));
    assert!(eventually(|| asks(&rogue, "prometheus:another") == Ok(200)));
    assert_eq!(
        asks(&rogue, &right),
        Ok(401),
        "what was right is forgotten with its hash"
    );
    files.configure("basic_auth_user: {}\n");
    thread::sleep(Duration::from_secs(4));
    assert_eq!(asks(&rogue, "prometheus:another"), Ok(200));
}

#[test]
fn a_key_that_only_its_owner_may_read_is_read_again_without_privileges() {
    let (world, files) = (World::new(None), Files::new());
    for name in ["server.key", "server2.key"] {
        fs::set_permissions(files.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        chown(files.path(name), Some(12_345), Some(12_345)).unwrap();
    }
    let _daemon = start(&world, &files, TLS);
    files.replace("server.pem", "server2.pem");
    chown(files.path("server2.key"), Some(12_345), Some(12_345)).unwrap();
    fs::rename(files.path("server2.key"), files.path("server.key")).unwrap();
    let rogue = files.path("rogue.pem");
    assert!(eventually(
        || curl(&world, &["--cacert", &rogue, SECURE]) == Ok(200)
    ));
}

#[test]
fn a_wrong_configuration_is_told_by_its_place_and_nothing_is_filtered() {
    let (world, files) = (World::new(None), Files::new());
    files.configure("tls_server_config:\n  cert_file: nowhere.pem\n  key_file: server.key\n");
    world.write_policy(POLICY);
    let web = files.path("web.yml");
    let ran = world.daemon(&["run", "--policy", mounts::POLICY, "--web-config", &web]);
    let told = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{told}");
    assert!(told.contains(&format!("{web}:2:14: cannot read")), "{told}");
    assert_eq!(world.daemon(&["status"]).status.code(), Some(1));
    let ran = world.daemon(&[
        "run",
        "--policy",
        mounts::POLICY,
        "--web-config",
        "/nowhere.yml",
    ]);
    let told = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{told}");
    assert!(told.contains("/nowhere.yml"), "{told}");
}

/// Ticks of a processor that a process has used.
fn used(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_flood_of_wrong_passwords_costs_a_part_of_a_processor_and_keeps_nobody_out_who_was_in() {
    let (world, files) = (World::new(None), Files::new());
    // Each takes tens of milliseconds, in a build that is not optimised a second.
    let hash = hashed(PASSWORD, 9);
    let daemon = start(
        &world,
        &files,
        &format!("basic_auth_users: {{ prometheus: '{hash}' }}"),
    );
    let right = format!("prometheus:{PASSWORD}");
    assert_eq!(curl(&world, &["-u", &right, PLAIN]), Ok(200));
    let flood = || {
        let mut answers = [0; 3];
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            match curl(&world, &["-u", "prometheus:wrong", PLAIN]) {
                Ok(401) => answers[0] += 1,
                Ok(429) => answers[1] += 1,
                _ => answers[2] += 1,
            }
        }
        answers
    };
    let before = used(daemon.id());
    thread::scope(|scope| {
        let floods: Vec<_> = (0..4).map(|_| scope.spawn(flood)).collect();
        thread::sleep(Duration::from_millis(500));
        for _ in 0..5 {
            assert_eq!(curl(&world, &["-u", &right, PLAIN]), Ok(200));
        }
        let answers: Vec<[u32; 3]> = floods
            .into_iter()
            .map(|flood| flood.join().unwrap())
            .collect();
        assert!(answers.iter().any(|answer| answer[1] > 0), "{answers:?}");
    });
    let ticks = used(daemon.id()) - before;
    // 100 a second: less than half a processor, of which a fifth is for passwords.
    assert!(ticks < 150, "{ticks} of 300 ticks and more");
}

#[test]
fn whoever_begins_no_handshake_gives_way_to_who_does() {
    let (world, files) = (World::new(None), Files::new());
    let _daemon = start(&world, &files, TLS);
    let ca = files.path("ca.pem");
    let listener = SocketAddr::from(([127, 0, 0, 1], 9477));
    let connect = || TcpStream::connect_timeout(&listener, Duration::from_millis(200)).ok();
    let silent: Vec<TcpStream> = world
        .protected()
        .run(|| (0..600).filter_map(|_| connect()).collect())
        .unwrap();
    assert!(silent.len() > 300, "{}", silent.len());
    let begun = Instant::now();
    assert_eq!(curl(&world, &["--cacert", &ca, SECURE]), Ok(200));
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    drop(silent);
}

#[test]
fn listening_to_others_without_protection_is_warned_of() {
    let (world, files) = (World::new(None), Files::new());
    files.configure(&format!("{TLS}{}", users()));
    world.write_policy(POLICY);
    let said = |more: &[&str]| {
        let log = files.path("log");
        let mut command = world.protected().command(BINARY);
        command.args(["run", "--interface", "eth0", "--policy", mounts::POLICY]);
        command
            .args(["--listen", "10.99.0.2:9477", "--detach-on-exit"])
            .args(more);
        command.stderr(fs::File::create(&log).unwrap());
        let mut daemon = command.spawn().unwrap();
        let ready = || fs::read_to_string(&log).unwrap().contains("auditing on");
        let enforcing = || fs::read_to_string(&log).unwrap().contains("enforcing on");
        let is_up = (0..20).any(|_| eventually(|| ready() || enforcing()));
        let id = nix::unistd::Pid::from_raw(daemon.id().cast_signed());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
        daemon.wait().unwrap();
        let said = fs::read_to_string(Path::new(&log)).unwrap();
        assert!(is_up, "{said}");
        said
    };
    let open = said(&[]);
    assert!(
        open.contains("without encryption, to whoever asks; set tls_server_config"),
        "{open}"
    );
    let closed = said(&["--web-config", &files.path("web.yml")]);
    assert!(!closed.contains("of this machine alone"), "{closed}");
}
