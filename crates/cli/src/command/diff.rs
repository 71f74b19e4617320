//! `pinnace diff`: what a deploy of a stack file would change.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use clap::{Args, ValueEnum};
use pinnace_core::{
    name::DEFAULT_NAMESPACE,
    wire::{FunctionDeployment, FunctionStatus, Map, Resources},
};

use crate::{
    args::{GatewayArgs, NamespaceArgs, StackArgs},
    failure::usage,
    gateway::Gateway,
    output::printable,
    stack::{Stack, TagSource},
};

/// The label that gateways add to every function.
const LABEL_OF_GATEWAYS: &str = "label.faas_function";

/// Narrowest column of a comparison, in characters.
const COLUMN_CHARS: usize = 40;

/// Flags of `pinnace diff`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace diff
  pinnace diff -f stack.yaml --filter 'api-*' && echo nothing to deploy

It ends with 0 if all is as in the file, else with 1. Nothing is changed. Functions that are not
in the file are passed over.")]
pub struct DiffArgs {
    /// Environment variables to compare: those of the file, those of the gateway, or both
    #[arg(long, value_name = "WHOSE", value_enum, default_value_t = Whose::Local)]
    env: Whose,
    /// Compare with the tag from this source: latest [default], sha, branch, describe or digest
    #[arg(long, value_name = "SOURCE", value_parser = TagSource::parse, hide_default_value = true,
          default_value = "latest")]
    tag: TagSource,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    stack: StackArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Whose {
    /// Those of the file
    Local,
    /// Those of the gateway
    Remote,
    /// Both
    All,
}

/// What one side says of a function: names of settings, and their values.
type Settings = BTreeMap<String, String>;

/// A setting that differs: its name, and its value on the file's side and on the gateway's.
type Row = (String, Option<String>, Option<String>);

/// Compares.
pub fn run(args: &DiffArgs) -> anyhow::Result<()> {
    let Some(mut stack) = Stack::load(&args.stack)? else {
        return Err(usage("name a stack file with -f; there is no stack.yaml here"));
    };
    for function in &mut stack.functions {
        function.tag(args.tag)?;
        if let Some(namespace) = args.namespace.checked()? {
            function.deployment.namespace = namespace.to_owned();
        }
    }
    let gateway = Gateway::open(&args.gateway, stack.gateway.as_deref())?;
    let wanted: Vec<&FunctionDeployment> = stack.functions.iter().map(|f| &f.deployment).collect();
    let mut deployed = BTreeMap::new();
    for namespace in wanted.iter().map(|f| f.namespace.as_str()).collect::<BTreeSet<_>>() {
        let named = Some(namespace).filter(|namespace| !namespace.is_empty());
        deployed.insert(namespace, gateway.functions(named)?);
    }
    let mut out = io::stdout().lock();
    let mut differ = 0;
    for function in &wanted {
        let found = deployed[function.namespace.as_str()].iter();
        let found = found.clone().find(|found| found.name == function.service);
        let rows = compared(function, found, args.env);
        if !rows.is_empty() {
            differ += 1;
            write!(out, "{}", table(&shown_name(function), &rows))?;
        }
    }
    if differ == 0 {
        writeln!(out, "YAML matches deployment, no differences found.")?;
        return Ok(());
    }
    out.flush()?;
    anyhow::bail!("{differ} of {} functions differ from the stack file", wanted.len())
}

fn shown_name(function: &FunctionDeployment) -> String {
    match function.namespace.as_str() {
        "" | DEFAULT_NAMESPACE => function.service.clone(),
        namespace => format!("{}.{namespace}", function.service),
    }
}

fn compared(wanted: &FunctionDeployment, found: Option<&FunctionStatus>, whose: Whose) -> Vec<Row> {
    let Some(found) = found else {
        let (left, right) = ("defined in stack.yaml", "not deployed");
        return vec![("function".to_owned(), Some(left.to_owned()), Some(right.to_owned()))];
    };
    let (left, right) = (of_file(wanted), of_gateway(found));
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let rows = names.into_iter().filter_map(|name| {
        let (left, right) = (left.get(name), right.get(name));
        let matters = left != right && !is_passed_over(name, left, right, whose);
        matters.then(|| (name.clone(), left.cloned(), right.cloned()))
    });
    rows.collect()
}

/// Whether a setting that one side alone has says nothing: the image's own command, what the gateway adds,
/// and environment that is not asked for.
fn is_passed_over(name: &str, left: Option<&String>, right: Option<&String>, whose: Whose) -> bool {
    if name == "fprocess" || name == LABEL_OF_GATEWAYS {
        return left.is_none();
    }
    name.starts_with("env.")
        && match whose {
            Whose::Local => left.is_none(),
            Whose::Remote => right.is_none(),
            Whose::All => false,
        }
}

fn of_file(function: &FunctionDeployment) -> Settings {
    let mut settings =
        plain(&function.image, &function.env_process, function.read_only_root_filesystem);
    maps(&mut settings, "env", function.env_vars.as_ref());
    maps(&mut settings, "label", function.labels.as_ref());
    maps(&mut settings, "annotation", function.annotations.as_ref());
    lists(&mut settings, "secret", function.secrets.as_deref());
    lists(&mut settings, "constraint", function.constraints.as_deref());
    resources(&mut settings, "limits", function.limits.as_ref());
    resources(&mut settings, "requests", function.requests.as_ref());
    settings
}

