//! The process that keeps the router's namespace, found again as an init is: by its directory.

use std::{
    fs,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use crate::{
    adoption::{self, Adopted, wait_for_end},
    channel::Channel,
    failed::Doing as _,
    sys::{self, Cloned, Disposition, SingleThreaded},
};

/// What the process is called: the first word of its command line, by which its program knows what to do.
pub const HOLDER: &std::ffi::CStr = c"pinnace-router";

/// Word that lets the new process go on.
const GO: &str = "go";

/// Does nothing until it is killed: the whole of the process.
pub fn park() -> ! {
    let _ = rustix::thread::set_name(HOLDER);
    // Fails only for the leader of a group, which has no need of it.
    let _ = rustix::process::setsid();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        sys::set_disposition(signal, Disposition::Ignore);
    }
    loop {
        rustix::event::pause();
    }
}

/// Starts it in a network namespace of its own, by a program that calls [`park`] when it is named [`HOLDER`].
pub(super) fn start(dir: &Path, program: BorrowedFd<'_>) -> io::Result<Adopted> {
    let proof = SingleThreaded::prove()?;
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    let (near, far) = Channel::pair()?;
    let cloned = sys::clone_process(&proof, libc::CLONE_NEWNET, None)
        .doing(|| "clone a process into a network namespace")?;
    let Cloned::Parent { pid, pidfd } = cloned else {
        // Its only other holder must be the parent, whose end tells this process to go.
        drop(near);
        if matches!(far.recv::<String>(), Ok(Some((word, _))) if word == GO) {
            let _ = become_holder(program, null.as_fd());
        }
        sys::exit_now(1)
    };
    drop(far);
    let file = dir.join("pid");
    let record = format!("{pid} {}\n", adoption::start_time(pid)?);
    fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&file)
        .and_then(|mut file| file.write_all(record.as_bytes()))
        .doing(|| format!("write {}", file.display()))?;
    near.send(&GO, &[])?;
    Ok(Adopted { pid, pidfd })
}

fn become_holder(program: BorrowedFd<'_>, null: BorrowedFd<'_>) -> io::Result<()> {
    const STANDARD: i32 = 3;
    let program = sys::raise_fd(program)?;
    let null = sys::raise_fd(null)?;
    for number in 0..STANDARD {
        sys::place_fd(null.as_fd(), number)?;
    }
    Err(sys::execute(program.as_fd(), HOLDER))
}

/// The namespace that it keeps.
pub(super) fn namespace(holder: &Adopted) -> io::Result<OwnedFd> {
    let path = format!("/proc/{}/ns/net", holder.pid);
    Ok(fs::File::open(&path).doing(|| format!("open {path}"))?.into())
}

/// The user namespace of the router that a directory tells of, if it lives: who has made it must be in there to
/// go on with it.
///
/// # Errors
/// Those of open(2).
pub(crate) fn user_namespace(dir: &Path) -> io::Result<Option<OwnedFd>> {
    let Some(holder) = Adopted::find(dir)? else { return Ok(None) };
    let path = format!("/proc/{}/ns/user", holder.pid);
    Ok(Some(fs::File::open(&path).doing(|| format!("open {path}"))?.into()))
}

/// Ends it, if it lives, and forgets it.
pub(super) fn end(dir: &Path) -> io::Result<()> {
    if let Some(holder) = Adopted::find(dir)? {
        holder.kill()?;
        if !wait_for_end(&holder.pidfd, pinnace_core::limits::CGROUP_REMOVE_TIME_MAX) {
            return Err(io::Error::other(format!("process {} does not end", holder.pid)));
        }
    }
    match fs::remove_file(dir.join("pid")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
