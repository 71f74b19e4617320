//! `pinnace doctor`: what this host can do, what is missing, and what dead servers left. It needs neither a
//! server nor a place to write to.

use std::io::{self, Write};

use anyhow::Context;
use clap::Args;
use pinnace_server::{Check, Diagnosis, Verdict};

use super::down::StateArgs;
use crate::{
    args::OutputArgs,
    embed,
    output::{self, Paint, has_color, painted, printable},
};

/// Columns before what was found: those of a verdict and of a check's name.
const VERDICT_COLUMNS: usize = 6;
const NAME_COLUMNS: usize = 19;

/// Flags of `pinnace doctor`.
#[derive(Args, Debug)]
#[command(after_help = "\
Each line says ok, less (functions run, with less than Pinnace can give) or no (no function can run).
The exit code is 0 if functions can run here, else 1.")]
pub struct DoctorArgs {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Looks at this host.
pub fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let spawner = embed::InMemory::spawner().context(
        "this host runs no program from memory, as sandboxes must (sysctl vm.memfd_noexec)",
    )?;
    let found = pinnace_server::doctor(&spawner.path(), &args.state.get()?)
        .context("this host cannot be looked at")?;
    let stdout = io::stdout();
    let color = has_color(&stdout);
    let mut out = stdout.lock();
    if args.output.is_json() {
        output::json(&mut out, &found)?;
    } else {
        print(&found, color, &mut out)?;
    }
    if found.functions_can_run {
        return Ok(());
    }
    anyhow::bail!("functions cannot run here; the checks that say `no` tell what would mend it")
}

fn print(found: &Diagnosis, color: bool, out: &mut dyn Write) -> io::Result<()> {
    for group in &found.groups {
        writeln!(out, "{}", group.title)?;
        for check in &group.checks {
            print_check(check, color, out)?;
        }
        writeln!(out)?;
    }
    match (found.functions_can_run, found.not_ok()) {
        (true, 0) => writeln!(out, "Functions can run here, and nothing is missing."),
        (true, count) => writeln!(
            out,
            "Functions can run here; see {count} of the lines above for what is less."
        ),
        // What follows is an error.
        (false, _) => Ok(()),
    }
}

fn print_check(check: &Check, color: bool, out: &mut dyn Write) -> io::Result<()> {
    let (word, paint) = match check.verdict {
        Verdict::Ok => ("ok", Paint::Green),
        Verdict::Less => ("less", Paint::Yellow),
        Verdict::No => ("no", Paint::Red),
    };
    let verdict = painted(&format!("{word:VERDICT_COLUMNS$}"), paint, color);
    let name = printable(&check.name);
    writeln!(out, "  {verdict}{name:NAME_COLUMNS$} {}", printable(&check.found))?;
    let Some(mend) = &check.mend else { return Ok(()) };
    let indent = 2 + VERDICT_COLUMNS + NAME_COLUMNS + 1;
    writeln!(out, "{:indent$}to mend: {}", "", printable(mend))
}

#[cfg(test)]
mod tests {
    use pinnace_server::Group;

    use super::*;

    #[test]
    fn checks_are_aligned_and_advice_stands_below() {
        let check = |name: &str, verdict, mend: Option<&str>| Check {
            name: name.into(),
            verdict,
            found: "what was found".into(),
            mend: mend.map(str::to_owned),
        };
        let checks = vec![
            check("release", Verdict::Ok, None),
            check("swap", Verdict::Less, Some("turn it off")),
        ];
        let groups = vec![Group { title: "Kernel", checks }];
        let mut out = Vec::new();
        let diagnosis = Diagnosis { functions_can_run: true, groups };
        print(&diagnosis, false, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Kernel\n\
             \x20 ok    release             what was found\n\
             \x20 less  swap                what was found\n\
             \x20                           to mend: turn it off\n\n\
             Functions can run here; see 1 of the lines above for what is less.\n"
        );
    }
}
