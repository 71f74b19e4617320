//! Each language with a dependency from its registry.

use std::{path::Path, process::Command};

use pinnace_tests::{
    Function, Gateway,
    builds::Source,
    images::{Image, Layer, Packing},
};
use serde_json::json;

use super::build_and_call;

#[test]
fn python_with_pip() {
    let template = "\
language: python
pinnace:
  base: host
  install:
    files: [function/requirements.txt]
    run: [sh, -c, '/usr/bin/pip3 install --no-compile --target /home/app/python -r function/requirements.txt']
    keep: [/home/app/python]
  env: { PYTHONPATH: /home/app/python }
  command: [/usr/bin/python3, index.py]
";
    let handler = "import sys\nfrom markupsafe import escape\nprint(escape(sys.stdin.read()))\n";
    let source = Source::new("python:1", template)
        .file("function/requirements.txt", "markupsafe==2.1.5\nsix==1.16.0\n")
        .file("index.py", handler);
    let gateways = [Gateway::start(), Gateway::start()];
    build_and_call(&gateways, &source, "python:1", ("<b>", "&lt;b&gt;"));
    // Other code over the same dependencies.
    let changed = Source::new("python:1", template)
        .file("function/requirements.txt", "markupsafe==2.1.5\nsix==1.16.0\n")
        .file("index.py", "print('changed')\n");
    let answer = gateways[0].build(&changed);
    assert!(
        pinnace_tests::builds::log(&answer).contains("install: nothing has changed"),
        "{answer:#}"
    );
    let updated = gateways[0].try_update(&Function::new("python", "python:1"));
    updated.expect(202);
    pinnace_tests::eventually("the new code answers", std::time::Duration::from_secs(30), || {
        (gateways[0].call("python", b"").text().trim() == "changed").then_some(())
    });
}

