//! `.dockerignore` at the root of what is built: what is left out when it is sent to a builder of ours, as other
//! builders leave it out themselves.
//!
//! Lines are paths, with `*` for any characters within a name, and `**/` before a name that may lie anywhere. Whoever
//! takes things in again (`!`) gets everything.

use std::path::Path;

use pinnace_core::limits;

use crate::{fetch, stack::globbed};

const FILE: &str = ".dockerignore";

/// What is left out.
#[derive(Debug, Default)]
pub struct Ignored(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    is_anywhere: bool,
    names: Vec<String>,
}

impl Ignored {
    /// What the file of a folder says; nothing if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join(FILE);
        if !file.is_file() {
            return Ok(Self::default());
        }
        fetch::text(&file.display().to_string(), limits::STACK_FILE_BYTES_MAX)
            .map(|text| Self::read(&text))
    }

    fn read(text: &str) -> Self {
        let lines = || text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        if lines().any(|line| line.starts_with('!')) {
            return Self::default();
        }
        let pattern = |line: &str| {
            let (is_anywhere, path) = match line.strip_prefix("**/") {
                Some(path) => (true, path),
                None => (false, line),
            };
            let names = path.split('/').filter(|name| !name.is_empty() && *name != ".");
            Pattern { is_anywhere, names: names.map(str::to_owned).collect() }
        };
        Self(lines().map(pattern).filter(|pattern| !pattern.names.is_empty()).collect())
    }

    /// Whether a file or folder is left out, by its path in the folder; what is in a folder that is left out is not
    /// asked for.
    pub fn has(&self, path: &Path) -> bool {
        let parts: Vec<String> =
            path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        self.0.iter().any(|pattern| {
            let fits = |parts: &[String]| {
                parts.len() == pattern.names.len()
                    && pattern.names.iter().zip(parts).all(|(name, part)| globbed(name, part))
            };
            let end = parts.len().saturating_sub(pattern.names.len());
            fits(&parts) || (pattern.is_anywhere && fits(&parts[end..]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(text: &str, path: &str) -> bool {
        Ignored::read(text).has(Path::new(path))
    }

    #[test]
    fn paths_and_names_anywhere() {
        let text = "# tools'\n**/node_modules\n/function/*.log\n./build/\n";
        for path in ["node_modules", "function/node_modules", "function/a.log", "build"] {
            assert!(ignored(text, path), "{path}");
        }
        for path in ["function", "function/b/a.log", "a.log", "function/build", "node_modules2"] {
            assert!(!ignored(text, path), "{path}");
        }
    }

    #[test]
    fn what_is_taken_in_again_is_not_left_out() {
        assert!(!ignored("*\n!function\n", "function"));
        assert!(!ignored("", "x"));
    }
}
