//! What `pinnace up` was told, checked and with every default filled in.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use pinnace_core::network::Block;

use crate::{builder::BuilderSettings, certificate::CertificateFiles, registry::RegistrySettings};

/// Settings of one server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where functions and the API are served; the first is the one that is told.
    pub listen: Vec<SocketAddr>,
    /// What they are served with over TLS, if they are.
    pub certificate: Option<CertificateFiles>,
    /// By which URL clients reach this server, without a slash at its end: the name of its tokens' issuer.
    pub external_url: Option<String>,
    /// Where metrics are served.
    pub metrics_listen: SocketAddr,
    /// Where everything is kept.
    pub state_dir: PathBuf,
    /// Where sockets and records of what runs get a directory, if the operator has named a place.
    pub run_dir: Option<PathBuf>,
    /// Whether `/system` asks for the password.
    pub auth: bool,
    /// Whether no password is allowed on an address other hosts reach.
    pub insecure: bool,
    /// Directory with the programs `pinnace-spawner`, `pinnace-init` and `pinnace-watchdog`.
    pub programs: PathBuf,
    /// How long calls under way may take when the server is asked to end.
    pub drain: Duration,
    /// Longest time to a function's first byte, unless it names its own.
    pub call_deadline: Duration,
    /// Memory of a replica that names no limit, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads of a replica.
    pub pids: u32,
    /// Parts of private ranges that functions with network nat may reach.
    pub allow_net: Vec<Block>,
    /// Sandboxes that are made ahead at most; 0 for none.
    pub slots_max: usize,
    /// Whether functions are called when their schedules are due.
    pub schedules: bool,
    /// Whether functions without the scale-to-zero label end when idle.
    pub zero_by_default: bool,
    /// Bytes of an uploaded image archive, and of an image as its registry keeps it.
    pub image_bytes_max: u64,
    /// How registries are reached.
    pub registry: RegistrySettings,
    /// How images are built.
    pub builder: BuilderSettings,
    /// Bytes of an asynchronous call's body.
    pub async_body_bytes_max: usize,
    /// Log files kept of one function.
    pub log_files_max: usize,
}
