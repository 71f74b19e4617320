//! What tests and benchmarks need on this machine beside cargo, and which Debian package has it.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::{
    Unready,
    run::{find, output, run},
};

/// A program that must be there.
#[derive(Debug)]
pub struct Need {
    /// Its name, or its path where it must be at that place.
    program: &'static str,
    /// The package that has it.
    package: &'static str,
    /// What for.
    reason: &'static str,
    /// What it must be beside there.
    kind: Kind,
}

/// What a program must be beside there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Any,
    /// Static, since it is put into an image alone.
    Static,
    /// Go of this version 1 or newer, which its modules ask for.
    Go(u32),
}

const fn need(program: &'static str, package: &'static str, reason: &'static str) -> Need {
    Need { program, package, reason, kind: Kind::Any }
}

/// Of the tests.
pub const TESTS: &[Need] = &[
    need("cc", "gcc libc6-dev", "builds SQLite and zstd, and links"),
    need(
        "/usr/bin/python3",
        "python3",
        "runs the csv-statistics example, which sees /usr alone, and the table of watchdogs",
    ),
    need("/usr/bin/newuidmap", "uidmap", "maps the ids of an ordinary user's sandboxes"),
    need("c++", "g++", "builds libFuzzer"),
    need("git", "git", "has the templates' repositories"),
    need("buildah", "buildah", "builds Dockerfiles"),
    need("node", "nodejs", "runs the test of its template"),
    need("ruby", "ruby", "runs the test of its template"),
    need("php", "php-cli", "runs the test of its template"),
    need("javac", "default-jdk-headless", "builds the template of Java"),
    need("curl", "curl", "calls over HTTP/2 and TLS"),
    need("docker-registry", "docker-registry", "is the registry that images are pulled from"),
    need("ip", "iproute2", "makes the networks that stand in for the internet"),
    need("nft", "nftables", "reads back the rules for packets"),
    need("skopeo", "skopeo", "pushes to the built-in registry and pulls from it"),
    need("/usr/bin/setpriv", "util-linux", "starts Pinnace as an ordinary user"),
    need("prometheus", "prometheus", "scrapes the metrics and fires alerts"),
    need("promtool", "prometheus", "checks the metrics' format"),
    need("prometheus-alertmanager", "prometheus-alertmanager", "sends alerts to the API"),
    Need {
        program: "go",
        package: "golang-go",
        reason: "builds OpenFaaS's Go clients (where the package is older: https://go.dev/dl)",
        kind: Kind::Go(24),
    },
    Need {
        program: "/bin/busybox",
        package: "busybox-static",
        reason: "is the shell of test images",
        kind: Kind::Static,
    },
];

/// Of the virtual machine that tests run in too.
pub const VM: &[Need] = &[
    need("qemu-system-x86_64", "qemu-system-x86", "emulates a machine with cgroup v2"),
    need("cpio", "cpio", "packs that machine's root"),
    need("modprobe", "kmod", "finds its kernel's modules"),
    need("mkfs.ext4", "e2fsprogs", "makes the file system of the disk that loses its power"),
    Need {
        program: "/bin/busybox",
        package: "busybox-static",
        reason: "is that machine's shell",
        kind: Kind::Static,
    },
];

/// Of the benchmarks.
pub const BENCHMARKS: &[Need] = &[
    need("cc", "gcc libc6-dev", "builds SQLite and zstd, and links"),
    need("nginx", "nginx", "is the reference of warm-throughput"),
    need("wrk", "wrk", "makes the load"),
    need("runc", "runc", "is the reference of cold-static and burst"),
    need("dockerd", "docker.io", "is the reference of cold-static"),
    need("unshare", "util-linux", "keeps dockerd away from the host"),
    Need {
        program: "/bin/busybox",
        package: "busybox-static",
        reason: "is the command of fork",
        kind: Kind::Static,
    },
];

impl Need {
    fn is_met(&self) -> bool {
        find(self.program).is_some_and(|path| match self.kind {
            Kind::Any => true,
            Kind::Static => is_static(&path),
            Kind::Go(least) => {
                let said = output(Command::new(path).arg("version"));
                said.is_ok_and(|said| go_version(&said) >= Some(least))
            }
        })
    }
}

