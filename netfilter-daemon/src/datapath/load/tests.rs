use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Range,
};

use aya_obj::{Object, generated as bpf};

use super::*;

/// Bytes for all frames of a chain of calls (MAX_BPF_STACK).
const STACK: usize = 512;
/// What Linux 6.1 rounds each frame up to.
const FRAME: usize = 32;

type Instruction = bpf::bpf_insn;

/// A linked program: its functions one behind the other.
struct Linked(Vec<Instruction>);

impl Linked {
    fn all() -> BTreeMap<String, Self> {
        let mut object = Object::parse(OBJECT).unwrap();
        let sections: HashSet<usize> = object
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        object.relocate_calls(&sections).unwrap();
        let linked = object.programs.iter().map(|(name, program)| {
            let function = &object.functions[&program.function_key()];
            (name.clone(), Self(function.instructions.clone()))
        });
        linked.collect()
    }

    /// Where the function begins that is called here.
    fn called(&self, at: usize) -> Option<usize> {
        let instruction = &self.0[at];
        let is_call = u32::from(instruction.code) == bpf::BPF_JMP | bpf::BPF_CALL
            && u32::from(instruction.src_reg()) == bpf::BPF_PSEUDO_CALL;
        is_call.then(|| (at + 1).strict_add_signed(instruction.imm.try_into().unwrap()))
    }

    /// Of all functions, the entry first.
    fn bounds(&self) -> Vec<Range<usize>> {
        let called = (0..self.0.len()).filter_map(|at| self.called(at));
        let begins: BTreeSet<usize> = called.chain([0]).collect();
        let ends = begins.iter().skip(1).copied().chain([self.0.len()]);
        begins.iter().zip(ends).map(|(&b, e)| b..e).collect()
    }

    /// Bytes below the frame pointer that this instruction reaches, by itself or by the address
    /// that it makes of it.
    fn reach(&self, at: usize) -> usize {
        const FRAME_POINTER: u8 = 10;
        let instruction = &self.0[at];
        let code = u32::from(instruction.code);
        let class = code & 0x07;
        let reached: i64 = if class == bpf::BPF_LDX && instruction.src_reg() == FRAME_POINTER
            || [bpf::BPF_ST, bpf::BPF_STX].contains(&class)
                && instruction.dst_reg() == FRAME_POINTER
        {
            instruction.off.into()
        } else if code == bpf::BPF_ALU64 | bpf::BPF_MOV | bpf::BPF_X
            && instruction.src_reg() == FRAME_POINTER
        {
            let next = &self.0[at + 1];
            let adds = u32::from(next.code) == bpf::BPF_ALU64 | bpf::BPF_ADD | bpf::BPF_K
                && next.dst_reg() == instruction.dst_reg();
            assert!(adds, "nothing is added to the frame pointer at {at}");
            next.imm.into()
        } else {
            0
        };
        usize::try_from(-reached).unwrap_or(0)
    }

    /// Bytes of the stack of the longest chain that begins with the function here.
    fn longest(&self, function: &Range<usize>, bounds: &[Range<usize>]) -> usize {
        let frame = function.clone().map(|at| self.reach(at)).max().unwrap_or(0);
        let callees = function.clone().filter_map(|at| self.called(at));
        let below = callees.map(|begin| {
            let callee = bounds.iter().find(|bounds| bounds.start == begin).unwrap();
            self.longest(callee, bounds)
        });
        frame.max(1).next_multiple_of(FRAME) + below.max().unwrap_or(0)
    }
}

#[test]
fn a_kernel_that_is_too_old_is_told_so_and_the_first_that_is_not_is_taken() {
    let told = check(KernelVersion::new(5, 10, 250))
        .unwrap_err()
        .to_string();
    assert_eq!(
        told,
        "this kernel is too old: the programs need Linux 5.15 or newer, 6.1 is the oldest that was tried; nothing was changed"
    );
    check(KernelVersion::new(5, 15, 0)).unwrap();
    check(KernelVersion::current().unwrap()).unwrap();
}

/// Newer kernels round to 16, so that they take what Linux 6.1 refuses.
#[test]
fn no_chain_of_calls_has_more_stack_than_older_kernels_give() {
    let stacks: BTreeMap<String, usize> = Linked::all()
        .into_iter()
        .map(|(name, linked)| {
            let bounds = linked.bounds();
            (name, linked.longest(&bounds[0], &bounds))
        })
        .collect();
    let most = stacks.values().max();
    assert!(most <= Some(&STACK), "{stacks:#?}");
    // The programs do call, and need most of it.
    assert!(most >= Some(&(STACK / 2)), "{stacks:#?}");
}
