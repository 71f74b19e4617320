//! A second fence around the function's processes, where the kernel has Landlock: nothing here relies on it.
//!
//! Namespaces, dropped capabilities and the system-call filter already forbid what it forbids. It stands
//! behind them if one of them fails or is set wider some day: a process under such rules
//!
//! - changes no mounts, whatever capabilities it gets (any ruleset about files has this effect);
//! - traces none but those under the same rules, so that the init is out of reach;
//! - makes no device nodes;
//! - since version 6 signals none and connects to no abstract unix socket outside: the only fence between
//!   a function that shares the host's network and the abstract sockets there.
//!
//! It does not narrow which files are seen, since the root has nothing in it but what the function may see.
//! It costs a start 16 to 20 µs.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use crate::{host::LANDLOCK_SCOPES, sys};

// The kernel's names for its bits (linux/landlock.h).
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;
/// Renaming and linking from one directory to another: forbidden by every ruleset that does not allow it.
const REFER: u64 = 1 << 13;
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
const SCOPE_SIGNAL: u64 = 1 << 1;

/// First version that can allow [`REFER`]: without, a function could not move its files.
const ABI_MIN: u32 = 2;

/// The ruleset, which lacks [`allow_root`]; `None` where the kernel has no such thing or an old one.
///
/// # Errors
/// If the kernel refuses what its version promises.
pub(super) fn ruleset() -> io::Result<Option<OwnedFd>> {
    let abi = sys::landlock_abi();
    if abi < ABI_MIN {
        return Ok(None);
    }
    let scopes = if abi < LANDLOCK_SCOPES { 0 } else { SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL };
    sys::landlock_ruleset(MAKE_CHAR | MAKE_BLOCK | REFER, scopes).map(Some)
}

/// Allows to move files in what is the root now.
///
/// # Errors
/// Those of the kernel.
pub(super) fn allow_root(ruleset: &OwnedFd) -> io::Result<()> {
    sys::landlock_allow_below(ruleset.as_fd(), File::open("/")?.as_fd(), REFER)
}
