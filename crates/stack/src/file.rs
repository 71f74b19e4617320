//! A stack file as typed data: what deployment needs of it (contract section 12.1). What it does not know
//! it ignores, as the clients do that people come from.

use pinnace_core::wire::{Map, Resources};

use super::{
    Fault,
    build::{Build, Configuration},
    node::{Kind, Node},
};

/// A stack file.
#[derive(Debug, Default, PartialEq)]
pub struct StackFile {
    /// The gateway it names.
    pub gateway: Option<String>,
    /// Its functions, in its order.
    pub functions: Vec<Function>,
    /// What it says of all builds.
    pub configuration: Configuration,
}

/// One function of a stack file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of its name.
    pub line: u64,
    /// The template it is built from.
    pub lang: String,
    /// The folder of its source.
    pub handler: String,
    /// Its image.
    pub image: String,
    /// The command that the watchdog runs.
    pub fprocess: String,
    /// Its namespace.
    pub namespace: String,
    /// Environment written in the file itself.
    pub environment: Map,
    /// Files with more of it, and the line of each.
    pub environment_files: Vec<(u64, String)>,
    /// Names of secrets.
    pub secrets: Vec<String>,
    /// Placement constraints.
    pub constraints: Vec<String>,
    /// Labels.
    pub labels: Map,
    /// Annotations.
    pub annotations: Map,
    /// Upper bounds of resources.
    pub limits: Option<Resources>,
    /// Resources asked for.
    pub requests: Option<Resources>,
    /// Whether its root filesystem is read-only.
    pub read_only: bool,
    /// How its image is built.
    pub build: Build,
}

impl StackFile {
    /// Takes what it knows out of a document, and adds what is wrong with it to `faults`.
    pub fn read(document: &Node, faults: &mut Vec<Fault>) -> Self {
        let mut file = Self::default();
        let mut provider = None;
        let mut functions = None;
        for (key, value) in entries(document, "the file", faults) {
            match key {
                "version" => check_version(value, faults),
                "provider" => provider = Some(value),
                "functions" => functions = Some(value),
                "configuration" => file.configuration = Configuration::read(value, faults),
                _ => {}
            }
        }
        match provider {
            Some(provider) => file.gateway = read_provider(provider, faults),
            None => faults.push(Fault::new(
                "provider is missing: write `provider: {name: openfaas, gateway: URL}`".to_owned(),
            )),
        }
        match functions {
            Some(functions) => file.functions = read_functions(functions, faults),
            None => {
                faults.push(Fault::new("functions is missing: it names no function".to_owned()));
            }
        }
        file
    }
}

/// The environment of a file that `environment_file` names.
pub fn read_environment(document: &Node, faults: &mut Vec<Fault>) -> Map {
    let mut environment = Map::new();
    for (key, value) in entries(document, "the file", faults) {
        if key == "environment" {
            environment = texts(value, "environment", faults);
        }
    }
    environment
}

fn check_version(value: &Node, faults: &mut Vec<Fault>) {
    if let Some(version) = text(value, "version", faults)
        && version != "1.0"
        && !version.is_empty()
    {
        faults
            .push(Fault::at(value.line, format!("version is {version:?}; only \"1.0\" is known")));
    }
}

fn read_provider(provider: &Node, faults: &mut Vec<Fault>) -> Option<String> {
    let mut gateway = None;
    let mut name = None;
    for (key, value) in entries(provider, "provider", faults) {
        match key {
            "name" => name = text(value, "provider.name", faults),
            "gateway" => gateway = text(value, "provider.gateway", faults),
            _ => {}
        }
    }
    if name.as_deref() != Some("openfaas") {
        let found = name.map_or("missing".to_owned(), |name| format!("{name:?}"));
        let said = format!("provider.name is {found}; it must be \"openfaas\"");
        faults.push(Fault::at(provider.line, said));
    }
    gateway.filter(|gateway| !gateway.is_empty())
}

fn read_functions(functions: &Node, faults: &mut Vec<Fault>) -> Vec<Function> {
    let mut list = Vec::new();
    let Kind::Map(map) = &functions.kind else {
        wrong(functions, "functions", "a mapping of names to functions", faults);
        return list;
    };
    for (key, value) in map {
        let Some(name) = key.text() else {
            wrong(key, "a function's name", "a word", faults);
            continue;
        };
        list.push(read_function(name, key.line, value, faults));
    }
    list
}

