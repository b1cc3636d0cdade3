//! Runs a loaded program on a frame, for tests and benchmarks: `bpf(BPF_PROG_TEST_RUN)`.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use aya::programs::ProgramInfo;

use super::{Datapath, Error, Pathless, Unguarded, guard, load, pins::Role, who};
use crate::compile::Image;

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Egress,
    Ingress,
    Loopback,
    /// What a workload sends, at XDP: `XDP_DROP` (1), `XDP_PASS` (2), `XDP_TX` (3).
    Workload,
    /// What lets in only what [`Program::Workload`] has judged, or nothing.
    Judged,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Judged => Role::Judged.program(),
            Self::Egress => Role::Egress.program(),
            Self::Ingress => Role::Ingress.program(),
            Self::Loopback => Role::Loopback.program(),
            Self::Workload => Role::Workload.program(),
        }
    }
}

/// What the program did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The action: `TC_ACT_UNSPEC` (-1) passes, `TC_ACT_SHOT` (2) drops,
    /// `TC_ACT_REDIRECT` (7) hands back a refusal.
    pub action: i32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// The mark (`skb->mark`) as the program left it.
    pub mark: u32,
    /// Mean over the repetitions.
    pub duration: Duration,
}

/// The part of `union bpf_attr` that the command reads (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// `struct __sk_buff`. The kernel wants the whole of it back.
#[repr(C)]
struct SkBuff {
    before: [u32; 2],
    mark: u32,
    between: [u32; 7],
    ifindex: u32,
    behind: [u32; 37],
}

/// What a packet has beside its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context {
    /// `skb->mark`
    pub mark: u32,
    /// The interface, in the caller's network namespace; 0 for the loopback interface.
    pub ifindex: u32,
}

const BPF_PROG_TEST_RUN: libc::c_int = 10;

impl Datapath {
    /// Runs a program on a frame `repeat` times. The kernel refuses frames that are
    /// shorter than their Ethernet and IP headers.
    ///
    /// # Errors
    /// What the system call says.
    pub fn test_run(
        &mut self,
        program: Program,
        frame: &[u8],
        with: Context,
        repeat: u32,
    ) -> Result<Outcome, Error> {
        self.load_for(program)?;
        let fd = self.descriptor(program)?;
        run_as(program, fd.as_raw_fd(), frame, with, repeat).map_err(|source| Error::System {
            operation: "run the program on a frame",
            source,
        })
    }

    fn load_for(&mut self, program: Program) -> Result<(), Error> {
        match program {
            Program::Workload => load::workload(&mut self.ebpf).map(|_| ()),
            _ => load::loaded(&mut self.ebpf, program.name()).map(|_| ()),
        }
    }
}

impl Datapath {
    /// The program, for [`run`].
    ///
    /// # Errors
    /// Where it is not loaded.
    pub fn descriptor(&self, program: Program) -> Result<OwnedFd, Error> {
        let name = program.name();
        let refused = |source| Error::Program {
            program: name,
            source: Box::new(source),
        };
        let loaded = self.ebpf.program(name).ok_or(Error::MissingMap(name))?;
        let fd = match loaded {
            aya::programs::Program::Xdp(program) => program.fd(),
            aya::programs::Program::SchedClassifier(program) => program.fd(),
            _ => return Err(Error::MissingMap(name)),
        };
        let fd = fd.map_err(refused)?;
        fd.as_fd()
            .try_clone_to_owned()
            .map_err(|source| Error::System {
                operation: "copy the program's descriptor",
                source,
            })
    }

    /// How large a program is.
    ///
    /// # Errors
    /// Where the kernel refuses the program.
    pub fn size(&mut self, program: Program) -> Result<Size, Error> {
        let name = program.name();
        self.load_for(program)?;
        let loaded = self.ebpf.program(name).ok_or(Error::MissingMap(name))?;
        let info = loaded.info().map_err(|source| Error::Program {
            program: name,
            source: Box::new(source),
        })?;
        Ok(Size::of(name, &info))
    }

