//! A BPF file system of the tests' own, gone when they end.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use netfilter_daemon::{
    compile::{self, Image},
    datapath::{
        Datapath,
        test_run::{self, Context, Outcome, Program},
    },
    policy::{self, System, service_tag::Catalogue},
};
use netfilter_ebpf::verdict::Answer;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::frame::{self, answer, datagram, query, to};

/// A state directory. Dropping it lifts what is pinned there.
pub struct StateDir(PathBuf);

impl StateDir {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self(root().join(COUNT.fetch_add(1, Ordering::Relaxed).to_string()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        netfilter_daemon::datapath::detach(&self.0).unwrap();
    }
}

/// One mount for all tests of this process. It is detached at once, and lives on
/// through an open directory: nothing is left behind even by a kill.
fn root() -> &'static Path {
    static ROOT: OnceLock<(PathBuf, fs::File)> = OnceLock::new();
    let (path, _) = ROOT.get_or_init(|| {
        let point = std::env::temp_dir().join(format!("netfilter-tests-{}", std::process::id()));
        fs::create_dir_all(&point).unwrap();
        mount(
            Some("bpf"),
            &point,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("tests need root");
        let directory = fs::File::open(&point).unwrap();
        umount2(&point, MntFlags::MNT_DETACH).unwrap();
        fs::remove_dir(&point).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&directory);
        (
            PathBuf::from(format!("/proc/{}/fd/{fd}", std::process::id())),
            directory,
        )
    });
    path
}

/// A policy as the text of its file.
pub fn image(text: &str) -> Image {
    let system = System::default();
    let policy = policy::parse(text, "policy.yaml", &system, &|_| Catalogue::built_in()).unwrap();
    compile::compile(&policy).unwrap()
}

/// Programs in the kernel that hang on no interface.
pub struct Kernel {
    pub datapath: Datapath,
    state_dir: StateDir,
}

impl Kernel {
    pub fn new(policy: &str) -> Self {
        Self::of(&image(policy))
    }

    pub fn of(image: &Image) -> Self {
        let state_dir = StateDir::new();
        let datapath =
            Datapath::start(state_dir.path(), image, &[]).unwrap_or_else(|error| panic!("{error}"));
        // As a daemon does at once.
        datapath.state().thin_remotes().unwrap();
        Self::with(datapath, state_dir)
    }

    pub const fn with(datapath: Datapath, state_dir: StateDir) -> Self {
        Self {
            datapath,
            state_dir,
        }
    }

    /// As a daemon does that follows one that is gone.
    pub fn restart(&mut self, image: &Image) {
        self.datapath = Datapath::start(self.state_dir.path(), image, &[]).unwrap();
    }

    pub fn state_dir(&self) -> &Path {
        self.state_dir.path()
    }

    /// The same program, for another thread.
    pub fn twin(&self, program: Program) -> Twin {
        let program = standing_for(program);
        Twin(self.datapath.descriptor(program).unwrap(), program)
    }

    pub fn egress(&mut self, frame: &[u8]) -> Outcome {
        self.run(Program::Egress, frame, Context::default())
    }

    pub fn ingress(&mut self, frame: &[u8]) -> Outcome {
        self.run(Program::Ingress, frame, Context::default())
    }

    /// Asks the resolver that most policies here have, which is permitted, and is answered.
    pub fn learn(&mut self, name: &str, ttl: u32, addresses: &[&str]) {
        const RESOLVER: &str = "10.0.0.53";
        let question = query(7, name, 1);
        let asked = to(RESOLVER, frame::UDP, datagram(40_000, 53, &question));
        assert_eq!(self.egress(&asked.bytes()).action, PASS, "{name}");
        let reply = datagram(53, 40_000, &answer(&question, ttl, addresses));
        let reply = to(frame::LOCAL, frame::UDP, reply).from(RESOLVER);
        assert_eq!(self.ingress(&reply.bytes()).action, PASS, "{name}");
    }

    /// As on the loopback interface.
    pub fn loopback(&mut self, frame: &[u8]) {
        let outcome = self.run(Program::Loopback, frame, Context::default());
        assert_eq!((outcome.action, outcome.frame.as_slice()), (PASS, frame));
    }

    /// A refusal, as the kernel hands it back.
    pub fn handed_back(&mut self, refusal: &Outcome) -> Outcome {
        if standing_for(Program::Egress) == Program::Workload {
            // It goes back by the cable, past every program.
            return Outcome {
                action: PASS,
                mark: 0,
                ..refusal.clone()
            };
        }
        let with = Context {
            mark: refusal.mark,
            ..Context::default()
        };
        self.run(Program::Ingress, &refusal.frame, with)
    }

    pub fn run(&mut self, program: Program, frame: &[u8], with: Context) -> Outcome {
        let program = standing_for(program);
        let outcome = self.datapath.test_run(program, frame, with, 1).unwrap();
        as_at_tc(program, outcome)
    }

    /// What a workload sends.
    pub fn workload(&mut self, frame: &[u8]) -> Outcome {
        self.run(Program::Workload, frame, Context::default())
    }

    /// Answers that came to this, as the kernel counted them.
    pub fn answers(&self, wanted: Answer) -> u64 {
        let counters = self.datapath.state().counters().unwrap();
        let of = |(outcome, _): &&(Answer, u64)| *outcome == wanted;
        counters.answers.iter().find(of).unwrap().1
    }

    pub fn passes(&mut self, frame: &[u8]) -> bool {
        match self.egress(frame).action {
            PASS => true,
            DROP | REDIRECT => false,
            other => panic!("action {other}"),
        }
    }
}

pub struct Twin(OwnedFd, Program);

impl Twin {
    pub fn run(&self, frame: &[u8]) -> i32 {
        let run = test_run::run_as(self.1, self.0.as_raw_fd(), frame, Context::default(), 1);
        as_at_tc(self.1, run.unwrap()).action
    }
}

/// Set, what tests send by egress is sent by a workload; see `workload`.
pub const BY_WORKLOAD: &str = "NETFILTER_TESTS_BY_WORKLOAD";

fn standing_for(program: Program) -> Program {
    match program {
        Program::Egress if std::env::var_os(BY_WORKLOAD).is_some() => Program::Workload,
        program => program,
    }
}

/// The same action, as tc would have it.
fn as_at_tc(program: Program, mut outcome: Outcome) -> Outcome {
    if program == Program::Workload {
        outcome.action = match outcome.action {
            1 => DROP,
            2 => PASS,
            3 => REDIRECT,
            other => panic!("XDP action {other}"),
        };
    }
    outcome
}

/// Runs both on their frames at the same moment, or nearly.
pub fn at_once(twins: &[Twin; 2], frames: &[Vec<u8>; 2]) -> [i32; 2] {
    let ready = AtomicU32::new(0);
    thread::scope(|scope| {
        let ready = &ready;
        let run = |end: usize| {
            scope.spawn(move || {
                ready.fetch_add(1, Ordering::SeqCst);
                while ready.load(Ordering::SeqCst) < 2 {
                    std::hint::spin_loop();
                }
                twins[end].run(&frames[end])
            })
        };
        [run(0), run(1)].map(|end| end.join().unwrap())
    })
}

/// `TC_ACT_UNSPEC`
pub const PASS: i32 = -1;
/// `TC_ACT_SHOT`
pub const DROP: i32 = 2;
/// `TC_ACT_REDIRECT`
pub const REDIRECT: i32 = 7;
