//! Starting the function: who it runs as, what it can see, and a sentence for when it cannot be started.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::{PipeFlags, pipe_with},
    process::Pid,
    thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets},
};

use super::{landlock, orders::Gifts};
use crate::{
    failed::{Doing as _, Failed},
    ids::{IDS, Ids},
    protocol::SandboxSpec,
    seccomp,
    sys::{self, Instruction, Launch, LaunchError, LaunchStep},
};

/// Where commands are looked for if the environment has no PATH; Docker's default.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much likelier than its init the function is to be ended when memory is short.
const OOM_SCORE_RAISE: i32 = 500;

/// Highest score that the kernel takes.
const OOM_SCORE_MAX: i32 = 1000;

/// A function that runs.
#[derive(Debug)]
pub(super) struct Started {
    /// Its process.
    pub(super) pid: Pid,
    /// The read end of its standard output.
    pub(super) stdout: OwnedFd,
    /// The read end of its standard error.
    pub(super) stderr: OwnedFd,
    /// The read end of where it says that it serves.
    pub(super) ready: Option<OwnedFd>,
}

/// What the start of any function needs, before there is one.
#[derive(Debug)]
pub(super) struct Ahead {
    ids: Ids,
    filter: Vec<Instruction>,
    oom_score_adj: CString,
    landlock: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// The function's first three descriptors.
    given: Vec<OwnedFd>,
}

impl Ahead {
    /// Makes it, while the host's /proc is there. `seccomp` is the file with the system call filter.
    pub(super) fn make(ids: Ids, seccomp: &OwnedFd, null: &OwnedFd) -> Result<Self, Failed> {
        let filter = filter(seccomp).doing(|| "read the seccomp program")?;
        let landlock = landlock::ruleset().doing(|| "make a Landlock ruleset")?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).doing(|| "make a pipe for what is printed");
        let ((stdout, stdout_end), (stderr, stderr_end)) = (pipe()?, pipe()?);
        let given = [null, &stdout_end, &stderr_end].map(|fd| sys::raise_fd(fd.as_fd()));
        let given = given.into_iter().collect::<io::Result<_>>().doing(|| "copy descriptors")?;
        let oom_score_adj = oom_score_adj();
        Ok(Self { ids, filter, oom_score_adj, landlock, stdout, stderr, given })
    }
}

/// A function that lacks nothing but its root filesystem.
#[derive(Debug)]
pub(super) struct Draft {
    launch: Launch,
    stdout: OwnedFd,
    stderr: OwnedFd,
    ready: Option<OwnedFd>,
}

impl Draft {
    /// Puts together what starting it takes. The error is a sentence for the user.
    pub(super) fn new(ahead: Ahead, spec: &SandboxSpec, gifts: &mut Gifts) -> Result<Self, String> {
        let Ahead { ids, filter, oom_score_adj, landlock, stdout, stderr, given } = ahead;
        check_user(ids, spec)?;
        let Texts { candidates, argv, envp, working_dir } = Texts::new(spec)?;
        let single = ids == Ids::One;
        let mut launch = Launch {
            candidates,
            argv,
            envp,
            working_dir,
            fds: given,
            uid: if single { 0 } else { spec.user.uid },
            gid: if single { 0 } else { spec.user.gid },
            groups: (!single).then(|| spec.user.groups.clone()),
            oom_score_adj,
            landlock,
            filter,
        };
        let mut ready = None;
        if spec.listens {
            let listener = gifts.listener.take();
            let listener = listener.ok_or("the server sent no listener for the function")?;
            // A socket: unlike a pipe it can be taken over by number and checked to be what it is.
            let flags = SocketFlags::CLOEXEC;
            let (read, write) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
                .map_err(|error| format!("cannot make a socket for the ready message: {error}"))?;
            for fd in [listener, write] {
                let raised = sys::raise_fd(fd.as_fd());
                let told = |error| format!("cannot copy descriptors: {error}");
                launch.fds.push(raised.map_err(told)?);
            }
            ready = Some(read);
        }
        Ok(Self { launch, stdout, stderr, ready })
    }

    /// Starts it in the root filesystem that this process has. The error is a sentence for the user.
    pub(super) fn start(self, spec: &SandboxSpec) -> Result<Started, String> {
        let Self { launch, stdout, stderr, ready } = self;
        if let Some(ruleset) = &launch.landlock {
            landlock::allow_root(ruleset)
                .map_err(|error| format!("cannot add to a Landlock ruleset: {error}"))?;
        }
        let pid = sys::spawn(&launch).map_err(|failure| sentence(spec, &failure))?;
        keep_kill_only().map_err(|error| format!("cannot drop capabilities: {error}"))?;
        Ok(Started { pid, stdout, stderr, ready })
    }
}

/// The strings that the kernel is given.
#[derive(Debug)]
pub(super) struct Texts {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    envp: Vec<CString>,
    working_dir: CString,
}

impl Texts {
    /// Copies them. The error is a sentence for the user.
    pub(super) fn new(spec: &SandboxSpec) -> Result<Self, String> {
        let command = spec.command.first().ok_or("it has no command")?;
        let working_dir = if spec.working_dir.is_empty() { "/" } else { &spec.working_dir };
        Ok(Self {
            candidates: strings(candidates(command, path(spec)))?,
            argv: strings(spec.command.iter().cloned())?,
            envp: strings(spec.env.iter().cloned())?,
            working_dir: string(working_dir.to_owned())?,
        })
    }
}

