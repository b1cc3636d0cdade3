//! Reload, restart, death: the filter does not open, and nothing approved is cut.

use std::{
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::symlink,
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::{daemon::Daemon, mounts};
use nix::sys::signal::{Signal, kill};

use crate::{
    interfaces::{plug, unplug},
    resolvers::servers::{Data, Host, Server},
    traffic,
    world::{World, eventually},
};

const ONE: &str = "outbound_rules: [{ name: a, type: ip, destination: { cidr: 192.0.2.1/32, protocol: TCP, port_ranges: '443' } }]";
const OTHER: &str = "outbound_rules: [{ name: b, type: ip, destination: { cidr: 192.0.2.2/32, protocol: TCP, port_ranges: '443' } }]";

#[test]
fn a_reload_is_whole_and_a_wrong_policy_changes_nothing() {
    let world = World::new(None);
    let _daemon = world.enforce(ONE);
    assert!(world.connects("192.0.2.1", 443) && !world.connects("192.0.2.2", 443));
    world.write_policy(OTHER);
    let reload = world.daemon(&["reload"]);
    assert!(
        reload.status.success(),
        "{}",
        String::from_utf8_lossy(&reload.stderr)
    );
    assert!(!world.connects("192.0.2.1", 443) && world.connects("192.0.2.2", 443));

    world.write_policy("outbound_rules: [{ name: c, type: ip, destination: { cidr: nonsense } }]");
    let reload = world.daemon(&["reload"]);
    assert_eq!(reload.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&reload.stderr).contains(&format!("{}:2:", mounts::POLICY)));
    assert!(!world.connects("192.0.2.1", 443) && world.connects("192.0.2.2", 443));
    assert!(eventually(|| world
        .metric("netfilter_policy_reload_failures_total")
        >= 1));
}

#[test]
fn a_subnet_that_comes_or_goes_is_noticed_and_a_second_address_in_one_is_none() {
    let world = World::new(None);
    let _daemon = world.enforce(ONE);
    let generation = || world.metric("netfilter_policy_generation ");
    let changes = |what: &str, to: u64| {
        world.protected().ip(what).unwrap();
        assert!(eventually(|| generation() == to), "{what}");
    };
    changes("address add 10.98.0.2/24 dev eth0", 2);
    world
        .protected()
        .ip("address add 10.98.0.3/24 dev eth0")
        .unwrap();
    changes("address add fd98::2/64 dev eth0 nodad", 3);
    changes("address del fd98::2/64 dev eth0", 4);
    plug(&world, "eth1");
    changes("address add 10.97.0.2/24 dev eth1", 5);
    unplug(&world, "eth1");
    assert!(eventually(|| generation() == 6));
}

#[test]
fn the_filter_outlives_its_daemon_and_the_next_one_adopts_it() {
    let world = World::new(None);
    let daemon = world.enforce(ONE);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).unwrap());
    assert!(!world.connects("192.0.2.2", 443));
    let before = world.metric("netfilter_dropped_packets_total");
    assert!(before > 0);
    kill(pid, Signal::SIGKILL).unwrap();
    drop(daemon);
    assert!(
        world.connects("192.0.2.1", 443) && !world.connects("192.0.2.2", 443),
        "with no daemon"
    );
    let status = world.daemon(&["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("eth0"));
    let next = world.start();
    assert!(next.said.contains("generation 2"), "{}", next.said);
    assert!(world.connects("192.0.2.1", 443) && !world.connects("192.0.2.2", 443));
    assert!(
        world.metric("netfilter_dropped_packets_total") > before,
        "counters go on"
    );
    let detach = world.daemon(&["detach"]);
    assert!(detach.status.success());
    assert!(String::from_utf8_lossy(&detach.stdout).contains("eth0"));
    assert!(eventually(|| world.connects("192.0.2.2", 443)), "lifted");
}

/// How long policies flip; `cargo xtask chaos` sets more.
const SECONDS: &str = "NETFILTER_CHAOS_SECONDS";
const IN_CI: u64 = 8;
const PAUSE: Duration = Duration::from_millis(100);

#[test]
fn ten_reloads_a_second_let_nothing_out_and_cut_nothing() {
    let seconds = env::var(SECONDS).map_or(IN_CI, |text| text.parse().unwrap());
    let world = World::new(None);
    let _resolver = traffic::resolver(&world);
    let of = |only: &str, mode: &str| {
        format!(
            "{mode}{}  - {{ name: only, type: ip, destination: {{ cidr: {only}/32, protocol: TCP, port_ranges: '443' }} }}\n",
            traffic::POLICY
        )
    };
    let policies = [
        of("198.51.100.1", "on_deny: drop"),
        of("198.51.100.2", "on_deny: reject"),
    ];
    let _daemon = world.enforce(&policies[0]);
    let reloads = traffic::under(&world, |traffic| {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let mut reloads = 0;
        while Instant::now() < deadline {
            let began = Instant::now();
            reloads += 1;
            world.write_policy(&policies[reloads % 2]);
            let reload = world.daemon(&["reload"]);
            assert!(reload.status.success(), "{reload:?}");
            traffic.check("while policies flip");
            thread::sleep(PAUSE.saturating_sub(began.elapsed()));
        }
        reloads
    });
    eprintln!("{reloads} reloads in {seconds} s");
    let (now, then) = ["198.51.100.1", "198.51.100.2"]
        .map(|only| world.connects(only, 443))
        .into();
    assert_eq!((now, then), (reloads % 2 == 0, reloads % 2 == 1));
}

fn carries(stream: &mut TcpStream) -> bool {
    let wait = Some(Duration::from_secs(2));
    stream.set_read_timeout(wait).unwrap();
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut [0; 5]).is_ok()
}

