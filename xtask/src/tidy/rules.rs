//! The rules.

use super::{
    repository::{File, Package, Repository},
    source::words,
};

/// A rule: what is wrong, a line each.
type Rule = fn(&Repository) -> Vec<String>;

/// All of them.
pub const ALL: &[Rule] = &[
    dependencies,
    file_sizes,
    unsafe_code,
    limits,
    wall_clock,
    module_names,
    unfinished,
    licences,
    lints,
];

/// Which packages of the workspace a package may use. A package that is not here may use none.
const MAY_USE: &[(&str, &[&str])] = &[
    ("pinnace-core", &[]),
    ("pinnace-proxy", &["pinnace-core"]),
    ("pinnace-sandbox", &["pinnace-core"]),
    ("pinnace-watchdog", &["pinnace-core", "pinnace-proxy", "pinnace-sandbox"]),
    ("pinnace-server", &["pinnace-core", "pinnace-proxy", "pinnace-sandbox"]),
    ("pinnace-stack", &["pinnace-core"]),
    ("pinnace", &["pinnace-core", "pinnace-server", "pinnace-stack"]),
    (
        "pinnace-fuzz",
        &[
            "pinnace-core",
            "pinnace-proxy",
            "pinnace-sandbox",
            "pinnace-server",
            "pinnace-stack",
            "pinnace-watchdog",
        ],
    ),
];

/// What `pinnace-core` may not use: it does no I/O, waits for nothing and calls no kernel.
const NOT_IN_CORE: &[&str] =
    &["tokio", "hyper", "rustix", "libc", "socket2", "ureq", "rusqlite", "tempfile", "tracing"];

/// Lines that nine Rust files in ten stay under, and that every one does.
const LINES_USUAL: usize = 700;
const LINES_MOST: usize = 1200;

/// The only file with unsafe code.
const UNSAFE: &str = "crates/sandbox/src/sys.rs";

/// The file that holds the limits.
const LIMITS: &str = "crates/core/src/limits.rs";

/// Files that read the wall clock, and what for. People may set it, so nothing waits or decides by it but what is said
/// in its time: schedules, dates of tokens and of answers.
const WALL_CLOCK: &[(&str, &str)] = &[
    ("crates/cli/src/command/logs.rs", "`logs --since 10m`, asked in the time that stands in logs"),
    ("crates/cli/src/template/origin.rs", "when a template was brought, in its meta.json"),
    ("crates/sandbox/src/images/load.rs", "when an image was loaded, as `image ls` shows it"),
    ("crates/server/src/deployments.rs", "when a function was deployed, as `list` shows it"),
    (
        "crates/server/src/distribution/index/mod.rs",
        "when a manifest was pushed, as `registry ls` shows it",
    ),
    (
        "crates/server/src/distribution/index/garbage.rs",
        "how long ago that was, also before a restart; a jump keeps a manifest for longer or takes an untagged one sooner",
    ),
    ("crates/server/src/doctor/abilities.rs", "whether the clock is set at all"),
    ("crates/server/src/logs/book.rs", "the time that stands before a line of a log"),
    ("crates/server/src/logs/line.rs", "the same for what the platform says there"),
    ("crates/server/src/schedules.rs", "when functions are due, which is said in that time"),
    ("crates/server/src/provider/keeper/function.rs", "when a replica ended, in its status"),
    ("crates/server/src/proxy/stamp.rs", "the headers X-Start-Time and Date"),
    (
        "crates/server/src/queue/delivery.rs",
        "the date until which a function asks to be left alone, and when an attempt ended",
    ),
    (
        "crates/server/src/queue/ledger/mod.rs",
        "when a call was submitted, and what is left of its wait after a restart, within bounds",
    ),
    (
        "crates/server/src/registry/repository.rs",
        "the date until which a registry asks to be left alone",
    ),
    ("crates/server/src/tokens/mod.rs", "the dates between which a token holds"),
    ("crates/watchdog/src/auth/mod.rs", "the dates between which a token holds"),
    ("crates/watchdog/src/journal.rs", "the time that stands before a line of a log"),
    ("crates/watchdog/src/lines.rs", "the same"),
];

