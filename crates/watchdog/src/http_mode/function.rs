//! The function's own server: a process that is started once.

use std::process::ExitStatus;

use rustix::process::Signal;
use tokio::net::unix::pipe::Sender;

use crate::{
    cgi::Variables,
    journal::{Journal, Source},
    lines,
    process::{Input, Pipes, Process, Program, receiver},
    settings::LogSettings,
    spelling,
};

/// The started server.
#[derive(Debug)]
pub struct Function {
    process: Process,
    /// It stays open and empty: programs that end at the end of their input must not.
    _stdin: Option<Sender>,
}

impl Function {
    /// Starts it, and the pumps of its output.
    ///
    /// # Errors
    /// It cannot be started; the error is logged.
    pub fn start(program: &Program, logs: LogSettings, journal: &Journal) -> Result<Self, ()> {
        let (name, arguments) =
            program.words().split_first().map_or(("", &[][..]), |(n, a)| (n, a));
        journal.say(format_args!("Forking: {name}, arguments: [{}]", arguments.join(" ")));
        let started = program.start(&Variables::default(), Input::Open);
        let heard = started.and_then(|(process, Pipes { stdin, stdout, stderr })| {
            let stderr = receiver(stderr).map_err(|error| error.to_string())?;
            Ok((Self { process, _stdin: stdin }, stdout, stderr))
        });
        match heard {
            Ok((function, stdout, stderr)) => {
                lines::announce(Source::Err, journal);
                tokio::spawn(lines::pump(stderr, Source::Err, logs, journal.clone()));
                lines::announce(Source::Out, journal);
                tokio::spawn(lines::pump(stdout, Source::Out, logs, journal.clone()));
                Ok(function)
            }
            Err(why) => {
                journal
                    .say(format_args!("Forked function has terminated: exec: not started ({why})"));
                Err(())
            }
        }
    }

    /// Waits for its end and logs it.
    pub async fn ended(&mut self, journal: &Journal) -> Option<ExitStatus> {
        let status = self.process.wait().await;
        match &status {
            Ok(status) => {
                let how = spelling::exit(*status);
                journal.say(format_args!("Forked function has terminated: {how}"));
            }
            Err(error) => {
                journal.say(format_args!("Forked function cannot be waited for: {error}"));
            }
        }
        status.ok()
    }

    /// Asks it to end.
    pub fn ask_to_end(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Ends it and all that it has started.
    pub fn kill(&self) {
        self.process.kill();
    }
}
