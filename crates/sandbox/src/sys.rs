//! System calls that neither the standard library nor rustix offers safely: the only unsafe code of Pinnace.
//!
//! Each function has a safe signature and states in its body why it is sound. Three of them end in
//! more than one process: [`clone_process`] (a copy, like fork), [`spawn`] and [`start`] (they share memory until
//! exec, like vfork).

#![allow(unsafe_code)]

use std::{
    cell::Cell,
    ffi::{CStr, CString, c_char, c_int, c_long, c_void},
    fs, io,
    marker::PhantomData,
    mem,
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use rustix::process::{Pid, WaitOptions, waitpid};

use crate::program_pages::Unwritten;

/// One instruction of a seccomp program, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jump_true: u8,
    /// Jump if false.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

fn result(returned: c_long) -> io::Result<c_long> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// Proof that this process has one thread, which is what makes [`clone_process`] sound. It cannot be
/// sent to another thread, and whoever holds it starts none.
#[derive(Debug)]
pub struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// Counts the threads.
    ///
    /// # Errors
    /// If there are several, or if /proc cannot be read.
    pub fn prove() -> io::Result<Self> {
        match fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(PhantomData)),
            count => Err(io::Error::other(format!("{count} threads run where there must be one"))),
        }
    }
}

/// The option of mimalloc's second version by which freed memory is kept for so many milliseconds (its `mimalloc.h`).
#[cfg(feature = "allocator")]
const PURGE_DELAY: libmimalloc_sys::mi_option_t = libmimalloc_sys::mi_option_eager_commit_delay + 1;

/// Has mimalloc give freed memory back at once.
#[cfg(feature = "allocator")]
pub fn purge_at_once(_: &SingleThreaded) {
    // SAFETY: an option is a number that is written without a lock, and no other thread is there to read it. This one's
    // place in the list is fixed by the version that the feature `v2` compiles in; any value is allowed.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) }
}

/// Flag of clone3(2), for which libc's constant is too narrow.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Which side of [`clone_process`] the caller is on.
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The child, as the caller's pid namespace counts.
        pid: i32,
        /// A descriptor for it.
        pidfd: OwnedFd,
    },
}

/// Clones this process into new namespaces (`CLONE_NEW…` in `namespaces`) and, if given, into a cgroup
/// of version 2.
///
/// # Errors
/// Those of clone3(2).
pub fn clone_process(
    _proof: &SingleThreaded,
    namespaces: c_int,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut flags = u64::from(namespaces.cast_unsigned()) | libc::CLONE_PIDFD as u64;
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    // SAFETY: clone_args is plain numbers, for which zero means "not asked for".
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.flags = flags;
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    // SAFETY: `args` and `pidfd` outlive the call. Without CLONE_VM the child has its own copy of all
    // memory, and as the proof says that no other thread exists, no lock in that copy is held by one
    // that is missing there.
    let pid =
        result(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just put a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: i32::try_from(pid).unwrap_or(i32::MAX), pidfd })
}

/// Leaves the shared namespaces for new ones (`CLONE_NEW…`).
///
/// # Errors
/// Those of unshare(2).
pub fn unshare(_proof: &SingleThreaded, namespaces: c_int) -> io::Result<()> {
    let allowed = namespaces & !(libc::CLONE_FILES | libc::CLONE_FS);
    // SAFETY: takes a number; the descriptor table stays as it is, since CLONE_FILES is masked out.
    result(unsafe { libc::unshare(allowed) }.into()).map(drop)
}

/// Changes attributes of a mount: sets, clears, and maps ids by a user namespace where one is given.
///
/// # Errors
/// Those of mount_setattr(2); `EINVAL` from a file system that cannot map ids.
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    ids: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let attributes = libc::mount_attr {
        attr_set: set | ids.map_or(0, |_| libc::MOUNT_ATTR_IDMAP),
        attr_clr: 0,
        propagation: 0,
        userns_fd: ids.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: an empty C string and a structure that outlives the call; its size goes with it.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    result(returned).map(drop)
}

