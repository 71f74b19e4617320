//! Every flag of faas-cli's commands is taken, as of its commit c8191b71 of 2026-07-24.

use super::definition;

/// Flags that faas-cli takes with each command.
const EVERYWHERE: &str = "-f=x --yaml=x --filter=x";

/// A command, its arguments, and its flags; `=` stands before the value of one that has one.
const COMMANDS: &[(&str, &str)] = &[
    (
        "deploy n",
        "--annotation=a=b --constraint=x --cpu-limit=1 --cpu-request=1 -e=a=b --env=a=b --envsubst=false \
         --fprocess=x -g=x --gateway=x --handler=x --image=x -l=a=b --label=a=b --lang=x --memory-limit=1 \
         --memory-request=1 -n=x --namespace=x --network=func_functions --read-template=false --readonly \
         --replace --secret=x --tag=sha --timeout=5s --tls-no-verify -k=x --token=x --update=false \
         --regex=x",
    ),
    ("deploy", "--name=x"),
    (
        "describe n",
        "--envsubst -g=x --gateway=x -j --json --name=x -n=x --namespace=x --tls-no-verify",
    ),
    ("describe n", "-k=x --token=x -v --verbose --regex=x"),
    (
        "diff",
        "--env=all --envsubst -g=x --gateway=x -n=x --namespace=x --tag=digest --tls-no-verify -k=x",
    ),
    (
        "generate",
        "--annotation=a=b --api=x --arch=x --envsubst --from-store=x --label=a=b -n=x --tag=sha",
    ),
    ("invoke n", "-a --async --auth --content-type=x --envsubst -g=x -H=a:b --header=a=b -m=GET"),
    ("invoke n", "--method=GET --name=x -n=x --namespace=x --query=a=b --tls-no-verify --regex=x"),
    ("invoke n --sign s --key k", "-a"),
    (
        "list",
        "--envsubst -g=x -j --json -n=x -q --quiet --sort=creation --tls-no-verify -k=x -v --verbose",
    ),
    (
        "login",
        "-g=x -p=x --password=x -s --password-stdin --timeout=5s --tls-no-verify -u=x --username=x",
    ),
    ("logout", "-g=x --gateway=x --regex=x"),
    (
        "logs n",
        "-g=x --instance -j --json --lines=3 --name -n=x -o=plain --output=keyvalue --since=5m",
    ),
    (
        "logs n",
        "--since-time=2026-01-01T00:00:00Z -t=false --tail --time-format=x --tls-no-verify -k=x",
    ),
    (
        "namespace create n",
        "--annotation=a=b -l=a=b --label=a=b -g=x --gateway=x --tls-no-verify -k=x",
    ),
    (
        "namespace update n",
        "--annotation=a=b -l=a=b --label=a=b -g=x --gateway=x --tls-no-verify -k=x",
    ),
    ("namespace get n", "-g=x --gateway=x --tls-no-verify -k=x --token=x --regex=x"),
    ("namespace remove n", "-g=x --gateway=x --tls-no-verify -k=x --token=x --regex=x"),
    ("namespace list", "-j --json -g=x --gateway=x --tls-no-verify -k=x --token=x --regex=x"),
    ("namespaces", "-g=x --gateway=x --tls-no-verify -k=x --token=x"),
    ("print-token x", ""),
    (
        "ready",
        "--attempts=3 -g=x --gateway=x --interval=1s -n=x --namespace=x --tls-no-verify --regex=x",
    ),
    ("remove n", "--envsubst -g=x --gateway=x -n=x --namespace=x --tls-no-verify -k=x --regex=x"),
    (
        "secret apply",
        "-g=x -n=x --namespace=x --tls-no-verify -k=x --token=x --trim=false --regex=x",
    ),
    (
        "secret create n",
        "--from-file=x --from-literal=x -g=x -n=x --replace --tls-no-verify -k=x --trim",
    ),
    ("secret generate", "--length=3 -o=x --output=x --regex=x"),
    ("secret list", "-g=x -j --json -n=x --namespace=x --tls-no-verify -k=x --token=x --regex=x"),
    ("secret remove n", "-g=x -n=x --namespace=x --tls-no-verify -k=x --token=x --regex=x"),
    (
        "secret update n",
        "--from-file=x --from-literal=x -g=x -n=x --tls-no-verify -k=x --trim=false",
    ),
    ("store list", "-j --json -v --verbose -p=x --platform=x -u=x --url=x --regex=x"),
    ("store describe n", "-j --json -p=x --platform=x -u=x --url=x --regex=x"),
    (
        "store deploy n",
        "--annotation=a=b --constraint=x --cpu-limit=1 --cpu-request=1 -e=a=b --env=a=b -g=x -l=a=b \
         --memory-limit=1 --memory-request=1 --name=x -n=x --replace --secret=x --timeout=5s \
         --tls-no-verify -k=x --token=x --update=false -p=x --platform=x -u=x --url=x --regex=x",
    ),
    (
        "version",
        "--envsubst -g=x -j --json --short-version --tls-no-verify -k=x --warn-update=false",
    ),
    ("completion bash", ""),
    (
        "new n",
        "-a=x --append=x --cpu-limit=1 --cpu-request=1 -g=x --gateway=x --handler=x --lang=x --memory-limit=1 \
         --memory-request=1 -p=x --prefix=x -q --quiet --regex=x",
    ),
    ("new", "--list"),
    (
        "build",
        "-b=a=b --build-arg=a=b --build-label=a=b -o=x --build-option=x --copy-extra=x --debug \
         --disable-stack-pull --envsubst=false --no-cache --overwrite=false --parallel=2 --pull --quiet --shrinkwrap \
         --squash --tag=sha --regex=x",
    ),
    ("build --image i --handler h --lang l --name n", "--quiet"),
    ("push", "--envsubst=false --parallel=2 --quiet --tag=sha --regex=x"),
    (
        "publish",
        "-b=a=b --build-arg=a=b --build-label=a=b -o=x --build-option=x --builder-public-key=x --copy-extra=x --debug \
         --disable-stack-pull --envsubst=false --extra-tag=x --no-cache --overwrite=false --parallel=2 \
         --payload-secret=x --platforms=x --pull --quiet --remote-builder=x --reset-qemu --shrinkwrap --squash \
         --tag=digest --regex=x",
    ),
    ("publish --image i --handler h --lang l --name n", "--quiet"),
    (
        "up-stack",
        "--annotation=a=b -b=a=b --build-arg=a=b --build-label=a=b -o=x --build-option=x --builder-public-key=x \
         --constraint=x --copy-extra=x --cpu-limit=1 --cpu-request=1 --debug --disable-stack-pull -e=a=b --env=a=b \
         --envsubst=false --fprocess=x -g=x --gateway=x -l=a=b --label=a=b --memory-limit=1 --memory-request=1 -n=x \
         --namespace=x --network=func_functions --no-cache --overwrite=false --parallel=2 --payload-secret=x \
         --platforms=x --publish --pull --quiet --read-template=false --readonly --remote-builder=x --replace \
         --secret=x --shrinkwrap --skip-deploy --skip-push --squash --tag=sha --timeout=5s --tls-no-verify -k=x \
         --token=x --update=false --watch --regex=x",
    ),
    ("up-stack --image i --handler h --lang l --name n", "--quiet"),
    ("template pull x", "--debug --overwrite=false --regex=x"),
    ("template pull stack", "--debug --overwrite=false --regex=x"),
    (
        "template store list",
        "-j --json -o --official -p=x --platform=x -r --recommended -u=x --url=x -v --verbose --regex=x",
    ),
    ("template store describe n", "-j --json -u=x --url=x --debug --overwrite=false --regex=x"),
    ("template store pull n", "-u=x --url=x --debug --overwrite=false --regex=x"),
];

