//! Workloads come and go, daemons die, and others meddle.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use netfilter_daemon::lab::{
    namespace::{Namespace, veth},
    tap::Tap,
    topology::RESOLVERS,
};
use netfilter_ebpf::packet::{RST, SYN, TCP, UDP};

use super::site::{ALLOWED, DENIED, NAME, NAMED, Site, computer, policy, refusal};
use crate::{
    frame::{segment, to},
    world::{BINARY, echo_tcp, eventually},
};

fn enforcing(site: &Site, name: &str) -> Option<u64> {
    let line = format!("netfilter_enforcing{{interface=\"{name}\"}}");
    let is_there = site.world.metrics().contains(&line);
    is_there.then(|| site.world.metric(&line))
}

fn reaches(workload: &Namespace, address: &str) -> bool {
    let address = format!("{address}:443").parse().unwrap();
    workload.run(|| echo_tcp(address)).unwrap()
}

#[test]
fn a_workload_that_comes_is_judged_and_one_that_goes_leaves_nothing() {
    let site = Site::new(false);
    let daemon = site.enforce(&policy("eth0, "));
    assert!(
        daemon.said.starts_with("enforcing on eth0, w0 ("),
        "{}",
        daemon.said
    );
    assert!(site.status().contains("xdp-generic"), "{}", site.status());
    assert_eq!(enforcing(&site, "w0"), Some(1));

    let second = computer(&RESOLVERS[..1]);
    site.plug("w1", &second, 89);
    assert!(eventually(|| enforcing(&site, "w1") == Some(1)));
    assert!(reaches(&second, ALLOWED));
    let (kind, _) = refusal(&second, DENIED, 443);
    assert_eq!(kind, io::ErrorKind::ConnectionRefused);
    assert!(!site.connects("10.88.89.2", 443), "nor to each other");
    site.world.protected().ip("link delete w1").unwrap();
    assert!(eventually(|| enforcing(&site, "w1").is_none()));
    assert!(site.world.get("/healthz").starts_with("HTTP/1.1 200"));

    let lifted = site.world.daemon(&["detach"]);
    let said = String::from_utf8_lossy(&lifted.stdout).into_owned();
    assert!(said.contains("w0"), "{said}");
    assert!(site.connects(DENIED, 443), "lifted");
}

/// What is denied is sent all the time, and one connection goes on.
#[test]
fn nothing_gets_out_and_nothing_is_cut_whatever_becomes_of_the_daemon() {
    let site = Site::new(false);
    let mut daemon = site.enforce(&policy(""));
    assert!(site.connects_by_name(NAME, 443));
    let open = || TcpStream::connect((NAMED, 443));
    let mut stream = site.workload.run(open).unwrap().unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let tap = Tap::open(&site.world.topology.internet).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            site.workload.run(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                while !done.load(Ordering::Relaxed) {
                    // It may be told that nobody wants it.
                    socket.send_to(b"secret", (DENIED, 443)).ok();
                    thread::sleep(Duration::from_micros(200));
                }
            })
        });
        let mut goes_on = || {
            stream.write_all(b"still").unwrap();
            stream.read_exact(&mut [0; 5]).unwrap();
        };
        for round in 0..4u32 {
            daemon.kill();
            goes_on();
            let name = format!("n{}.many.example", 20 + round);
            assert!(
                site.connects_by_name(&name, 443),
                "learned without a daemon"
            );
            // Tables of another size are made anew, and programs replaced.
            let mut larger = policy("");
            for rule in 0..[0, 20_000][round as usize % 2] {
                let [_, a, b, c] = u32::to_be_bytes(rule * 2);
                larger.push_str(&format!(
                    "  - {{ name: r{rule}, type: ip, destination: {{ cidr: 20.{a}.{b}.{c}/32, protocol: TCP, port_ranges: '443' }} }}\n"
                ));
            }
            site.world.write_policy(&larger);
            daemon = site.world.start_on(&[]);
            goes_on();
            site.world.write_policy(&policy(""));
            assert!(site.world.daemon(&["reload"]).status.success());
            goes_on();
        }
        done.store(true, Ordering::Relaxed);
    });
    let seen = tap.look().unwrap();
    assert!(!seen.packet(DENIED.parse().unwrap(), UDP, Some(443)));
    assert!(
        seen.packet(NAMED.parse().unwrap(), TCP, Some(443)),
        "it looks"
    );
}

