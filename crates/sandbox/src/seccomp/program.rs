//! From answers to the program that the kernel asks at each system call.
//!
//! A balanced tree over ranges of numbers. The kernel checks and compiles a program anew for each process
//! that is bound by it, and walks through it once for each number there is: a chain of comparisons, one
//! for each call, made that 0.9 ms of every start, the tree less than a tenth of it.

use std::collections::BTreeMap;

use crate::sys::Instruction;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It is made.
    Allow,
    /// It fails with this error number.
    Errno(i32),
}

/// A test of the lower half of one argument, which is all that the kernel reads of an `int`: whether the bits
/// under `mask` are `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u8,
    pub(super) mask: u32,
    pub(super) value: u32,
}

/// What becomes of a call, by its arguments: what goes for the first case whose conditions all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) cases: Vec<(Vec<Condition>, Action)>,
    pub(super) otherwise: Action,
}

/// Answers by system call number.
pub(super) type Answers = BTreeMap<u32, Answer>;

impl From<Action> for Answer {
    fn from(otherwise: Action) -> Self {
        Self { cases: Vec::new(), otherwise }
    }
}

// Classic BPF (linux/bpf_common.h), as far as it is needed.
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_NOT_BELOW: u16 = 0x35;
const RETURN: u16 = 0x06;

// Fields of `struct seccomp_data`, by offset.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;
/// Where an argument's lower half lies in it.
const LOWER_HALF: u32 = if cfg!(target_endian = "little") { 0 } else { 4 };

/// Instructions that one jump can pass over.
const JUMP_MAX: usize = u8::MAX as usize;

