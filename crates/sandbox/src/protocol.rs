//! What server, spawner and init say to each other.
//!
//! Messages are JSON in packets of a `SOCK_SEQPACKET` socket, with descriptors beside them
//! (`SCM_RIGHTS`). All three programs come from one build and are unpacked together, but a spawner and
//! inits outlive a server that is replaced by a newer version: fields may be added with a default,
//! meanings may not change without a new [`VERSION`].
//!
//! A slot's directory is made by the server before the slot and removed by it after the slot's end. All its
//! files are there before there is a function: making one takes longer on most disks than all else of a start.
//!
//! | file | made by | holds |
//! |---|---|---|
//! | `replica.json` | server | whose replica this is; nothing before the start |
//! | `fn.sock` | server | the listener of a function with our watchdog |
//! | `pid` | spawner | `PID START_TIME` of the init as the host counts |
//! | `address` | spawner, where there is a network | the address at which the gateway knows it |
//! | `init.sock` | spawner | where a server reaches the init |
//! | `exit.json` | spawner | a `pinnace_core::Exit`, written by the init when the function has ended |

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use pinnace_core::{Exit, image::User};
use serde::{Deserialize, Serialize};

use crate::network::{Policy, Standing};

/// Version of these messages; part of the spawner's socket name.
pub const VERSION: u32 = 4;

/// An empty sandbox, which the server names: made ahead, or with the start that needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSpec {
    /// Unique on this host, a DNS label. Names its cgroup.
    pub name: String,
    /// First host id of the range of 65,536 that its user namespace maps to its 0. `None` where the host
    /// cannot (no user namespace as root; own id alone as an ordinary user).
    pub id_base: Option<u32>,
    /// Its directory on the host, mode 0700.
    pub dir: PathBuf,
    /// Where its function reaches the platform if it shares the host's network: an address of the loopback
    /// device. `None` where it has a network of its own, in which the gateway's address is the same for all.
    #[serde(default)]
    pub host_gateway: Option<Ipv4Addr>,
}

/// What most sandboxes have, so that it is made ahead: another choice costs its start a little.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Their bounds.
    pub bounds: Bounds,
    /// See [`SandboxSpec::leaves`].
    pub leaves: bool,
}

/// What a sandbox is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The slot to take. It is made now if the spawner has none of this name.
    pub slot: SlotSpec,
    /// Host name inside.
    pub hostname: String,
    /// The root filesystem.
    pub root: Root,
    /// Files and directories of the host that are bound in, read-only.
    pub binds: Vec<Bind>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment, `NAME=VALUE` each.
    pub env: Vec<String>,
    /// Working directory; made if it is missing and the root is writable.
    pub working_dir: String,
    /// Who the function runs as, in the sandbox's own ids.
    pub user: User,
    /// The signal that asks the function to stop.
    pub stop_signal: i32,
    /// Bounds of its resources.
    pub bounds: Bounds,
    /// Whether the message carries the function's listening socket. The function then has it as
    /// descriptor [`LISTEN_FD`] and must write one byte to descriptor [`READY_FD`] when it serves.
    pub listens: bool,
    /// The TCP port on which a function without such a socket listens: its init says that it serves once
    /// the port accepts a connection.
    #[serde(default)]
    pub port: Option<u16>,
    /// Whether it may reach the outside, as far as the [`Policy`] goes.
    pub leaves: bool,
    /// What its /etc/resolv.conf holds.
    pub resolv_conf: String,
}

/// Descriptor of the function's listening socket, if [`SandboxSpec::listens`].
pub const LISTEN_FD: i32 = 3;
/// Descriptor to which such a function writes a byte once it serves.
pub const READY_FD: i32 = 4;

/// A root filesystem: an overlay of unpacked layers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Root {
    /// Directories, lowest first. The server adds a lowest one that holds mount points only.
    pub layers: Vec<PathBuf>,
    /// Whether it is read-only; /tmp stays writable.
    pub read_only: bool,
    /// Whether the host's /usr is bound in, read-only (image `host`).
    pub host_usr: bool,
    /// Where what is written goes, in place of memory: a directory with the empty directories `upper`, which belongs
    /// to the sandbox's root, and `work`. It is the server's to bound, to read and to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_in: Option<PathBuf>,
}

