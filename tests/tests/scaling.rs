//! Replicas follow the load, alerts and their own word on how they are.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use pinnace_tests::{Function, Gateway, eventually, gateway::free_address, http, images::Image};
use serde_json::{Value, json};

/// How long OpenFaaS's certifier waits for replicas to come, and to go.
const CERTIFIER_WAITS: Duration = Duration::from_secs(60);

fn gateway() -> Gateway {
    let gateway = Gateway::start();
    gateway.load("hello:test", &Image::hello("hello:test"));
    gateway
}

fn alert(gateway: &Gateway, alerts: &[(&str, &str)]) -> http::Answer {
    let alerts: Vec<Value> = alerts
        .iter()
        .map(|(status, function)| {
            json!({ "status": status, "labels": { "alertname": "Any", "function_name": function } })
        })
        .collect();
    let message =
        json!({ "version": "4", "status": "firing", "receiver": "any", "alerts": alerts });
    gateway.api("POST", "/system/alert", message.to_string().as_bytes())
}

/// A program that a test starts, ended with it.
struct Program(Child);

impl Program {
    fn start(program: &str, folder: &Path, arguments: &[String]) -> Self {
        let log = fs::File::create(folder.join(format!("{program}.log"))).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let started = command.spawn();
        Self(started.unwrap_or_else(|error| {
            panic!("{program}: {error}; run: cargo xtask test --provision")
        }))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Prometheus and Alertmanager as OpenFaaS's charts wire them, but quicker.
fn monitoring(gateway: &Gateway, folder: &Path) -> (Program, Program) {
    let (prometheus, manager): (SocketAddr, SocketAddr) = (free_address(), free_address());
    let password = gateway.password();
    let scraped = gateway.metrics_address();
    let config = json!({
        "global": { "scrape_interval": "500ms", "evaluation_interval": "500ms" },
        "rule_files": ["rules.json"],
        "scrape_configs": [
            { "job_name": "gateway", "static_configs": [{ "targets": [scraped.to_string()] }] }
        ],
        "alerting": {
            "alertmanagers": [{ "static_configs": [{ "targets": [manager.to_string()] }] }]
        },
    });
    let rate = "sum by (function_name) (rate(gateway_function_invocation_total{code=\"200\"}[5s]))";
    let rules = json!({ "groups": [{ "name": "scaling", "rules": [{
        "alert": "APIHighInvocationRate",
        "expr": format!("{rate} > 5"),
        "for": "1s",
        "labels": { "service": "gateway", "severity": "major" },
    }] }] });
    let receivers = json!({
        "route": {
            "group_by": ["alertname", "service"], "receiver": "scale-up",
            "group_wait": "1s", "group_interval": "1s", "repeat_interval": "3s",
        },
        "receivers": [{ "name": "scale-up", "webhook_configs": [{
            "url": format!("{}/system/alert", gateway.url()),
            "send_resolved": true,
            "http_config": { "basic_auth": { "username": "admin", "password": password } },
        }] }],
    });
    // JSON is YAML.
    for (file, content) in
        [("prometheus.json", config), ("rules.json", rules), ("alertmanager.json", receivers)]
    {
        fs::write(folder.join(file), content.to_string()).unwrap();
    }
    let alertmanager = Program::start(
        "prometheus-alertmanager",
        folder,
        &[
            "--config.file=alertmanager.json".to_owned(),
            "--storage.path=alertmanager".to_owned(),
            format!("--web.listen-address={manager}"),
            "--cluster.listen-address=".to_owned(),
        ],
    );
    let prometheus = Program::start(
        "prometheus",
        folder,
        &[
            "--config.file=prometheus.json".to_owned(),
            "--storage.tsdb.path=prometheus".to_owned(),
            format!("--web.listen-address={prometheus}"),
        ],
    );
    (prometheus, alertmanager)
}

#[test]
fn prometheus_and_alertmanager_scale_a_function_up_and_down() {
    let gateway = gateway();
    // A type that is not measured here: nothing but the alert changes its replicas.
    let function = Function::new("a", "hello:test")
        .label("com.openfaas.scale.max", "2")
        .label("com.openfaas.scale.type", "alerts_alone");
    gateway.deploy(&function);
    let folder = tempfile::tempdir().unwrap();
    let _monitoring = monitoring(&gateway, folder.path());
    gateway.until_within(CERTIFIER_WAITS, "a", "an alert brings a second replica", |status| {
        gateway.call("a", b"").expect(200);
        status["availableReplicas"] == 2
    });
    gateway.until_within(CERTIFIER_WAITS, "a", "its end takes it away", |status| {
        status["replicas"] == 1
    });
    let status = gateway.status("a").unwrap();
    let condition = status["conditions"][0].as_str().unwrap();
    assert!(condition.contains("\"alerts_alone\", which is not measured here"), "{condition}");
}

#[test]
fn the_certifiers_load_brings_a_second_replica_and_its_end_takes_it_away() {
    let gateway = gateway();
    let function = Function::new("a", "hello:test")
        .label("com.openfaas.scale.min", "1")
        .label("com.openfaas.scale.max", "2");
    gateway.deploy(&function);
    gateway.until_within(CERTIFIER_WAITS, "a", "two replicas are wanted", |status| {
        gateway.call("a", b"").expect(200);
        // Some ten calls per second.
        std::thread::park_timeout(Duration::from_millis(90));
        status["replicas"] == 2
    });
    gateway.until_within(CERTIFIER_WAITS, "a", "one is left", |status| status["replicas"] == 1);
}

#[test]
fn calls_under_way_scale_a_function_and_a_scale_by_hand_holds() {
    let gateway = gateway();
    let function = Function::new("a", "hello:test")
        .label("com.openfaas.scale.type", "capacity")
        .label("com.openfaas.scale.target", "2")
        .label("com.openfaas.scale.target-proportion", "1");
    gateway.deploy(&function);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| gateway.call("a/wait/12000", b"").expect(200));
        }
        gateway.until("a", "three replicas serve", |status| status["availableReplicas"] == 3);
    });
    gateway.scale("a", 5);
    gateway.until("a", "five replicas serve", |status| status["availableReplicas"] == 5);
    let target =
        "gateway_service_target_load{function_name=\"a.openfaas-fn\",scaling_type=\"capacity\"} 2";
    assert!(gateway.metrics().contains(target), "{}", gateway.metrics());
}

