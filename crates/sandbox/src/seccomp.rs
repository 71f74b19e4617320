//! Which system calls a function may make.
//!
//! An allow-list, in the manner of Docker's default profile but narrower. Two programs are stacked,
//! because a program of ours has one answer for what it does not list:
//!
//! 1. [`allowed`]: what is listed passes, everything else gets `ENOSYS`. That is the answer C libraries
//!    understand for calls they can do without: clone3 (whose flags no filter can see) falls back to
//!    clone, and calls newer than this list to their older kin.
//! 2. [`forbidden`], installed later and therefore the one whose error counts: known calls that are
//!    refused for good get `EPERM`, which programs report better than "function not implemented".
//!
//! Calls of other architectures end the process (SIGSYS). Compiled once by the spawner and handed to
//! each init as bytes.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::sys::Instruction;

mod calls;

/// Rules by system call number.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The programs in the order in which they are installed.
///
/// # Errors
/// If this build's architecture has no seccomp support here.
pub fn programs() -> Result<Vec<Vec<Instruction>>, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let enosys = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let allow = SeccompFilter::new(allowed()?, enosys, SeccompAction::Allow, arch)?;
    let forbid = SeccompFilter::new(forbidden()?, SeccompAction::Allow, eperm, arch)?;
    let program = |filter: SeccompFilter| -> Result<Vec<Instruction>, seccompiler::BackendError> {
        let program = BpfProgram::try_from(filter)?;
        Ok(program
            .iter()
            .map(|i| Instruction { code: i.code, jump_true: i.jt, jump_false: i.jf, operand: i.k })
            .collect())
    };
    Ok(vec![program(allow)?, program(forbid)?])
}

/// Programs as bytes, for another process of the same build.
#[must_use]
pub fn to_bytes(programs: &[Vec<Instruction>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for program in programs {
        let count = u32::try_from(program.len()).unwrap_or(u32::MAX);
        bytes.extend(count.to_ne_bytes());
        for i in program {
            bytes.extend(i.code.to_ne_bytes());
            bytes.extend([i.jump_true, i.jump_false]);
            bytes.extend(i.operand.to_ne_bytes());
        }
    }
    bytes
}

/// The reverse of [`to_bytes`]; `None` if they are no programs.
#[must_use]
pub fn from_bytes(mut bytes: &[u8]) -> Option<Vec<Vec<Instruction>>> {
    let mut programs = Vec::new();
    while !bytes.is_empty() {
        let count = u32::from_ne_bytes(*take(&mut bytes)?);
        let mut program = Vec::new();
        for _ in 0..count {
            program.push(Instruction {
                code: u16::from_ne_bytes(*take(&mut bytes)?),
                jump_true: take::<1>(&mut bytes)?[0],
                jump_false: take::<1>(&mut bytes)?[0],
                operand: u32::from_ne_bytes(*take(&mut bytes)?),
            });
        }
        programs.push(program);
    }
    Some(programs)
}

fn take<'b, const N: usize>(bytes: &mut &'b [u8]) -> Option<&'b [u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
}

fn when(
    argument: u8,
    op: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, Dword, op, value)?])
}

/// Flags of clone(2) that make namespaces. (CLONE_NEWTIME is not among clone's: its bit is part of the
/// signal there.)
const NAMESPACE_FLAGS: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Socket families a function may use.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Execution domains a function may choose: Linux, 32-bit reporting, both with old address layout, and
/// the question which one is set.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

fn allowed() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules =
        calls::ALLOWED.iter().chain(calls::ALLOWED_HERE).map(|nr| (*nr, Vec::new())).collect();
    let namespaces = NAMESPACE_FLAGS.iter().fold(0, |all, flag| all | flag.cast_unsigned());
    let no_namespace = when(0, SeccompCmpOp::MaskedEq(namespaces.into()), 0)?;
    rules.insert(libc::SYS_clone, vec![no_namespace]);
    let families = FAMILIES.iter().map(|f| when(0, SeccompCmpOp::Eq, f.unsigned_abs().into()));
    rules.insert(libc::SYS_socket, families.collect::<Result<_, _>>()?);
    let personalities = PERSONALITIES.iter().map(|p| when(0, SeccompCmpOp::Eq, *p));
    rules.insert(libc::SYS_personality, personalities.collect::<Result<_, _>>()?);
    Ok(rules)
}

fn forbidden() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules =
        calls::FORBIDDEN.iter().chain(calls::FORBIDDEN_HERE).map(|nr| (*nr, Vec::new())).collect();
    let any_namespace = NAMESPACE_FLAGS.iter().map(|flag| {
        let bit = u64::from(flag.cast_unsigned());
        when(0, SeccompCmpOp::MaskedEq(bit), bit)
    });
    rules.insert(libc::SYS_clone, any_namespace.collect::<Result<_, _>>()?);
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_survive_the_way_to_the_init() {
        let programs = programs().unwrap();
        assert_eq!(programs.len(), 2);
        assert!(programs.iter().all(|p| p.len() > 50 && p.len() < 4096));
        assert_eq!(from_bytes(&to_bytes(&programs)), Some(programs));
        assert_eq!(from_bytes(&[1, 0, 0, 0, 9]), None);
    }

    #[test]
    fn no_call_is_both_allowed_and_forbidden() {
        let (allowed, forbidden) = (allowed().unwrap(), forbidden().unwrap());
        let both: Vec<_> =
            allowed.keys().filter(|nr| forbidden.contains_key(nr)).copied().collect();
        assert_eq!(both, [libc::SYS_clone]);
    }
}