/// Calls that read it.
const READS_TIME: [&str; 4] = ["SystemTime::now", "now_utc", "now_local", "UtcDateTime::now"];

/// Modules that would hold anything, and so say nothing.
const EMPTY_NAMES: &[&str] =
    &["utils", "util", "helpers", "helper", "common", "misc", "manager", "shared", "stuff"];

/// Arrows between packages point one way, and the core stays pure.
fn dependencies(repository: &Repository) -> Vec<String> {
    let ours: Vec<_> = repository.packages.iter().map(|package| package.name.as_str()).collect();
    let mut faults = Vec::new();
    for package in &repository.packages {
        let allowed = MAY_USE.iter().find(|(name, _)| *name == package.name);
        let allowed = allowed.map_or(&[] as &[_], |(_, allowed)| allowed);
        for name in used_by(package) {
            if ours.contains(&name) && !allowed.contains(&name) {
                faults.push(format!("{} may not use {name}", package.name));
            }
            if package.name == "pinnace-core" && NOT_IN_CORE.contains(&name) {
                faults.push(format!("pinnace-core does no I/O and may not use {name}"));
            }
        }
    }
    faults
}

/// Dependencies of what is shipped; tests may use more.
fn used_by(package: &Package) -> impl Iterator<Item = &str> {
    let shipped = package.dependencies.iter().filter(|used| used.kind.as_deref() != Some("dev"));
    shipped.map(|used| used.name.as_str())
}

/// Files stay small enough to be read in one go.
fn file_sizes(repository: &Repository) -> Vec<String> {
    let sizes = repository.rust().map(|(file, _)| (file.text.lines().count(), &file.path));
    let (mut faults, mut long) = (Vec::new(), Vec::new());
    let mut count = 0;
    for (lines, path) in sizes {
        count += 1;
        if lines > LINES_MOST {
            faults.push(format!("{path}: {lines} lines, at most {LINES_MOST}; take it apart"));
        } else if lines > LINES_USUAL {
            long.push(format!("{path} ({lines})"));
        }
    }
    if long.len() * 10 > count {
        let long = long.join(", ");
        faults.push(format!("more than one file in ten is over {LINES_USUAL} lines: {long}"));
    }
    faults
}

/// Unsafe code has one place, where it is read with care.
fn unsafe_code(repository: &Repository) -> Vec<String> {
    let others = repository.rust().filter(|(file, _)| file.path != UNSAFE);
    let mut faults = Vec::new();
    for (file, source) in others {
        for (number, line) in source.lines().filter(|(_, line)| words(line).any(|w| w == "unsafe"))
        {
            faults.push(format!(
                "{}:{number}: unsafe code belongs to {UNSAFE}: {}",
                file.path,
                line.trim()
            ));
        }
    }
    faults
}

/// A bound that more than one file can see is the platform's and stands with the others. A private one is
/// a matter of its file: the length of a field of a format, say. `pinnace-core` may also keep a format's
/// rule beside its parser.
fn limits(repository: &Repository) -> Vec<String> {
    let shipped =
        |file: &&File| file.path.starts_with("crates/") && !file.path.starts_with("crates/core/");
    let mut faults = Vec::new();
    for (file, source) in repository.rust().filter(|(file, _)| shipped(file)) {
        for (number, line) in source.lines() {
            if let Some(name) = public_bound(line) {
                let path = &file.path;
                faults.push(format!("{path}:{number}: {name} is a limit: put it into {LIMITS}"));
            }
        }
    }
    faults
}

