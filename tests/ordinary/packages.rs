//! Packages come from the mirrors that the policy names, and others refuse at once.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use netfilter_daemon::lab::namespace::Namespace;

use crate::{
    plumbing::said,
    resolvers::servers::{self, Data, Host, command, servers},
    world::{World, eventually},
};

pub const PORT: u16 = 8000;
pub const MIRROR: &str = "mirror.example";
pub const OTHER: &str = "other.example";

const RULES: &str = "outbound_rules: [{ name: mirror, type: fqdn, destination: { fqdn: mirror.example, protocol: TCP, port_ranges: '8000' } }]";

/// Clients take their time to start, but wait 30 seconds for whom they do not hear.
const AT_ONCE: Duration = Duration::from_secs(15);

/// A web server that has both names, by unbound.
pub struct Mirror {
    pub world: World,
    pub files: tempfile::TempDir,
    _web: servers::Server,
    _resolver: servers::Server,
}

impl Mirror {
    /// `fill` makes its files.
    pub fn new(fill: impl FnOnce(&Path)) -> Self {
        let world = World::new(None);
        let files = tempfile::tempdir().unwrap();
        fill(files.path());
        let root = files.path().to_str().unwrap();
        let port = PORT.to_string();
        let arguments = ["-m", "http.server", "--directory", root, &port];
        let web = servers::Server::spawn(&world.topology.internet, "python3", &[], &arguments);
        let host = |name: &str, last| Host {
            name: name.to_owned(),
            addresses: vec![[198, 18, 0, last].into()],
            ..Host::default()
        };
        let data = Data {
            hosts: vec![host(MIRROR, 1), host(OTHER, 2)],
            ttl: 60,
            datagram: 1232,
        };
        let resolver = servers::Server::unbound(&world, &data);
        let url = format!("http://198.18.0.1:{PORT}/");
        let serves = || world.succeeds("curl", &["-s", "-m2", "-o/dev/null", &url]);
        assert!(eventually(serves), "python3's server does not start");
        Self {
            world,
            files,
            _web: web,
            _resolver: resolver,
        }
    }
}

fn ran(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    output
}

/// How it failed, which must be at once.
fn refused(mut command: Command) -> String {
    let begin = Instant::now();
    let output = command.output().unwrap();
    let took = begin.elapsed();
    let said = said(&output);
    assert!(
        !output.status.success() && took < AT_ONCE,
        "{took:?}: {said}"
    );
    said
}

/// A repository of one package.
fn debian(root: &Path) {
    let tree = root.join("tree");
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    let control = "Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@mirror.example>\nDescription: says hello\n";
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    fs::write(tree.join("hello"), vec![b'x'; 300_000]).unwrap();
    let build = ["--root-owner-group", "-Znone", "--build"];
    let archive = root.join("greeting.deb");
    ran(Command::new("dpkg-deb").args(build).args([&tree, &archive]));
    let packages = format!(
        "{control}Filename: ./greeting.deb\nSize: {}\nSHA256: {}\n",
        fs::metadata(&archive).unwrap().len(),
        sha256(&archive)
    );
    let index = root.join("Packages");
    fs::write(&index, &packages).unwrap();
    let release = format!(
        "Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {} {} Packages\n",
        sha256(&index),
        packages.len()
    );
    fs::write(root.join("Release"), release).unwrap();
}

fn sha256(file: &Path) -> String {
    let output = ran(Command::new("sha256sum").arg(file));
    String::from_utf8_lossy(&output.stdout[..64]).into_owned()
}

/// As it is, apt says of most failures that it ignores them.
const UPDATE: [&str; 2] = ["update", "--error-on=any"];

