//! `pinnace schedule`: what is due when.

use std::io;

use clap::{Args, Subcommand};
use pinnace_core::{name::DEFAULT_NAMESPACE, schedule::ScheduleDocument};
use ureq::http::Method;

use crate::{
    args::{AskArgs, NamespaceArgs},
    gateway::{Patience, query},
    output::{self, Columns},
};

/// Commands about schedules.
#[derive(Args, Debug)]
pub struct ScheduleArgs {
    #[command(subcommand)]
    command: ScheduleCommand,
}

#[derive(Debug, Subcommand)]
enum ScheduleCommand {
    /// List the schedules of all functions, with when each is due next
    #[command(alias = "list")]
    Ls(LsArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace deploy report --image host --fprocess date \\
    --annotation topic=cron-function --annotation schedule='CRON_TZ=Europe/Berlin 0 6 * * *'
  pinnace schedule ls

Several schedules of one function stand apart by semicolons. A pattern may have seconds before
its five fields; `@hourly`, `@daily` and `@every 90s` are understood too.")]
struct LsArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    common: AskArgs,
}

/// Runs one of them.
pub fn run(args: &ScheduleArgs) -> anyhow::Result<()> {
    let ScheduleCommand::Ls(args) = &args.command;
    let doing = "listing schedules";
    let gateway = args.common.open()?;
    let target = format!("/system/schedules{}", query(&[("namespace", args.namespace.checked()?)]));
    let answer = gateway.ask(Method::GET, &target, Patience::Request, doing)?;
    let schedules: Vec<ScheduleDocument> = gateway.read(answer, doing)?;
    let mut out = io::stdout().lock();
    if args.common.output.is_json() {
        return output::json(&mut out, &schedules);
    }
    table(&schedules).print(&mut out)?;
    if schedules.is_empty() {
        output::remark("No function has a schedule.");
    }
    Ok(())
}

fn table(schedules: &[ScheduleDocument]) -> Columns {
    let mut table =
        Columns::new(&[("Function", false), ("Schedule", false), ("Due next (UTC)", false)]);
    for schedule in schedules {
        let function = match schedule.namespace == DEFAULT_NAMESPACE {
            true => schedule.function.clone(),
            false => format!("{}.{}", schedule.function, schedule.namespace),
        };
        let next = match (&schedule.error, &schedule.next) {
            (Some(error), _) => error.clone(),
            (None, Some(next)) => next.get(..19).unwrap_or(next).replace('T', " "),
            (None, None) => "never".to_owned(),
        };
        table.row(&[function, schedule.schedule.clone(), next]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_stands_where_the_time_would() {
        let due = ScheduleDocument {
            function: "a".into(),
            namespace: "dev".into(),
            schedule: "@daily".into(),
            next: Some("2026-11-29T00:00:00Z".into()),
            ..ScheduleDocument::default()
        };
        let never = ScheduleDocument { next: None, ..due.clone() };
        let faulty = ScheduleDocument { error: Some("no".into()), ..due.clone() };
        let mut shown = Vec::new();
        table(&[due, never, faulty]).print(&mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        let lines: Vec<Vec<&str>> =
            shown.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["a.dev", "@daily", "2026-11-29", "00:00:00"]);
        assert_eq!((lines[1].last(), lines[2].last()), (Some(&"never"), Some(&"no")));
    }
}