#[test]
fn a_rule_that_goes_takes_its_connections_along_and_leaves_those_of_others() {
    let world = World::new(None);
    let host = |name: &str, last| Host {
        name: name.to_owned(),
        addresses: vec![[198, 18, 0, last].into()],
        ..Host::default()
    };
    let hosts = vec![host("a.one.example", 1), host("b.two.example", 2)];
    let data = Data {
        hosts,
        ttl: 60,
        datagram: 1232,
    };
    let _server = Server::dnsmasq(&world, &data);
    let rule = |name, kind, what: &str| {
        format!(
            "  - {{ name: {name}, type: {kind}, destination: {{ {what}, protocol: TCP, port_ranges: '443' }} }}\n"
        )
    };
    let shared = rule("wide", "ip", "cidr: 192.0.2.0/25")
        + &rule("wide-name", "fqdn", "fqdn: '*.two.example'");
    let alone = rule("narrow", "ip", "cidr: 192.0.2.1/32")
        + &rule("other", "ip", "cidr: 192.0.2.200/32")
        + &rule("name", "fqdn", "fqdn: a.one.example")
        + &rule("narrow-name", "fqdn", "fqdn: b.two.example");
    let _daemon = world.enforce(&format!("outbound_rules:\n{shared}{alone}"));
    let connect = |to: &str| {
        let stream = world.protected().run(|| TcpStream::connect(to)).unwrap();
        stream.unwrap_or_else(|error| panic!("{to}: {error}"))
    };
    let mut live = ["192.0.2.1:443", "b.two.example:443"].map(connect);
    let mut dead = ["192.0.2.200:443", "a.one.example:443"].map(connect);
    assert!(live.iter_mut().chain(&mut dead).all(carries));
    world.write_policy(&format!("outbound_rules:\n{shared}"));
    assert!(world.daemon(&["reload"]).status.success());
    assert!(live.iter_mut().all(carries), "another rule allows them");
    assert!(!dead.iter_mut().any(carries));
}

/// A file's path and its new text.
type Save<'a> = &'a (dyn Fn(&str, &str) + Sync);
type Way<'a> = (&'a str, Save<'a>);

