//! A process that moves itself into a fresh control group and executes a program: the least that a sandbox
//! with limits of memory needs where nothing was made ahead.
//!
//! The first half of it is this program itself, told by its arguments to be that: between fork and exec
//! nothing but system calls would be allowed, and unsafe code is not for benchmarks.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

/// What makes this program the first half, followed by the group, `--` and the program.
const MODE: [&str; 2] = ["--reference", "migrate"];

/// Runs the function, told to end at once, in a control group of its own.
pub struct Migrated {
    this: PathBuf,
    hello: PathBuf,
    runs: u32,
}

/// A control group that is removed with this value.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("  the control group {} could not be removed: {error}", self.0.display());
        }
    }
}

impl Migrated {
    /// Of this function.
    ///
    /// # Errors
    /// This program has no path.
    pub fn new(hello: &Path) -> Result<Self> {
        Ok(Self { this: std::env::current_exe()?, hello: hello.to_owned(), runs: 0 })
    }

    /// Runs it once and answers how long that took, in microseconds. The group is made before that.
    ///
    /// # Errors
    /// The group cannot be made, or the program failed.
    pub fn run(&mut self) -> Result<f64> {
        self.runs += 1;
        let name = format!("bench-migrate-{}-{}", std::process::id(), self.runs);
        let group = Group(hierarchy().join(name));
        fs::create_dir(&group.0).with_context(|| format!("make {}", group.0.display()))?;
        let mut command = Command::new(&self.this);
        command.args(MODE).arg(&group.0).arg("--").arg(&self.hello);
        command.env("HELLO_AT_START", "exit 0").stdin(Stdio::null());
        let begin = Instant::now();
        let output = command.output()?;
        let took = begin.elapsed().as_secs_f64() * 1e6;
        if !output.status.success() {
            bail!(
                "a process that moves itself failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(took)
    }
}

/// Where memory is limited: a hierarchy of its own in version 1, the only one in version 2.
fn hierarchy() -> &'static Path {
    let memory = Path::new("/sys/fs/cgroup/memory");
    if memory.is_dir() { memory } else { Path::new("/sys/fs/cgroup") }
}

/// The group and the program, if these arguments (without the program's name) make this the first half.
pub fn asked(arguments: &[OsString]) -> Option<(&OsStr, &OsStr)> {
    match arguments {
        [reference, migrate, group, dashes, program]
            if [reference, migrate] == MODE.map(OsStr::new) && dashes == "--" =>
        {
            Some((group, program))
        }
        _ => None,
    }
}

/// Moves this process into the group and becomes the program; answers why it did not.
pub fn migrate(group: &OsStr, program: &OsStr) -> anyhow::Error {
    let list = Path::new(group).join("cgroup.procs");
    match fs::write(&list, "0") {
        Ok(()) => {
            let error = Command::new(program).exec();
            anyhow::Error::new(error).context(format!("execute {}", program.display()))
        }
        Err(error) => anyhow::Error::new(error).context(format!("write {}", list.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_arguments_are_the_mode() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let whole = words("--reference migrate /group -- /hello");
        assert_eq!(asked(&whole), Some((OsStr::new("/group"), OsStr::new("/hello"))));
        assert_eq!(asked(&words("--reference migrate /group")), None);
        assert_eq!(asked(&words("--only cold-static")), None);
    }

    #[test]
    fn a_group_that_is_not_there_is_named() {
        let why = migrate(OsStr::new("/no/such/group"), OsStr::new("/hello"));
        assert_eq!(why.to_string(), "write /no/such/group/cgroup.procs");
    }
}
