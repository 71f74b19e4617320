//! Pid 1 of a sandbox.
//!
//! An init is parked until it gets its [`orders`]. It then makes the sandbox from inside ([`inside`],
//! [`targets`]), starts the function ([`launch`]) and stays with it ([`watch`]): it reaps, passes the
//! wish to stop on, and keeps what a new server must know. What goes wrong before the function runs is
//! written to exit.json as a sentence.

use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsFd, OwnedFd},
};

use pinnace_core::Exit;
use rustix::process::DumpableBehavior;

use crate::{
    channel::{Channel, Listener},
    init::{
        launch::Started,
        orders::{Gifts, Orders},
        watch::Watch,
    },
    sys::{self, Disposition, Signals},
};

mod inside;
mod launch;
pub mod orders;
mod targets;
mod watch;

/// Runs an init; the whole of its program.
pub fn main() -> ! {
    // Cleared by exec, so it must be set here again: nobody inside may look into this process.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    for signal in 1..32 {
        sys::set_disposition(signal, Disposition::Default);
    }
    let code = match sys::inherited_fd(orders::ORDERS_FD).map(Channel::from) {
        Ok(channel) => serve(channel),
        Err(_) => 1,
    };
    sys::exit_now(code)
}

fn serve(channel: Channel) -> i32 {
    let Ok(Some((orders, gifts))) = Orders::receive(&channel) else { return 1 };
    drop(channel);
    let exit_file = gifts.exit_file.as_ref().and_then(|fd| fd.try_clone().ok());
    let exit = match start(&orders, gifts) {
        Ok(mut watch) => return watch.run(),
        Err(reason) => Exit::CannotStart { reason },
    };
    if let Some(file) = exit_file {
        record(&file, &exit);
    }
    1
}

/// From parked to a running function.
fn start(orders: &Orders, mut gifts: Gifts) -> Result<Watch, String> {
    let missing = |what: &str| format!("the spawner sent no {what}");
    let control = gifts.control.take().ok_or_else(|| missing("control socket"))?;
    let exit_file = gifts.exit_file.take().ok_or_else(|| missing("exit file"))?;
    // From here on, so that a wish to stop is not lost while the function starts.
    let signals = Signals::collect(&[libc::SIGCHLD, libc::SIGTERM])
        .map_err(|error| format!("cannot collect signals: {error}"))?;
    inside::make(orders, &mut gifts).map_err(|error| error.to_string())?;
    let started: Started = launch::start(orders, &mut gifts)?;
    let control = Listener::from(control);
    Ok(Watch::new(&orders.spec, started, control, exit_file, gifts, signals))
}

/// Writes exit.json in one go.
fn record(file: &OwnedFd, exit: &Exit) {
    let Ok(text) = serde_json::to_vec(exit) else { return };
    if let Ok(fd) = file.as_fd().try_clone_to_owned() {
        // Nobody is left to tell if the disk is full; the server then says "vanished".
        let _ = File::from(fd).write_all(&text);
    }
}
