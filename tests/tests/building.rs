//! From templates to functions that answer: Git repositories, the folders that are built, images by buildah, and the
//! tests that the shipped templates bring along.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use pinnace_tests::{Function, Gateway, gateway::pinnace, watchdog};

/// A folder to work in.
struct Project {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Project {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, env: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn pinnace(&self, words: &[&str]) -> Output {
        let mut command = Command::new(pinnace());
        command.args(words).current_dir(self.dir.path()).envs(self.env.iter().cloned());
        command.env("HOME", self.dir.path()).env_remove("CI").output().unwrap()
    }

    fn run(&self, words: &[&str]) -> String {
        said(&self.pinnace(words), words)
    }

    fn sh(&self, script: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(self.dir.path()).envs(self.env.iter().cloned());
        said(&command.env("HOME", self.dir.path()).output().unwrap(), &[script])
    }
}

fn said(output: &Output, what: &[&str]) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what:?}\n{out}\n{err}");
    out.into_owned()
}

/// A repository of templates as OpenFaaS has them, at `repo`, with a tag `1.0` before its last commit.
fn with_repository() -> (Project, String) {
    let project = Project::new();
    project
        .file("repo/template/demo/template.yml", "language: demo\nfprocess: sh /home/app/function/handler.sh\n")
        .file("repo/template/demo/Dockerfile", "FROM docker.io/library/alpine:3.22\nCOPY . /home/app\nRUN cat /home/app/function/handler.sh\nENV fprocess=\"sh /home/app/function/handler.sh\"\nCMD [\"fwatchdog\"]\n")
        .file("repo/template/demo/function/handler.sh", "cat\n")
        .file("repo/template/demo/function/sub/x", "sub\n")
        .file("repo/template/folder/template.yml", "language: f\nhandler_folder: src\n")
        .file("repo/template/folder/Dockerfile", "FROM scratch\n")
        .file("repo/template/folder/src/main", "m\n");
    project.sh("cd repo; git init -q -b master .; git config user.email a@b; git config user.name n; git add -A; \
                git commit -qm one; git tag 1.0; echo top > template/demo/index; git add -A; git commit -qm two");
    let url = format!("file://{}", project.path("repo").display());
    (project, url)
}

#[test]
fn templates_come_from_git_at_any_version() {
    let (project, url) = with_repository();
    let wrote = project.run(&["template", "pull", &url]);
    assert_eq!(wrote, "Wrote 2 template(s) : [demo folder]\n");
    let pinned = format!("{url}#1.0");
    let wrote = project.run(&["template", "pull", &pinned]);
    assert_eq!(wrote, "Wrote 2 template(s) : [demo@1.0 folder@1.0]\n");
    assert!(project.path("template/demo/index").exists());
    assert!(!project.path("template/demo@1.0/index").exists());
    let origin = fs::read_to_string(project.path("template/demo@1.0/meta.json")).unwrap();
    assert!(origin.contains(r#""ref_name":"1.0""#), "{origin}");
    let refused = project.pinnace(&["template", "pull", &url, "--overwrite=false"]);
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && why.contains("[demo folder]"), "{why}");
    let commit = project.sh("git -C repo rev-parse --short 1.0");
    let commit = format!("{url}#sha-{}", commit.trim());
    project.run(&["template", "pull", &commit]);
    project.run(&["new", "pinned", "--lang", "demo@1.0"]);
    assert_eq!(fs::read_to_string(project.path("pinned/handler.sh")).unwrap(), "cat\n");
}

#[test]
fn a_template_with_a_link_to_elsewhere_is_not_taken() {
    let (project, url) = with_repository();
    project.sh(
        "cd repo; ln -s /etc/hostname template/demo/function/host; git add -A; git commit -qm link",
    );
    let refused = project.pinnace(&["template", "pull", &url]);
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(why.contains("leads out of the template"), "{why}");
    assert!(!project.path("template/demo").exists());
}

/// What faas-cli (commit c8191b71) leaves in `build` for the same project: modes, kinds and names.
const SHRINKWRAPPED: &str = "\
600 f a/Dockerfile
600 f a/function/common/deep/lib
600 f a/function/extra
600 f a/function/handler.sh
600 f a/function/link
600 f a/function/sub/build/y
600 f a/function/sub/x
600 f a/index
600 f a/template.yml
700 d a
700 d a/function
755 d a/function/common
755 d a/function/common/deep
755 d a/function/sub
755 d a/function/sub/build
755 f a/function/run
600 f b/Dockerfile
600 f b/common/deep/lib
600 f b/src/main
600 f b/template.yml
700 d b
700 d b/src
";

#[test]
fn shrinkwrapped_folders_are_those_of_faas_cli() {
    let (project, url) = with_repository();
    project.run(&["template", "pull", &url]);
    project
        .file("a/handler.sh", "mine\n")
        .file("a/extra", "")
        .file("a/run", "#!/bin/sh\n")
        .file("a/build/x", "")
        .file("a/template/x", "")
        .file("a/sub/build/y", "")
        .file("common/deep/lib", "")
        .file("stack.yaml", "provider:\n  name: openfaas\nfunctions:\n  a:\n    lang: demo\n    handler: ./a\n    \
                             image: a:1\n  b:\n    lang: folder\n    handler: ./b\n    image: b:1\n  c:\n    \
                             lang: dockerfile\n    handler: ./c\n    image: c:1\nconfiguration:\n  copy: [./common/deep]\n")
        .file("b/main", "mine\n")
        .file("c/Dockerfile", "FROM scratch\n");
    fs::set_permissions(project.path("a/run"), fs::Permissions::from_mode(0o755)).unwrap();
    project.sh("ln -s handler.sh a/link; mkdir -p build/a; touch build/a/stale");
    let out = project.run(&["build", "--shrinkwrap", "--parallel", "3"]);
    for name in ["a", "b", "c"] {
        assert!(out.contains(&format!("{name} shrink-wrapped to build/{name}\n")), "{out}");
    }
    let found = project.sh("cd build; find a -not -name meta.json -printf '%m %y %p\\n'");
    assert_eq!(sorted(&found, 'a'), sorted(SHRINKWRAPPED, 'a'));
    let found =
        project.sh("cd build; find b c -not -name meta.json -printf '%p\\n' | sort | tr '\\n' ' '");
    assert_eq!(
        found.trim(),
        "b b/Dockerfile b/src b/src/common b/src/common/deep b/src/common/deep/lib b/src/main b/template.yml c \
         c/Dockerfile c/common c/common/deep c/common/deep/lib"
    );
    assert_eq!(fs::read_to_string(project.path("build/b/src/main")).unwrap(), "mine\n");
}

/// Kinds and names, and modes of folders and programs: files' other modes are the umask's.
fn sorted(lines: &str, root: char) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (mode, rest) = line.split_once(' ').unwrap();
        let (kind, path) = rest.split_once(' ').unwrap();
        let is_program = mode.ends_with("55");
        let mode = if kind == "d" || is_program { mode } else { "" };
        (path.to_owned(), format!("{kind}{mode}"))
    };
    lines.lines().map(pair).filter(|(path, _)| path.starts_with(root)).collect()
}

