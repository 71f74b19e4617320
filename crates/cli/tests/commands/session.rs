//! Who we are at a gateway, and what is said when nobody answers or nobody knows us.

use std::fs;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    bench::Bench,
    server::{Reply, Server},
};

fn guarded() -> Server {
    let expected = format!("Basic {}", STANDARD.encode("admin:hunter2"));
    Server::start(move |seen| match seen.header("authorization") {
        Some(given) if given == expected => Reply::new(200, "[]"),
        _ => Reply::new(401, "invalid credentials"),
    })
}

#[test]
fn without_a_login() {
    let server = guarded();
    let bench = Bench::new(&server.url);
    for words in
        [&["list"][..], &["describe", "f"], &["logs", "f"], &["remove", "f"], &["scale", "f", "1"]]
    {
        let said = format!(
            "not logged in at {}; run `pinnace login --gateway {}`",
            server.url, server.url
        );
        let ran = bench.run(words).failed(1, &said);
        assert_eq!(ran.out().replace("Deleting: f.\n", ""), "");
    }
    assert!(server.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[test]
fn login_then_logout() {
    let server = guarded();
    let bench = Bench::new(&server.url);
    let ran = bench.run_with(&["login", "-s"], b"hunter2\n").ok();
    let saved = format!("credentials saved for admin {}\n", server.url);
    assert!(ran.out().ends_with(&saved), "{}", ran.out());
    bench.run(&["list"]).ok();
    let ran = bench.run(&["logout"]).ok();
    assert_eq!(ran.out(), format!("credentials removed for {}\n", server.url));
    bench.run(&["list"]).failed(1, "not logged in");
    bench.run(&["logout"]).failed(1, "there is no login");
}

#[test]
fn a_wrong_password_is_not_kept_and_not_shown() {
    let server = guarded();
    let bench = Bench::new(&server.url);
    let ran = bench.run_with(&["login", "-s"], b"not-the-password");
    let ran = ran.failed(1, "does not accept the password of user admin");
    assert!(!ran.stderr.contains("not-the-password"));
    assert!(!bench.path("home/.openfaas/config.yml").exists());
    bench.run(&["login"]).failed(2, "--password-stdin");
    bench.run_with(&["login", "-s"], b"\n").failed(2, "the password is empty");
}

#[test]
fn the_password_of_this_host_is_used_on_this_host() {
    let server = guarded();
    let bench = Bench::new(&server.url).password("hunter2\n");
    bench.run(&["list"]).ok();
    // Somebody else's port of this host gets no password.
    let bench = bench.file("state/run/listen", "127.0.0.1:1");
    bench.run(&["list"]).failed(1, "not logged in");
    assert_eq!(server.seen()[1].header("authorization"), None);
    // A stored login is meant, and wins.
    let store = format!("auths:\n  - gateway: {}\n    auth: basic\n    token: eDp5\n", server.url);
    let bench = bench.file("home/.openfaas/config.yml", store);
    bench.run(&["list"]).failed(1, "not logged in");
    assert_eq!(server.seen()[2].header("authorization"), Some("Basic eDp5"));
}

#[test]
fn a_token_is_sent_as_a_bearer() {
    let server = guarded();
    Bench::new(&server.url).run(&["list", "-k", "tok"]).failed(1, "not logged in");
    assert_eq!(server.seen()[0].header("authorization"), Some("Bearer tok"));
}

/// Takes the password, gives a token for it, and takes that.
fn with_tokens() -> Server {
    let basic = format!("Basic {}", STANDARD.encode("admin:hunter2"));
    Server::start(move |seen| match (seen.target.as_str(), seen.header("authorization")) {
        ("/oauth/token", Some(given)) if given == basic => {
            Reply::new(200, r#"{"access_token":"a.b.c"}"#)
        }
        ("/system/functions", Some(given)) if given == basic || given == "Bearer a.b.c" => {
            Reply::new(200, "[]")
        }
        ("/system/functions", Some("Bearer of.a.function")) => Reply::new(403, "not for the API"),
        _ => Reply::new(401, "invalid credentials"),
    })
}

#[test]
fn a_token_is_kept_as_a_login() {
    let server = with_tokens();
    let bench = Bench::new(&server.url);
    let saved = format!("token saved for {}\n", server.url);
    for (words, stdin) in [
        (&["login", "--token-stdin"][..], &b"a.b.c\n"[..]),
        (&["login", "--token", "a.b.c"], b""),
        (&["login", "--as-token", "-s"], b"hunter2\n"),
    ] {
        let ran = bench.run_with(words, stdin).ok();
        assert!(ran.out().ends_with(&saved), "{}", ran.out());
        let kept = fs::read_to_string(bench.path("home/.openfaas/config.yml")).unwrap();
        assert!(kept.contains("auth: oauth2\n    token: a.b.c\n"), "{kept}");
        bench.run(&["list"]).ok();
        bench.run(&["logout"]).ok();
    }
    let ran = bench
        .run_with(&["login", "--token-stdin"], b"other")
        .failed(1, "does not accept the token");
    assert!(!ran.stderr.contains("other"), "{}", ran.stderr);
    bench.run_with(&["login", "--token-stdin"], b"of.a.function").failed(1, "not for the API");
    bench.run_with(&["login", "--token-stdin"], b"\n").failed(2, "the token is empty");
    bench.run_with(&["login", "--token", "t", "-s"], b"x").failed(2, "not both");
    bench.run_with(&["login", "--as-token", "--token-stdin"], b"x").failed(2, "--token-stdin");
}

#[test]
fn requests_are_shown_and_secrets_are_not() {
    let server = guarded();
    let bench = Bench::new(&server.url).password("hunter2").env("FAAS_DEBUG", "1");
    let ran = bench.run(&["list"]).ok();
    assert!(ran.stderr.contains("authorization: Basic REDACTED\n"), "{}", ran.stderr);
    let asked = format!("GET {}/system/functions", server.url);
    assert!(ran.stderr.starts_with(&asked), "{}", ran.stderr);
    let said = bench.run_with(&["secret", "create", "hush"], b"value-of-it").stderr;
    assert!(said.contains("POST ") && said.contains("/system/secrets"), "{said}");
    let encoded = STANDARD.encode("value-of-it");
    for secret in ["value-of-it", &encoded, "hunter2", &STANDARD.encode("admin:hunter2")] {
        assert!(!said.contains(secret) && !ran.stderr.contains(secret), "{said}");
    }
    let quiet = bench.env("FAAS_DEBUG", "0").run(&["list"]).ok();
    assert!(!quiet.stderr.contains("GET "), "{}", quiet.stderr);
}

#[test]
fn nobody_answers() {
    // A port that was free a moment ago; if someone took it since, they are no gateway.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let bench = Bench::new(&url);
    let said = format!("no gateway answers at {url}; start one with `pinnace up`");
    bench.run(&["list"]).failed(1, &said);
    bench.run_with(&["invoke", "f"], b"x").failed(1, &said);
    let bench = bench.file("a.tar", "x");
    bench.run(&["image", "load", "a.tar"]).failed(1, &said);
    let ran = bench.run(&["version"]).ok();
    assert!(ran.out().starts_with("CLI:\n"), "{}", ran.out());
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
}

#[test]
fn a_redirect_is_not_followed_with_a_password() {
    let elsewhere = Server::start(|_| Reply::new(200, "[]"));
    let target = elsewhere.url.clone();
    let server = Server::start(move |_| Reply::new(301, "").header("Location", &target));
    let bench = Bench::new(&server.url).password("hunter2");
    let ran = bench.run(&["list"]).failed(1, "301 Moved Permanently");
    assert!(ran.stderr.contains(&elsewhere.url), "{}", ran.stderr);
    assert!(elsewhere.lines().is_empty());
}

#[test]
fn a_broken_store_is_named() {
    let bench =
        Bench::new("http://127.0.0.1:1").file("home/.openfaas/config.yml", "auths: {x: [hunter2");
    let ran = bench.run(&["list"]).failed(1, "home/.openfaas/config.yml");
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    assert!(
        fs::read_to_string(bench.path("home/.openfaas/config.yml")).unwrap().contains("hunter2")
    );
}