/// The program that gives these answers, and `unlisted` for every other number. Calls of another
/// architecture end the process.
pub(super) fn compile(answers: &Answers, unlisted: Action, architecture: u32) -> Vec<Instruction> {
    let mut code = Backwards::default();
    let tree = code.tree(&ranges(answers, unlisted));
    code.lead_to(tree);
    code.push(simple(LOAD_WORD, NUMBER));
    code.push(simple(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    code.push(jump(JUMP_EQUAL, architecture, 1, 0));
    code.push(simple(LOAD_WORD, ARCHITECTURE));
    code.reversed.reverse();
    code.reversed
}

/// Ranges of numbers that have one answer, by the first of each, from 0 on.
fn ranges(answers: &Answers, unlisted: Action) -> Vec<(u32, Answer)> {
    let mut ranges: Vec<(u32, Answer)> = Vec::new();
    let mut begin = |first: u32, answer: Answer| {
        if ranges.last().is_none_or(|(_, before)| *before != answer) {
            ranges.push((first, answer));
        }
    };
    begin(0, answers.get(&0).cloned().unwrap_or(unlisted.into()));
    for (number, answer) in answers {
        begin(*number, answer.clone());
        if !answers.contains_key(&(number + 1)) {
            begin(number + 1, unlisted.into());
        }
    }
    ranges
}

/// A program that is written from its end, since jumps lead forward only. Places in it are counted from there.
#[derive(Debug, Default)]
struct Backwards {
    reversed: Vec<Instruction>,
    /// Where a program ends with an action, the nearest place for each.
    ends: BTreeMap<u32, Place>,
}

type Place = usize;

impl Backwards {
    fn push(&mut self, instruction: Instruction) -> Place {
        self.reversed.push(instruction);
        self.reversed.len() - 1
    }

    /// Instructions that a jump written now would pass over.
    fn distance(&self, to: Place) -> usize {
        self.reversed.len() - 1 - to
    }

    /// Has what is written last lead to a place.
    fn lead_to(&mut self, to: Place) -> Place {
        match self.distance(to) {
            0 => to,
            over => self.push(simple(JUMP, u32::try_from(over).unwrap_or(u32::MAX))),
        }
    }

    /// A place that leads there and that the next jump reaches, even if one such place more comes between.
    fn within_reach(&mut self, to: Place) -> Place {
        if self.distance(to) < JUMP_MAX { to } else { self.lead_to(to) }
    }

    fn branch(&mut self, code: u16, operand: u32, holds: Place, fails: Place) -> Place {
        let holds = self.within_reach(holds);
        let fails = self.within_reach(fails);
        let over = |place| u8::try_from(self.distance(place)).unwrap_or(u8::MAX);
        let instruction = jump(code, operand, over(holds), over(fails));
        self.push(instruction)
    }

    fn end(&mut self, action: Action) -> Place {
        let end = end(action);
        if let Some(&place) = self.ends.get(&end.operand)
            && self.distance(place) < JUMP_MAX
        {
            return place;
        }
        let place = self.push(end);
        self.ends.insert(end.operand, place);
        place
    }

    fn tree(&mut self, ranges: &[(u32, Answer)]) -> Place {
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        match (lower, upper) {
            ([], [(_, answer), ..]) => self.leaf(answer),
            (_, [(from, _), ..]) => {
                let upper = self.tree(upper);
                let lower = self.tree(lower);
                self.branch(JUMP_NOT_BELOW, *from, upper, lower)
            }
            (_, []) => self.end(Action::Errno(libc::ENOSYS)),
        }
    }

    fn leaf(&mut self, answer: &Answer) -> Place {
        let mut next = self.end(answer.otherwise);
        for (conditions, action) in answer.cases.iter().rev() {
            next = self.case(conditions, *action, next);
        }
        next
    }

    /// Ends with this action if all conditions hold, and goes on at `next` if not.
    fn case(&mut self, conditions: &[Condition], action: Action, next: Place) -> Place {
        let mut to = self.end(action);
        for condition in conditions.iter().rev() {
            let argument = u32::from(condition.argument);
            let load = simple(LOAD_WORD, ARGUMENTS + argument * ARGUMENT_BYTES + LOWER_HALF);
            let whole = condition.mask == u32::MAX;
            // What the next case would load is loaded.
            let loaded = whole && next > 0 && self.reversed.get(next) == Some(&load);
            let fails = if loaded { next - 1 } else { next };
            self.branch(JUMP_EQUAL, condition.value, to, fails);
            if !whole {
                self.push(simple(AND, condition.mask));
            }
            to = self.push(load);
        }
        to
    }
}

fn end(action: Action) -> Instruction {
    match action {
        Action::Allow => simple(RETURN, libc::SECCOMP_RET_ALLOW),
        Action::Errno(number) => simple(RETURN, libc::SECCOMP_RET_ERRNO | number.unsigned_abs()),
    }
}

fn simple(code: u16, operand: u32) -> Instruction {
    jump(code, operand, 0, 0)
}

fn jump(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCH: u32 = 7;

    /// What the kernel would do: what the program returns, and after how many steps.
    fn run(
        program: &[Instruction],
        architecture: u32,
        number: u32,
        arguments: [u64; 6],
    ) -> (u32, usize) {
        let (mut at, mut value, mut steps) = (0, 0u32, 0);
        loop {
            let Instruction { code, jump_true, jump_false, operand } = program[at];
            at += 1;
            steps += 1;
            let branch = |holds: bool| usize::from(if holds { jump_true } else { jump_false });
            match code {
                LOAD_WORD => {
                    value = match operand {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        _ => {
                            let offset = operand - ARGUMENTS;
                            assert_eq!(offset % ARGUMENT_BYTES, LOWER_HALF);
                            arguments[(offset / ARGUMENT_BYTES) as usize] as u32
                        }
                    }
                }
                AND => value &= operand,
                JUMP => at += operand as usize,
                JUMP_EQUAL => at += branch(value == operand),
                JUMP_NOT_BELOW => at += branch(value >= operand),
                RETURN => return (operand, steps),
                _ => panic!("the kernel knows {code:#x}, this test does not"),
            }
        }
    }

    fn returned(action: Action) -> u32 {
        end(action).operand
    }

    fn naive(answers: &Answers, unlisted: Action, number: u32, arguments: [u64; 6]) -> Action {
        let Some(answer) = answers.get(&number) else { return unlisted };
        let holds = |c: &Condition| arguments[usize::from(c.argument)] as u32 & c.mask == c.value;
        let case = answer.cases.iter().find(|(conditions, _)| conditions.iter().all(holds));
        case.map_or(answer.otherwise, |(_, action)| *action)
    }

    fn equal(argument: u8, value: u32) -> Condition {
        Condition { argument, mask: u32::MAX, value }
    }

    /// Every third number passes, some by their arguments, others fail in two ways.
    fn answers() -> Answers {
        let mut answers: Answers = (0..400).step_by(3).map(|n| (n, Action::Allow.into())).collect();
        answers.extend((100..130).map(|n| (n, Action::Errno(1).into())));
        for number in (7..400).step_by(20) {
            let cases =
                (0..20).map(|n| (vec![equal(0, n), equal(5, number)], Action::Allow)).collect();
            answers.insert(number, Answer { cases, otherwise: Action::Errno(13) });
        }
        let bit = Condition { argument: 2, mask: 0x10, value: 0x10 };
        let cases = vec![(vec![bit], Action::Errno(2)), (vec![equal(1, 3)], Action::Errno(3))];
        answers.insert(399, Answer { cases, otherwise: Action::Allow });
        answers
    }

    #[test]
    fn a_program_answers_as_it_was_told_to() {
        let (answers, unlisted) = (answers(), Action::Errno(38));
        let program = compile(&answers, unlisted, ARCH);
        assert!(program.len() > JUMP_MAX && program.len() < 4096, "{}", program.len());
        let numbers = (0..450).chain([0x4000_0000, 0x4000_0003, u32::MAX]);
        for number in numbers {
            for zeroth in [0, 5, 19, 20, 1 << 32] {
                for (second, fifth) in [
                    (0, 0),
                    (0x10, u64::from(number)),
                    (0xf_ffff, 0xf_0000_0000 + u64::from(number)),
                ] {
                    let arguments = [zeroth, 3 * (zeroth % 2), second, 0, 0, fifth];
                    let wanted = naive(&answers, unlisted, number, arguments);
                    assert_eq!(
                        run(&program, ARCH, number, arguments).0,
                        returned(wanted),
                        "{number}"
                    );
                }
            }
        }
        assert_eq!(run(&program, ARCH + 1, 0, [0; 6]).0, libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn no_number_is_far_from_its_answer() {
        let answers: Answers = (0..1000).step_by(2).map(|n| (n, Action::Allow.into())).collect();
        let program = compile(&answers, Action::Errno(38), ARCH);
        let steps = (0..1100).map(|number| run(&program, ARCH, number, [0; 6]).1).max();
        assert!(steps <= Some(4 + 2 * 11), "{steps:?}");
        assert_eq!(compile(&Answers::new(), Action::Allow, ARCH).len(), 5);
    }
}
