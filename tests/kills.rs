//! The daemon may die at any instant: nothing forbidden gets out, nothing approved is cut.

use std::{
    env,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use netfilter_daemon::lab::{daemon::Daemon, mounts};

use crate::{
    traffic::{self, POLICY, Traffic},
    world::{BINARY, World},
};

/// How long the loop runs; `cargo xtask chaos` sets more.
const SECONDS: &str = "NETFILTER_CHAOS_SECONDS";
const IN_CI: u64 = 20;
/// Rounds, however long they take.
const LEAST: u32 = 5;
/// Another build of the daemon, to go to and fro between.
const OTHER: &str = "NETFILTER_CHAOS_OTHER";

/// What is cut short.
#[derive(Debug, Clone, Copy)]
enum Act {
    Start,
    Reload,
    Detach,
    /// Nothing: the daemon ends by itself.
    End,
}

/// Policies of very different sizes, so that tables are made anew at times.
fn policy(round: u64) -> String {
    let rules = [1, 40, 40, 600, 600, 600, 600, 20_000][(round % 8) as usize];
    let mut policy = POLICY.to_owned();
    for rule in 0..rules {
        let [_, a, b, c] = (rule * 2 + round as u32 % 2).to_be_bytes();
        policy.push_str(&format!(
            "  - {{ name: r{rule}, type: ip, destination: {{ cidr: 20.{a}.{b}.{c}/32, protocol: TCP, port_ranges: '443' }} }}\n"
        ));
    }
    policy
}

#[test]
fn the_daemon_may_be_killed_at_any_instant() {
    let seconds = env::var(SECONDS).map_or(IN_CI, |text| text.parse().unwrap());
    let world = World::new(None);
    let _resolver = traffic::resolver(&world);
    drop(world.enforce(&policy(0)));
    let mut chaos = Chaos {
        world: &world,
        builds: [
            BINARY.into(),
            env::var_os(OTHER).map_or(BINARY.into(), PathBuf::from),
        ],
        random: Random(RandomState::new().hash_one(seconds)),
        lifted: false,
        dropped: 0,
        rounds: [0; 4],
    };
    traffic::under(&world, |traffic| {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        // A busy machine may take seconds for each.
        while Instant::now() < deadline || chaos.rounds.iter().sum::<u32>() < LEAST {
            chaos.round(traffic);
        }
        drop(chaos.start(traffic));
    });
    let [starts, reloads, detaches, ends] = chaos.rounds;
    eprintln!("killed in {starts} starts, {reloads} reloads, {detaches} detaches; {ends} ended");
}

struct Chaos<'w> {
    world: &'w World,
    builds: [PathBuf; 2],
    random: Random,
    /// A detach was begun, and no start has ended since.
    lifted: bool,
    dropped: u64,
    rounds: [u32; 4],
}

impl Chaos<'_> {
    fn round(&mut self, traffic: &Traffic) {
        let act = [
            Act::Start,
            Act::Start,
            Act::Reload,
            Act::Reload,
            Act::Detach,
            Act::End,
        ][self.random.below(6) as usize];
        self.rounds[act as usize] += 1;
        self.world.write_policy(&policy(self.random.below(1000)));
        match act {
            Act::Start => {
                let build = self.random.below(2) as usize;
                let mut child = start(self.world, &self.builds[build]);
                pause(self.random.below(1_200_000));
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Act::Reload => {
                let daemon = self.start(traffic);
                self.world.write_policy(&policy(self.random.below(1000)));
                let mut reload = subcommand(self.world, "reload");
                pause(self.random.below(300_000));
                kill(daemon);
                reload.wait().unwrap();
            }
            Act::Detach => {
                let daemon = self.start(traffic);
                traffic.check("before a detach");
                self.lifted = true;
                let mut detach = subcommand(self.world, "detach");
                pause(self.random.below(60_000));
                kill(daemon);
                detach.wait().unwrap();
            }
            Act::End => drop(self.start(traffic)),
        }
        if self.lifted {
            traffic.lifted();
        } else {
            traffic.check(&format!("after {act:?}"));
        }
    }

    /// What is there is adopted, and counters go on.
    fn start(&mut self, traffic: &Traffic) -> Daemon {
        let build = self.random.below(2) as usize;
        let daemon = self.world.start_build(&self.builds[build], &["eth0"]);
        if self.lifted {
            // What got out before this moment may be on its way.
            thread::sleep(Duration::from_millis(20));
            traffic.enforced();
            (self.lifted, self.dropped) = (false, 0);
        }
        let dropped = self.world.metric("netfilter_dropped_packets_total");
        let same = self.builds[0] == self.builds[1];
        assert!(
            dropped >= self.dropped || !same,
            "{} drops, and then {dropped}",
            self.dropped
        );
        self.dropped = dropped;
        daemon
    }
}

fn kill(mut daemon: Daemon) {
    daemon.kill();
}

fn start(world: &World, build: &Path) -> Child {
    quiet(world.protected().command(build))
        .args(["run", "--interface", "eth0", "--policy", mounts::POLICY])
        .spawn()
        .unwrap()
}

fn subcommand(world: &World, name: &str) -> Child {
    quiet(world.protected().command(BINARY))
        .arg(name)
        .spawn()
        .unwrap()
}

fn quiet(mut command: Command) -> Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn pause(microseconds: u64) {
    thread::sleep(Duration::from_micros(microseconds));
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }
}
