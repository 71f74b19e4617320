//! OpenFaaS's own Go clients and connectors: they do with our gateway what they do with theirs.
//!
//! The programs are in `clients/go`, built here with the official libraries, which go fetches by name and checks
//! against `go.sum`. A finished connector of OpenFaaS is run too, where `PINNACE_TEST_CRON_CONNECTOR` names one.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use pinnace_tests::{Function, Gateway, eventually, gateway::READY_MAX};

/// How long a message may take to its functions and back.
const ANSWER_MAX: Duration = Duration::from_secs(60);

#[test]
fn the_go_client_can_do_all_it_does() {
    let gateway = Gateway::start();
    let output = client("sdk", &gateway).arg("--async").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", gateway.log());
    println!("{said}");
}

#[test]
fn the_go_client_builds_with_a_signature_and_a_sealed_secret() {
    let files = tempfile::tempdir().unwrap();
    let (secret, source) = (files.path().join("secret"), files.path().join("source"));
    fs::write(&secret, "payload\n").unwrap();
    fs::create_dir_all(source.join("function")).unwrap();
    let template = "pinnace:\n  base: host\n  compile:\n    run: [sh, -c, 'echo begun; cat /run/secrets/token \
                    function/word > made; echo $GIVEN >> made']\n    keep: [/home/app/made]\n  command: [cat, \
                    /home/app/made]\n";
    fs::write(source.join("template.yml"), template).unwrap();
    fs::write(source.join("function/word"), "-word\n").unwrap();
    let gateway = Gateway::start_with(&["--payload-secret", secret.to_str().unwrap()]);
    let mut builder = client("builder", &gateway);
    builder.arg("--payload-secret").arg(&secret).arg("--context").arg(&source);
    let output = builder.args(["--image", "built:1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("begun"), "{said}\n{}", gateway.log());
    gateway.deploy(&Function::new("built", "built:1"));
    assert_eq!(gateway.call("built", b"").expect(200).text(), "sealed-value-word\nargument\n");
    let shown = gateway.state_dir().join("run/build-secrets");
    eventually("nothing of the secret is left", READY_MAX, || {
        (fs::read_dir(&shown).unwrap().count() == 0).then_some(())
    });
}

#[test]
fn a_connector_calls_the_functions_that_ask_for_a_topic() {
    let gateway = Gateway::start();
    let marked = br#"{"name":"second","annotations":{"openfaas":"1"}}"#;
    gateway.api("POST", "/system/namespace/", marked).expect(201);
    gateway.deploy(&subscriber("one", "orders"));
    gateway.deploy(&Function::host("silent", "cat"));
    let other = subscriber("two", "payments, orders").with("namespace", "second".into());
    gateway.try_deploy(&other).expect(202);
    gateway.deploy(&subscriber("last", "end"));

    let mut connector = Connector::start(&gateway);
    connector.say("await end orders payments");
    connector.say("orders first");
    connector.say("payments second");
    connector.say("nobody third");
    connector.say("end fourth");
    let said = connector.until("200 end last.openfaas-fn fourth");
    let answers = [
        "200 orders one.openfaas-fn first",
        "200 orders two.second first",
        "200 payments two.second second",
        "200 end last.openfaas-fn fourth",
    ];
    assert_eq!(said, answers, "{}", gateway.log());

    gateway.remove("one");
    gateway.try_update(&other.annotation("topic", "payments")).expect(202);
    connector.say("await end payments");
    connector.say("orders fifth");
    connector.say("end sixth");
    assert_eq!(connector.until("200 end last.openfaas-fn sixth").len(), 1);
}

#[test]
fn the_cron_connector_calls_functions_by_their_schedule() {
    let Ok(program) = std::env::var("PINNACE_TEST_CRON_CONNECTOR") else {
        println!("left out: PINNACE_TEST_CRON_CONNECTOR names no cron-connector");
        return;
    };
    let gateway = Gateway::start();
    gateway.deploy(&subscriber("ticking", "cron-function").annotation("schedule", "@every 1s"));
    gateway.deploy(&Function::host("silent", "cat"));

    let mut connector = Command::new(program);
    connector.env("gateway_url", gateway.url()).env("asynchronous_invocation", "false");
    connector.env("basic_auth", "true").env("secret_mount_path", gateway.state_dir());
    connector.env("rebuild_interval", "100ms").env("print_response_body", "true");
    let connector = Running::start(connector.stdin(Stdio::null()).stdout(Stdio::null()));

    let said = || connector.said();
    let answered = || said().matches("Response: ticking [200]").count();
    awaited(&connector, "it is answered twice", || answered() >= 2);
    let count = |name: &str| gateway.status(name).unwrap()["invocationCount"].as_f64();
    assert!(count("ticking") >= Some(2.0), "{}", said());
    assert_eq!(count("silent"), None, "{}", said());

    gateway.remove("ticking");
    awaited(&connector, "it forgets a removed function", || {
        said().contains("Removed: ticking.openfaas-fn")
    });
}

/// Waits for something that a connector does; if it does not, its words are shown.
fn awaited(connector: &Running, what: &str, done: impl Fn() -> bool) {
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(what, READY_MAX, || done().then_some(()));
    }));
    found.unwrap_or_else(|_| panic!("{what}: not in time:\n{}", connector.said()));
}