/// With sources, lists and cache of its own below `root`.
fn apt(inside: &Namespace, root: &Path, host: &str, arguments: &[&str]) -> Command {
    for directory in ["etc", "lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let source = format!("deb [trusted=yes] http://{host}:{PORT}/ ./\n");
    fs::write(root.join("etc/sources.list"), source).unwrap();
    fs::write(root.join("status"), "").unwrap();
    let root = root.display();
    let mut apt = inside.command("apt-get");
    apt.env("LC_ALL", "C").env_remove("http_proxy");
    for option in [
        format!("Dir::Etc={root}/etc"),
        format!("Dir::State={root}"),
        format!("Dir::State::lists={root}/lists"),
        format!("Dir::State::status={root}/status"),
        format!("Dir::Cache={root}/cache"),
        format!("Dir::Log={root}"),
        "Acquire::http::Proxy=false".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "Acquire::Retries=0".to_owned(),
        "Acquire::http::Timeout=30".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
        // What a hook of the machine would start.
        "APT::Update::Post-Invoke-Success=".to_owned(),
    ] {
        apt.arg("-o").arg(option);
    }
    apt.arg("-y").args(arguments);
    apt
}

#[test]
fn apt_takes_lists_and_packages_from_its_mirror_and_another_is_refused_at_once() {
    let mirror = Mirror::new(debian);
    let _daemon = mirror.world.enforce(RULES);
    let inside = mirror.world.protected();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    ran(&mut apt(inside, root, MIRROR, &UPDATE));
    let install = ["install", "--download-only", "greeting"];
    ran(&mut apt(inside, root, MIRROR, &install));
    let archive = root.join("cache/archives/greeting_1.0_all.deb");
    let original = fs::read(mirror.files.path().join("greeting.deb")).unwrap();
    assert!(fs::read(archive).unwrap() == original);
    // Each time apt asks whether the mirror has a service record, by a name of its own.
    let services = mirror.world.drops();
    assert!(
        services.keys().all(|reason| reason == "dns_name"),
        "{services:?}"
    );
    assert!(services.values().sum::<u64>() <= 4, "{services:?}");

    let told = refused(apt(inside, root, OTHER, &UPDATE));
    assert!(told.contains("Could not resolve 'other.example'"), "{told}");
    // By its address, too.
    let told = refused(apt(inside, root, "198.18.0.2", &UPDATE));
    assert!(told.contains("Connection refused"), "{told}");
}

/// An index with one wheel, which is a zip file by the name that pip expects.
fn index(root: &Path) {
    const MAKE: &str = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as wheel:
    info = 'greeting-1.0.dist-info/'
    wheel.writestr('greeting.py', 'def hello(): return 42')
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: greeting\\nVersion: 1.0\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: hand\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')
";
    let directory = root.join("simple/greeting");
    fs::create_dir_all(&directory).unwrap();
    let wheel = directory.join("greeting-1.0-py3-none-any.whl");
    ran(Command::new("python3").args(["-c", MAKE]).arg(wheel));
}

/// pip keeps nothing of the machine's settings.
fn pip(inside: &Namespace, target: &Path, host: &str, verb: &[&str]) -> Command {
    let mut pip = command(inside, "pip3");
    if servers().join("usr/bin/pip3").is_file() {
        pip = inside.command("python3");
        let packages = servers().join("usr/lib/python3/dist-packages");
        pip.env("PYTHONPATH", packages).args(["-m", "pip"]);
    }
    pip.env_remove("LD_LIBRARY_PATH");
    pip.env("HOME", target).env("NO_PROXY", "*");
    pip.arg("--isolated");
    pip.args(verb).arg(target);
    pip.args(["--no-cache-dir", "--disable-pip-version-check"]);
    let index = format!("http://{host}:{PORT}/simple/");
    pip.args([
        "--retries=1",
        "--timeout=30",
        "--trusted-host",
        host,
        "--index-url",
        &index,
    ]);
    pip.arg("greeting");
    pip
}

#[test]
fn pip_downloads_and_installs_from_its_index_and_another_is_refused_at_once() {
    let mirror = Mirror::new(index);
    let _daemon = mirror.world.enforce(RULES);
    let inside = mirror.world.protected();
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path();
    let download = ["download", "--no-deps", "--dest"];
    ran(&mut pip(inside, target, MIRROR, &download));
    assert!(target.join("greeting-1.0-py3-none-any.whl").is_file());
    let install = ["install", "--no-deps", "--target"];
    ran(&mut pip(inside, target, MIRROR, &install));
    let mut python = inside.command("python3");
    python.args(["-c", "import greeting; print(greeting.hello())"]);
    python.env("PYTHONPATH", target);
    assert_eq!(ran(&mut python).stdout, b"42\n");
    mirror.world.dropped_only(&[]);

    let told = refused(pip(inside, target, OTHER, &download));
    let unresolved = "Name or service not known";
    assert!(told.contains(unresolved), "{told}");
    let told = refused(pip(inside, target, "198.18.0.2", &download));
    assert!(told.contains("Connection refused"), "{told}");
}
