//! Leases are renewed: at T1 by unicast, at T2 from everybody (RFC 2131 section 4.4.5).

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    plumbing::{Ear, Router, addresses, secluded, within},
    resolvers::servers::command,
    world::{World, patience},
};

/// No rule. The resolvers are not the server's address: that it is one opens nothing here.
const NOTHING: &str = "on_deny: drop\noutbound_rules: []";

/// Configures the interface as scripts of clients do, from the variables of dhclient and busybox.
const SCRIPT: &str = r#"#!/bin/sh
address=${new_ip_address:-$ip}
[ -n "$address" ] && ip address replace "$address/24" dev eth0
exit 0
"#;

/// A client that stays.
struct Client {
    process: Child,
    said: PathBuf,
}

impl Client {
    fn start(mut command: Command, directory: &Path) -> Self {
        let said = directory.join("said");
        let file = fs::File::create(&said).unwrap();
        command.stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let process = command.spawn().unwrap();
        Self { process, said }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A machine that has no address yet, as at boot: the daemon was there first.
struct Machine {
    world: World,
    router: Router,
    ear: Ear,
    _daemon: netfilter_daemon::lab::daemon::Daemon,
}

impl Machine {
    /// Whose lease is to be renewed after so many seconds, and asked of all after so many.
    fn new(renewal: u32, rebinding: u32) -> Self {
        let world = World::new(None);
        let options = [("T1", renewal), ("T2", rebinding)].map(|(name, seconds)| {
            format!("--dhcp-option-force=option:{name},{}", seconds * patience())
        });
        let router = Router::with(&world, &options.each_ref().map(String::as_str));
        let ear = Ear::open(&world, &router, "udp dst port 67");
        world.protected().ip("-4 address flush dev eth0").unwrap();
        let script = router.directory.join("script");
        fs::write(&script, SCRIPT).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let daemon = world.enforce(NOTHING);
        Self {
            world,
            router,
            ear,
            _daemon: daemon,
        }
    }

    fn file(&self, name: &str) -> String {
        self.router.directory.join(name).display().to_string()
    }

    fn start(&self, command: Command) -> Client {
        let client = Client::start(command, &self.router.directory);
        let bound = || addresses(self.world.protected()).contains("inet 10.99.0.1");
        assert!(within(bound), "{}", client.said());
        // The daemon notices the subnet.
        let generation = || self.world.metric("netfilter_policy_generation");
        assert!(within(|| generation() > 1), "{}", client.said());
        client
    }

    /// The second at which the lease ends, as the server has it.
    fn ends(&self) -> u64 {
        let leases = fs::read_to_string(self.router.leases()).unwrap();
        let line = leases.lines().find(|line| line.contains(" 10.99.0.1"));
        let end = line.and_then(|line| line.split(' ').next());
        end.map_or(0, |end| end.parse().unwrap())
    }

    fn renews(&self, client: &Client, before: u64) {
        assert!(
            self.ear.hears(".68 > 10.99.0.1.67: BOOTP/DHCP, Request"),
            "{}",
            client.said()
        );
        assert!(within(|| self.ends() > before), "{}", client.said());
        self.world.dropped_only(&[]);
    }

    /// Has its server hear only what goes to everybody.
    fn rebinds(&self, client: &Client) {
        let rules = "add table ip deaf; \
                     add chain ip deaf input { type filter hook input priority 0; }; \
                     add rule ip deaf input ip daddr 10.99.0.1 udp dport 67 drop";
        let mut nft = self.world.topology.internet.command("nft");
        assert!(nft.arg(rules).status().unwrap().success());
        let before = self.ends();
        let everybody = ".68 > 255.255.255.255.67: BOOTP/DHCP, Request";
        let heard = || fs::read_to_string(self.file("heard")).unwrap();
        let known = heard().matches(everybody).count();
        let asks = || heard().matches(everybody).count() > known;
        assert!(within(asks) || within(asks), "{}", client.said());
        assert!(within(|| self.ends() > before), "{}", client.said());
        self.world.dropped_only(&[]);
    }

    fn dhclient(&self) -> Command {
        let mut dhclient = command(self.world.protected(), "dhclient");
        fs::write(self.file("conf"), "timeout 15;\ninitial-interval 2;\n").unwrap();
        dhclient.args(["-4", "-v", "-d", "-sf", &self.file("script")]);
        dhclient.args(["-cf", &self.file("conf"), "-lf", &self.file("known")]);
        dhclient.args(["-pf", &self.file("pid"), "eth0"]);
        dhclient
    }

    fn dhcpcd(&self) -> Command {
        let mut dhcpcd = command(self.world.protected(), "dhcpcd");
        fs::write(self.file("conf"), "noipv4ll\nnoarp\ninterface eth0\n").unwrap();
        dhcpcd.args(["-4", "-B", "-d", "-c", "/bin/true", "-f"]);
        dhcpcd.args([&self.file("conf"), "eth0"]);
        let places = ["/var/lib/dhcpcd", "/run/dhcpcd"];
        secluded(self.world.protected(), &places, &dhcpcd)
    }
}

#[test]
fn dhclient_renews_where_it_got_its_lease_and_then_from_everybody() {
    let machine = Machine::new(8, 14);
    let client = machine.start(machine.dhclient());
    let before = machine.ends();
    machine.renews(&client, before);
    machine.rebinds(&client);
}

#[test]
fn dhcpcd_renews_where_it_got_its_lease_and_then_from_everybody() {
    let machine = Machine::new(8, 14);
    let client = machine.start(machine.dhcpcd());
    let before = machine.ends();
    machine.renews(&client, before);
    machine.rebinds(&client);
}

/// It takes no server's T1, but an order.
#[test]
fn busybox_renews_where_it_got_its_lease() {
    let machine = Machine::new(60, 100);
    let mut udhcpc = machine.world.protected().command("busybox");
    udhcpc.args(["udhcpc", "-i", "eth0", "-f", "-s", &machine.file("script")]);
    let client = machine.start(udhcpc);
    let before = machine.ends();
    // The lease's end is in whole seconds.
    thread::sleep(Duration::from_millis(1100));
    let id = Pid::from_raw(client.process.id().cast_signed());
    kill(id, Signal::SIGUSR1).unwrap();
    machine.renews(&client, before);
}