/// Makes a file in memory from which a program can be executed.
///
/// # Errors
/// Those of memfd_create(2).
pub fn executable_memfd(name: &CStr) -> io::Result<OwnedFd> {
    let make = |flags: libc::c_uint| {
        // SAFETY: a C string and a number.
        result(unsafe { libc::memfd_create(name.as_ptr(), flags) }.into())
    };
    let common = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let fd = match make(common | libc::MFD_EXEC) {
        // Kernels before 6.3 do not know the flag, and need none.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => make(common)?,
        other => other?,
    };
    // SAFETY: a new descriptor of nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).unwrap_or(-1)) })
}

/// Becomes the program in `file`, with one argument and an empty environment.
///
/// Returns only if that failed.
#[must_use]
pub fn execute(file: BorrowedFd<'_>, name: &CStr) -> io::Error {
    let argv: [*const c_char; 2] = [name.as_ptr(), ptr::null()];
    let envp: [*const c_char; 1] = [ptr::null()];
    // SAFETY: all strings end in zero, both lists in a null pointer, and they outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Puts a copy of `fd` at number `at`, open across exec.
///
/// # Errors
/// Those of dup2(2).
pub fn place_fd(fd: BorrowedFd<'_>, at: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == at {
        // SAFETY: a command on a descriptor that the caller holds.
        return result(unsafe { libc::fcntl(at, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: only used on numbers below those that owned descriptors have: see `raise_fd`.
    result(unsafe { libc::dup2(fd.as_raw_fd(), at) }.into()).map(drop)
}

/// Lowest number that [`raise_fd`] gives; everything below is for [`place_fd`].
pub const FIRST_FREE_FD: RawFd = 10;

/// A copy of a descriptor whose number is out of the way of those that [`place_fd`] fills.
///
/// # Errors
/// Those of fcntl(2).
pub fn raise_fd(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: a command on a descriptor that the caller holds.
    let raised = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FIRST_FREE_FD) };
    result(raised.into())?;
    // SAFETY: a new descriptor of nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raised) })
}

/// Takes over a descriptor that was there when this program started.
///
/// # Errors
/// If there is none of that number.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asks about a number.
    result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: it is open, and a program calls this once for each number that its caller promised.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from this number up: what the caller's caller left open by mistake. For the
/// first moment of a program, when it owns none of them.
///
/// # Errors
/// If the kernel is older than 5.9.
pub fn close_strays(first: RawFd) -> io::Result<()> {
    // SAFETY: takes numbers. Called before any descriptor of that range has an owner.
    result(unsafe { libc::syscall(libc::SYS_close_range, first, c_int::MAX, 0) }).map(drop)
}

/// What becomes of a signal that nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The kernel's own.
    Default,
    /// Nothing. Ignored SIGCHLD also means that children are reaped by the kernel.
    Ignore,
}

/// Sets what becomes of a signal.
pub fn set_disposition(signal: c_int, disposition: Disposition) {
    let handler = match disposition {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignore => libc::SIG_IGN,
    };
    // SAFETY: no handler of ours is named. A number that is no signal, or SIGKILL, changes nothing.
    unsafe { libc::signal(signal, handler) };
}

/// A signal that has come.
#[derive(Clone, Copy, Debug)]
pub struct Caught {
    /// Its number.
    pub signal: c_int,
    /// Who sent it, 0 if from outside this pid namespace.
    pub sender: u32,
}

/// Signals as something to poll.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks these signals and collects them instead.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub fn collect(signals: &[c_int]) -> io::Result<Self> {
        // SAFETY: sigset_t is plain bits; sigemptyset makes it a set.
        let mut set: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: `set` is live; adding a number that is no signal changes nothing.
        unsafe {
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, *signal);
            }
        }
        // SAFETY: `set` is live, and no old set is asked for.
        let failed =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        // SAFETY: `set` is live.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        result(fd.into())?;
        // SAFETY: a new descriptor of nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next one, if one has come.
    pub fn next(&self) -> Option<Caught> {
        // SAFETY: plain numbers.
        let mut info: libc::signalfd_siginfo = unsafe { mem::zeroed() };
        let size = size_of_val(&info);
        // SAFETY: the buffer is live and as long as said.
        let read = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size) };
        (usize::try_from(read) == Ok(size))
            .then(|| Caught { signal: info.ssi_signo.cast_signed(), sender: info.ssi_pid })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends SIGKILL to every process of this pid namespace but the caller (pid 1).