fn check_user(own: Ids, spec: &SandboxSpec) -> Result<(), String> {
    let user = &spec.user;
    let ids = [user.uid, user.gid].into_iter().chain(user.groups.iter().copied());
    match ids.max() {
        Some(id) if (own == Ids::Range || spec.slot.id_base.is_some()) && id >= IDS => {
            Err(format!(
                "it would run as user or group {id}, and a sandbox has ids 0 to {}; set a lower USER",
                IDS - 1
            ))
        }
        _ => Ok(()),
    }
}

fn filter(file: &OwnedFd) -> io::Result<Vec<Instruction>> {
    let mut bytes = Vec::new();
    // Opened anew: the descriptor's own position is shared with the spawner and other inits.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::open(path)?.read_to_end(&mut bytes)?;
    seccomp::from_bytes(&bytes).ok_or_else(|| io::Error::other("it is damaged"))
}

/// What the function inherits: no capability can be gained, by no way.
pub(super) fn give_up_privileges() -> rustix::io::Result<()> {
    /// Bits that capability sets have room for; those the kernel does not know end the loop.
    const CAPABILITIES_MAX: u32 = 63;
    rustix::thread::set_no_new_privs(true)?;
    for number in 0..CAPABILITIES_MAX {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits)
}

/// All that an init still needs: to end processes of any user inside.
fn keep_kill_only() -> rustix::io::Result<()> {
    let kill = CapabilitySet::KILL;
    let sets =
        CapabilitySets { effective: kill, permitted: kill, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
}

/// The function's score, from this process's own.
fn oom_score_adj() -> CString {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    let score = (own.trim().parse().unwrap_or(0) + OOM_SCORE_RAISE).min(OOM_SCORE_MAX);
    CString::new(score.to_string()).unwrap_or_default()
}

fn path(spec: &SandboxSpec) -> &str {
    spec.env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH_DEFAULT)
}

/// Files that a command may mean, in the order of execvp(3).
fn candidates(command: &str, path: &str) -> Vec<String> {
    if command.contains('/') {
        return vec![command.to_owned()];
    }
    let in_directory = |directory: &str| match directory {
        "" => command.to_owned(),
        directory => format!("{directory}/{command}"),
    };
    path.split(':').map(in_directory).collect()
}

fn string(text: String) -> Result<CString, String> {
    CString::new(text).map_err(|error| {
        let text = String::from_utf8_lossy(&error.into_vec()).replace('\0', "\\0");
        format!("{text:?} has a zero byte, which no command or environment can hold")
    })
}

fn strings(texts: impl IntoIterator<Item = String>) -> Result<Vec<CString>, String> {
    texts.into_iter().map(string).collect()
}

/// What a user can do about a failed start.
fn sentence(spec: &SandboxSpec, failure: &LaunchError) -> String {
    let LaunchError { step, error } = failure;
    let (uid, gid) = (spec.user.uid, spec.user.gid);
    match step {
        LaunchStep::Exec => exec_sentence(spec, error),
        LaunchStep::WorkingDir => {
            format!("its working directory {} cannot be entered: {error}", spec.working_dir)
        }
        LaunchStep::Ids => format!("cannot run it as user {uid}, group {gid}: {error}"),
        LaunchStep::Clone => format!("cannot clone a process for it: {error}"),
        LaunchStep::Descriptors => format!("cannot give it its descriptors: {error}"),
        LaunchStep::Capabilities => format!("cannot drop its capabilities: {error}"),
        LaunchStep::Landlock => format!("cannot bind it by a Landlock ruleset: {error}"),
        LaunchStep::Seccomp => format!("cannot filter its system calls: {error}"),
    }
}

fn exec_sentence(spec: &SandboxSpec, error: &io::Error) -> String {
    let command = spec.command.first().map_or("", String::as_str);
    let found = candidates(command, path(spec)).into_iter().find(|file| Path::new(file).is_file());
    match (error.raw_os_error(), found) {
        (Some(libc::ENOENT), None) if command.contains('/') => {
            format!("its command {command} was not found in the image")
        }
        (Some(libc::ENOENT), None) => {
            format!("its command {command} was not found in PATH ({})", path(spec))
        }
        (Some(libc::ENOENT), Some(file)) => format!(
            "{file} is there, but not what it needs to run: the interpreter of its first line or its loader"
        ),
        (Some(libc::EACCES), _) => format!(
            "its command {command} is not executable by user {}, group {}",
            spec.user.uid, spec.user.gid
        ),
        (Some(libc::ENOEXEC), _) => format!(
            "its command {command} is no program for this machine ({}): built for another, or a script without a #! line",
            std::env::consts::ARCH
        ),
        _ => format!("its command {command} cannot be executed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_as_a_shell_finds_them() {
        assert_eq!(candidates("ls", "/a:/b"), ["/a/ls", "/b/ls"]);
        assert_eq!(candidates("ls", "/a::"), ["/a/ls", "ls", "ls"]);
        assert_eq!(candidates("./ls", "/a"), ["./ls"]);
    }

    #[test]
    fn zero_bytes_are_told() {
        assert_eq!(
            string("a\0b".into()).unwrap_err(),
            r#""a\\0b" has a zero byte, which no command or environment can hold"#
        );
    }
}
