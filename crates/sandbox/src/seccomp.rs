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
//! Calls of other architectures end the process (SIGSYS); those of x32 have numbers of their own, which are
//! on no list. Compiled once by the spawner and handed to each init as bytes.
//!
//! What differs from Docker's profile (moby/profiles of June 2026, for a container without capabilities):
//!
//! | group | here | why |
//! |---|---|---|
//! | ptrace, process_vm_readv and _writev | refused | debuggers use them, functions do not, and they were the way in of several escapes |
//! | name_to_handle_at, fanotify_mark | refused | of use only together with calls that are refused anyway |
//! | adjtimex, clock_adjtime | refused, also for reading | the clock is the host's |
//! | modify_ldt | refused | for 16-bit programs; had holes in the kernel |
//! | vmsplice, remap_file_pages, process_mrelease, memfd_secret, io_pgetevents | unknown | rare, with other ways to do the same |
//! | sync, syncfs | unknown | they write back filesystems of the whole host, again and again if asked to; fsync does for one's own files |
//! | calls of Linux 6.5 and later (cachestat, futex_wait, mseal, statmount, setxattrat, …) | unknown | every caller falls back; to be looked at one by one |
//! | socket | unix, TCP, UDP, route netlink | Docker lets all families but two pass: each is a parser in the kernel, loaded on demand. MPTCP and SCTP are among what is refused; Go falls back from MPTCP |
//! | ioctl | but for requests that push input into a terminal or change its line discipline | Docker relies on separate terminals |
//! | prctl | but for options that concern the memory map, the machine or the scheduler's cores | most need capabilities, this does not depend on it |
//! | get_mempolicy, mbind and their kin | refused | as Docker without `CAP_SYS_NICE` |
//!
//! As in Docker: mounts, namespaces, modules, keys, bpf, perf_event_open, io_uring, userfaultfd, kexec, swap,
//! quota, accounting and clocks are out of reach.

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

/// A rule whose conditions all hold: argument, how it compares, value.
fn when(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions
        .iter()
        .map(|(argument, op, value)| SeccompCondition::new(*argument, Dword, op.clone(), *value));
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// A rule for each value that one argument may have.
fn any_of(
    argument: u8,
    values: impl IntoIterator<Item = u64>,
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values.into_iter().map(|value| when(&[(argument, SeccompCmpOp::Eq, value)])).collect()
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

/// Families whose sockets a function may make, and their protocols; 0 is the family's usual one. Of netlink
/// it is the one that tells about addresses and routes (`NETLINK_ROUTE`), which C libraries ask.
const SOCKETS: [(i32, &[i32]); 4] = [
    (libc::AF_UNIX, &[0, libc::AF_UNIX]),
    (libc::AF_INET, &[0, libc::IPPROTO_TCP, libc::IPPROTO_UDP]),
    (libc::AF_INET6, &[0, libc::IPPROTO_TCP, libc::IPPROTO_UDP]),
    (libc::AF_NETLINK, &[libc::NETLINK_ROUTE]),
];

/// Execution domains a function may choose: Linux, 32-bit reporting, the version told as 2.6, both, and the
/// question which one is set.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Requests of ioctl(2) that are refused: they act on a terminal for whoever else uses it.
const IOCTLS_FORBIDDEN: [u64; 3] = [
    libc::TIOCSTI,   // input as if typed
    libc::TIOCLINUX, // the console's selection, likewise
    libc::TIOCSETD,  // another line discipline, for which the kernel loads modules
];

/// Options of prctl(2) that are refused.
const PRCTLS_FORBIDDEN: [i32; 6] = [
    libc::PR_SET_MM,
    libc::PR_MCE_KILL,
    libc::PR_TASK_PERF_EVENTS_DISABLE,
    libc::PR_TASK_PERF_EVENTS_ENABLE,
    57, // PR_SET_IO_FLUSHER
    62, // PR_SCHED_CORE
];

fn allowed() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules =
        calls::ALLOWED.iter().chain(calls::ALLOWED_HERE).map(|nr| (*nr, Vec::new())).collect();
    let namespaces = NAMESPACE_FLAGS.iter().fold(0, |all, flag| all | flag.cast_unsigned());
    let no_namespace = when(&[(0, SeccompCmpOp::MaskedEq(namespaces.into()), 0)])?;
    rules.insert(libc::SYS_clone, vec![no_namespace]);
    let mut sockets = Vec::new();
    for (family, protocols) in SOCKETS {
        let of_family = (0, SeccompCmpOp::Eq, family.unsigned_abs().into());
        for protocol in protocols {
            let protocol = (2, SeccompCmpOp::Eq, protocol.unsigned_abs().into());
            sockets.push(when(&[of_family.clone(), protocol])?);
        }
    }
    rules.insert(libc::SYS_socket, sockets);
    rules.insert(libc::SYS_socketpair, any_of(0, [libc::AF_UNIX.unsigned_abs().into()])?);
    rules.insert(libc::SYS_personality, any_of(0, PERSONALITIES)?);
    Ok(rules)
}

fn forbidden() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules =
        calls::FORBIDDEN.iter().chain(calls::FORBIDDEN_HERE).map(|nr| (*nr, Vec::new())).collect();
    let any_namespace = NAMESPACE_FLAGS.iter().map(|flag| {
        let bit = u64::from(flag.cast_unsigned());
        when(&[(0, SeccompCmpOp::MaskedEq(bit), bit)])
    });
    rules.insert(libc::SYS_clone, any_namespace.collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_ioctl, any_of(1, IOCTLS_FORBIDDEN)?);
    let options = PRCTLS_FORBIDDEN.iter().map(|option| option.unsigned_abs().into());
    rules.insert(libc::SYS_prctl, any_of(0, options)?);
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
        let mut both: Vec<_> =
            allowed.keys().filter(|nr| forbidden.contains_key(nr)).copied().collect();
        both.sort_unstable();
        let mut with_conditions = [libc::SYS_clone, libc::SYS_ioctl, libc::SYS_prctl];
        with_conditions.sort_unstable();
        assert_eq!(both, with_conditions);
    }

    /// What Docker's default profile lets a container without capabilities do and this one does not.
    #[cfg(target_arch = "x86_64")]
    const NARROWER: [i64; 15] = [
        libc::SYS_adjtimex,
        libc::SYS_clock_adjtime,
        libc::SYS_fanotify_mark,
        libc::SYS_memfd_secret,
        libc::SYS_modify_ldt,
        libc::SYS_mseal,
        libc::SYS_name_to_handle_at,
        libc::SYS_process_mrelease,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_ptrace,
        libc::SYS_remap_file_pages,
        libc::SYS_sync,
        libc::SYS_syncfs,
        libc::SYS_vmsplice,
    ];

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_list_is_narrower_than_dockers_in_what_was_decided() {
        let allowed = allowed().unwrap();
        let passed: Vec<_> = NARROWER.iter().filter(|nr| allowed.contains_key(nr)).collect();
        assert!(passed.is_empty(), "{passed:?}");
        // Whoever lets a call pass, or takes one off, says so here too.
        assert_eq!(allowed.len(), 276);
    }
}