fn read_function(name: &str, line: u64, node: &Node, faults: &mut Vec<Fault>) -> Function {
    let mut function = Function { name: name.to_owned(), line, ..Function::default() };
    let path = format!("functions.{name}");
    for (key, value) in entries(node, &path, faults) {
        let path = format!("{path}.{key}");
        let word = |faults: &mut Vec<Fault>| text(value, &path, faults).unwrap_or_default();
        match key {
            "lang" => function.lang = word(faults),
            "handler" => function.handler = word(faults),
            "image" => function.image = word(faults),
            "fprocess" => function.fprocess = word(faults),
            "namespace" => function.namespace = word(faults),
            "environment" => function.environment = texts(value, &path, faults),
            "environment_file" => function.environment_files = list(value, &path, faults),
            "secrets" => function.secrets = words(value, &path, faults),
            "constraints" => function.constraints = words(value, &path, faults),
            "labels" => function.labels = texts(value, &path, faults),
            "annotations" => function.annotations = texts(value, &path, faults),
            "limits" => function.limits = resources(value, &path, faults),
            "requests" => function.requests = resources(value, &path, faults),
            "readonly_root_filesystem" => function.read_only = flag(value, &path, faults),
            _ => function.build.take(key, value, &path, faults),
        }
    }
    function
}

fn resources(node: &Node, path: &str, faults: &mut Vec<Fault>) -> Option<Resources> {
    let mut map = texts(node, path, faults);
    let mut take = |name: &str| map.remove(name).filter(|text| !text.is_empty());
    let resources = Resources {
        memory: take("memory"),
        cpu: take("cpu"),
        nvidia_gpu: take("nvidia.com/gpu"),
        amd_gpu: take("amd.com/gpu"),
        intel_gpu: take("intel.com/gpu"),
    };
    (resources != Resources::default()).then_some(resources)
}

pub(crate) fn flag(node: &Node, path: &str, faults: &mut Vec<Fault>) -> bool {
    match node.text().map(str::to_ascii_lowercase).as_deref() {
        Some("true" | "yes" | "on" | "y") => true,
        Some("false" | "no" | "off" | "n" | "") => false,
        _ => {
            wrong(node, path, "true or false", faults);
            false
        }
    }
}

pub(crate) fn text(node: &Node, path: &str, faults: &mut Vec<Fault>) -> Option<String> {
    let text = node.text();
    if text.is_none() {
        wrong(node, path, "a word", faults);
    }
    text.map(str::to_owned)
}

pub(crate) fn texts(node: &Node, path: &str, faults: &mut Vec<Fault>) -> Map {
    let mut map = Map::new();
    for (key, value) in entries(node, path, faults) {
        if let Some(text) = text(value, &format!("{path}.{key}"), faults) {
            map.insert(key.to_owned(), text);
        }
    }
    map
}

pub(crate) fn words(node: &Node, path: &str, faults: &mut Vec<Fault>) -> Vec<String> {
    list(node, path, faults).into_iter().map(|(_, word)| word).collect()
}

pub(crate) fn list(node: &Node, path: &str, faults: &mut Vec<Fault>) -> Vec<(u64, String)> {
    match &node.kind {
        Kind::Null => Vec::new(),
        Kind::List(items) => {
            let mut item = |item: &Node| Some((item.line, text(item, path, faults)?));
            items.iter().filter_map(&mut item).collect()
        }
        _ => {
            wrong(node, path, "a list", faults);
            Vec::new()
        }
    }
}

pub(crate) fn entries<'a>(
    node: &'a Node,
    path: &str,
    faults: &mut Vec<Fault>,
) -> Vec<(&'a str, &'a Node)> {
    match &node.kind {
        Kind::Null => Vec::new(),
        Kind::Map(map) => {
            map.iter().filter_map(|(key, value)| Some((key.text()?, value))).collect()
        }
        _ => {
            wrong(node, path, "a mapping", faults);
            Vec::new()
        }
    }
}