#[test]
fn calls_that_find_all_replicas_full_get_another_at_once() {
    let gateway = gateway();
    let function = Function::new("a", "hello:test")
        .label("com.openfaas.scale.max", "3")
        .annotation("dev.pinnace.concurrency", "1");
    gateway.deploy(&function);
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| gateway.call("a/wait/2000", b"").expect(200));
        }
        // Sooner than the scaler looks.
        gateway.until_within(Duration::from_secs(4), "a", "three serve", |status| {
            status["availableReplicas"] == 3
        });
    });
}

#[test]
fn alerts_are_answered_as_alertmanager_expects() {
    let gateway = gateway();
    gateway.deploy(&Function::new("a", "hello:test").label("com.openfaas.scale.max", "10"));
    gateway.deploy(
        &Function::new("b", "hello:test")
            .label("com.openfaas.scale.max", "10")
            .label("com.openfaas.scale.factor", "0"),
    );
    let raw = |body: &str| gateway.api("POST", "/system/alert", body.as_bytes()).expect(400).text();
    assert!(raw("").starts_with("A body is required"));
    assert_eq!(raw("{").trim(), "Unable to parse alert, bad format.");
    let many = vec![("firing", "a.openfaas-fn"); 10_001];
    assert!(alert(&gateway, &many).expect(400).text().contains("ALERTS_PER_MESSAGE_MAX"));

    let replicas = |name: &str| gateway.status(name).unwrap()["replicas"].as_u64().unwrap_or(0);
    let firing = [("firing", "a.openfaas-fn"), ("firing", "b.openfaas-fn")];
    assert_eq!(alert(&gateway, &firing).expect(200).text(), "");
    assert_eq!((replicas("a"), replicas("b")), (3, 1));
    alert(&gateway, &firing).expect(200);
    assert_eq!((replicas("a"), replicas("b")), (5, 1));
    gateway.call("b", b"").expect(200);

    let mixed = [("firing", "gone.openfaas-fn"), ("firing", ""), ("resolved", "a.openfaas-fn")];
    // Not 500: Alertmanager would send it again, and each time is a step of those that are there.
    let refused = alert(&gateway, &mixed).expect(400).text();
    let lines: Vec<&str> = refused.trim().lines().collect();
    assert_eq!(lines[0], "[0] function gone.openfaas-fn is not deployed");
    assert!(lines.len() == 2 && lines[1].starts_with("[1] "), "{refused}");
    assert_eq!(replicas("a"), 1, "the others are acted upon");
    let url = format!("{}/system/alert", gateway.url());
    http::send("POST", &url, &[], b"{\"alerts\":[]}").unwrap().expect(401);
}

