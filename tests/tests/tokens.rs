//! Tokens: the gateway gives them, functions that ask for one (`jwt_auth`) and the API take them.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{fs, process::Command, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD, prelude::BASE64_STANDARD};
use pinnace_tests::{
    Answer, Callbacks, Function, Gateway, clients::curled, http, images::Image, stand_ins::alone,
};
use serde_json::Value;

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const LOGIN: &str = "grant_type=client_credentials";
const EXCHANGE: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
                        &subject_token_type=urn:ietf:params:oauth:token-type:id_token";

/// How long a queued call may take to be answered.
const PATIENCE: Duration = Duration::from_secs(30);

fn guarded(name: &str) -> Function {
    Function::host(name, "cat").env("jwt_auth", "true")
}

/// Asks for a token.
fn ask(gateway: &Gateway, form: &str) -> Answer {
    let url = format!("{}/oauth/token", gateway.url());
    http::send("POST", &url, &[FORM], form.as_bytes()).unwrap()
}

fn token(answer: Answer) -> String {
    answer.expect(200).json()["access_token"].as_str().unwrap().to_owned()
}

fn login(gateway: &Gateway, more: &str) -> Answer {
    let password = gateway.password();
    ask(gateway, &format!("{LOGIN}&client_id=admin&client_secret={password}{more}"))
}

/// A token for calls of one function, in exchange for another.
fn exchanged(gateway: &Gateway, subject: &str, function: &str) -> Answer {
    let more = format!("&subject_token={subject}&scope=function&audience={function}");
    ask(gateway, &format!("{EXCHANGE}{more}"))
}

fn with_token(gateway: &Gateway, method: &str, path: &str, token: &str, body: &[u8]) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str())];
    http::send(method, &format!("{}{path}", gateway.url()), &headers, body).unwrap()
}