#[test]
fn every_way_to_save_a_file_is_noticed() {
    let world = World::new(None);
    let _daemon = world.enforce(ONE);
    let inside =
        |work: &(dyn Fn(&str) + Sync)| world.protected().run(|| work(mounts::POLICY)).unwrap();
    let text = |policy| format!("resolvers: [10.99.0.1, 'fd99::1']\n{policy}");
    let [one, other] = [ONE, OTHER].map(text);
    let ways: [Way; 5] = [
        ("written over", &|path, text| fs::write(path, text).unwrap()),
        ("renamed into place", &|path, text| {
            let new = format!("{path}.new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, path).unwrap();
        }),
        ("moved away and written anew, as vim does", &|path, text| {
            let backup = format!("{path}~");
            fs::rename(path, &backup).unwrap();
            thread::sleep(Duration::from_millis(1200));
            fs::write(path, text).unwrap();
            fs::remove_file(&backup).unwrap();
        }),
        ("in parts, of which the first is a policy", &|path, text| {
            let (first, rest) = text.split_once('\n').unwrap();
            let mut file = fs::File::create(path).unwrap();
            writeln!(file, "{first}").unwrap();
            thread::sleep(Duration::from_millis(600));
            write!(file, "{rest}").unwrap();
        }),
        (
            "a link to another file, as Kubernetes does",
            &|path, text| {
                let (target, link) = (format!("{path}.{}", text.len()), format!("{path}.link"));
                fs::write(&target, text).unwrap();
                symlink(&target, &link).unwrap();
                fs::rename(&link, path).unwrap();
            },
        ),
    ];
    for (way, save) in ways {
        for (text, yes, no) in [
            (&other, "192.0.2.2", "192.0.2.1"),
            (&one, "192.0.2.1", "192.0.2.2"),
        ] {
            inside(&|path| save(path, text));
            assert!(
                eventually(|| world.connects(yes, 443) && !world.connects(no, 443)),
                "{way}"
            );
        }
    }
    assert_eq!(world.metric("netfilter_policy_reload_failures_total"), 0);
}

fn said(output: &std::process::Output) -> String {
    [&output.stdout[..], &output.stderr]
        .map(String::from_utf8_lossy)
        .concat()
}

#[test]
fn a_policy_that_nobody_confirms_gives_way_also_if_the_daemon_is_dead() {
    for dies in [false, true] {
        let world = World::new(None);
        let mut daemon = world.enforce(ONE);
        assert_eq!(world.daemon(&["confirm"]).status.code(), Some(1));
        world.write_policy(OTHER);
        let reload = world.daemon(&["reload", "--confirm", "3s"]);
        assert!(reload.status.success(), "{}", said(&reload));
        assert!(world.connects("192.0.2.2", 443) && !world.connects("192.0.2.1", 443));
        if dies {
            daemon.kill();
        } else {
            let second = world.daemon(&["reload"]);
            assert_eq!(second.status.code(), Some(3));
            assert!(said(&second).contains("waits for `netfilter-daemon confirm`"));
        }
        assert!(
            eventually(|| world.connects("192.0.2.1", 443)),
            "dies: {dies}"
        );
        assert!(!world.connects("192.0.2.2", 443));
        if !dies {
            let late = world.daemon(&["confirm"]);
            assert_eq!(late.status.code(), Some(1), "{}", said(&late));
            // The file still says otherwise: somebody may try again.
            let reload = world.daemon(&["reload", "--confirm", "60s"]);
            assert!(reload.status.success());
            let confirmed = world.daemon(&["confirm"]);
            assert!(confirmed.status.success(), "{}", said(&confirmed));
            assert!(world.connects("192.0.2.2", 443));
            assert!(world.daemon(&["reload"]).status.success());
        }
    }
}

#[test]
fn with_a_policy_that_nobody_confirms_its_choice_of_interfaces_goes() {
    const ALL: &str = "interfaces: [eth0, eth1]\n";
    const ONE_OF_THEM: &str = "interfaces: [eth0]\n";
    let denied = |world: &World| !world.connects("198.51.100.1", 443);
    let try_out = |world: &World, policy: &str| {
        world.write_policy(policy);
        let reload = world.daemon(&["reload", "--confirm", "3s"]);
        assert!(reload.status.success(), "{}", said(&reload));
    };
    let is_back = |world: &World| {
        assert!(eventually(|| {
            world.connects("192.0.2.1", 443) && world.daemon(&["confirm"]).status.code() == Some(1)
        }));
    };

    let world = World::new(None);
    plug(&world, "eth1");
    world.write_policy(&format!("{ONE_OF_THEM}{ONE}"));
    let daemon = world.start_on(&[]);
    assert!(!denied(&world), "by eth1, which is not filtered");
    try_out(&world, &format!("{ALL}{OTHER}"));
    assert!(eventually(|| denied(&world)));
    is_back(&world);
    assert!(eventually(|| !denied(&world)), "eth1 stays filtered");
    assert!(!world.connects("192.0.2.3", 443), "by eth0");
    drop(daemon);
    world.daemon(&["detach"]);

    // Without a name, all are.
    world.write_policy(ONE);
    let _daemon = world.start_on(&[]);
    assert!(denied(&world));
    try_out(&world, &format!("{ONE_OF_THEM}{OTHER}"));
    is_back(&world);
    unplug(&world, "eth1");
    plug(&world, "eth1");
    assert!(eventually(|| denied(&world)), "what comes is not filtered");
}

#[test]
fn a_first_start_that_nobody_confirms_is_undone() {
    let world = World::new(None);
    world.write_policy(ONE);
    let run = || {
        let mut command = world.protected().command(crate::world::BINARY);
        command.args([
            "run",
            "--interface",
            "eth0",
            "--confirm",
            "2s",
            "--policy",
            mounts::POLICY,
        ]);
        command
    };
    // It ends by itself and says so.
    let output = run().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("was not confirmed in time"),
        "{}",
        said(&output)
    );
    assert!(world.connects("192.0.2.2", 443));
    assert_eq!(
        world.daemon(&["status"]).status.code(),
        Some(1),
        "nothing is in force"
    );
    // Dead, it cannot; the programs do.
    let mut daemon = Daemon::start(run()).unwrap();
    assert!(!world.connects("192.0.2.2", 443));
    daemon.kill();
    let status = world.daemon(&["status"]);
    assert!(
        said(&status).contains("confirm` the state before comes back in "),
        "{}",
        said(&status)
    );
    assert!(eventually(|| world.connects("192.0.2.2", 443)));
    // Confirmed, it stays, and a later start that nobody confirms gives it back.
    drop(world.start());
    world.write_policy(OTHER);
    let output = run().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(world.connects("192.0.2.1", 443) && !world.connects("192.0.2.2", 443));
}