pub fn kill_everyone() {
    // SAFETY: takes numbers. Pid 1 is spared by kill(2); outside of a pid namespace of its own the
    // guard keeps it from doing anything.
    unsafe {
        if libc::getpid() == 1 {
            libc::kill(-1, libc::SIGKILL);
        }
    }
}

/// Ends this process at once, without running anything of it.
pub fn exit_now(code: c_int) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

/// Takes the loopback device of this network namespace up.
///
/// # Errors
/// Those of socket(2) and ioctl(2).
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: plain numbers and characters.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed() as c_char;
    request.ifr_name[1] = b'o'.cast_signed() as c_char;
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or(libc::c_short::MAX);
    // SAFETY: this request reads an ifreq, which is live.
    let returned =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    result(returned.into()).map(drop)
}

/// Sets the host name of this UTS namespace.
///
/// # Errors
/// Those of sethostname(2).
pub fn set_hostname(name: &str) -> io::Result<()> {
    rustix::system::sethostname(name.as_bytes()).map_err(Into::into)
}

/// A program to be started by [`spawn`], with all that is to happen between clone and exec.
#[derive(Debug)]
pub struct Launch {
    /// Files to try in turn, as execvp(3) does with PATH.
    pub candidates: Vec<CString>,
    /// Arguments, the program's name first.
    pub argv: Vec<CString>,
    /// Environment.
    pub envp: Vec<CString>,
    /// Working directory.
    pub working_dir: CString,
    /// Descriptors that become 0, 1, 2, … Their own numbers are from [`FIRST_FREE_FD`] up.
    pub fds: Vec<OwnedFd>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; `None` where the namespace forbids to set them.
    pub groups: Option<Vec<u32>>,
    /// What is written to /proc/self/oom_score_adj.
    pub oom_score_adj: CString,
    /// A Landlock ruleset to be bound by.
    pub landlock: Option<OwnedFd>,
    /// The seccomp program that binds it.
    pub filter: Vec<Instruction>,
}

/// At which step a [`Launch`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchStep {
    /// clone(2) itself.
    Clone,
    /// Descriptors, session, signals.
    Descriptors,
    /// The working directory.
    WorkingDir,
    /// User and groups.
    Ids,
    /// Capabilities.
    Capabilities,
    /// The Landlock ruleset.
    Landlock,
    /// The seccomp program.
    Seccomp,
    /// exec itself.
    Exec,
}

/// Why a [`Launch`] failed.
#[derive(Debug)]
pub struct LaunchError {
    /// Where.
    pub step: LaunchStep,
    /// With what.
    pub error: io::Error,
}

/// What the child of [`spawn`] reads and, if it fails, writes. All memory is allocated before.
struct SharedLaunch {
    candidates: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    working_dir: *const c_char,
    fds: Vec<RawFd>,
    uid: u32,
    gid: u32,
    groups: Option<Vec<u32>>,
    oom_score_adj: *const c_char,
    oom_score_adj_bytes: usize,
    landlock: Option<RawFd>,
    filter: libc::sock_fprog,
    failed: Cell<Option<(LaunchStep, c_int)>>,
}

/// Bytes of the stack of a child of [`spawn`]; it calls a handful of small functions.
const CHILD_STACK_BYTES: usize = 64 << 10;