#[test]
fn a_replica_is_ready_when_it_says_so() {
    let mut gateway = gateway();
    let asked = |path: &str| {
        Function::new("a", "hello:test")
            .annotation("com.openfaas.ready.http.path", path)
            .annotation("com.openfaas.ready.http.initialDelay", "100ms")
            .annotation("com.openfaas.ready.http.periodSeconds", "1")
    };
    gateway.try_deploy(&asked("/nowhere")).expect(202);
    let status = gateway.until("a", "it is said why it is not ready", |status| {
        let message = status["rollout"]["message"].as_str().unwrap_or_default();
        message.contains("GET /nowhere was answered 404")
    });
    assert_eq!(status.get("availableReplicas"), None);
    gateway.try_update(&asked("/")).expect(202);
    gateway.until("a", "it serves", |status| status["availableReplicas"] == 1);
    gateway.call("a", b"").expect(200);
    gateway.kill();
    gateway.up();
    gateway
        .until("a", "the next server has asked it too", |status| status["availableReplicas"] == 1);
    gateway.call("a", b"").expect(200);
    let refused = gateway.try_update(&asked("no-path")).expect(400).text();
    assert!(refused.contains("com.openfaas.ready.http.path"), "{refused}");
}

#[test]
fn a_replica_that_is_not_healthy_is_replaced() {
    let gateway = gateway();
    let asked = |name: &str| {
        Function::new(name, "hello:test")
            .annotation("com.openfaas.health.http.path", "/size/tmp/well")
            .annotation("com.openfaas.health.http.initialDelaySeconds", "2")
            .annotation("com.openfaas.health.http.periodSeconds", "1")
            .annotation("com.openfaas.health.http.failureThreshold", "2")
    };
    gateway.deploy(&asked("well"));
    gateway.call("well/write/tmp/well", b"1").expect(200);
    gateway.deploy(&asked("ill"));
    gateway.until("ill", "it was replaced", |status| {
        status["conditions"][0].as_str().is_some_and(|condition| {
            condition.contains("was not healthy: GET /size/tmp/well was answered 404, 2 times")
        })
    });
    gateway.until("ill", "the next serves", |status| status["availableReplicas"] == 1);
    let status = gateway.status("well").unwrap();
    assert_eq!(status.get("conditions"), None, "{status:#}");
    gateway.call("well/size/tmp/well", b"").expect(200);
}

#[test]
fn usage_is_the_sum_over_replicas() {
    let gateway = gateway();
    gateway.deploy(&Function::new("a", "hello:test"));
    let usage = || {
        let answer = gateway.api("GET", "/system/function/a?usage=1", b"").expect(200);
        let usage = answer.json()["usage"].clone();
        (usage["cpu"].as_f64().unwrap(), usage["totalMemoryBytes"].as_f64().unwrap())
    };
    // What is written to /tmp is memory.
    let file = vec![1; 32 << 20];
    let written = file.len() as f64;
    gateway.call("a/write/tmp/file", &file).expect(200);
    assert!(usage().1 > written, "{:?}", usage());
    gateway.scale("a", 2);
    gateway.until("a", "two serve", |status| status["availableReplicas"] == 2);
    std::thread::scope(|scope| {
        gateway.call("a/write/tmp/file", &file).expect(200);
        scope.spawn(|| gateway.call("a/wait/3000", b"").expect(200));
        // Now another one has fewer calls.
        let started = "gateway_function_invocation_inflight{function_name=\"a.openfaas-fn\"} 1";
        eventually("a call is under way", Duration::from_secs(3), || {
            gateway.metrics().contains(started).then_some(())
        });
        gateway.call("a/write/tmp/file", &file).expect(200);
    });
    assert!(usage().1 > 2.0 * written, "{:?}", usage());
    let (cpu, _) = eventually("processor time is told", Duration::from_secs(20), || {
        gateway.call("a/zeros/64", b"").expect(200);
        Some(usage()).filter(|(cpu, _)| *cpu > 20.0)
    });
    let processors = std::thread::available_parallelism().unwrap().get() as f64;
    assert!(cpu < 1200.0 * processors, "{cpu}");
    let text = gateway.metrics();
    let value = |metric: &str| {
        let start =
            format!("{metric}{{function_name=\"a.openfaas-fn\",namespace=\"openfaas-fn\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {metric}:\n{text}")).parse::<f64>().unwrap()
    };
    assert!(value("pod_memory_working_set_bytes") > 2.0 * written);
    assert!(value("pod_cpu_usage_seconds_total") > 0.02);
    gateway.scale("a", 0);
    gateway.until("a", "none is left", |status| status.get("availableReplicas").is_none());
    eventually("what ended replicas used is kept", Duration::from_secs(20), || {
        let told = gateway.metrics();
        let memory = told.contains("pod_memory_working_set_bytes{function_name=\"a.openfaas-fn\",namespace=\"openfaas-fn\"} 0\n");
        (memory && told.contains("pod_cpu_usage_seconds_total{function_name=\"a")).then_some(())
    });
}