/// A function that answers what it is sent, and asks for topics.
fn subscriber(name: &str, topics: &str) -> Function {
    Function::host(name, "cat").annotation("topic", topics)
}

/// A program of `clients/go` that knows its gateway.
fn client(name: &str, gateway: &Gateway) -> Command {
    let mut command = Command::new(built(name));
    command.args(["--gateway", &gateway.url(), "--password-file"]);
    command.arg(gateway.state_dir().join("basic-auth-password")).stdin(Stdio::null());
    command
}

/// Builds a program of `clients/go` beside our own.
fn built(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let folder = this.ancestors().nth(2).expect("a test runs from target/TARGET/PROFILE/deps");
    let program = folder.join("go-clients").join(name);
    let mut go = Command::new("go");
    go.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/go"));
    // The module is its own, whatever the user builds else.
    go.env("GOFLAGS", "").env("GOWORK", "off").env("CGO_ENABLED", "0");
    go.args(["build", "-o"]).arg(&program).arg(format!("./{name}"));
    let output = go.output().unwrap_or_else(|error| {
        panic!("go 1.24 or newer builds the Go clients, but it cannot be run: {error}")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    let needs = "it takes go 1.24 or newer and, for the first time, a way to the Go module proxy";
    assert!(output.status.success(), "tests/clients/go/{name} cannot be built; {needs}:\n{said}");
    program
}

/// The program `connector`, its input and what it prints.
struct Connector {
    running: Running,
    input: ChildStdin,
    printed: mpsc::Receiver<String>,
}

impl Connector {
    fn start(gateway: &Gateway) -> Self {
        let mut command = client("connector", gateway);
        let mut running = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let input = running.process.stdin.take().unwrap();
        let output = running.process.stdout.take().unwrap();
        let (sender, printed) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.all(|line| sender.send(line).is_ok())
        });
        Self { running, input, printed }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// What it prints up to this line.
    fn until(&self, last: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while lines.last().is_none_or(|line| line != last) {
            let line = self.printed.recv_timeout(ANSWER_MAX);
            let said = || panic!("no {last:?}, but {lines:?}\n{}", self.running.said());
            lines.push(line.unwrap_or_else(|_| said()));
        }
        lines
    }
}

/// A process that ends with the test, and what it writes to its standard error.
struct Running {
    process: Child,
    log: tempfile::NamedTempFile,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let process = command.stderr(log.reopen().unwrap()).spawn().unwrap();
        Self { process, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