/// Starts a program the way vfork does: the child borrows this process's memory until its exec, so that
/// nothing is copied, and its failures are known when this returns.
///
/// The child has a session of its own, no capability, and every descriptor but the given ones closed.
/// The caller has already dropped the bounding set and set no_new_privs, which are inherited.
///
/// # Errors
/// The step and its error; the child is then gone and reaped.
pub fn spawn(launch: &Launch) -> Result<Pid, LaunchError> {
    let filter = libc::sock_fprog {
        len: launch.filter.len().try_into().unwrap_or(u16::MAX),
        filter: launch.filter.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    let shared = SharedLaunch {
        candidates: launch.candidates.iter().map(|s| s.as_ptr()).collect(),
        argv: pointers(launch.argv.iter().map(CString::as_c_str)),
        envp: pointers(launch.envp.iter().map(CString::as_c_str)),
        working_dir: launch.working_dir.as_ptr(),
        fds: launch.fds.iter().map(AsRawFd::as_raw_fd).collect(),
        uid: launch.uid,
        gid: launch.gid,
        groups: launch.groups.clone(),
        oom_score_adj: launch.oom_score_adj.as_ptr(),
        oom_score_adj_bytes: launch.oom_score_adj.as_bytes().len(),
        landlock: launch.landlock.as_ref().map(AsRawFd::as_raw_fd),
        filter,
        failed: Cell::new(None),
    };
    // SAFETY: `launch_child` takes a live `SharedLaunch`, as this is, and only makes system calls.
    let pid = unsafe { clone_borrowing(launch_child, (&raw const shared).cast_mut().cast()) };
    let pid = pid.map_err(|error| LaunchError { step: LaunchStep::Clone, error })?;
    match shared.failed.get() {
        None => Ok(pid),
        Some((step, errno)) => {
            let _ = waitpid(Some(pid), WaitOptions::empty());
            Err(LaunchError { step, error: io::Error::from_raw_os_error(errno) })
        }
    }
}

/// Pointers to these, and a null pointer as their end.
fn pointers<'a>(strings: impl Iterator<Item = &'a CStr>) -> Vec<*const c_char> {
    strings.map(CStr::as_ptr).chain([ptr::null()]).collect()
}

/// Runs `child` in a new process that borrows this one's memory until its exec or exit.
///
/// # Safety
/// `child` may be called with `argument`; until exec it allocates nothing, takes no lock, cannot panic, and
/// calls the kernel only.
unsafe fn clone_borrowing(
    child: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
) -> io::Result<Pid> {
    // Not filled: what is not touched takes no memory.
    let mut stack = Box::<[u128]>::new_uninit_slice(CHILD_STACK_BYTES / size_of::<u128>());
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: CLONE_VFORK stops this thread until the child has called exec or _exit, so `argument`,
    // `stack` and everything they point to outlive the child's use of them, and nobody else touches
    // them meanwhile. The stack is aligned, grows down from its end, and is larger than what the child
    // needs.
    let pid = unsafe { libc::clone(child, top, flags, argument) };
    drop(stack);
    if pid == -1 {
        return Err(io::Error::last_os_error());
    }
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("clone returned no process id"))
}

/// A program that is to run in this process's own surroundings: its namespaces, user, directory and limits.
#[derive(Debug)]
pub struct Command<'a> {
    /// The file.
    pub file: &'a CStr,
    /// Argument list, the name it is called by first.
    pub argv: &'a [CString],
    /// Environment, each `NAME=VALUE`.
    pub envp: &'a [&'a CStr],
    /// Standard input, output and error. Their own numbers are above 2.
    pub stdio: [BorrowedFd<'a>; 3],
}

/// Signals that a program in this process's surroundings finds as they are by default: those that a server
/// handles or, as Rust's programs do with broken pipes, ignores.
const DEFAULT_AGAIN: [c_int; 3] = [libc::SIGPIPE, libc::SIGTERM, libc::SIGINT];

