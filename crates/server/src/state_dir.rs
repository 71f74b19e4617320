//! The state directory: what lies where, and that one server uses it at a time.
//!
//! | path | holds | survives `down` |
//! |---|---|---|
//! | `lock` | nothing; its lock says that a server runs | – |
//! | `basic-auth-password` | the password of user `admin` | yes |
//! | `basic-auth-user` | that user's name, for connectors that read both from a directory | yes |
//! | `functions.db` | what is deployed, namespaces, sealed secrets | yes |
//! | `secrets.key` | the key of the secrets | yes |
//! | `issuer.key` | the key of the tokens | yes |
//! | `queue.db` | asynchronous calls that wait, and those that failed | yes |
//! | `queue/` | their large bodies | yes |
//! | `images/` | the image store | yes |
//! | `registry/` | what was pushed to the built-in registry | yes |
//! | `builder.key` | the key that secrets of builds are sealed with | yes |
//! | `builds/` | what layers were made of; builds at work | yes |
//! | `logs/NAMESPACE/NAME/` | what functions printed | yes |
//! | `bin/HASH/` | our programs, as unpacked from the binary | yes |
//! | `root/` | layers that come from no image | yes |
//! | `run` | sockets and records of what runs, on disk or in memory ([`run_dir`]) | no |

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, fcntl_lock},
    process::{Flock, FlockType, fcntl_getlk},
};

use crate::{key_file, provider::sandbox::replicas_in, run_dir};

/// Name of the directory of what runs.
pub(crate) const RUN: &str = "run";

/// Name of the directory of the slots' directories, in the one of what runs.
pub(crate) const SLOTS: &str = "slots";

/// Name of the directory of what replicas see of secrets, beside the former.
pub(crate) const SECRETS: &str = "secrets";

/// Name of the directory at which spawners mount, beside the former.
pub(crate) const MOUNTS: &str = "mnt";