#[test]
fn buildah_builds_what_the_gateway_then_runs() {
    let gateway = Gateway::start();
    let (mut project, url) = with_repository();
    // A store of its own, and the least that buildah asks of a machine.
    for (name, value) in [
        ("BUILDAH_ISOLATION", "chroot"),
        ("STORAGE_DRIVER", "vfs"),
        ("CONTAINERS_STORAGE_CONF", "storage.conf"),
    ] {
        let value = if name.ends_with("CONF") {
            project.path(value).display().to_string()
        } else {
            value.to_owned()
        };
        project.env.push((name.to_owned(), value));
    }
    let (root, run) = (project.path("images"), project.path("run"));
    let storage = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
        root.display().to_string(),
        run.display().to_string()
    );
    project.file("storage.conf", &storage);
    // The base image of the template, as far as it is needed, and the watchdog that official templates copy in.
    project.file(
        "base/Dockerfile",
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY fwatchdog /usr/bin/fwatchdog\n\
         RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n",
    );
    fs::copy(watchdog(), project.path("base/fwatchdog")).unwrap();
    project.sh("cp /bin/busybox base/; buildah build -q -t docker.io/library/alpine:3.22 base >&2");
    project.run(&["template", "pull", &url]);
    project.run(&["new", "upper", "--lang", "demo", "--gateway", &gateway.url()]);
    project.run(&["new", "lower", "--lang", "demo", "--append", "stack.yaml"]);
    project.file("upper/handler.sh", "tr a-z A-Z\n").file("lower/handler.sh", "tr A-Z a-z\n");
    let password = project.path("password");
    fs::write(&password, gateway.password()).unwrap();
    project.sh(&format!(
        "{} login --gateway {} --password-stdin < password",
        pinnace().display(),
        gateway.url()
    ));
    let out = project.run(&[
        "up",
        "-f",
        "stack.yaml",
        "--builder",
        "buildah",
        "--load",
        "--parallel",
        "2",
    ]);
    for line in ["Image: upper:latest built.\n", "Image: lower:latest built.\n"] {
        assert!(out.contains(line), "{out}");
    }
    assert_eq!(gateway.call("upper", b"Words").expect(200).text(), "WORDS");
    assert_eq!(gateway.call("lower", b"Words").expect(200).text(), "words");
}

/// The tests beside the handlers of the templates, by what runs them.
const HANDLER_TESTS: [(&str, &str); 8] = [
    ("python", "/usr/bin/python3 -B -m unittest handler_test"),
    ("node", "node --test"),
    ("bash", "bash test.sh"),
    ("go", "go test ./..."),
    ("rust", "cargo test --quiet --offline"),
    ("ruby", "ruby handler_test.rb"),
    ("php", "php handler_test.php"),
    ("java", "javac -d classes *.java && java -cp classes function.HandlerTest"),
];

#[test]
fn a_new_functions_own_test_passes() {
    for (lang, test) in HANDLER_TESTS {
        let project = Project::new();
        project.run(&["new", "fn1", "--lang", lang, "--quiet"]);
        let mut command = Command::new("sh");
        let ran = command.args(["-c", test]).current_dir(project.path("fn1")).output().unwrap();
        said(&ran, &[lang, test]);
    }
}

#[test]
fn the_shipped_bash_template_answers_by_the_watchdog() {
    let gateway = Gateway::start();
    let handler =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates/bash/function/handler.sh");
    let script = fs::read_to_string(handler).unwrap();
    let function = Function::host("greet", "bash -c eval\t\"$HANDLER\"").env("HANDLER", &script);
    gateway.deploy(&function.env("mode", "streaming"));
    assert_eq!(gateway.call("greet", b"Ada").expect(200).text(), "Hello, Ada!\n");
}
