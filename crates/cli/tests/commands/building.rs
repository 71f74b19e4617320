//! New functions, and what is sent to a builder of ours for them.

use std::{collections::BTreeMap, fs, io::Read, os::unix::fs::PermissionsExt};

use crate::{
    bench::Bench,
    server::{Reply, Seen, Server},
};

const BUILT: &str = r#"{"log":["step 1"],"image":"hi:latest","status":"in_progress"}
{"log":["step 2"],"image":"hi:latest","status":"in_progress"}
{"log":["step 1","step 2"],"image":"hi:latest","status":"success"}
"#;

/// A Pinnace that builds, takes functions, and says that they are ready.
fn building(built: &'static str) -> Server {
    Server::start(move |seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("POST", "/build") => Reply::new(200, built).header("Content-Type", "application/x-ndjson"),
        ("PUT", "/system/functions") => Reply::new(202, ""),
        _ => Reply::new(200, r#"{"name":"hi","image":"x","labels":{},"annotations":{}}"#),
    })
}

fn files_of(seen: &Seen) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(&seen.body[..]);
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(name, text);
    }
    files
}

#[test]
fn from_nothing_to_a_deployed_function() {
    let server = building(BUILT);
    let bench = Bench::new(&server.url);
    let gateway = ["--gateway", &server.url];
    let made = bench.run(&[&["new", "hi", "--lang", "python"], &gateway[..]].concat()).ok();
    assert!(
        made.out().contains("Function created in folder: hi\nStack file written: stack.yaml\n")
    );
    assert!(made.out().contains("\nNotes:\n"), "{}", made.out());
    let ran = bench.run(&["up", "-f", "stack.yaml"]).ok();
    assert!(ran.out().starts_with("Image: hi:latest built.\nDeploying: hi.\n"), "{}", ran.out());
    let said =
        "Building hi: hi:latest with template python, by Pinnace itself.\nstep 1\nstep 2\nBuilt hi";
    assert!(ran.stderr.starts_with(said), "{}", ran.stderr);
    let seen = server.seen();
    let lines: Vec<String> = seen.iter().take(2).map(Seen::line).collect();
    assert_eq!(lines, ["POST /build", "PUT /system/functions"], "nothing is pushed");
    assert_eq!(seen[0].header("accept"), Some("application/x-ndjson"));
    let files = files_of(&seen[0]);
    let config = &files["com.openfaas.docker.config"];
    assert_eq!(config, r#"{"image":"hi:latest","skipPush":true}"#);
    assert!(files["context/function/handler.py"].contains("def handle("));
    assert!(files["context/template.yml"].contains("pinnace:"));
    assert!(seen[1].text().contains(r#""envProcess":"python3 index.py""#), "{}", seen[1].text());
}

#[test]
fn nothing_is_overwritten() {
    let bench = Bench::new("http://127.0.0.1:1").file("hi/mine", "1").file("stack.yml", "x");
    bench.run(&["new", "hi", "--lang", "node"]).failed(1, "folder hi already exists");
    bench.run(&["new", "ho", "--lang", "node", "-f", "stack.yml"]).failed(1, "--append stack.yml");
    bench.run(&["new", "ho", "--lang", "../node"]).failed(2, "is not a template's name");
    bench.run(&["new", "Ho", "--lang", "node"]).failed(2, "Ho");
    bench.run(&["new", "ho", "--lang", "nope"]).failed(1, "pinnace template pull");
    let left: Vec<String> = fs::read_dir(bench.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "home")
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_failed_build_says_why_and_deploys_nothing() {
    let server = building(
        "{\"log\":[\"pip says no\"],\"status\":\"in_progress\"}\n{\"status\":\"failed\",\"error\":\"step install ended with 1\"}\n",
    );
    let bench =
        Bench::new(&server.url).without_env("OPENFAAS_URL").env("OPENFAAS_URL", &server.url);
    bench.run(&["new", "hi", "--lang", "python", "--gateway", &server.url]).ok();
    let ran = bench.run(&["up", "-f", "stack.yaml", "--quiet"]);
    let ran = ran.failed(1, "function hi: building hi:latest: step install ended with 1");
    assert!(ran.stderr.contains("pip says no\n"), "{}", ran.stderr);
    assert_eq!(server.lines(), ["POST /build"]);
}

#[test]
fn a_gateway_that_builds_nothing_is_told_from_one_that_fails() {
    let server = Server::start(|_| Reply::new(404, "page not found"));
    let bench = Bench::new(&server.url);
    bench.run(&["new", "hi", "--lang", "go", "--gateway", &server.url]).ok();
    bench.run(&["build"]).failed(1, "builds nothing, as it is no Pinnace; --builder docker");
    let cut = building("{\"status\":\"in_progress\"}\n");
    bench.run(&["build", "-g", &cut.url]).failed(1, "ended while the build was \"in_progress\"");
}

#[test]
fn a_builder_elsewhere_gets_a_signature_and_no_login() {
    let server = building(BUILT);
    let bench = Bench::new(&server.url).password("secret").file("payload", "Jefe\n");
    bench.run(&["new", "hi", "--lang", "static", "--gateway", &server.url]).ok();
    let remote = format!("{}/some/path", server.url);
    bench.run(&["publish", "--remote-builder", &remote, "--payload-secret", "payload"]).ok();
    bench.run(&["build"]).ok();
    let seen = server.seen();
    assert_eq!(server.lines(), ["POST /build", "POST /build"]);
    let signature = seen[0].header("x-build-signature").unwrap();
    assert!(signature.starts_with("sha256=") && signature.len() == 71, "{signature}");
    assert_eq!(seen[0].header("authorization"), None);
    assert!(files_of(&seen[0])["com.openfaas.docker.config"].contains(r#""skipPush":false"#));
    assert!(seen[1].header("authorization").is_some());
    assert_eq!(seen[1].header("x-build-signature"), None);
}

/// A program `docker` that notes what it is asked, and fails where its name says so.
fn with_docker(bench: Bench, exit: u8) -> Bench {
    let log = bench.path("docker.log").display().to_string();
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {log}\ncase \"$1 $2\" in version*|'buildx version'|--version*) exit 0;; esac\n\
         echo said; exit {exit}\n"
    );
    let bench = bench.file("bin/docker", script);
    let path = bench.path("bin/docker");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let bin = format!("{}:/usr/bin:/bin", bench.path("bin").display());
    bench.env("PATH", &bin)
}

const DOCKERFILE_STACK: &str = "provider:\n  name: openfaas\nfunctions:\n  a:\n    lang: dockerfile\n    handler: ./a\n    \
                                image: r/a\n    build_args: {X: '1'}\n  b:\n    lang: dockerfile\n    handler: ./a\n    \
                                image: r/b:2\n";

#[test]
fn dockerfiles_go_to_docker_and_images_to_their_registry() {
    let bench = Bench::new("http://127.0.0.1:1").file("stack.yaml", DOCKERFILE_STACK);
    let bench = with_docker(bench.file("a/Dockerfile", "FROM scratch\n"), 0);
    let ran = bench.run(&["up", "--skip-deploy", "-f", "stack.yaml", "--parallel", "2"]).ok();
    assert!(ran.stderr.contains("by docker buildx.\n") && ran.stderr.contains("a | said\n"));
    let log = fs::read_to_string(bench.path("docker.log")).unwrap();
    for line in [
        "buildx build --progress=plain --load --build-arg X=1 --tag r/a:latest .\n",
        "buildx build --progress=plain --load --tag r/b:2 .\n",
        "push r/a:latest\n",
        "push r/b:2\n",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
fn each_failure_is_told_and_the_others_are_built() {
    let bench = Bench::new("http://127.0.0.1:1").file("stack.yaml", DOCKERFILE_STACK);
    let bench = with_docker(bench.file("a/Dockerfile", "FROM scratch\n"), 3);
    let ran =
        bench.run(&["build"]).failed(1, "function b: docker buildx build ended with exit code 3");
    assert!(ran.stderr.contains("function a: docker buildx build ended with exit code 3"));
}

#[test]
fn without_any_builder_it_is_said_what_to_install() {
    let bench = Bench::new("http://127.0.0.1:1").file("stack.yaml", DOCKERFILE_STACK);
    let bench = bench.file("a/Dockerfile", "FROM scratch\n").env("PATH", "/nowhere");
    bench.run(&["build", "--filter", "a"]).failed(1, "install buildah");
}

#[test]
fn what_is_copied_into_a_build_stays_within_the_project() {
    let stack = format!("{DOCKERFILE_STACK}configuration:\n  copy: [../x]\n");
    let bench = Bench::new("http://127.0.0.1:1").file("stack.yaml", stack);
    let bench = bench.file("a/Dockerfile", "FROM scratch\n");
    bench.run(&["build", "--shrinkwrap"]).failed(1, "it must be a folder below this one");
}