/// `act_mirred` in the workload: the kernel's generic XDP does not see such packets.
#[test]
fn what_a_workload_redirects_before_it_leaves_is_not_let_in_unjudged() {
    let site = Site::new(false);
    let _daemon = site.enforce(&policy(""));
    let (host, workload) = (site.world.protected(), &site.workload);
    let mac = || std::fs::read_to_string("/sys/class/net/w0/address");
    let mac = host.run(mac).unwrap().or_else(|_| {
        let output = host
            .command("ip")
            .args(["-o", "link", "show", "w0"])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let behind = text.split("link/ether ").nth(1);
        io::Result::Ok(behind.unwrap_or_default().to_owned())
    });
    let mac = mac.unwrap();
    let mac = mac.split_whitespace().next().unwrap();
    veth(workload, "a0", workload, "a1").unwrap();
    for command in [
        "address add 10.77.0.2/24 dev a0".to_owned(),
        format!("neigh add 10.77.0.1 lladdr {mac} dev a0"),
        format!("route add {DENIED} via 10.77.0.1 src 10.88.88.2"),
    ] {
        workload.ip(&command).unwrap();
    }
    for arguments in [
        "qdisc add dev a0 clsact",
        "filter add dev a0 egress protocol ip u32 match u32 0 0 action mirred egress redirect dev eth0",
    ] {
        let done = workload
            .command("tc")
            .args(arguments.split(' '))
            .status()
            .unwrap();
        if !done.success() {
            // Debian's cloud kernel has these as modules, which an emulated machine has not.
            return eprintln!("not tested: this kernel refuses `tc {arguments}`");
        }
    }
    let tap = Tap::open(&site.world.topology.internet).unwrap();
    let unjudged = || {
        let line = "netfilter_dropped_packets_total{reason=\"unjudged\"";
        site.world.metric(line)
    };
    let send = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"secret", (DENIED, 443)).unwrap();
    };
    assert!(eventually(|| {
        workload.run(send).unwrap();
        unjudged() > 0
    }));
    let seen = tap.look().unwrap();
    assert!(!seen.packet(DENIED.parse().unwrap(), UDP, Some(443)));
    // By its own way it goes on.
    assert!(site.connects(ALLOWED, 443));
}

/// A tap device of the calling thread's namespace, as a virtual machine has it.
fn machine(name: &str) -> io::Result<File> {
    const IFF_TAP_NO_PI: u16 = 0x1002;
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&IFF_TAP_NO_PI.to_ne_bytes());
    // SAFETY: the request is a `struct ifreq`; a valid descriptor.
    if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a valid descriptor.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    Ok(file)
}

#[test]
fn a_virtual_machine_is_judged_by_its_driver_and_refused_at_once() {
    let site = Site::new(false);
    let _daemon = site.enforce(&policy(""));
    let host = site.world.protected();
    let mut machine = host.run(|| machine("w9")).unwrap().unwrap();
    host.ip("address add 10.88.90.1/24 dev w9").unwrap();
    host.ip("link set w9 address 02:00:00:00:00:01").unwrap();
    host.ip("link set w9 up").unwrap();
    assert!(eventually(|| enforcing(&site, "w9") == Some(1)));
    assert!(site.status().contains("xdp-native"), "{}", site.status());
    let tap = Tap::open(&site.world.topology.internet).unwrap();
    let syn = |address| to(address, TCP, segment(40_000, 443, SYN)).from("10.88.90.2");
    let mut refusal = |frame: Vec<u8>| {
        machine.write_all(&frame).unwrap();
        let mut back = [0; 2048];
        eventually(|| {
            let Ok(length) = machine.read(&mut back) else {
                return false;
            };
            length == 54 && back[23] == TCP && back[47] & RST != 0
        })
    };
    assert!(refusal(syn(DENIED).bytes()));
    assert!(!refusal(syn(ALLOWED).bytes()), "nobody refuses it");
    let seen = tap.look().unwrap();
    assert!(seen.packet(ALLOWED.parse().unwrap(), TCP, Some(443)));
    assert!(!seen.packet(DENIED.parse().unwrap(), TCP, Some(443)));
}

#[test]
fn a_pin_that_another_tool_removes_is_put_back_and_a_second_filter_is_refused() {
    let site = Site::new(false);
    let _daemon = site.enforce(&policy(""));
    let host = site.world.protected();
    let pin = || {
        let index = nix::net::if_::if_nametoindex("w0").unwrap();
        format!("/sys/fs/bpf/netfilter/links/workload-{index}")
    };
    let pin = host.run(pin).unwrap();
    let is_there = || host.run(|| std::fs::exists(&pin).unwrap()).unwrap();
    assert!(is_there());
    host.run(|| std::fs::remove_file(&pin)).unwrap().unwrap();
    assert!(eventually(is_there));
    let line = "netfilter_repairs_total{interface=\"w0\",cause=\"unpinned\"}";
    assert!(eventually(|| site.world.metric(line) == 1));

    let other = host
        .command(BINARY)
        .args(["run", "--policy", netfilter_daemon::lab::mounts::POLICY])
        .args([
            "--state-dir",
            "/sys/fs/bpf/other",
            "--listen",
            "127.0.0.1:9478",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(3), "{said}");
    let expected = "cannot attach XDP to w0 (the generic one: ";
    assert!(
        said.contains(expected) && said.contains("xdp off"),
        "{said}"
    );
    assert!(!site.connects(DENIED, 443));
}
