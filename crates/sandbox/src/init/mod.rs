//! Pid 1 of a sandbox.
//!
//! An init makes what every sandbox has ([`inside`]) and is then parked until it gets its [`orders`]. It
//! finishes the sandbox from inside ([`targets`]), starts the function ([`launch`]) and stays with it
//! ([`watch`]): it reaps, passes the wish to stop on, and keeps what a new server must know. What goes
//! wrong before the function runs is written to exit.json as a sentence.

use std::os::fd::OwnedFd;

use pinnace_core::Exit;
use rustix::process::DumpableBehavior;

use crate::{
    channel::{Channel, Listener},
    init::{
        inside::Shell,
        launch::{Ahead, Draft, Started, Texts},
        orders::{Gifts, Mounts, Orders, Outfit, Parked},
        watch::{Ends, Watch},
    },
    protocol::SandboxSpec,
    slot,
    sys::{self, Disposition, Signals},
};

mod inside;
mod knock;
mod landlock;
mod launch;
mod masks;
mod names;
pub mod orders;
mod targets;
mod watch;

/// Runs an init; the whole of its program.
pub fn main() -> ! {
    // Cleared by exec, so it must be set here again: nobody inside may look into this process.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // It waits for a function to listen in steps shorter than the usual slack, 50 µs.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    // Executed from memory, it would go by the number of a descriptor.
    let _ = rustix::thread::set_name(c"pinnace-init");
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
    let Ok(Some(outfit)) = Outfit::receive(&channel) else { return 1 };
    let (shell, ahead, signals) = match prepare(outfit) {
        Ok(prepared) => prepared,
        Err(reason) => {
            slot::cannot_start(&channel, reason);
            return 1;
        }
    };
    rehearse();
    // A spawner that is gone shows in the next step.
    let _ = channel.send(&Parked::Ok(()), &[]);
    let (orders, mut gifts) = match Orders::receive(&channel) {
        Ok(Some(received)) => received,
        // The spawner is gone, or has given it up.
        Ok(None) => return 1,
        Err(error) => {
            slot::cannot_start(&channel, format!("its orders cannot be read: {error}"));
            return 1;
        }
    };
    let Some(exit_file) = gifts.exit_file.take() else { return 1 };
    let Some(control) = gifts.control.take() else {
        record(&exit_file, &Exit::CannotStart { reason: "its orders lack a socket".to_owned() });
        return 1;
    };
    match start(shell, ahead, &orders.spec, &mut gifts, channel) {
        Ok(Some((function, sockets))) => {
            let ends = Ends {
                control: Listener::from(control),
                exit_file,
                oom_events: gifts.oom_events,
                gateway: gifts.gateway,
                sockets,
            };
            Watch::new(&orders.spec, function, ends, signals).run()
        }
        Ok(None) => 1,
        Err(reason) => {
            record(&exit_file, &Exit::CannotStart { reason });
            1
        }
    }
}

/// All that needs no function.
fn prepare(outfit: Outfit) -> Result<(Shell, Ahead, Signals), String> {
    // From here on, so that a wish to stop is not lost while the function starts.
    let signals = Signals::collect(&[libc::SIGCHLD, libc::SIGTERM])
        .map_err(|error| format!("cannot collect signals: {error}"))?;
    let (shell, ahead) = Shell::make(outfit).map_err(|error| error.to_string())?;
    Ok((shell, ahead, signals))
}

/// Does with orders of no meaning what is done with those that come, so that the memory which that takes is
/// there: a page that is touched first costs more than what is done in it.
fn rehearse() {
    if let Ok(orders) = Orders::sample() {
        let _ = std::hint::black_box(Texts::new(&orders.spec));
    }
}

/// From parked to a running function; `None` if the spawner has given it up.
fn start(
    mut shell: Shell,
    ahead: Ahead,
    spec: &SandboxSpec,
    gifts: &mut Gifts,
    channel: Channel,
) -> Result<Option<(Started, Vec<OwnedFd>)>, String> {
    shell.settle(spec).map_err(|error| error.to_string())?;
    let draft = Draft::new(ahead, spec, gifts)?;
    let received = Mounts::receive(&channel);
    let received = received.map_err(|error| format!("its mounts cannot be received: {error}"))?;
    let Some((root, mounts)) = received else { return Ok(None) };
    drop(channel);
    let sockets = shell.furnish(spec, root, mounts).map_err(|error| error.to_string())?;
    let started = draft.start(spec)?;
    // A function that listens on a socket of its own needs none.
    let sockets = if spec.listens { Vec::new() } else { sockets };
    Ok(Some((started, sockets)))
}

/// Writes exit.json in one go.
pub(crate) fn record(file: &OwnedFd, exit: &Exit) {
    let Ok(text) = serde_json::to_vec(exit) else { return };
    // Nobody is left to tell if the disk is full; the server then says "vanished".
    let _ = rustix::io::write(file, &text);
}