/// A file or directory of the host, read-only inside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path inside; resolved within the root, whatever links the image has there.
    pub target: PathBuf,
}

/// Bounds of a sandbox's resources. What the host cannot enforce is left out and said by
/// `host::missing`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processor time, in thousandths of a processor; `None` for no limit.
    pub cpu_millicores: Option<u32>,
    /// Processes and threads.
    pub pids: u32,
    /// Open files of a process.
    pub open_files: u64,
    /// Bytes that may be written to the root filesystem (tmpfs; counts as memory).
    pub upper_bytes: u64,
    /// Bytes that may be written to /tmp (tmpfs; counts as memory).
    pub tmp_bytes: u64,
}

/// Server to spawner. The spawner serves one server at a time: a new connection replaces the old, and
/// slots that were made ahead for the old one are given up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum ToSpawner {
    /// Make a slot ahead. Answered by [`FromSpawner::Prepared`] once its init is parked.
    Prepare {
        /// Comes back in the answer.
        request: u64,
        /// What to make.
        slot: SlotSpec,
        /// What its function is likely to want.
        expected: Expected,
    },
    /// Give a slot that was made ahead up. Its cgroup is the server's to remove, like its directory.
    Retire {
        /// Its name.
        slot: String,
    },
    /// Make and start a sandbox. Carries the function's listener if it `listens`, then the listener at its
    /// slot's `host_gateway` if it has one.
    Start {
        /// Comes back in the answer.
        request: u64,
        /// What to make.
        spec: Box<SandboxSpec>,
    },
    /// Find or make the network, under this policy. Slots made from then on are attached to it. Answered by
    /// [`FromSpawner::Network`].
    Network {
        /// What functions that may leave may reach.
        policy: Policy,
    },
    /// Keep these sockets (carried, one per name) in place of those kept before.
    Keep {
        /// Their names, for the server's own use.
        names: Vec<String>,
    },
    /// Send copies of the sockets that are kept.
    Lend,
    /// End, which closes the kept sockets. Replicas go on.
    Quit,
}

/// Spawner to server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum FromSpawner {
    /// The slot's init waits for orders.
    Prepared {
        /// Which request this answers.
        request: u64,
    },
    /// A slot that was made ahead has ended by itself. Nothing of it is left but its directory.
    Lost {
        /// Its name.
        slot: String,
    },
    /// The sandbox exists and its init has its orders. Carries the init's pidfd.
    Started {
        /// Which request this answers.
        request: u64,
        /// The init's process id on the host.
        pid: i32,
    },
    /// The sandbox or slot could not be made; nothing of it is left.
    Refused {
        /// Which request this answers.
        request: u64,
        /// What failed, on what.
        reason: String,
    },
    /// How the network stands: asked for, or because its router had ended and was made anew. Carries the
    /// gateway's listener, unless the server or the kept sockets have it already.
    Network {
        /// What there is and what not.
        standing: Standing,
    },
    /// The sockets are kept.
    Kept,
    /// Carries the kept sockets.
    Lent {
        /// Their names, in the order of the descriptors.
        names: Vec<String>,
    },
}

/// Server to init. The init serves one server at a time: a new connection replaces the old.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum ToInit {
    /// Tell where the function stands. Answered by [`FromInit::Attached`], which carries the read ends of
    /// the function's standard output and standard error; every later change is told unasked.
    Attach,
    /// Make unconnected TCP sockets (non-blocking) in the sandbox's network namespace.
    Sockets {
        /// How many, at most `SOCKETS_PER_REQUEST_MAX`.
        count: u32,
    },
    /// Ask the function to stop; end everything in the sandbox when it has, or after the grace period.
    Stop {
        /// How long it may take.
        grace: Duration,
    },
}

/// Init to server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum FromInit {
    /// Answers [`ToInit::Attach`]. Carries two pipe ends, standard output and standard error, then the
    /// listener at the slot's `host_gateway` if it has one, then for the first server some [`Self::Sockets`].
    Attached {
        /// Whether the function serves: it has said so (see [`READY_FD`]), or its port accepts connections.
        ready: bool,
    },
    /// The function serves from now on. Carries a connection to its port, if it has one.
    Ready,
    /// Carries the sockets asked for.
    Sockets,
    /// The function has ended; the init follows at once.
    Exited {
        /// How.
        exit: Exit,
    },
}