/// Time is shown by the wall clock and measured by the monotonic one.
fn wall_clock(repository: &Repository) -> Vec<String> {
    let shipped = |file: &&File| file.path.starts_with("crates/") && file.path.contains("/src/");
    let mut faults = Vec::new();
    for (file, source) in repository.rust().filter(|(file, _)| shipped(file)) {
        let may_read = WALL_CLOCK.iter().any(|(path, _)| *path == file.path);
        let reads = |line: &str| READS_TIME.iter().any(|call| line.contains(call));
        for (number, _) in source.lines().filter(|(_, line)| !may_read && reads(line)) {
            faults.push(format!(
                "{}:{number}: the wall clock jumps: measure and decide by Instant; what shows the time, or must \
                 go by it, stands in WALL_CLOCK with what for",
                file.path
            ));
        }
    }
    faults
}

/// The name of a constant that is a bound and not private, if the line declares one.
fn public_bound(line: &str) -> Option<&str> {
    let mut words = words(line);
    if words.next()? != "pub" {
        return None;
    }
    words.find(|word| *word == "const")?;
    let name = words.next()?;
    ["_MAX", "_MIN", "_DEFAULT"].iter().any(|end| name.ends_with(end)).then_some(name)
}

/// A module is named after what is in it.
fn module_names(repository: &Repository) -> Vec<String> {
    let named = |path: &str| {
        let mut parts = path.trim_end_matches(".rs").split('/');
        parts.any(|part| EMPTY_NAMES.contains(&part))
    };
    let bad = repository.rust().filter(|(file, _)| named(&file.path));
    bad.map(|(file, _)| format!("{}: name it after its main type", file.path)).collect()
}

/// Nothing is left for later in the code, and no test is left out.
fn unfinished(repository: &Repository) -> Vec<String> {
    const NOTES: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];
    const MACROS: &[&str] = &["dbg!", "todo!", "unimplemented!", "#[ignore"];
    let mut faults = Vec::new();
    for (file, source) in repository.rust() {
        let notes =
            source.comment_lines().filter(|(_, line)| words(line).any(|w| NOTES.contains(&w)));
        faults.extend(notes.map(|(number, line)| format!("{}:{number}: do it: {line}", file.path)));
        let macros = source.lines().filter(|(_, line)| MACROS.iter().any(|m| line.contains(m)));
        faults.extend(
            macros.map(|(number, line)| {
                format!("{}:{number}: finish it: {}", file.path, line.trim())
            }),
        );
    }
    faults
}

/// Everything is under both licences, and says so.
fn licences(repository: &Repository) -> Vec<String> {
    let files = ["LICENSE-MIT", "LICENSE-APACHE"].into_iter();
    let missing =
        files.filter(|path| repository.file(path).is_none_or(|file| file.text.is_empty()));
    let mut faults: Vec<_> = missing.map(|path| format!("{path} is missing")).collect();
    let other = |package: &&Package| package.license.as_deref() != Some("MIT OR Apache-2.0");
    let packages = repository.packages.iter().filter(other);
    faults.extend(
        packages.map(|package| format!("{}: license must be MIT OR Apache-2.0", package.name)),
    );
    faults
}

