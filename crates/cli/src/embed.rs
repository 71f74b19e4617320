//! What the binary carries: the programs that run beside and inside functions, and the examples.
//!
//! The build script packs them (see `build.rs`). [`unpack`] lays the programs into
//! `STATE/bin/HASH`, where HASH is over all of them: a newer Pinnace has a directory of its own, and its
//! server removes the older one's once it holds the state directory.

mod archive;
mod examples;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use pinnace_server::page_out;
use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::Errno,
};
use sha2::{Digest, Sha256};

pub use examples::{Archive, examples};

/// The programs, unpacked.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The directory with `pinnace-spawner`, `pinnace-init` and `pinnace-watchdog`.
    pub dir: PathBuf,
}

/// Why the programs could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot unpack Pinnace's own programs to {path}: {error}; the state directory must be writable, and \
     --state-dir can name another"
)]
pub struct UnpackError {
    path: String,
    error: io::Error,
}

/// One embedded program.
struct Program {
    name: &'static str,
    size_bytes: u64,
    sha256: [u8; 32],
    gzip: &'static [u8],
}

static PROGRAMS: &[Program] = &include!(concat!(env!("OUT_DIR"), "/programs.rs"));

/// The programs that a server starts. The others belong to examples.
const OF_THE_SERVER: [&str; 3] = ["pinnace-spawner", "pinnace-init", "pinnace-watchdog"];

/// Unpacks the programs below a state directory unless they are there already, byte for byte.
///
/// Each file appears under its name only when it is whole and on disk, so a crash leaves none half-made.
///
/// # Errors
/// A directory or file cannot be written.
pub fn unpack(state_dir: &Path) -> Result<Programs, UnpackError> {
    let dir = state_dir.join("bin").join(hash());
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error| UnpackError { path, error }
    };
    // Sandboxes run the watchdog as other users, so everybody may read and search here.
    DirBuilder::new().recursive(true).mode(0o755).create(&dir).map_err(failed(&dir))?;
    for dir in dir.ancestors().take(2) {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).map_err(failed(dir))?;
    }
    for program in of_the_server() {
        let path = dir.join(program.name);
        if !program.is_at(&path) {
            program.write_to(&path).map_err(failed(&path))?;
            // The server lives long, and does not unpack again.
            page_out(program.gzip);
        }
    }
    Ok(Programs { dir })
}

/// A program in memory, for where nothing may be written.
#[derive(Debug)]
pub struct InMemory(File);

impl InMemory {
    /// The spawner's program.
    ///
    /// # Errors
    /// The kernel gives no memory for programs (`vm.memfd_noexec`).
    pub fn spawner() -> io::Result<Self> {
        const NAME: &str = "pinnace-spawner";
        let program = program(NAME).ok_or(io::ErrorKind::NotFound)?;
        let make = |flags| memfd_create(NAME, MemfdFlags::CLOEXEC | flags);
        let memory = match make(MemfdFlags::EXEC) {
            // Kernels before 6.3 do not know the flag, and need none.
            Err(Errno::INVAL) => make(MemfdFlags::empty())?,
            other => other?,
        };
        let mut file = File::from(memory);
        program.copy_to(&mut file)?;
        Ok(Self(file))
    }

    /// A path by which this process can start it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

fn of_the_server() -> impl Iterator<Item = &'static Program> {
    PROGRAMS.iter().filter(|program| OF_THE_SERVER.contains(&program.name))
}

fn program(name: &str) -> Option<&'static Program> {
    PROGRAMS.iter().find(|program| program.name == name)
}

/// Names this build's programs: the first 16 hexadecimal digits of a hash over all of them.
fn hash() -> String {
    let mut hash = Sha256::new();
    for program in of_the_server() {
        hash.update(program.name);
        hash.update(program.sha256);
    }
    hex(&hash.finalize()[..8])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Program {
    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.size_bytes as usize);
        GzDecoder::new(self.gzip).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Unpacks it bit by bit: the server would keep the memory that a whole one needs.
    fn copy_to(&self, file: &mut File) -> io::Result<()> {
        io::copy(&mut GzDecoder::new(self.gzip), file).map(drop)
    }

    /// Whether the file is this program, whole and executable.
    fn is_at(&self, path: &Path) -> bool {
        let same = || -> io::Result<bool> {
            let mut file = File::open(path)?;
            let metadata = file.metadata()?;
            if metadata.len() != self.size_bytes || metadata.permissions().mode() & 0o777 != 0o755 {
                return Ok(false);
            }
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 64 << 10];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(hash.finalize().as_slice() == self.sha256),
                    read => hash.update(&buffer[..read]),
                }
            }
        };
        same().unwrap_or(false)
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_file_name(format!(".{}.{}", self.name, std::process::id()));
        let written = self.write_new(&temporary).and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // The first error is the one to tell; the file may not even be there.
            drop(fs::remove_file(&temporary));
        }
        written
    }

    fn write_new(&self, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o755).open(path)?;
        self.copy_to(&mut file)?;
        // The mode above is cut by the umask.
        file.set_permissions(Permissions::from_mode(0o755))?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn programs_are_unpacked_whole_and_for_everybody() {
        let state = tempfile::tempdir().unwrap();
        let programs = unpack(state.path()).unwrap();
        assert_eq!(mode(&programs.dir), 0o755);
        assert_eq!(mode(&state.path().join("bin")), 0o755);
        for program in of_the_server() {
            let path = programs.dir.join(program.name);
            assert_eq!(mode(&path), 0o755, "{}", program.name);
            assert_eq!(Sha256::digest(fs::read(&path).unwrap()).as_slice(), program.sha256);
        }
        assert_eq!(fs::read_dir(&programs.dir).unwrap().count(), OF_THE_SERVER.len());
    }

    #[test]
    fn what_is_damaged_is_mended_and_what_is_right_is_left() {
        let state = tempfile::tempdir().unwrap();
        let programs = unpack(state.path()).unwrap();
        let [cut, closed, whole] = OF_THE_SERVER.map(|name| programs.dir.join(name));
        let inode = |path: &Path| {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(path).unwrap().ino()
        };
        let before = inode(&whole);
        fs::write(&cut, b"cut").unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o600)).unwrap();
        unpack(state.path()).unwrap();
        assert!(fs::metadata(&cut).unwrap().len() > 3);
        assert_eq!(mode(&closed), 0o755);
        assert_eq!(inode(&whole), before);
    }

    #[test]
    fn an_error_names_the_path() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join("bin"), b"in the way").unwrap();
        let error = unpack(state.path()).unwrap_err().to_string();
        assert!(error.contains(state.path().to_str().unwrap()), "{error}");
    }
}
