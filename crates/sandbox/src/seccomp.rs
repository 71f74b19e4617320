//! Which system calls a function may make.
//!
//! An allow-list, in the manner of Docker's default profile but narrower. Known calls that are refused for
//! good get `EPERM`, which programs report well. Everything else gets `ENOSYS`: that is the answer C
//! libraries understand for calls they can do without: clone3 (whose flags no filter can see) falls back
//! to clone, and calls newer than this list to their older kin.
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

use self::program::{Action, Answer, Answers, Condition};
use crate::sys::Instruction;

mod calls;
mod program;

/// For calls that C libraries can do without.
const UNKNOWN: Action = Action::Errno(libc::ENOSYS);

/// For calls that are refused for good.
const REFUSED: Action = Action::Errno(libc::EPERM);

/// This build's architecture, as the kernel numbers them (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The program that every function is bound by.
#[must_use]
pub fn program() -> Vec<Instruction> {
    program::compile(&answers(), UNKNOWN, ARCHITECTURE)
}

/// A program as bytes, for another process of the same build.
#[must_use]
pub fn to_bytes(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in program {
        bytes.extend(i.code.to_ne_bytes());
        bytes.extend([i.jump_true, i.jump_false]);
        bytes.extend(i.operand.to_ne_bytes());
    }
    bytes
}

/// The reverse of [`to_bytes`]; `None` if they are no program.
#[must_use]
pub fn from_bytes(mut bytes: &[u8]) -> Option<Vec<Instruction>> {
    let mut program = Vec::new();
    while !bytes.is_empty() {
        program.push(Instruction {
            code: u16::from_ne_bytes(*take(&mut bytes)?),
            jump_true: take::<1>(&mut bytes)?[0],
            jump_false: take::<1>(&mut bytes)?[0],
            operand: u32::from_ne_bytes(*take(&mut bytes)?),
        });
    }
    Some(program)
}

fn take<'b, const N: usize>(bytes: &mut &'b [u8]) -> Option<&'b [u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
}

/// Holds if an argument has this value.
fn is(argument: u8, value: u32) -> Condition {
    Condition { argument, mask: u32::MAX, value }
}

/// What becomes of a call whose argument has one of these values, and of all others.
fn by_value(
    argument: u8,
    values: impl IntoIterator<Item = u32>,
    action: Action,
    otherwise: Action,
) -> Answer {
    let cases = values.into_iter().map(|value| (vec![is(argument, value)], action)).collect();
    Answer { cases, otherwise }
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
const PERSONALITIES: [u32; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Requests of ioctl(2) that are refused: they act on a terminal for whoever else uses it.
const IOCTLS_FORBIDDEN: [libc::Ioctl; 3] = [
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

fn answers() -> Answers {
    let mut answers = Answers::new();
    let mut all = |calls: &[i64], action: Action| {
        answers.extend(calls.iter().map(|call| (number(*call), action.into())));
    };
    all(calls::ALLOWED, Action::Allow);
    all(calls::ALLOWED_HERE, Action::Allow);
    all(calls::FORBIDDEN, REFUSED);
    all(calls::FORBIDDEN_HERE, REFUSED);
    for (call, answer) in by_arguments() {
        answers.insert(number(call), answer);
    }
    answers
}

/// Calls that depend on their arguments.
fn by_arguments() -> [(i64, Answer); 6] {
    let namespaces = NAMESPACE_FLAGS.iter().fold(0, |all, flag| all | flag.cast_unsigned());
    let no_namespace = Condition { argument: 0, mask: namespaces, value: 0 };
    let clone = Answer { cases: vec![(vec![no_namespace], Action::Allow)], otherwise: REFUSED };
    let mut sockets = Vec::new();
    for (family, protocols) in SOCKETS {
        let of_family = is(0, family.unsigned_abs());
        sockets.extend(
            protocols
                .iter()
                .map(|protocol| (vec![of_family, is(2, protocol.unsigned_abs())], Action::Allow)),
        );
    }
    let pair = [libc::AF_UNIX.unsigned_abs()];
    let requests = IOCTLS_FORBIDDEN.map(|request| request as u32);
    let options = PRCTLS_FORBIDDEN.map(i32::unsigned_abs);
    [
        (libc::SYS_clone, clone),
        (libc::SYS_socket, Answer { cases: sockets, otherwise: UNKNOWN }),
        (libc::SYS_socketpair, by_value(0, pair, Action::Allow, UNKNOWN)),
        (libc::SYS_personality, by_value(0, PERSONALITIES, Action::Allow, UNKNOWN)),
        (libc::SYS_ioctl, by_value(1, requests, REFUSED, Action::Allow)),
        (libc::SYS_prctl, by_value(0, options, REFUSED, Action::Allow)),
    ]
}

/// A call's number, as the kernel hands it to a program.
fn number(call: i64) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(call: i64) -> Answer {
        answers().get(&number(call)).cloned().unwrap_or(UNKNOWN.into())
    }

    #[test]
    fn the_program_survives_the_way_to_the_init() {
        let program = program();
        // The kernel takes 4096.
        assert!(program.len() > 50 && program.len() < 1024, "{}", program.len());
        assert_eq!(from_bytes(&to_bytes(&program)), Some(program));
        assert_eq!(from_bytes(&[1, 0, 0, 0, 9]), None);
    }

    #[test]
    fn no_call_is_on_two_lists() {
        let lists = [calls::ALLOWED, calls::ALLOWED_HERE, calls::FORBIDDEN, calls::FORBIDDEN_HERE];
        let mut all: Vec<i64> = lists.concat();
        let listed = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), listed);
        assert_eq!(answer(libc::SYS_read), Action::Allow.into());
        assert_eq!(answer(libc::SYS_mount), REFUSED.into());
        assert_eq!(answer(libc::SYS_clone3), UNKNOWN.into());
        assert_eq!(answer(libc::SYS_clone).otherwise, REFUSED);
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
        let passes = |answer: &Answer| {
            let cases = answer.cases.iter().map(|(_, action)| *action);
            cases.chain([answer.otherwise]).any(|action| action == Action::Allow)
        };
        let passed: Vec<_> = NARROWER.iter().filter(|call| passes(&answer(**call))).collect();
        assert!(passed.is_empty(), "{passed:?}");
        // Whoever lets a call pass, or takes one off, says so here too.
        assert_eq!(answers().values().filter(|answer| passes(answer)).count(), 276);
    }
}