/// Aliases of faas-cli's commands.
const ALIASES: &[&str] = &[
    "ls",
    "rm n",
    "delete n",
    "ns ls",
    "namespace ls",
    "ns rm n",
    "ns delete n",
    "secret ls",
    "secret u n",
    "secret rm n",
    "secret delete n",
    "secret gen",
    "store ls",
    "store inspect n",
    "template store ls",
];

/// Flags whose value, where they have one, must stand behind an equals sign.
const OPTIONAL_VALUES: &[&str] = &[
    "--envsubst",
    "--read-template",
    "--overwrite",
    "--update",
    "--tail",
    "-t",
    "--trim",
    "--warn-update",
];

fn parses(line: &mut clap::Command, words: &[&str]) -> Result<(), String> {
    let words = std::iter::once("pinnace").chain(words.iter().copied());
    line.try_get_matches_from_mut(words).map(drop).map_err(|error| error.to_string())
}

#[test]
fn every_flag_is_taken_in_both_spellings() {
    let mut line = definition();
    for (command, flags) in COMMANDS {
        let command: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(parses(&mut line, &command), Ok(()), "{command:?}");
        let everywhere = if command[0] == "completion" { "" } else { EVERYWHERE };
        let everywhere = if command[0].starts_with("print") { "" } else { everywhere };
        let everywhere = if command[0] == "namespaces" { "" } else { everywhere };
        for flag in flags.split_whitespace().chain(everywhere.split_whitespace()) {
            let (name, value) = flag.split_once('=').map_or((flag, None), |(n, v)| (n, Some(v)));
            assert_eq!(
                parses(&mut line, &[&command[..], &[flag]].concat()),
                Ok(()),
                "{command:?} {flag}"
            );
            if let Some(value) = value.filter(|_| !OPTIONAL_VALUES.contains(&name)) {
                let words = [&command[..], &[name, value]].concat();
                assert_eq!(parses(&mut line, &words), Ok(()), "{words:?}");
            }
        }
    }
}

#[test]
fn every_alias_is_taken() {
    let mut line = definition();
    for alias in ALIASES {
        let words: Vec<&str> = alias.split_whitespace().collect();
        assert_eq!(parses(&mut line, &words), Ok(()), "{alias}");
    }
}