/// Names of OpenFaaS's that Prometheus's linter finds fault with.
const LINTED: [&str; 4] = [
    "gateway_function_invocation_started",
    "gateway_invocation_function_started",
    "gateway_service_count",
    "gateway_service_ready_count",
];

#[test]
fn metrics_are_valid_and_have_all_their_names() {
    use std::io::Write;

    let gateway = gateway();
    gateway.deploy(&Function::new("a", "hello:test").label("com.openfaas.scale.target", "10"));
    gateway.call("a", b"").expect(200);
    gateway.call("a/nowhere", b"").expect(404);
    let text = gateway.metrics();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; run: cargo xtask test --provision"));
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    for line in said.lines() {
        let name = line.split(' ').next().unwrap();
        assert!(LINTED.contains(&name) && line.contains("suffix"), "{line}\n{text}");
    }
    // 3 is what it says of names alone.
    assert_eq!(checked.status.code(), Some(3), "{said}");
    let name = "function_name=\"a.openfaas-fn\"";
    for line in [
        format!("gateway_function_invocation_total{{{name},code=\"200\"}} 1"),
        format!("gateway_function_invocation_total{{{name},code=\"404\"}} 1"),
        format!("gateway_functions_seconds_count{{{name},code=\"200\"}} 1"),
        format!("gateway_functions_seconds_bucket{{{name},code=\"200\",le=\"+Inf\"}} 1"),
        format!("gateway_function_invocation_started{{{name}}} 2"),
        format!("gateway_invocation_function_started{{{name}}} 2"),
        format!("gateway_function_invocation_inflight{{{name}}} 0"),
        format!("gateway_invocation_function_invocation_inflight{{{name}}} 0"),
        format!("gateway_service_count{{{name}}} 1"),
        format!("gateway_service_ready_count{{{name}}} 1"),
        format!("gateway_service_min{{{name}}} 1"),
        format!("gateway_service_target{{{name}}} 10"),
        format!("gateway_service_target_load{{{name},scaling_type=\"rps\"}} 10"),
        "http_requests_total{method=\"POST\",path=\"/system/functions\",status=\"202\"} 1"
            .to_owned(),
        "provider_http_requests_total{method=\"POST\",path=\"/system/functions\",code=\"202\"} 1"
            .to_owned(),
    ] {
        assert!(text.lines().any(|known| known == line), "{line} not in:\n{text}");
    }
    let telemetry = gateway.api("GET", "/system/telemetry", b"").expect(200).json();
    assert_eq!((&telemetry["functions"], &telemetry["callsAnswered"]), (&json!(1), &json!(2)));
}

/// Metrics that an expression in PromQL names.
fn metrics_of(expression: &str) -> Vec<String> {
    const WORDS: [&str; 6] = ["sum", "by", "rate", "histogram_quantile", "on", "label_values"];
    // What is in braces, brackets or behind `by` and `on` are labels and times.
    let mut names = Vec::new();
    let (mut depth, mut word, mut after) = (0, String::new(), String::new());
    for character in expression.chars().chain([' ']) {
        if depth == 0 && (character.is_ascii_alphanumeric() || character == '_') {
            word.push(character);
            continue;
        }
        if !word.is_empty() {
            after = std::mem::take(&mut word);
            if !WORDS.contains(&after.as_str()) && !after.starts_with(|c: char| c.is_ascii_digit())
            {
                names.push(after.clone());
            }
        }
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            '(' if depth > 0 || matches!(after.as_str(), "by" | "on") => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ => {}
        }
        if character == '(' {
            after.clear();
        }
    }
    names
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/grafana/pinnace.json");
    let dashboard: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let gateway = gateway();
    let text = gateway.metrics();
    let known: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let asked: Vec<String> =
        targets.flat_map(|target| metrics_of(target["expr"].as_str().unwrap())).collect();
    assert!(asked.len() > 15, "{asked:?}");
    for name in &asked {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let is_known = known.contains(&name.as_str()) || base.is_some_and(|b| known.contains(&b));
        assert!(is_known || name.starts_with("queue_worker_"), "{name} is not told:\n{known:#?}");
    }
}
