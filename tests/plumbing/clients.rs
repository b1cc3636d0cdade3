//! DHCP clients as distributions have them.

use super::*;

/// Of each, the second time from what it remembers: a request without discovery.
fn gets_leases(world: &World, client: impl Fn() -> Command, got: &str) {
    for time in ["first", "second"] {
        let output = client().output().unwrap();
        let said = said(&output);
        assert!(
            output.status.success() && said.contains(got),
            "{time}: {said}"
        );
    }
    assert_eq!(limited(world), 0);
}

fn limited(world: &World) -> u64 {
    let sum = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
    let metrics = world.metrics();
    let lines = metrics
        .lines()
        .filter(|line| line.contains("plumbing_limit"));
    lines.filter_map(sum).sum()
}

fn busybox(world: &World, more: &[&str]) -> Command {
    let mut udhcpc = world.protected().command("busybox");
    udhcpc.args([
        "udhcpc",
        "-i",
        "eth0",
        "-n",
        "-q",
        "-f",
        "-t",
        "4",
        "-T",
        "1",
        "-s",
        "/bin/true",
    ]);
    udhcpc.args([
        "-x",
        "hostname:protected",
        "-F",
        "protected.example",
        "-V",
        "lab",
    ]);
    udhcpc.args(more);
    udhcpc
}

#[test]
fn busybox_gets_a_lease_and_not_with_an_option_that_nobody_sends() {
    let world = World::new(None);
    let _router = Router::start(&world);
    let _daemon = world.enforce(NOTHING);
    gets_leases(&world, || busybox(&world, &[]), "lease of 10.99.0.1");
    // Option 224, with six bytes of one's own.
    let output = busybox(&world, &["-x", "0xe0:736563726574"])
        .output()
        .unwrap();
    assert!(!output.status.success(), "{}", said(&output));
}

#[test]
fn dhclient_gets_leases_of_both_families() {
    let world = World::new(None);
    let router = Router::start(&world);
    let _daemon = world.enforce(NOTHING);
    let directory = &router.directory;
    std::fs::write(directory.join("conf"), DHCLIENT).unwrap();
    let client = |family: &'static str| {
        let mut dhclient = command(world.protected(), "dhclient");
        let file = |name: &str| directory.join(format!("{name}{family}"));
        dhclient.args([family, "-1", "-v", "-d", "-sf", "/bin/true", "-cf"]);
        dhclient
            .arg(directory.join("conf"))
            .arg("-lf")
            .arg(file("leases"));
        dhclient.arg("-pf").arg(file("pid")).arg("eth0");
        dhclient
    };
    for (family, got) in [("-4", "bound to 10.99.0.1"), ("-6", "PRC: Bound to lease")] {
        for time in ["first", "second"] {
            let heard = directory.join("said");
            // It stays; what it says when it has a lease is all that is asked.
            let mut process = client(family)
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(&heard).unwrap())
                .spawn()
                .unwrap();
            let bound = within(|| std::fs::read_to_string(&heard).unwrap().contains(got));
            process.kill().unwrap();
            process.wait().unwrap();
            assert!(
                bound,
                "{family} {time}: {}",
                std::fs::read_to_string(&heard).unwrap()
            );
        }
    }
    assert_eq!(limited(&world), 0);
}

/// As Debian has it, and with names.
const DHCLIENT: &str = "
send host-name \"protected\";
send fqdn.fqdn \"protected.example.\";
send dhcp-client-identifier = hardware;
request subnet-mask, broadcast-address, time-offset, routers, domain-name, domain-name-servers,
  domain-search, host-name, dhcp6.name-servers, dhcp6.domain-search, dhcp6.fqdn, dhcp6.sntp-servers,
  netbios-name-servers, netbios-scope, interface-mtu, ntp-servers;
timeout 15;
";

#[test]
fn dhcpcd_gets_leases_of_both_families() {
    let world = World::new(None);
    let router = Router::start(&world);
    let _daemon = world.enforce(NOTHING);
    let conf = router.directory.join("dhcpcd.conf");
    std::fs::write(&conf, DHCPCD).unwrap();
    for (family, got) in [("-4", "leased 10.99.0.1"), ("-6", "adding address fd99::1")] {
        let mut dhcpcd = command(world.protected(), "dhcpcd");
        dhcpcd.args([
            family,
            "-1",
            "-B",
            "-d",
            "-t",
            "12",
            "-c",
            "/bin/true",
            "-f",
        ]);
        dhcpcd.arg(&conf).arg("eth0");
        let places = ["/var/lib/dhcpcd", "/run/dhcpcd"];
        let output = secluded(world.protected(), &places, &dhcpcd)
            .output()
            .unwrap();
        assert!(said(&output).contains(got), "{family}: {}", said(&output));
    }
    assert_eq!(limited(&world), 0);
}

/// Debian's, with all that it may send of itself.
const DHCPCD: &str = "
hostname protected
duid
persistent
vendorclassid
option rapid_commit
option domain_name_servers, domain_name, domain_search
option classless_static_routes
option interface_mtu
option host_name
require dhcp_server_identifier
slaac private
noipv4ll
interface eth0
ia_na 1
ia_pd 2
";
