//! One file per command. Each takes its flags and says what came of it.

pub mod build;
pub mod completion;
pub mod deploy;
pub mod describe;
pub mod diff;
pub mod doctor;
pub mod down;
pub mod generate;
pub mod image;
pub mod invoke;
pub mod list;
pub mod login;
pub mod logs;
pub mod namespace;
pub mod new;
pub mod print_token;
pub mod publish;
pub mod push;
pub mod queue;
pub mod ready;
pub mod registry;
pub mod remove;
pub mod scale;
pub mod schedule;
pub mod secret;
pub mod store;
pub mod template;
pub mod up_stack;
pub mod version;

use std::io::{self, Write};

use pinnace_core::name::check_label;
use serde_json::json;

use crate::{
    args::Command,
    failure::usage,
    gateway::Gateway,
    output::{self, printable},
};

/// Runs one command.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => crate::up::run(&args),
        Command::Down(args) => down::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::UpStack(args) => up_stack::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Push(args) => push::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::New(args) => new::run(&args),
        Command::Template(args) => template::run(&args),
        Command::Deploy(args) => deploy::run(&args),
        Command::Invoke(args) => invoke::run(&args),
        Command::List(args) => list::run(&args),
        Command::Describe(args) => describe::run(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Scale(args) => scale::run(&args),
        Command::Remove(args) => remove::run(&args),
        Command::Ready(args) => ready::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Store(args) => store::run(&args),
        Command::Secret(args) => secret::run(&args),
        Command::Namespace(args) => namespace::run(&args),
        Command::Namespaces(args) => namespace::list_by_old_name(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Registry(args) => registry::run(&args),
        Command::Queue(args) => queue::run(&args),
        Command::Schedule(args) => schedule::run(&args),
        Command::Login(args) => login::run(&args),
        Command::Logout(args) => login::logout(&args),
        Command::Version(args) => version::run(&args),
        Command::PrintToken(args) => print_token::run(&args),
        Command::Completion(args) => completion::run(&args),
    }
}

/// A function's name from the command line, checked before it becomes part of a URL. `name.namespace` is
/// split unless a namespace is given.
fn split_name<'a>(
    name: &'a str,
    namespace: Option<&'a str>,
) -> anyhow::Result<(&'a str, Option<&'a str>)> {
    let (name, namespace) = match (namespace, name.rsplit_once('.')) {
        (None, Some((name, namespace))) => (name, Some(namespace)),
        _ => (name, namespace),
    };
    check_label("function", name).map_err(|error| usage(error.to_string()))?;
    if let Some(namespace) = namespace {
        check_label("namespace", namespace).map_err(|error| usage(error.to_string()))?;
    }
    Ok((name, namespace))
}

/// What is said of a function that is not there.
fn no_such_function(name: &str, namespace: Option<&str>, gateway: &Gateway) -> anyhow::Error {
    let place = namespace.map(|ns| format!(" in namespace {ns}")).unwrap_or_default();
    let list = gateway.command("list", namespace);
    anyhow::anyhow!(
        "there is no function {name}{place} at {}; `{list}` shows those there are",
        gateway.address()
    )
}

/// Removes what is named, one after the other, and says what is gone. One that cannot be removed keeps no other from it.
fn remove_each(
    references: &[String],
    is_json: bool,
    remove: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for reference in references {
        match remove(reference) {
            Ok(()) => {
                removed.push(reference);
                if !is_json {
                    writeln!(out, "Removed {}.", printable(reference))?;
                }
            }
            Err(error) => failed.push(error),
        }
    }
    if is_json {
        output::json(&mut out, &json!({ "removed": removed }))?;
    }
    let last = failed.pop();
    for error in failed {
        output::complain(&format!("{error:#}"));
    }
    last.map_or(Ok(()), Err)
}
