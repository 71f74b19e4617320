//! Folders that are copied, within bounds: templates, which are strangers', and handlers, which are the user's own.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use pinnace_core::limits;

/// What links stand for.
#[derive(Clone, Copy, Debug)]
pub enum Links<'a> {
    /// What they lead to, wherever that is.
    Followed,
    /// What they lead to, if that is in this folder, whose path is canonical.
    Within(&'a Path),
}

/// What may still be copied.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    files: usize,
    bytes: u64,
}

impl Room {
    /// For one template.
    pub fn of_template() -> Self {
        Self { files: limits::TEMPLATE_FILES_MAX, bytes: limits::TEMPLATE_BYTES_MAX }
    }

    /// For all that one build is given.
    pub fn of_context() -> Self {
        Self { files: limits::CONTEXT_FILES_MAX, bytes: limits::CONTEXT_BYTES_MAX }
    }

    fn take(&mut self, bytes: u64) -> Result<(), String> {
        self.files = self.files.checked_sub(1).ok_or("there are more files than are taken")?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or("it is larger than is taken")?;
        Ok(())
    }
}

/// Why something was not copied.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy {path}: {why}")]
pub struct CopyError {
    path: PathBuf,
    why: String,
}

/// Copies what is in a folder into another one, which is there, over what is there; `skipped` names what is left out
/// of the folder itself. Modes are kept, links become what they stand for.
///
/// # Errors
/// Something cannot be read or written, is neither file nor folder, or there is no room for it.
pub fn copy(
    from: &Path,
    to: &Path,
    skipped: &[&str],
    links: Links<'_>,
    room: &mut Room,
) -> Result<(), CopyError> {
    let mut copier = Copier { links, room };
    copier.folder(from, to, skipped, limits::FOLDER_DEPTH_MAX)
}

struct Copier<'a> {
    links: Links<'a>,
    room: &'a mut Room,
}

impl Copier<'_> {
    fn folder(
        &mut self,
        from: &Path,
        to: &Path,
        skipped: &[&str],
        depth: usize,
    ) -> Result<(), CopyError> {
        let wrong = |why: String| CopyError { path: from.to_owned(), why };
        if depth == 0 {
            let most = limits::FOLDER_DEPTH_MAX;
            return Err(wrong(format!("it lies {most} folders deep, or a link leads back")));
        }
        let read = fs::read_dir(from).and_then(|entries| {
            entries.map(|entry| entry.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>()
        });
        let mut names = read.map_err(|error| wrong(error.to_string()))?;
        names.sort_unstable();
        for name in names {
            if !skipped.iter().any(|skipped| name == *skipped) {
                self.entry(&from.join(&name), &to.join(&name), depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, from: &Path, to: &Path, depth: usize) -> Result<(), CopyError> {
        let wrong = |why: String| CopyError { path: from.to_owned(), why };
        let by_io = |error: io::Error| wrong(error.to_string());
        let link = fs::symlink_metadata(from).map_err(by_io)?.file_type().is_symlink();
        if link && let Links::Within(root) = self.links {
            let target = fs::canonicalize(from).map_err(by_io)?;
            if !target.starts_with(root) {
                return Err(wrong("it is a link that leads out of the template".to_owned()));
            }
        }
        let found = fs::metadata(from).map_err(by_io)?;
        let mode = found.permissions().mode() & 0o777;
        if found.is_dir() {
            self.room.take(0).map_err(wrong)?;
            make_folder(to, mode).map_err(by_io)?;
            return self.folder(from, to, &[], depth - 1);
        }
        if !found.is_file() {
            return Err(wrong("it is neither a file nor a folder".to_owned()));
        }
        self.room.take(found.len()).map_err(wrong)?;
        // What lies there may be read-only.
        match fs::remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(by_io(error)),
            _ => {}
        }
        fs::copy(from, to).map(drop).map_err(by_io)
    }
}

/// Makes a folder unless it is there.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode | 0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn copied(from: &Path, links: Links<'_>) -> Result<tempfile::TempDir, String> {
        let to = folder(&[]);
        copy(from, to.path(), &["build"], links, &mut Room::of_context())
            .map_err(|error| error.to_string())?;
        Ok(to)
    }

    #[test]
    fn files_keep_their_modes_and_only_the_top_is_thinned() {
        let from = folder(&[("a", "1"), ("run", "2"), ("build/x", "3"), ("b/build/y", "4")]);
        fs::set_permissions(from.path().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
        let to = copied(from.path(), Links::Followed).unwrap();
        assert!(!to.path().join("build").exists());
        assert_eq!(fs::read(to.path().join("b/build/y")).unwrap(), b"4");
        let mode = fs::metadata(to.path().join("run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn links_become_what_they_stand_for() {
        let from = folder(&[("a", "1"), ("c/d", "2")]);
        symlink("a", from.path().join("link")).unwrap();
        symlink("c", from.path().join("folder")).unwrap();
        let root = fs::canonicalize(from.path()).unwrap();
        for links in [Links::Followed, Links::Within(&root)] {
            let to = copied(from.path(), links).unwrap();
            assert_eq!(fs::read(to.path().join("link")).unwrap(), b"1");
            assert_eq!(fs::read(to.path().join("folder/d")).unwrap(), b"2");
        }
    }

    #[test]
    fn a_strangers_links_lead_nowhere_else() {
        let from = folder(&[]);
        symlink("/etc/hostname", from.path().join("link")).unwrap();
        let root = fs::canonicalize(from.path()).unwrap();
        let said = copied(from.path(), Links::Within(&root)).unwrap_err();
        assert!(said.contains("leads out of the template"), "{said}");
    }

    #[test]
    fn what_leads_back_and_what_is_no_file_is_refused() {
        let from = folder(&[("a/b", "1")]);
        symlink("..", from.path().join("a/up")).unwrap();
        let said = copied(from.path(), Links::Followed).unwrap_err();
        assert!(said.contains("a link leads back"), "{said}");
        let from = folder(&[]);
        drop(std::os::unix::net::UnixListener::bind(from.path().join("socket")).unwrap());
        let said = copied(from.path(), Links::Followed).unwrap_err();
        assert!(said.contains("neither a file nor a folder"), "{said}");
    }

    #[test]
    fn room_is_bounded() {
        let from = folder(&[("a", "12345"), ("b", "1")]);
        let to = folder(&[]);
        for (files, bytes) in [(1, 100), (10, 5)] {
            let mut room = Room { files, bytes };
            let copied = copy(from.path(), to.path(), &[], Links::Followed, &mut room);
            assert!(copied.is_err(), "{files} {bytes}");
        }
    }

    #[test]
    fn what_is_there_is_copied_over() {
        let from = folder(&[("a", "new")]);
        let to = folder(&[("a", "old"), ("b", "kept")]);
        let old = to.path().join("a");
        fs::set_permissions(&old, fs::Permissions::from_mode(0o444)).unwrap();
        copy(from.path(), to.path(), &[], Links::Followed, &mut Room::of_context()).unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"new");
        assert!(to.path().join("b").exists());
    }
}