pub(crate) fn wrong(node: &Node, path: &str, wanted: &str, faults: &mut Vec<Fault>) {
    faults.push(Fault::at(node.line, format!("{path} is {}, not {wanted}", node.word())));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (StackFile, Vec<String>) {
        let mut faults = Vec::new();
        let file = StackFile::read(&Node::parse(text).unwrap(), &mut faults);
        (file, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn everything_a_deploy_needs() {
        let (file, faults) = read(
            "version: 1.0\nprovider:\n  name: openfaas\n  gateway: http://gw:8080\n  network: x\n\
             functions:\n  full:\n    lang: go\n    handler: ./x\n    image: a/b:1\n    fprocess: cat\n    \
             namespace: dev\n    environment:\n      a: 1.10\n      b: yes\n      c:\n    \
             environment_file: [one.yml, two.yml]\n    secrets:\n      - s\n    constraints: ['k=v']\n    \
             labels: {com.openfaas.scale.min: 2}\n    annotations: {topic: t}\n    limits: {memory: 40Mi}\n    \
             requests: {cpu: 100m, nvidia.com/gpu: 1}\n    readonly_root_filesystem: true\n    \
             build_args: {X: 1}\n    build_options: [dev]\n    build_secrets: {npm: ./npmrc}\n    skip_build: true\n    \
             platforms: linux/amd64\n    unknown: [1]\nconfiguration:\n  copy: [./c]\n  templates:\n    - name: t\n      \
             source: https://x/y#1\n    - name: u\n",
        );
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(file.gateway.as_deref(), Some("http://gw:8080"));
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Map>()
        };
        let expected = Function {
            name: "full".into(),
            line: 7,
            lang: "go".into(),
            handler: "./x".into(),
            image: "a/b:1".into(),
            fprocess: "cat".into(),
            namespace: "dev".into(),
            environment: map(&[("a", "1.10"), ("b", "yes"), ("c", "")]),
            environment_files: vec![(17, "one.yml".into()), (17, "two.yml".into())],
            secrets: vec!["s".into()],
            constraints: vec!["k=v".into()],
            labels: map(&[("com.openfaas.scale.min", "2")]),
            annotations: map(&[("topic", "t")]),
            limits: Some(Resources { memory: Some("40Mi".into()), ..Resources::default() }),
            requests: Some(Resources {
                cpu: Some("100m".into()),
                nvidia_gpu: Some("1".into()),
                ..Resources::default()
            }),
            read_only: true,
            build: Build {
                skip: true,
                args: map(&[("X", "1")]),
                options: vec!["dev".into()],
                secrets: map(&[("npm", "./npmrc")]),
                platforms: "linux/amd64".into(),
            },
        };
        assert_eq!(file.functions, [expected]);
        let templates = file.configuration.templates;
        let templates: Vec<_> =
            templates.iter().map(|one| (one.name.as_str(), one.source.as_deref())).collect();
        assert_eq!(templates, [("t", Some("https://x/y#1")), ("u", None)]);
        assert_eq!(file.configuration.copy, ["./c"]);
    }

    #[test]
    fn every_fault_with_its_line() {
        let (_, faults) = read(
            "version: 2.0\nprovider:\n  name: faas\nfunctions:\n  a:\n    image: [x]\n    labels: 1\n    \
             secrets: {s: 1}\n    readonly_root_filesystem: maybe\n  b: []\n",
        );
        let expected = [
            "line 1: version is \"2.0\"; only \"1.0\" is known",
            "line 3: provider.name is \"faas\"; it must be \"openfaas\"",
            "line 6: functions.a.image is a list, not a word",
            "line 7: functions.a.labels is a scalar, not a mapping",
            "line 8: functions.a.secrets is a mapping, not a list",
            "line 9: functions.a.readonly_root_filesystem is a scalar, not true or false",
            "line 10: functions.b is a list, not a mapping",
        ];
        assert_eq!(faults, expected);
    }

    #[test]
    fn a_file_of_another_tool_is_told_what_it_lacks() {
        let (_, faults) = read("resolver: lts-22.0\npackages: [.]\n");
        assert_eq!(faults.len(), 2, "{faults:?}");
    }
}
