//! The commands of recorded sessions, in one static program: `applets cat`, `applets printenv NAME`, `applets false`.

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let done = match (arguments.next().as_deref(), arguments.next()) {
        (Some("cat"), None) => io::copy(&mut io::stdin(), &mut io::stdout()).is_ok(),
        (Some("printenv"), Some(name)) => {
            env::var(name).is_ok_and(|value| writeln!(io::stdout(), "{value}").is_ok())
        }
        _ => false,
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