/// Every package takes the workspace's lints.
fn lints(repository: &Repository) -> Vec<String> {
    let without = repository.packages.iter().filter(|package| {
        let is_its = |file: &&File| package.manifest_path.ends_with(&format!("/{}", file.path));
        // The workspace's own manifest matches every path; the longest match is the package's.
        let manifest = repository.files.iter().filter(is_its).max_by_key(|file| file.path.len());
        manifest.is_none_or(|file| !file.text.contains("[lints]\nworkspace = true"))
    });
    without.map(|package| format!("{}: add [lints] workspace = true", package.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::repository::Dependency, *};

    fn with(path: &str, text: &str) -> Repository {
        Repository { files: vec![File::new(path, text)], packages: Vec::new() }
    }

    fn package(name: &str, uses: &[(&str, Option<&str>)]) -> Package {
        let used = uses.iter().map(|(name, kind)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
        });
        Package {
            name: name.to_owned(),
            license: Some("MIT OR Apache-2.0".to_owned()),
            manifest_path: format!("/x/{name}/Cargo.toml"),
            dependencies: used.collect(),
        }
    }

    #[test]
    fn arrows_point_one_way() {
        let mut repository = Repository::default();
        repository.packages.push(package("pinnace-core", &[("tokio", None)]));
        repository.packages.push(package("pinnace-server", &[("pinnace-core", None)]));
        repository.packages.push(package("pinnace-proxy", &[("pinnace-server", None)]));
        repository.packages.push(package("new", &[("pinnace-core", Some("dev"))]));
        let faults = dependencies(&repository);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults.contains(&"pinnace-proxy may not use pinnace-server".to_owned()));
    }

    #[test]
    fn files_are_small() {
        assert_eq!(file_sizes(&with("a.rs", &"x\n".repeat(1201))).len(), 1);
        assert_eq!(file_sizes(&with("a.rs", &"x\n".repeat(701))).len(), 1, "one in one is over");
        assert_eq!(file_sizes(&with("a.rs", &"x\n".repeat(700))).len(), 0);
        let mut many = with("a.rs", &"x\n".repeat(1200));
        many.files.extend((0..9).map(|n| File::new(&format!("{n}.rs"), "")));
        assert_eq!(file_sizes(&many).len(), 0, "one in ten may be");
    }

    #[test]
    fn unsafe_has_one_place() {
        let code = "// unsafe\nlet s = \"unsafe\";\nunsafe_code();\nunsafe { x() }";
        assert_eq!(unsafe_code(&with(UNSAFE, code)).len(), 0);
        let faults = unsafe_code(&with("crates/sandbox/src/child.rs", code));
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("crates/sandbox/src/child.rs:4:"), "{faults:?}");
    }

    #[test]
    fn limits_have_one_place() {
        let code = "pub(crate) const A_BYTES_MAX: usize = 1;\nconst B_MAX: u8 = 1;\npub const MAX: u8 = 1;";
        let faults = limits(&with("crates/server/src/a.rs", code));
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("A_BYTES_MAX"), "{faults:?}");
        assert!(limits(&with(LIMITS, code)).is_empty());
    }

    #[test]
    fn time_is_measured_by_the_clock_that_never_jumps() {
        let code =
            "use std::time::SystemTime;\n// now_utc\nlet a = SystemTime::now();\nInstant::now();";
        let faults = wall_clock(&with("crates/server/src/a.rs", code));
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("crates/server/src/a.rs:3:"), "{faults:?}");
        assert!(wall_clock(&with(WALL_CLOCK[0].0, code)).is_empty());
        assert!(wall_clock(&with("tests/src/a.rs", code)).is_empty());
    }

    #[test]
    fn names_say_something() {
        assert_eq!(module_names(&with("crates/core/src/utils.rs", "")).len(), 1);
        assert_eq!(module_names(&with("crates/core/src/common/a.rs", "")).len(), 1);
        assert_eq!(module_names(&with("crates/core/src/name.rs", "")).len(), 0);
    }

    #[test]
    fn nothing_is_left_for_later() {
        let code = "// TODO: x\ndbg!(1);\n#[ignore]\nlet todo = 1; // a HACKER";
        assert_eq!(unfinished(&with("a.rs", code)).len(), 3);
    }

    #[test]
    fn licences_are_there() {
        let mut repository = with("LICENSE-MIT", "text");
        repository.packages.push(Package { license: None, ..package("a", &[]) });
        let faults = licences(&repository);
        assert_eq!(faults, ["LICENSE-APACHE is missing", "a: license must be MIT OR Apache-2.0"]);
    }

    #[test]
    fn lints_are_taken() {
        let mut repository = with("a/Cargo.toml", "[lints]\nworkspace = true\n");
        repository.packages.push(package("a", &[]));
        repository.packages.push(package("b", &[]));
        assert_eq!(lints(&repository), ["b: add [lints] workspace = true"]);
    }
}