    /// [`Datapath::load`] on a kernel whose memory may not be read.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn load_pathless(state_dir: &Path, image: &Image) -> Result<Self, Error> {
        Self::load_with(state_dir, image, Err(Pathless::Unreadable))
    }

    /// The same of each program that notes who uses a socket.
    ///
    /// # Errors
    /// Where the kernel refuses one.
    pub fn sizes_of_witnesses(&mut self) -> Result<Vec<Size>, Unguarded> {
        let programs = who::PROGRAMS.into_iter();
        programs
            .map(|(name, ..)| who::size(&mut self.ebpf, name))
            .collect()
    }

    /// The same of both programs that guard sockets, of which only one is ever attached.
    ///
    /// # Errors
    /// Where the kernel refuses one.
    pub fn sizes_of_guards(&mut self) -> Result<Vec<Size>, Unguarded> {
        let programs = guard::PROGRAMS.into_iter();
        programs
            .map(|name| guard::size(&mut self.ebpf, name))
            .collect()
    }
}

/// How large a program is to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub program: &'static str,
    /// Instructions that the verifier walked through when it accepted the program; its limit
    /// is a million. `None` before Linux 5.16.
    pub verified: Option<u32>,
    /// Bytes of the program as the verifier left it, eight for each instruction.
    pub translated: Option<u32>,
}

impl Size {
    pub(super) fn of(program: &'static str, info: &ProgramInfo) -> Self {
        Self {
            program,
            verified: info.verified_instruction_count(),
            translated: info.size_translated(),
        }
    }
}

/// Runs this program, of which `fd` is a descriptor; see [`Datapath::test_run`].
///
/// # Errors
/// What the system call says.
pub fn run_as(
    program: Program,
    fd: i32,
    frame: &[u8],
    with: Context,
    repeat: u32,
) -> io::Result<Outcome> {
    match program {
        Program::Workload => run_on_frame(fd, frame, with, repeat),
        Program::Egress | Program::Ingress | Program::Loopback | Program::Judged => {
            run(fd, frame, with, repeat)
        }
    }
}

/// Runs any loaded program of tc; see [`Datapath::test_run`].
///
/// # Errors
/// What the system call says.
pub fn run(fd: i32, frame: &[u8], with: Context, repeat: u32) -> io::Result<Outcome> {
    let mut context = SkBuff {
        before: [0; 2],
        mark: with.mark,
        between: [0; 7],
        ifindex: with.ifindex,
        behind: [0; 37],
    };
    let mut outcome = run_with(fd, frame, &mut context, repeat)?;
    outcome.mark = context.mark;
    Ok(outcome)
}

/// As [`run`], for programs of XDP. An interface must have one.
fn run_on_frame(fd: i32, frame: &[u8], with: Context, repeat: u32) -> io::Result<Outcome> {
    /// `struct xdp_md`. Data begins at zero.
    #[repr(C)]
    struct Frame {
        data: u32,
        data_end: u32,
        metadata: u32,
        ifindex: u32,
        rest: [u32; 2],
    }
    let mut context = Frame {
        data: 0,
        data_end: u32::try_from(frame.len()).unwrap_or(u32::MAX),
        metadata: 0,
        ifindex: with.ifindex,
        rest: [0; 2],
    };
    run_with(fd, frame, &mut context, repeat)
}

fn run_with<C>(fd: i32, frame: &[u8], context: &mut C, repeat: u32) -> io::Result<Outcome> {
    let context_at = std::ptr::from_mut(context) as u64;
    let context_size = u32::try_from(size_of::<C>()).unwrap_or(0);
    let mut out = vec![0; frame.len() + 256];
    let mut attributes = TestRun {
        program: u32::try_from(fd).unwrap_or(u32::MAX),
        data_size_in: u32::try_from(frame.len()).unwrap_or(u32::MAX),
        data_size_out: u32::try_from(out.len()).unwrap_or(u32::MAX),
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat,
        ctx_size_in: context_size,
        ctx_size_out: context_size,
        ctx_in: context_at,
        ctx_out: context_at,
        ..TestRun::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
    out.truncate(attributes.data_size_out as usize);
    Ok(Outcome {
        action: attributes.retval.cast_signed(),
        frame: out,
        mark: 0,
        duration: Duration::from_nanos(attributes.duration.into()),
    })
}

/// The bpf(2) system call, which libc has no function for.
pub(super) fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller's attributes are those of the command and their pointers are valid.
    match unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    } {
        returned @ 0.. => Ok(returned),
        _ => Err(io::Error::last_os_error()),
    }
}
