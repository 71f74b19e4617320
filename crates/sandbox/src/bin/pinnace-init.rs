//! Pid 1 of every sandbox, and the process that keeps the router's network namespace; executed by the
//! spawner from memory.

use std::os::unix::ffi::OsStrExt as _;

use pinnace_sandbox::{init, network};

fn main() {
    if std::env::args_os().next().is_some_and(|name| name.as_bytes() == network::HOLDER.to_bytes())
    {
        network::park()
    }
    init::main()
}