/// A state directory that this process uses alone.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// A process lock: children do not inherit it, and it ends with the process. Closing any descriptor
    /// of the file would end it too, so this is the only one.
    _lock: File,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another server runs on it.
    #[error(
        "the state directory {} is in use by process {pid}: stop that server (`pinnace down`), \
         or choose another directory (`--state-dir`)", path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other server.
        pid: i32,
    },
    /// A file or directory in it cannot be used.
    #[error("the state directory cannot be used: {}: {error}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl StateDir {
    /// Makes the directory if it is missing, and locks it. What runs has its directory below `run_parent`, or
    /// where it is best.
    ///
    /// # Errors
    /// Another server uses it, or it cannot be made.
    pub fn open(path: &Path, run_parent: Option<&Path>) -> Result<Self, StateDirError> {
        let io = |at: &Path| {
            let path = at.to_owned();
            move |error| StateDirError::Io { path, error }
        };
        let private = |dir: &Path| DirBuilder::new().recursive(true).mode(0o700).create(dir);
        private(path).map_err(io(path))?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io(path))?;
        let path = fs::canonicalize(path).map_err(io(path))?;
        let lock_path = path.join("lock");
        let lock = open_lock(&lock_path).map_err(io(&lock_path))?;
        if fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = holder(&lock).unwrap_or(0);
            return Err(StateDirError::InUse { path, pid });
        }
        let state = Self { path, _lock: lock };
        let name = Self::name(&state.path);
        let parent = run_parent.map(Path::to_owned).or_else(run_dir::default_parent);
        run_dir::make(&state.path, parent.as_deref(), &name).map_err(io(&state.run()))?;
        if let Some(parent) = run_parent
            && !run_dir::lies_below(&state.run(), parent)
        {
            tracing::warn!(
                run_dir = %parent.display(),
                "--run-dir counts from the next `pinnace down` on: what runs lies elsewhere already"
            );
        }
        for dir in [state.slots(), state.run().join(MOUNTS)] {
            private(&dir).map_err(io(&dir))?;
        }
        Ok(state)
    }

    /// Refuses a directory that is something else already: a server would change its mode and fill it, and an
    /// end would remove what it has as `run`.
    ///
    /// # Errors
    /// A sentence without advice, which differs.
    pub fn refuse_others(path: &Path) -> Result<(), String> {
        // Ours before a first server locks it, and what a file system of its own has.
        const ALLOWED: [&str; 2] = ["bin", "lost+found"];
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let odd = entries
            .map(|entry| entry.file_name())
            .filter(|name| !ALLOWED.iter().any(|allowed| name == allowed))
            .find(|name| name != RUN || !run_dir::is_one(&path.join(RUN)));
        match odd {
            Some(odd) if !Self::is_one(path) => Err(format!(
                "{} is no state directory of Pinnace, there is no file `lock` in it, but there is {odd:?}",
                path.display()
            )),
            _ => Ok(()),
        }
    }

    /// Whether a server has used this directory.
    #[must_use]
    fn is_one(path: &Path) -> bool {
        fs::symlink_metadata(path.join("lock")).is_ok_and(|lock| lock.is_file())
    }

    /// The server that uses this directory, if one does.
    ///
    /// # Errors
    /// The lock cannot be read.
    pub fn server(path: &Path) -> io::Result<Option<i32>> {
        // Reading is enough to ask who holds a lock, and changes nothing.
        match File::open(path.join("lock")) {
            Ok(lock) => Ok(holder(&lock)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what earlier releases of Pinnace unpacked beside `programs`, this one's. Replicas that run from
    /// it go on: what is mounted into them stays until they end.
    pub fn remove_older_programs(&self, programs: &Path) {
        let Some(folder) = programs.parent().filter(|folder| folder.starts_with(&self.path)) else {
            return;
        };
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path != programs
                && let Err(error) = fs::remove_dir_all(&path)
            {
                tracing::warn!(path = %path.display(), %error, "an older release's programs stay");
            }
        }
    }

    /// Sockets and records of what runs.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.path.join(RUN)
    }

    /// The slots' directories.
    #[must_use]
    pub fn slots(&self) -> PathBuf {
        self.run().join(SLOTS)
    }

    /// What replicas see of secrets.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.run().join(SECRETS)
    }

    /// Whether a slot there has a replica.
    #[must_use]
    pub fn has_replicas(&self) -> bool {
        replicas_in(&self.slots()) > 0
    }

    /// The password, made now if there is none yet. True if it was.
    ///
    /// # Errors
    /// It cannot be read or kept.
    pub fn password(&self) -> io::Result<(String, bool)> {
        let path = self.path.join("basic-auth-password");
        let in_file = |error: io::Error| {
            io::Error::new(error.kind(), format!("the password in {}: {error}", path.display()))
        };
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok((text.trim().to_owned(), false)),
            Ok(_) => return Err(in_file(io::Error::other("the file is empty; remove it"))),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(in_file(error)),
            Err(_) => {}
        }
        let password = random_password().map_err(in_file)?;
        key_file::write(&path, password.as_bytes()).map_err(in_file)?;
        Ok((password, true))
    }

    /// Keeps the user's name beside the password, as OpenFaaS's charts do: connectors are given a directory with both.
    ///
    /// # Errors
    /// It cannot be kept.
    pub fn keep_user(&self, user: &str) -> io::Result<()> {
        let path = self.path.join("basic-auth-user");
        if fs::read_to_string(&path).is_ok_and(|kept| kept.trim() == user) {
            return Ok(());
        }
        key_file::write(&path, user.as_bytes()).map_err(|error| {
            io::Error::new(error.kind(), format!("the user in {}: {error}", path.display()))
        })
    }

    /// A name for this directory that is unique on the host and a DNS label: for control groups.
    #[must_use]
    pub fn name(path: &Path) -> String {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
        digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Length of a password that we make, in characters of six bits.
const PASSWORD_CHARS: usize = 40;

fn random_password() -> io::Result<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = [0; PASSWORD_CHARS];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect())
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn holder(lock: &File) -> Option<i32> {
    let asked = Flock::from(FlockType::WriteLock);
    fcntl_getlk(lock, &asked).ok()??.pid.map(|pid| pid.as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("a/b"), None).unwrap();
        // What a crash left, readable for all.
        fs::write(state.path().join("basic-auth-password.new"), "half").unwrap();
        let (first, made) = state.password().unwrap();
        assert!(made && first.len() == PASSWORD_CHARS);
        assert_eq!(state.password().unwrap(), (first, false));
        state.keep_user("admin").unwrap();
        state.keep_user("admin").unwrap();
        assert_eq!(fs::read_to_string(state.path().join("basic-auth-user")).unwrap(), "admin");
        for file in ["basic-auth-password", "basic-auth-user"] {
            let mode = fs::metadata(state.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn programs_of_older_releases_go() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path(), None).unwrap();
        let bin = state.path().join("bin");
        for release in ["old", "new"] {
            fs::create_dir_all(bin.join(release)).unwrap();
            fs::write(bin.join(release).join("pinnace-init"), release).unwrap();
        }
        state.remove_older_programs(&bin.join("new"));
        let left: Vec<_> = fs::read_dir(&bin).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["new"]);
        // Programs that lie elsewhere are not this directory's.
        state.remove_older_programs(Path::new("/usr/lib/pinnace/new"));
    }

    #[test]
    fn what_is_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(StateDir::refuse_others(&dir.path().join("new")), Ok(()));
        fs::create_dir(dir.path().join("bin")).unwrap();
        assert_eq!(StateDir::refuse_others(dir.path()), Ok(()));
        fs::write(dir.path().join("letter"), "").unwrap();
        let said = StateDir::refuse_others(dir.path()).unwrap_err();
        assert!(said.contains("\"letter\""), "{said}");
        drop(StateDir::open(dir.path(), None).unwrap());
        assert_eq!(StateDir::refuse_others(dir.path()), Ok(()));
    }

    #[test]
    fn names_are_labels_and_differ() {
        let name = StateDir::name(Path::new("/var/lib/pinnace"));
        pinnace_core::name::check_label("group", &name).unwrap();
        assert_ne!(name, StateDir::name(Path::new("/var/lib/other")));
    }
}
