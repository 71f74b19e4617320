//! OpenFaaS's own Go clients and connectors: they do with our gateway what they do with theirs.
//!
//! The programs are in `clients/go`, built here with the official libraries, which go fetches by name and checks
//! against `go.sum`. A finished connector of OpenFaaS is run too, where `PINNACE_TEST_CRON_CONNECTOR` names one.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    fs::{self, File},
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
    let output = client("sdk", &gateway).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", gateway.log());
    println!("{said}");
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

    let secrets = tempfile::tempdir().unwrap();
    fs::write(secrets.path().join("basic-auth-user"), "admin").unwrap();
    fs::write(secrets.path().join("basic-auth-password"), gateway.password()).unwrap();
    let log = secrets.path().join("log");
    let mut connector = Command::new(program);
    connector.env("gateway_url", gateway.url()).env("asynchronous_invocation", "false");
    connector.env("basic_auth", "true").env("secret_mount_path", secrets.path());
    connector.env("rebuild_interval", "100ms").env("print_response_body", "true");
    connector.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let _connector = Ended(connector.spawn().unwrap());

    let said = || fs::read_to_string(&log).unwrap();
    let answered = || said().matches("Response: ticking [200]").count();
    eventually("the connector is answered twice", READY_MAX, || (answered() >= 2).then_some(()));
    let count = |name: &str| gateway.status(name).unwrap()["invocationCount"].as_f64();
    assert!(count("ticking") >= Some(2.0), "{}", said());
    assert_eq!(count("silent"), None, "{}", said());

    gateway.remove("ticking");
    eventually("it forgets a removed function", READY_MAX, || {
        said().contains("Removed: ticking.openfaas-fn").then_some(())
    });
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
    _process: Ended,
    input: ChildStdin,
    printed: mpsc::Receiver<String>,
}

impl Connector {
    fn start(gateway: &Gateway) -> Self {
        let mut command = client("connector", gateway);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (sender, printed) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.all(|line| sender.send(line).is_ok())
        });
        Self { _process: Ended(process), input, printed }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// What it prints up to this line.
    fn until(&self, last: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while lines.last().is_none_or(|line| line != last) {
            let line = self.printed.recv_timeout(ANSWER_MAX);
            lines.push(line.unwrap_or_else(|_| panic!("no {last:?}, but {lines:?}")));
        }
        lines
    }
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
