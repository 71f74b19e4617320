//! Builds the programs that run beside and inside functions, and packs them for `embed.rs`.
//!
//! They come from a second cargo run with profile `embed`, in `target/embed`: a target folder of its own,
//! since this one is locked while a build script runs, and one for all profiles, so that they are built
//! once. `PINNACE_EMBED_DIR` names a directory with ready ones instead. Cargo is told exactly which files
//! they depend on, so a change elsewhere does not run this again.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

/// Each program with the package that it is built from.
const PROGRAMS: [(&str, &str); 4] = [
    ("pinnace-init", "pinnace-sandbox"),
    ("pinnace-spawner", "pinnace-sandbox"),
    ("pinnace-watchdog", "pinnace-watchdog"),
    ("thumbnail", "thumbnail"),
];

/// What tools leave in a template that is tried out in its place.
const LEFT_BY_TOOLS: [&str; 5] =
    ["__pycache__", ".pytest_cache", "node_modules", "target", "Cargo.lock"];

/// Variables of the outer build that would change the inner one.
const OUTER_ONLY: [&str; 6] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "OUT_DIR",
];

/// Has relocations take bits rather than 24 bytes each: all of them are read when a program starts, and stay resident.
const PACKED_RELOCATIONS: &str = "-Wl,-z,pack-relative-relocs";

/// The first glibc whose static programs understand them; others end before `main`.
const PACKED_SINCE: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PINNACE_EMBED_DIR");
    let packs_relocations = packs_relocations();
    if packs_relocations {
        println!("cargo::rustc-link-arg-bins={PACKED_RELOCATIONS}");
    }
    let out = PathBuf::from(variable("OUT_DIR"));
    let programs = match env::var_os("PINNACE_EMBED_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => build(&out, packs_relocations),
    };
    pack(&programs, &out);
    carry_templates(&out);
}

/// Builds the programs and answers the directory they are in.
fn build(out: &Path, packs_relocations: bool) -> PathBuf {
    let workspace = workspace();
    let target = variable("TARGET");
    let folder = target_folder(out).join("embed");
    let mut cargo = Command::new(variable("CARGO"));
    cargo.current_dir(&workspace).args(["build", "--locked", "--profile", "embed"]);
    cargo.arg("--target").arg(&target).arg("--target-dir").arg(&folder);
    for package in PROGRAMS.iter().map(|(_, package)| package).collect::<BTreeSet<_>>() {
        cargo.args(["--package", package]);
    }
    for (program, _) in PROGRAMS {
        cargo.args(["--bin", program]);
    }
    if packs_relocations {
        let flags = format!("target.{target}.rustflags=[\"-Clink-arg={PACKED_RELOCATIONS}\"]");
        cargo.arg("--config").arg(flags);
    }
    for name in OUTER_ONLY {
        cargo.env_remove(name);
    }
    let status = cargo.status().expect("cargo, which runs this, can be run");
    assert!(status.success(), "the programs to embed were not built; cargo said why above");

    let built = folder.join(target).join("embed");
    for file in ["Cargo.lock", "Cargo.toml", ".cargo/config.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(file).display());
    }
    for (program, _) in PROGRAMS {
        for source in sources(&built.join(program).with_extension("d")) {
            println!("cargo::rerun-if-changed={source}");
        }
    }
    built
}

/// Whether the glibc that is linked in is known to understand packed relocations.
fn packs_relocations() -> bool {
    if variable("TARGET") != "x86_64-unknown-linux-gnu" {
        return false;
    }
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    let version = said.ok().and_then(|said| {
        let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
        Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
    });
    version.is_some_and(|version: (u32, u32)| version >= PACKED_SINCE)
}

/// The files that a program was built from, as cargo's own dependency file lists them: `program: a b c`,
/// with spaces in names written as `\ `.
fn sources(dependency_file: &Path) -> Vec<String> {
    let text = fs::read_to_string(dependency_file).expect("cargo writes it beside the program");
    let mut sources = Vec::new();
    for line in text.lines() {
        let Some((_, list)) = line.split_once(": ") else { continue };
        let list = list.replace("\\ ", "\0");
        sources.extend(list.split_whitespace().map(|source| source.replace('\0', " ")));
    }
    sources
}

/// Writes each program compressed, and the table of them that `embed.rs` includes.
fn pack(programs: &Path, out: &Path) {
    let mut table = String::from("[\n");
    for (program, _) in PROGRAMS {
        let path = programs.join(program);
        println!("cargo::rerun-if-changed={}", path.display());
        let bytes = fs::read(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; PINNACE_EMBED_DIR must hold it", path.display())
        });
        let packed = out.join(program).with_extension("gz");
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&bytes).expect("memory takes it");
        fs::write(&packed, gzip.finish().expect("memory takes it")).expect("OUT_DIR is writable");
        let digest = Sha256::digest(&bytes);
        table += &format!(
            "Program {{ name: {program:?}, size_bytes: {}, sha256: {:?}, gzip: include_bytes!({packed:?}) }},\n",
            bytes.len(),
            digest.as_slice(),
        );
    }
    fs::write(out.join("programs.rs"), table + "]\n").expect("OUT_DIR is writable");
}

/// Writes the table of the templates' files that `template/shipped.rs` includes.
fn carry_templates(out: &Path) {
    let root = workspace().join("templates");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    list_files(&root, &mut files);
    files.sort();
    let mut table = String::from("[\n");
    for file in files {
        let path = file.strip_prefix(&root).expect("it was found there");
        let mode = fs::metadata(&file).expect("it was found").permissions().mode();
        table += &format!(
            "CarriedFile {{ path: {path:?}, is_executable: {}, bytes: include_bytes!({file:?}) }},\n",
            mode & 0o100 != 0
        );
    }
    fs::write(out.join("templates.rs"), table + "]\n").expect("OUT_DIR is writable");
}

/// The files below a folder, without what tests and compilers leave there.
fn list_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the templates are part of the source") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_name().unwrap_or_default();
        if LEFT_BY_TOOLS.iter().any(|left| name == *left) {
            continue;
        }
        if path.is_dir() {
            list_files(&path, files);
        } else {
            files.push(path);
        }
    }
}

fn workspace() -> PathBuf {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).expect("this package is two folders down").to_owned()
}

/// The outer target folder. Cargo marks it, and the folder of each target inside it, with a file.
fn target_folder(out: &Path) -> &Path {
    let marked = |folder: &&Path| folder.join("CACHEDIR.TAG").exists();
    let inner = out.ancestors().find(marked).unwrap_or(out);
    inner.parent().filter(marked).unwrap_or(inner)
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