/// What the child of [`start`] reads and, if it fails, writes. All memory is allocated before.
struct SharedCommand {
    file: *const c_char,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    stdio: [RawFd; 3],
    failed: Cell<Option<c_int>>,
}

/// Starts a program as the leader of a process group of its own. No signal is blocked in it.
///
/// It is `posix_spawn` with what that does for every program left out: 119 system calls that reset each signal
/// there is, and a stack that is mapped and unmapped, which all processors have to forget.
///
/// # Errors
/// Those of clone(2) and execve(2); the process is then gone and reaped.
pub fn start(command: &Command<'_>) -> io::Result<Pid> {
    let stdio = command.stdio.map(|fd| fd.as_raw_fd());
    if stdio.iter().any(|number| *number <= libc::STDERR_FILENO) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let shared = SharedCommand {
        file: command.file.as_ptr(),
        argv: pointers(command.argv.iter().map(CString::as_c_str)),
        envp: pointers(command.envp.iter().copied()),
        stdio,
        failed: Cell::new(None),
    };
    let blocked = SignalsBlocked::all()?;
    // SAFETY: `command_child` takes a live `SharedCommand`, as this is, and only makes system calls.
    let pid = unsafe { clone_borrowing(command_child, (&raw const shared).cast_mut().cast()) };
    drop(blocked);
    let pid = pid?;
    match shared.failed.get() {
        None => Ok(pid),
        Some(errno) => {
            let _ = waitpid(Some(pid), WaitOptions::empty());
            Err(io::Error::from_raw_os_error(errno))
        }
    }
}

/// Has the kernel keep the ends of children until they are asked for: whoever started this process may have
/// turned that off by ignoring `SIGCHLD`.
pub fn expect_children() {
    set_disposition(libc::SIGCHLD, Disposition::Default);
}

/// While it lives, this thread gets no signal: a handler must not run in a child that borrows its memory.
struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    fn all() -> io::Result<Self> {
        // SAFETY: an all-zero sigset_t is valid.
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { mem::zeroed() };
        // SAFETY: both point to live sets.
        let errno = unsafe {
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before)
        };
        if errno == 0 { Ok(Self(before)) } else { Err(io::Error::from_raw_os_error(errno)) }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: a live set, which this thread had before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// The way from clone to exec, under the rules of [`clone_borrowing`].
extern "C" fn command_child(shared: *mut c_void) -> c_int {
    // SAFETY: `start` passes its own live `SharedCommand`, and waits.
    let shared = unsafe { &*shared.cast::<SharedCommand>() };
    // SAFETY: numbers; live C strings and lists that end in a null pointer; an empty set of as many bytes as
    // said: the kernel's has 64 signals.
    unsafe {
        libc::setpgid(0, 0);
        for (at, fd) in (0..).zip(shared.stdio) {
            if libc::dup2(fd, at) == -1 {
                shared.failed.set(Some(errno()));
                libc::_exit(127)
            }
        }
        for signal in DEFAULT_AGAIN {
            libc::signal(signal, libc::SIG_DFL);
        }
        let none: u64 = 0;
        let (set, old) = (&raw const none, ptr::null_mut::<u64>());
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, old, 8);
        libc::execve(shared.file, shared.argv.as_ptr(), shared.envp.as_ptr());
        shared.failed.set(Some(errno()));
        libc::_exit(127)
    }
}

/// The kernel's own, in nanoseconds.
const TIMER_SLACK_NS: libc::c_ulong = 50_000;

/// The way from clone to exec. Runs in memory that is the parent's: it allocates nothing, takes no
/// lock, cannot panic, and calls the kernel only.
extern "C" fn launch_child(shared: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its own live `SharedLaunch`, and waits.
    let shared = unsafe { &*shared.cast::<SharedLaunch>() };
    // SAFETY: all pointers in `shared` are live C strings and lists.
    let (step, errno) = unsafe { child_steps(shared) };
    shared.failed.set(Some((step, errno)));
    // SAFETY: does not return.
    unsafe { libc::_exit(127) }
}

