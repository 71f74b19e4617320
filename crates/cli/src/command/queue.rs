//! `pinnace queue`: asynchronous calls that wait, and those that failed.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use pinnace_core::queue::{CallDocument, CallState, Dropped, QueueListing};
use serde_json::json;
use ureq::http::{Method, StatusCode};

use super::split_name;
use crate::{
    args::{AskArgs, NamespaceArgs},
    failure::usage,
    gateway::{Gateway, Patience, encoded, query},
    output::{self, Columns, bytes, printable},
};

/// Commands about asynchronous calls.
#[derive(Args, Debug)]
pub struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// List calls that wait or are under way, or those that failed
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Show all about one call
    Show(ShowArgs),
    /// Have failed calls tried again
    Retry(RetryArgs),
    /// Forget calls; of one under way the delivery ends, and what it started goes on to its own end
    #[command(aliases = ["rm", "remove"])]
    Drop(DropArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace queue ls
  pinnace queue ls report --failed
  pinnace queue ls --failed -q | xargs pinnace queue retry")]
struct LsArgs {
    /// Of this function alone
    function: Option<String>,
    /// Calls that failed for good
    #[arg(long)]
    failed: bool,
    /// Show call ids alone
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    common: AskArgs,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// The call's id, as X-Call-Id said it
    #[arg(value_name = "CALL-ID")]
    id: String,
    #[command(flatten)]
    common: AskArgs,
}

#[derive(Args, Debug)]
struct RetryArgs {
    /// Ids of the calls
    #[arg(value_name = "CALL-ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All that failed
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    common: AskArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace queue drop 4f0b5c1e-…
  pinnace queue drop --function report              all of it that wait or are under way
  pinnace queue drop --function report --failed     all of it that failed")]
struct DropArgs {
    /// Ids of the calls
    #[arg(value_name = "CALL-ID", required_unless_present = "function", conflicts_with_all = ["function", "failed"])]
    ids: Vec<String>,
    /// All calls of this function that wait or are under way
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// With --function: those that failed for good, and no others
    #[arg(long, requires = "function")]
    failed: bool,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    common: AskArgs,
}

/// Runs one of them.
pub fn run(args: &QueueArgs) -> anyhow::Result<()> {
    match &args.command {
        QueueCommand::Ls(args) => ls(args),
        QueueCommand::Show(args) => show(args),
        QueueCommand::Retry(args) => retry(args),
        QueueCommand::Drop(args) => discard(args),
    }
}

fn ls(args: &LsArgs) -> anyhow::Result<()> {
    let name = args.function.as_deref();
    let named = name.map(|name| split_name(name, args.namespace.get())).transpose()?;
    let gateway = args.common.open()?;
    let listing = listing(&gateway, named, args.failed)?;
    let mut out = io::stdout().lock();
    if args.common.output.is_json() {
        return output::json(&mut out, &listing);
    }
    if args.quiet {
        for call in &listing.calls {
            writeln!(out, "{}", printable(&call.call_id))?;
        }
        return Ok(());
    }
    table(&listing.calls).print(&mut out)?;
    output::remark(&format!(
        "{} wait, {} are under way, {} have failed.",
        listing.waiting, listing.in_flight, listing.failed
    ));
    Ok(())
}

fn listing(
    gateway: &Gateway,
    named: Option<(&str, Option<&str>)>,
    failed: bool,
) -> anyhow::Result<QueueListing> {
    let doing = "listing asynchronous calls";
    let (function, namespace) = named.map_or((None, None), |(name, ns)| (Some(name), ns));
    let pairs =
        [("function", function), ("namespace", namespace), ("failed", failed.then_some("true"))];
    let target = format!("/system/queue{}", query(&pairs));
    gateway.read(gateway.ask(Method::GET, &target, Patience::Request, doing)?, doing)
}

fn table(calls: &[CallDocument]) -> Columns {
    let mut table = Columns::new(&[
        ("Call", false),
        ("Function", false),
        ("State", false),
        ("Size", true),
        ("Attempts", true),
        ("Submitted", false),
        ("Latest failure", false),
    ]);
    for call in calls {
        let why = call.history.last().map(|attempt| attempt.error.as_str()).unwrap_or_default();
        table.row(&[
            call.call_id.clone(),
            function(call),
            state(call.state).to_owned(),
            bytes(call.body_bytes),
            call.attempts.to_string(),
            call.submitted_at.get(..19).unwrap_or(&call.submitted_at).replace('T', " "),
            why.lines().next().unwrap_or_default().chars().take(60).collect(),
        ]);
    }
    table
}

fn function(call: &CallDocument) -> String {
    match call.namespace == pinnace_core::name::DEFAULT_NAMESPACE {
        true => call.function.clone(),
        false => format!("{}.{}", call.function, call.namespace),
    }
}

fn state(state: CallState) -> &'static str {
    match state {
        CallState::Waiting => "waiting",
        CallState::InFlight => "under way",
        CallState::Failed => "failed",
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let doing = format!("reading asynchronous call {}", args.id);
    let gateway = args.common.open()?;
    let answer = gateway.ask(Method::GET, &target(&args.id, "")?, Patience::Request, &doing)?;
    let calls: Vec<CallDocument> = gateway.read(answer, &doing)?;
    let mut out = io::stdout().lock();
    if args.common.output.is_json() {
        return output::json(&mut out, &calls);
    }
    for call in &calls {
        write_call(&mut out, call)?;
    }
    Ok(())
}

fn write_call(out: &mut dyn Write, call: &CallDocument) -> io::Result<()> {
    let mut line = |title: &str, text: &str| writeln!(out, "{title:<14}{}", printable(text));
    line("Call:", &call.call_id)?;
    line("Function:", &function(call))?;
    line("State:", state(call.state))?;
    line("Request:", &format!("{} {}", call.method, call.target))?;
    line("Size:", &bytes(call.body_bytes))?;
    line("Submitted:", &call.submitted_at)?;
    if let Some(url) = &call.callback_url {
        line("Callback:", url)?;
    }
    if let Some(next) = &call.next_attempt_at {
        line("Next attempt:", next)?;
    }
    if let Some(failed) = &call.failed_at {
        line("Failed:", failed)?;
    }
    line("Attempts:", &call.attempts.to_string())?;
    for attempt in &call.history {
        writeln!(out, "  {}  {}", printable(&attempt.at), printable(attempt.error.trim()))?;
    }
    Ok(())
}

fn retry(args: &RetryArgs) -> anyhow::Result<()> {
    let gateway = args.common.open()?;
    let ids = match args.all {
        true => listing(&gateway, None, true)?.calls.into_iter().map(|c| c.call_id).collect(),
        false => args.ids.clone(),
    };
    each(&gateway, &ids, (Method::POST, "/retry"), "retrying", args.common.output.is_json())
}

fn discard(args: &DropArgs) -> anyhow::Result<()> {
    let gateway = args.common.open()?;
    if let Some(name) = &args.function {
        return discard_all(&gateway, split_name(name, args.namespace.get())?, args);
    }
    each(&gateway, &args.ids, (Method::DELETE, ""), "dropping", args.common.output.is_json())
}

fn discard_all(
    gateway: &Gateway,
    (name, namespace): (&str, Option<&str>),
    args: &DropArgs,
) -> anyhow::Result<()> {
    let doing = format!("dropping the asynchronous calls of {name}");
    let failed = args.failed.then_some("true");
    let pairs = [("function", Some(name)), ("namespace", namespace), ("failed", failed)];
    let target = format!("/system/queue{}", query(&pairs));
    let answer = gateway.ask(Method::DELETE, &target, Patience::Request, &doing)?;
    let dropped: Dropped = gateway.read(answer, &doing)?;
    let mut out = io::stdout().lock();
    if args.common.output.is_json() {
        return output::json(&mut out, &dropped);
    }
    Ok(writeln!(out, "{} dropped.", dropped.dropped)?)
}

/// Does the same to each call; one that is not there keeps no other from it.
fn each(
    gateway: &Gateway,
    ids: &[String],
    (method, what): (Method, &str),
    doing: &str,
    is_json: bool,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let mut missing = Vec::new();
    let mut done = Vec::new();
    for id in ids {
        let doing = format!("{doing} asynchronous call {id}");
        let answer = gateway.ask(method.clone(), &target(id, what)?, Patience::Request, &doing)?;
        if answer.status() == StatusCode::NOT_FOUND {
            missing.push(id.as_str());
            continue;
        }
        gateway.expect(answer, &[StatusCode::ACCEPTED], &doing)?;
        if !is_json {
            writeln!(out, "{}", printable(id))?;
        }
        done.push(id);
    }
    if is_json {
        output::json(&mut out, &json!({ "calls": done }))?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    anyhow::bail!(
        "{doing}: there is no such call at {}: {}; `pinnace queue ls` shows those there are",
        gateway.address(),
        missing.join(", ")
    )
}

fn target(id: &str, what: &str) -> anyhow::Result<String> {
    if id.is_empty() {
        return Err(usage("a call's id is not empty"));
    }
    Ok(format!("/system/queue/{}{what}", encoded(id)))
}

#[cfg(test)]
mod tests {
    use pinnace_core::queue::Attempt;

    use super::*;

    fn call() -> CallDocument {
        let attempt = |at: &str| Attempt {
            at: at.into(),
            status: Some(500),
            error: "the answer was 500: no\nmore".into(),
        };
        CallDocument {
            call_id: "id-1".into(),
            function: "f".into(),
            namespace: "dev".into(),
            state: CallState::Failed,
            method: "POST".into(),
            target: "/a?b".into(),
            body_bytes: 3,
            submitted_at: "2026-01-02T03:04:05.678Z".into(),
            attempts: 2,
            failed_at: Some("2026-01-03T00:00:00Z".into()),
            history: vec![attempt("one"), attempt("two")],
            ..CallDocument::default()
        }
    }

    #[test]
    fn calls_are_lines_of_a_table() {
        let mut out = Vec::new();
        table(&[call()]).print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let expected = "id-1 f.dev failed 3 B 2 2026-01-02 03:04:05 the answer was 500: no";
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn a_call_is_shown_with_its_attempts() {
        let mut out = Vec::new();
        write_call(&mut out, &call()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Request:      POST /a?b\n"), "{text}");
        assert!(text.contains("  two  the answer was 500: no\nmore\n"), "{text}");
        assert!(!text.contains("Callback:"), "{text}");
    }

    #[test]
    fn ids_are_part_of_a_path() {
        assert_eq!(target("a/b c", "/retry").unwrap(), "/system/queue/a%2Fb%20c/retry");
        assert!(target("", "").is_err());
    }
}