/// Whether a program needs no loader: none is named in it.
fn is_static(program: &Path) -> bool {
    let loader = b"/ld-";
    std::fs::read(program).is_ok_and(|elf| {
        let head = &elf[..elf.len().min(4096)];
        !head.windows(loader.len()).any(|bytes| bytes == loader)
    })
}

/// The second number of Go's version, of what `go version` prints: `go version go1.24.1 linux/amd64`.
fn go_version(said: &str) -> Option<u32> {
    let version = said.split(' ').find_map(|word| word.strip_prefix("go1."))?;
    version.split(|this: char| !this.is_ascii_digit()).next()?.parse().ok()
}

/// Sees to it that everything is there: installs what is missing if that is wished.
///
/// # Errors
/// Something is missing; the error names each thing with its package.
pub fn meet(needs: &[Need], provision: bool) -> Result<()> {
    let packages = needs.iter().filter(|need| !need.is_met()).map(|need| need.package);
    let packages: Vec<_> = packages.flat_map(|names| names.split(' ')).collect();
    if provision && !packages.is_empty() {
        run(Command::new("apt-get").args(["update", "--quiet"]))?;
        let mut install = Command::new("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive");
        run(install
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(packages))?;
    }
    match complaint(needs) {
        None => Ok(()),
        Some(complaint) => Err(Unready(complaint).into()),
    }
}

/// Python's packages that tests use as clients.
const PYTHON_PACKAGES: [&str; 3] = ["websockets", "grpcio", "schemathesis"];

/// Sees to it that Python's packages are there, in a folder of their own: installs them if that is wished.
///
/// # Errors
/// They are missing, or cannot be installed.
pub fn meet_python(folder: &Path, provision: bool) -> Result<()> {
    // A folder of an earlier revision may lack what was added since.
    let list = folder.join("packages");
    if std::fs::read_to_string(&list).is_ok_and(|made| made == PYTHON_PACKAGES.join("\n")) {
        return Ok(());
    }
    if !provision {
        let packages = PYTHON_PACKAGES.join(" and ");
        let folder = folder.display();
        let complaint = format!(
            "this machine lacks {folder} with Python's packages {packages}; add --provision"
        );
        return Err(Unready(complaint).into());
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let mut pip = Command::new(folder.join("bin/pip"));
    run(pip.args(["install", "--quiet"]).args(PYTHON_PACKAGES))?;
    Ok(std::fs::write(list, PYTHON_PACKAGES.join("\n"))?)
}

/// What is missing, and how to get it.
fn complaint(needs: &[Need]) -> Option<String> {
    let missing: Vec<_> = needs.iter().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return None;
    }
    let mut text = String::from("this machine lacks:\n");
    for need in &missing {
        let kind = match need.kind {
            Kind::Any => String::new(),
            Kind::Static => " (static)".to_owned(),
            Kind::Go(least) => format!(" (1.{least} or newer)"),
        };
        text += &format!("  {}{kind}: {}; package {}\n", need.program, need.reason, need.package);
    }
    let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    text += &format!("run: apt-get install {}, or add --provision", packages.join(" "));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let needs =
            [need("sh", "dash", "is there"), need("no-such-program", "a-package", "is not")];
        let complaint = complaint(&needs).unwrap();
        assert!(complaint.contains("no-such-program: is not; package a-package"), "{complaint}");
        assert!(complaint.contains("apt-get install a-package, or"), "{complaint}");
        let error = meet(&needs, false).unwrap_err();
        assert!(error.is::<Unready>());
    }

    #[test]
    fn go_says_its_version() {
        assert_eq!(go_version("go version go1.26.8 linux/amd64\n"), Some(26));
        assert_eq!(go_version("go version go1.24rc1 linux/amd64"), Some(24));
        assert_eq!(go_version("go version devel go1.25-abc linux/amd64"), Some(25));
        assert_eq!(go_version("no go"), None);
    }

    #[test]
    fn a_static_program_names_no_loader() {
        // This test is static, as everything here is; so is no shell of a distribution.
        assert!(is_static(&std::env::current_exe().unwrap()));
        assert!(!is_static(Path::new("/bin/sh")));
    }
}