/// Last error of a call made by the child.
fn errno() -> c_int {
    // SAFETY: the address is the calling thread's own. It is the parent's variable, which waits.
    unsafe { *libc::__errno_location() }
}

/// # Safety
/// All pointers in `shared` are live, lists end in a null pointer, strings in zero.
unsafe fn child_steps(shared: &SharedLaunch) -> (LaunchStep, c_int) {
    // SAFETY: by the contract above; every call below takes numbers or these pointers.
    unsafe {
        if let Err(errno) = child_descriptors(shared) {
            return (LaunchStep::Descriptors, errno);
        }
        if libc::chdir(shared.working_dir) == -1 {
            return (LaunchStep::WorkingDir, errno());
        }
        if let Err(errno) = child_ids(shared) {
            return (LaunchStep::Ids, errno);
        }
        if let Err(errno) = child_capabilities() {
            return (LaunchStep::Capabilities, errno);
        }
        if let Some(ruleset) = shared.landlock
            && libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) == -1
        {
            return (LaunchStep::Landlock, errno());
        }
        let program = ptr::from_ref(&shared.filter);
        if libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, program) == -1 {
            return (LaunchStep::Seccomp, errno());
        }
        (LaunchStep::Exec, child_exec(shared))
    }
}

/// # Safety
/// As [`child_steps`].
unsafe fn child_descriptors(shared: &SharedLaunch) -> Result<(), c_int> {
    // SAFETY: by the contract above. `nothing` is a valid empty set of as many bytes as said: the
    // kernel's set has 64 signals. `no_priority` lives through its call.
    unsafe {
        let nothing: u64 = 0;
        let empty = &raw const nothing;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            empty,
            ptr::null_mut::<u64>(),
            8,
        );
        libc::setsid();
        // The init's own is shorter.
        libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0);
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY);
        if score != -1 {
            // What cannot be raised stays as it is: it only decides who ends first.
            libc::write(score, shared.oom_score_adj.cast(), shared.oom_score_adj_bytes);
            libc::close(score);
        }
        // A function that wakes up does not push aside whoever runs: with a control group of its own it
        // otherwise does so at every message, and half of the processors' time goes into switching. The
        // server, of the normal class, goes before functions. Not to be had: nothing else changes.
        let no_priority = libc::sched_param { sched_priority: 0 };
        libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_BATCH, &raw const no_priority);
        let mut number: RawFd = 0;
        for fd in &shared.fds {
            if libc::dup2(*fd, number) == -1 {
                return Err(errno());
            }
            number += 1;
        }
        let (first, last, flags) = (number, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if libc::syscall(libc::SYS_close_range, first, last, flags) == -1 {
            return Err(errno());
        }
    }
    Ok(())
}

/// # Safety
/// As [`child_steps`].
unsafe fn child_ids(shared: &SharedLaunch) -> Result<(), c_int> {
    let (uid, gid) = (shared.uid, shared.gid);
    // The C library's own setuid family would signal the other threads of a process whose memory this
    // is; the plain calls change the caller alone.
    // SAFETY: numbers, and a live list of as many groups as said.
    unsafe {
        if let Some(groups) = &shared.groups
            && libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == -1
        {
            return Err(errno());
        }
        if libc::syscall(libc::SYS_setresgid, gid, gid, gid) == -1
            || libc::syscall(libc::SYS_setresuid, uid, uid, uid) == -1
        {
            return Err(errno());
        }
    }
    Ok(())
}

/// Drops the ambient, permitted, effective and inheritable sets of the caller.
fn child_capabilities() -> Result<(), c_int> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [0_u32; 6];
    // SAFETY: numbers, and two live structures in the form of this version: a header and two times
    // three words.
    unsafe {
        let clear: libc::c_ulong = 4;
        if libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0) == -1
            || libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) == -1
        {
            return Err(errno());
        }
    }
    Ok(())
}