fn of_gateway(function: &FunctionStatus) -> Settings {
    let mut settings =
        plain(&function.image, &function.env_process, function.read_only_root_filesystem);
    maps(&mut settings, "env", function.env_vars.as_ref());
    maps(&mut settings, "label", Some(&function.labels));
    maps(&mut settings, "annotation", Some(&function.annotations));
    lists(&mut settings, "secret", function.secrets.as_deref());
    lists(&mut settings, "constraint", function.constraints.as_deref());
    resources(&mut settings, "limits", function.limits.as_ref());
    resources(&mut settings, "requests", function.requests.as_ref());
    settings
}

fn plain(image: &str, process: &str, is_read_only: bool) -> Settings {
    let all = [
        ("image", image.to_owned()),
        ("fprocess", process.to_owned()),
        ("readonly_root_filesystem", is_read_only.to_string()),
    ];
    let given = all.into_iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| (name.to_owned(), value)).collect()
}

fn maps(settings: &mut Settings, kind: &str, map: Option<&Map>) {
    let entries = map.into_iter().flatten();
    settings.extend(entries.map(|(key, value)| (format!("{kind}.{key}"), value.clone())));
}

fn lists(settings: &mut Settings, kind: &str, list: Option<&[String]>) {
    let entries = list.into_iter().flatten();
    settings.extend(entries.map(|entry| (format!("{kind}.{entry}"), "present".to_owned())));
}

fn resources(settings: &mut Settings, kind: &str, resources: Option<&Resources>) {
    let Some(resources) = resources else { return };
    for (name, value) in [("cpu", &resources.cpu), ("memory", &resources.memory)] {
        if let Some(value) = value {
            settings.insert(format!("{kind}.{name}"), value.clone());
        }
    }
}

/// Both sides beside each other.
fn table(name: &str, rows: &[Row]) -> String {
    let label = |row: &Row| format!("{}:", printable(&row.0));
    let labels = rows.iter().map(|row| label(row).chars().count());
    let width = labels.max().unwrap_or_default().max("image:".len());
    let cell = |marker: &str, row: &Row, value: &Option<String>| {
        let text = |value: &String| format!("{marker} {:<width$} {}", label(row), printable(value));
        value.as_ref().map(text).unwrap_or_default()
    };
    let cells: Vec<(String, String)> =
        rows.iter().map(|row| (cell("-", row, &row.1), cell("+", row, &row.2))).collect();
    let widest = |texts: &mut dyn Iterator<Item = &String>| {
        texts.map(|text| text.chars().count()).max().unwrap_or_default().max(COLUMN_CHARS)
    };
    let left = widest(&mut cells.iter().map(|(left, _)| left));
    let right = widest(&mut cells.iter().map(|(_, right)| right));
    let mut text = format!("{name}\n  {:<left$} | {:<right$}\n", "stack.yaml", "deployed");
    text.push_str(&format!("  {}-+-{}\n", "-".repeat(left), "-".repeat(right)));
    for (of_file, of_gateway) in cells {
        text.push_str(&format!("  {of_file:<left$} | {of_gateway:<right$}\n"));
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &str, found: &str, whose: Whose) -> Vec<String> {
        let wanted = serde_json::from_str(wanted).unwrap();
        let found = serde_json::from_str::<FunctionStatus>(found).unwrap();
        compared(&wanted, Some(&found), whose).into_iter().map(|(name, ..)| name).collect()
    }

    #[test]
    fn what_differs() {
        let wanted = r#"{"service":"f","image":"a:1","envVars":{"x":"1","y":"2"},"secrets":["s"],
            "labels":{"team":"a"},"limits":{"memory":"1Mi"}}"#;
        let same = r#"{"name":"f","image":"a:1","envProcess":"cat","envVars":{"x":"1","y":"2","z":"3"},
            "secrets":["s"],"labels":{"team":"a","faas_function":"f"},"annotations":{},
            "limits":{"memory":"1Mi"}}"#;
        assert_eq!(names(wanted, same, Whose::Local), Vec::<String>::new());
        assert_eq!(names(wanted, same, Whose::All), ["env.z"]);
        let other = r#"{"name":"f","image":"a:2","labels":{"own":"1"},"annotations":{},
            "requests":{"cpu":"1"},"readOnlyRootFilesystem":true}"#;
        let all = [
            "env.x",
            "env.y",
            "image",
            "label.own",
            "label.team",
            "limits.memory",
            "readonly_root_filesystem",
            "requests.cpu",
            "secret.s",
        ];
        assert_eq!(names(wanted, other, Whose::Local), all);
        assert_eq!(names(wanted, other, Whose::Remote), all[2..]);
    }

    #[test]
    fn what_is_not_deployed() {
        let wanted = FunctionDeployment { service: "f".into(), ..FunctionDeployment::default() };
        let rows = compared(&wanted, None, Whose::Local);
        let text = table("f", &rows);
        assert!(text.contains("- function: defined in stack.yaml"), "{text}");
        assert!(text.contains("| + function: not deployed"), "{text}");
    }
}