#[test]
fn node_with_npm() {
    let template = "\
language: node
pinnace:
  base: host
  install:
    files: [package.json, package-lock.json]
    run: [npm, install, --ignore-scripts]
    keep: [/home/app/node_modules]
  command: [node, index.js]
";
    let handler = "const ms = require('ms'); let text = '';\n\
                   process.stdin.on('data', d => text += d).on('end', () => console.log(ms(text.trim())));\n";
    let source = Source::new("node:1", template)
        .file("package.json", r#"{"name":"f","version":"1.0.0","dependencies":{"ms":"2.1.3"}}"#)
        .file("index.js", handler);
    build_and_call(
        &[Gateway::start(), Gateway::start()],
        &source,
        "node:1",
        ("2 days", "172800000"),
    );
}

#[test]
fn go_with_a_module_on_scratch() {
    let template = "\
language: go
pinnace:
  base: scratch
  install:
    base: host
    files: [go.mod, go.sum]
    run: [/usr/local/go/bin/go, mod, download]
    keep: [/home/app/go]
  compile:
    base: host
    run: [/usr/local/go/bin/go, build, -o, /home/app/handler, .]
    keep: [/home/app/handler]
  env: { GOPATH: /home/app/go, CGO_ENABLED: 0 }
  command: [/home/app/handler]
";
    let sums = "\
golang.org/x/text v0.14.0 h1:ScX5w1eTa3QqT8oi6+ziP7dTV1S2+ALU0bI+0zXKWiQ=
golang.org/x/text v0.14.0/go.mod h1:18ZOQIKpY8NJVqYksKHtTdi31H5itFRjB5/qKTNYzSU=
";
    let handler = r#"package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

func main() {
	body, _ := io.ReadAll(os.Stdin)
	fmt.Print(cases.Title(language.English).String(string(body)))
}
"#;
    let source = Source::new("go:1", template)
        .file("go.mod", "module handler\n\ngo 1.21\n\nrequire golang.org/x/text v0.14.0\n")
        .file("go.sum", sums)
        .file("main.go", handler);
    let gateways = [Gateway::start(), Gateway::start()];
    build_and_call(&gateways, &source, "go:1", ("hello world", "Hello World"));
    let listed = gateways[0].api("GET", "/system/images", b"").expect(200).json();
    let image = listed.as_array().unwrap().iter().find(|image| image["reference"] == "go:1");
    assert_eq!(image.unwrap()["layers"], 1, "modules stay out of the image: {listed}");
}

#[test]
fn java_with_a_jar_from_maven() {
    let template = "\
language: java
pinnace:
  base: host
  install:
    files: [fetch.sh]
    run: [sh, fetch.sh]
    keep: [/home/app/lib]
  compile:
    run: [javac, -cp, 'lib/*', -d, /home/app/classes, Handler.java]
    keep: [/home/app/classes]
  command: [java, -cp, '/home/app/classes:/home/app/lib/*', Handler]
";
    let jar = "https://repo.maven.apache.org/maven2/org/apache/commons/commons-lang3/3.14.0/commons-lang3-3.14.0.jar";
    let handler = "import org.apache.commons.lang3.StringUtils;\n\
                   public class Handler {\n  public static void main(String[] a) throws Exception {\n    \
                   System.out.println(StringUtils.reverse(new String(System.in.readAllBytes()).trim()));\n  }\n}\n";
    let source = Source::new("java:1", template)
        .file("fetch.sh", format!("mkdir -p lib && curl -sSfo lib/lang3.jar {jar}\n"))
        .file("Handler.java", handler);
    build_and_call(&[Gateway::start(), Gateway::start()], &source, "java:1", ("abc", "cba"));
}

#[test]
fn rust_with_a_crate() {
    let template = "\
language: rust
pinnace:
  base: host
  install:
    base: toolchain/rust:1
    files: [Cargo.toml]
    run: [sh, -c, 'mkdir -p src && touch src/main.rs && cargo fetch']
    keep: [/home/app/.cargo, /home/app/Cargo.lock]
  compile:
    base: toolchain/rust:1
    run: [cargo, build, --release, --offline]
    keep: [/home/app/target/release/handler]
  env: { CARGO_HOME: /home/app/.cargo, RUSTFLAGS: -Clinker-features=-lld }
  command: [/home/app/target/release/handler]
";
    let handler = "fn main() {\n    let text = std::io::read_to_string(std::io::stdin()).unwrap();\n    \
                   print!(\"{}\", itoa::Buffer::new().format(text.trim().len()));\n}\n";
    let manifest = "[package]\nname = \"handler\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\
                    [dependencies]\nitoa = \"=1.0.11\"\n";
    let source =
        Source::new("rust:1", template).file("Cargo.toml", manifest).file("src/main.rs", handler);
    let gateways = [Gateway::start(), Gateway::start()];
    let toolchain = toolchain();
    for gateway in &gateways {
        gateway.load("toolchain/rust:1", &toolchain);
    }
    build_and_call(&gateways, &source, "rust:1", ("four", "4"));
}

/// This machine's Rust as an image that stands on the host's own programs, among them the linker.
fn toolchain() -> Image {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let sysroot = String::from_utf8(output.stdout).unwrap();
    let sysroot = Path::new(sysroot.trim());
    let mut layer = Layer::default();
    for program in ["bin/cargo", "bin/rustc"] {
        let content = std::fs::read(sysroot.join(program)).unwrap();
        layer = layer.file(&format!("r/{program}"), 0o755, &content);
    }
    let libraries = format!("lib/rustlib/{}-unknown-linux-gnu/lib", std::env::consts::ARCH);
    for directory in ["lib", libraries.as_str()] {
        for entry in std::fs::read_dir(sysroot.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.file_name().unwrap().to_str().unwrap();
                let content = std::fs::read(&path).unwrap();
                layer = layer.file(&format!("r/{directory}/{name}"), 0o755, &content);
            }
        }
    }
    let config = json!({
        "Env": ["PATH=/r/bin:/usr/local/bin:/usr/bin:/bin"],
        "Labels": { "dev.pinnace.base": "host" },
    });
    Image::new("toolchain/rust:1", config, Packing::Plain).layer(layer)
}