/// Tries the candidates as execvp(3) does; returns the error that says most.
///
/// # Safety
/// As [`child_steps`].
unsafe fn child_exec(shared: &SharedLaunch) -> c_int {
    let mut told = libc::ENOENT;
    for candidate in &shared.candidates {
        // SAFETY: by the contract above.
        unsafe { libc::execve(*candidate, shared.argv.as_ptr(), shared.envp.as_ptr()) };
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => told = libc::EACCES,
            other => return other,
        }
    }
    told
}

/// Version of Landlock's interface, 0 where the kernel has none or was started without.
#[must_use]
pub fn landlock_abi() -> u32 {
    const VERSION: u32 = 1;
    let nothing = ptr::null::<c_void>();
    // SAFETY: asked for the version, the kernel reads no memory.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, VERSION) };
    u32::try_from(abi).unwrap_or(0)
}

/// A Landlock ruleset that forbids these rights on files, and what these scopes say. The kernel's bits, of
/// which it must know all; scopes since version 6.
///
/// # Errors
/// Those of landlock_create_ruleset(2).
pub fn landlock_ruleset(rights: u64, scopes: u64) -> io::Result<OwnedFd> {
    // Rights on files, rights on ports, scopes. Older kernels know the first alone, and take more if it is zero.
    let attributes: [u64; 3] = [rights, 0, scopes];
    // SAFETY: a live structure of numbers, in the form of this call and as long as said.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            attributes.as_ptr(),
            size_of_val(&attributes),
            0,
        )
    };
    let fd = result(fd)?;
    // SAFETY: a new descriptor of nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).unwrap_or(-1)) })
}

/// Allows these rights on all below a directory.
///
/// # Errors
/// Those of landlock_add_rule(2).
pub fn landlock_allow_below(
    ruleset: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    rights: u64,
) -> io::Result<()> {
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent_fd: RawFd,
    }
    const PATH_BENEATH: c_int = 1;
    let rule = PathBeneath { allowed_access: rights, parent_fd: directory.as_raw_fd() };
    // SAFETY: a live structure in the form of this kind of rule.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            PATH_BENEATH,
            &raw const rule,
            0,
        )
    };
    result(returned).map(drop)
}

/// Has the kernel take back the memory of a part of this program's own file that will not be read soon. What is
/// read later all the same comes from the file again. A kernel that does not know how (before 5.4) leaves it.
pub fn page_out(part: &[u8]) {
    let page_bytes = rustix::param::page_size();
    let range = part.as_ptr_range();
    let begin = range.start.align_offset(page_bytes);
    let Some(bytes) = part.len().checked_sub(begin).map(|bytes| bytes - bytes % page_bytes) else {
        return;
    };
    let start = range.start.wrapping_add(begin).cast_mut().cast::<c_void>();
    // SAFETY: whole pages that `part` covers. MADV_PAGEOUT changes where their content is kept, never what it
    // is, so it is no write for whoever reads them.
    let _ = unsafe { libc::madvise(start, bytes, libc::MADV_PAGEOUT) };
}

/// Lets go of pages whose content is that of their file.
pub fn forget_pages(pages: &Unwritten) {
    let Range { start, end } = pages.addresses();
    // SAFETY: private pages of this program's file that nobody has written to, which is what `Unwritten` says, and that
    // stay mapped as long as the program runs: after MADV_DONTNEED whoever reads or runs them finds the same bytes, out
    // of the file.
    let _ = unsafe {
        libc::madvise(ptr::without_provenance_mut(start), end - start, libc::MADV_DONTNEED)
    };
}

/// Sends a signal by its number, which may be one of the real-time signals.
///
/// # Errors
/// Those of kill(2).
pub fn send_signal(process: Pid, signal: c_int) -> io::Result<()> {
    // SAFETY: takes numbers; a `Pid` is positive, so one process is meant.
    result(unsafe { libc::kill(process.as_raw_nonzero().get(), signal) }.into()).map(drop)
}
