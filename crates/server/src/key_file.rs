//! Files that hold a key or a password: for their owner alone, and whole or not there, also after a power cut.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Reads a key from its file, or makes it. True if it was made.
///
/// # Errors
/// The file cannot be read or made, or holds more than `bytes_max` bytes.
pub fn read_or_make(
    path: &Path,
    bytes_max: usize,
    make: impl FnOnce() -> io::Result<Vec<u8>>,
) -> io::Result<(Vec<u8>, bool)> {
    if let Some(key) = read(path, bytes_max)? {
        return Ok((key, false));
    }
    let key = make()?;
    write(path, &key)?;
    Ok((key, true))
}

/// Reads a key from its file, if there is one. A file that others could read is closed to them.
///
/// # Errors
/// The file cannot be read, or holds more than `bytes_max` bytes.
pub fn read(path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(key = %path.display(), "others could read a key; now they cannot");
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    let mut key = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut key)?;
    if key.len() > bytes_max {
        return Err(io::Error::other(format!("it holds more than the {bytes_max} bytes of a key")));
    }
    Ok(Some(key))
}

/// Writes a key to its file. Half a key would keep the server from ever starting, so a file beside it becomes the file.
///
/// # Errors
/// The file or its directory cannot be written.
pub fn write(path: &Path, key: &[u8]) -> io::Result<()> {
    let unfinished = path.with_added_extension("new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(key)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.key");
        let open = || read_or_make(&path, 8, || Ok(b"12345678".to_vec()));
        // What a crash left is no key.
        fs::write(dir.path().join("some.key.new"), "1234").unwrap();
        assert_eq!(open().unwrap(), (b"12345678".to_vec(), true));
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(open().unwrap(), (b"12345678".to_vec(), false));
        assert_eq!(mode(), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(&path, "123456789").unwrap();
        assert!(open().is_err());
    }
}