fn said(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[test]
fn a_function_that_asks_for_tokens_is_called_with_one() {
    let gateway = Gateway::start();
    gateway.deploy(&guarded("guarded"));
    gateway.deploy(&guarded("other"));

    let answer = gateway.call("guarded", b"hi").expect(401);
    assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer realm=IAM function invoke"));

    let api = token(login(&gateway, ""));
    let call = |name: &str, token: &str| {
        with_token(&gateway, "POST", &format!("/function/{name}"), token, b"hi")
    };
    call("guarded", &api).expect(403);
    let function = token(exchanged(&gateway, &api, "openfaas-fn:guarded"));
    assert_eq!(call("guarded", &function).expect(200).text(), "hi");
    call("other", &function).expect(403);
    let direct = token(login(&gateway, "&scope=function&audience=openfaas-fn:*"));
    for name in ["guarded", "other"] {
        assert_eq!(call(name, &direct).expect(200).text(), "hi");
    }
    call("guarded", &function[..function.len() - 1]).expect(401);
}

#[test]
fn a_token_says_for_whom_and_what_it_is() {
    let gateway = Gateway::start();
    let answer = login(&gateway, "").expect(200);
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let granted = answer.json();
    assert_eq!((&granted["token_type"], &granted["scope"]), (&"Bearer".into(), &Value::Null));
    let api = granted["access_token"].as_str().unwrap();
    let claims = said(api);
    let issuer = "http://gateway.openfaas:8080";
    assert_eq!((&claims["iss"], &claims["aud"]), (&issuer.into(), &issuer.into()));
    assert_eq!(claims["sub"], "admin");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
    assert!(claims["policy"].is_array() && claims["function"].is_null(), "{claims}");

    let answer = exchanged(&gateway, api, "openfaas-fn:a&audience=dev:b").expect(200).json();
    assert_eq!(answer["scope"], "function");
    assert!(answer["expires_in"].as_u64().is_some_and(|seconds| (3500..=3600).contains(&seconds)));
    let function = said(answer["access_token"].as_str().unwrap());
    let functions = serde_json::json!(["openfaas-fn:a", "dev:b"]);
    assert_eq!(function["function"]["audience"], functions);
    assert_eq!(function["function"]["permissions"], functions);
    assert!(function["policy"].is_null() && function["exp"] == claims["exp"], "{function}");
}

#[test]
fn the_api_takes_tokens_that_are_for_it() {
    let gateway = Gateway::start();
    let list = |token: &str| with_token(&gateway, "GET", "/system/functions", token, b"");
    let api = token(login(&gateway, ""));
    list(&api).expect(200);
    let function = token(exchanged(&gateway, &api, "*:*"));
    assert!(list(&function).expect(403).text().contains("calls of functions"));
    for bad in ["", "a.b.c", &api[..api.len() - 2]] {
        let answer = list(bad).expect(401);
        assert_eq!(answer.header("WWW-Authenticate"), Some("Basic realm=\"Restricted\""));
        assert_eq!(answer.text(), "invalid credentials");
    }
    // What a function was called with opens nothing else.
    exchanged(&gateway, &function, "openfaas-fn:a").expect(400);
    let renewed = token(ask(&gateway, &format!("{EXCHANGE}&subject_token={api}")));
    list(&renewed).expect(200);
    assert_eq!(said(&renewed)["exp"], said(&api)["exp"], "no longer than the first");
}

#[test]
fn what_is_not_granted_has_a_code() {
    let gateway = Gateway::start();
    let code = |form: &str| {
        let answer = ask(&gateway, form).expect(400).json();
        assert!(answer["error_description"].as_str().is_some_and(|words| !words.is_empty()));
        answer["error"].as_str().unwrap().to_owned()
    };
    assert_eq!(code(""), "invalid_request");
    assert_eq!(code("grant_type=password"), "unsupported_grant_type");
    assert_eq!(code(LOGIN), "invalid_client");
    assert_eq!(code(&format!("{LOGIN}&client_id=admin&client_secret=wrong")), "invalid_client");
    assert_eq!(code(&format!("{LOGIN}&scope=everything")), "invalid_scope");
    assert_eq!(code(&format!("{LOGIN}&scope=function&audience=env")), "invalid_target");
    assert_eq!(code(&format!("{EXCHANGE}&subject_token=a.b.c")), "invalid_request");

    let url = format!("{}/oauth/token", gateway.url());
    let send =
        |headers: &[(&str, &str)], form: &[u8]| http::send("POST", &url, headers, form).unwrap();
    let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
    let (right, wrong) = (basic(&format!("admin:{}", gateway.password())), basic("admin:x"));
    send(&[FORM, ("Authorization", &right)], LOGIN.as_bytes()).expect(200);
    let answer = send(&[FORM, ("Authorization", &wrong)], LOGIN.as_bytes()).expect(401);
    assert_eq!(answer.json()["error"], "invalid_client");
    assert_eq!(answer.header("WWW-Authenticate"), Some("Basic realm=\"Restricted\""));
    let twice = format!("{LOGIN}&client_id=admin&client_secret=x");
    send(&[FORM, ("Authorization", &right)], twice.as_bytes()).expect(400);
    send(&[("Content-Type", "application/json")], b"{}").expect(400);
    let large = send(&[FORM], &vec![b'a'; 65 << 10]).expect(413).json();
    assert!(large["error_description"].as_str().unwrap().contains("TOKEN_REQUEST_BYTES_MAX"));
    http::send("GET", &url, &[], b"").unwrap().expect(405);
}

#[test]
fn keys_and_tokens_outlive_a_crash_and_a_key_is_changed_by_putting_it_aside() {
    let mut gateway = Gateway::start();
    gateway.deploy(&guarded("guarded"));
    let keys = |gateway: &Gateway| {
        let url = format!("{}/.well-known/jwks.json", gateway.url());
        http::send("GET", &url, &[], b"").unwrap().expect(200).json()["keys"].clone()
    };
    let first = keys(&gateway);
    assert_eq!((&first[0]["alg"], &first[0]["crv"]), (&"ES256".into(), &"P-256".into()));
    let api = token(login(&gateway, ""));
    let call = |gateway: &Gateway, api: &str| {
        let function = token(exchanged(gateway, api, "openfaas-fn:guarded"));
        with_token(gateway, "POST", "/function/guarded", &function, b"hi")
    };
    gateway.kill();
    gateway.up();
    assert_eq!(keys(&gateway), first);
    assert_eq!(call(&gateway, &api).expect(200).text(), "hi");

    gateway.stop();
    let file = |name: &str| gateway.state_dir().join(name);
    fs::rename(file("issuer.key"), file("issuer.old.key")).unwrap();
    gateway.up();
    let both = keys(&gateway);
    assert!(both[0]["kid"] != first[0]["kid"] && both[1] == first[0], "{both}");
    gateway.until("guarded", "it serves", |status| status["availableReplicas"] == 1);
    assert_eq!(call(&gateway, &api).expect(200).text(), "hi");
}

#[test]
fn the_issuer_is_found_from_inside_and_outside() {
    if !alone("the_issuer_is_found_from_inside_and_outside") {
        return;
    }
    pinnace_tests::stand_ins::internet();
    let gateway = Gateway::start_with(&["--external-url", "https://faas.example/"]);
    gateway.load("hello:test", &Image::hello("hello:test"));
    gateway.deploy(&Function::new("hello", "hello:test"));
    gateway.deploy(&guarded("guarded"));
    let on_host = guarded("on-host").annotation("dev.pinnace.network", "host");
    gateway.deploy(&on_host);

    let url = format!("{}/.well-known/openid-configuration", gateway.url());
    let outside = http::send("GET", &url, &[], b"").unwrap().expect(200).json();
    assert_eq!(outside["issuer"], "https://faas.example");
    assert_eq!(outside["jwks_uri"], "https://faas.example/.well-known/jwks.json");
    let from_inside = |request: String| {
        let request = format!("{request}\r\n");
        gateway.call("hello/dial/gateway:8080", request.as_bytes()).expect(200).text()
    };
    let get = |path: &str| {
        from_inside(format!("GET {path} HTTP/1.1\r\nHost: gateway:8080\r\nConnection: close\r\n"))
    };
    let answer = get("/.well-known/openid-configuration");
    let inside: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(inside["issuer"], outside["issuer"], "one issuer for all");
    assert_eq!(inside["jwks_uri"], "http://gateway:8080/.well-known/jwks.json");
    assert!(get("/.well-known/jwks.json").contains("\"ES256\""));
    for other in ["/system/info", "/oauth/../system/info", "/oauth", "/healthz"] {
        assert!(get(other).starts_with("HTTP/1.1 404"), "{other}");
    }

    // A function gets tokens as everybody does.
    let api = token(login(&gateway, ""));
    let form =
        format!("{EXCHANGE}&subject_token={api}&scope=function&audience=openfaas-fn:on-host");
    let answer = from_inside(format!(
        "POST /oauth/token HTTP/1.1\r\nHost: gateway:8080\r\nConnection: close\r\n{}: {}\r\nContent-Length: {}\r\n\r\n{form}",
        FORM.0,
        FORM.1,
        form.len()
    ));
    let granted: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let function = granted["access_token"].as_str().unwrap();
    gateway.call("on-host", b"hi").expect(401);
    let answer = with_token(&gateway, "POST", "/function/on-host", function, b"hi");
    assert_eq!(answer.expect(200).text(), "hi");
    with_token(&gateway, "POST", "/function/guarded", function, b"hi").expect(403);
}

#[test]
fn a_function_on_the_hosts_network_may_ask_at_port_8000_of_the_host() {
    if !alone("a_function_on_the_hosts_network_may_ask_at_port_8000_of_the_host") {
        return;
    }
    pinnace_tests::stand_ins::internet();
    let gateway = Gateway::start_with(&["--listen", "127.0.0.1:8000"]);
    let local = guarded("local").env("jwt_auth_local", "true");
    gateway.deploy(&local.annotation("dev.pinnace.network", "host"));
    let function = token(login(&gateway, "&scope=function&audience=openfaas-fn:local"));
    gateway.call("local", b"hi").expect(401);
    let answer = with_token(&gateway, "POST", "/function/local", &function, b"hi");
    assert_eq!(answer.expect(200).text(), "hi");
}

#[test]
fn a_queued_call_keeps_its_token() {
    let gateway = Gateway::start();
    gateway.deploy(&guarded("guarded"));
    let callbacks = Callbacks::start(&[]);
    let function = token(login(&gateway, "&scope=function&audience=openfaas-fn:guarded"));
    let (authorization, url) = (format!("Bearer {function}"), callbacks.url("/done"));
    let queue = format!("{}/async-function/guarded", gateway.url());
    let with = [("Authorization", authorization.as_str()), ("X-Callback-Url", &url)];
    http::send("POST", &queue, &with, b"later").unwrap().expect(202);
    let came = callbacks.next(PATIENCE);
    assert_eq!((came.header("x-function-status"), &*came.text()), (Some("200"), "later"));
    // Without one it is answered once: there is none the next time either.
    http::send("POST", &queue, &with[1..], b"later").unwrap().expect(202);
    let came = callbacks.next(PATIENCE);
    assert_eq!(came.header("x-function-status"), Some("401"));
    http::send("GET", &queue, &[], b"").unwrap().expect(405);
    let metrics = gateway.metrics();
    for (method, status, count) in [("POST", 202, 2), ("GET", 405, 1)] {
        let line = format!(
            "http_requests_total{{method=\"{method}\",path=\"/async-function\",status=\"{status}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[test]
fn our_cli_gets_tokens_by_itself() {
    let gateway = Gateway::start();
    gateway.deploy(&guarded("guarded"));
    let ran = |words: &[&str]| {
        let output = gateway.cli(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(!gateway.cli(&["invoke", "guarded"]).status.success());
    gateway.login();
    let invoke = ["invoke", "guarded", "-m", "POST"];
    ran(&invoke);
    ran(&["login", "--as-token", "--password", &gateway.password()]);
    let config = gateway.state_dir().parent().unwrap().join("config.yml");
    let kept = fs::read_to_string(&config).unwrap();
    let token = kept.split("token: ").nth(1).unwrap().trim();
    ran(&invoke);
    ran(&["invoke", "guarded", "--async", "--auth"]);
    assert!(ran(&["list"]).contains("guarded"));
    let file = config.with_file_name("token.txt");
    fs::write(&file, token).unwrap();
    let printed: Value =
        serde_json::from_str(&ran(&["print-token", file.to_str().unwrap()])).unwrap();
    assert_eq!(printed["payload"]["sub"], "admin");
    ran(&["logout"]);
    ran(&["login", "--token", token]);
    ran(&invoke);

    // The original, where there is one, gets them in exchange for a token that is stored.
    let Ok(program) = std::env::var("PINNACE_TEST_FAAS_CLI") else {
        println!("left out: PINNACE_TEST_FAAS_CLI names no faas-cli");
        return;
    };
    for words in [&["invoke", "guarded"][..], &["invoke", "guarded", "-a", "--auth"], &["list"]] {
        let mut original = Command::new(&program);
        original.args(words).args(["--gateway", &gateway.url()]).stdin(std::process::Stdio::null());
        let output = original.env("OPENFAAS_CONFIG", config.parent().unwrap()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{words:?}: {said}");
    }
}

#[test]
fn without_a_password_tokens_are_given_to_those_who_may_use_the_api() {
    let gateway = Gateway::start_with(&["--no-auth"]);
    gateway.deploy(&guarded("guarded"));
    gateway.deploy_hello("hello");
    gateway.call("guarded", b"hi").expect(401);
    let form = format!("{LOGIN}&scope=function&audience=openfaas-fn:guarded");
    let function = token(ask(&gateway, &form));
    let answer = with_token(&gateway, "POST", "/function/guarded", &function, b"hi");
    assert_eq!(answer.expect(200).text(), "hi");
    with_token(&gateway, "GET", "/system/functions", "", b"").expect(200);

    // Neither a page of others nor a function is one of them.
    let url = format!("{}/oauth/token", gateway.url());
    let foreign = [FORM, ("Origin", "http://evil.example")];
    http::send("POST", &url, &foreign, form.as_bytes()).unwrap().expect(403);
    let request = format!(
        "POST /oauth/token HTTP/1.1\r\nHost: gateway:8080\r\nConnection: close\r\n{}: {}\r\nContent-Length: {}\r\n\r\n{form}",
        FORM.0,
        FORM.1,
        form.len()
    );
    let answer = gateway.call("hello/dial/gateway:8080", request.as_bytes()).expect(200).text();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("invalid_client"), "{answer}");
}

#[test]
fn the_root_leads_to_the_dashboard() {
    let gateway = Gateway::start();
    for more in [&["--head"][..], &[]] {
        let head = curled(&[more, &["--include", &gateway.url()]].concat());
        assert!(head.starts_with("HTTP/1.1 307 "), "{head}");
        assert!(head.to_lowercase().contains("\r\nlocation: /ui/\r\n"), "{head}");
    }
}
