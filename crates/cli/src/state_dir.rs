//! Where a server on this host keeps its state, if nobody says otherwise (design section 7).

use std::{env, ffi::OsString, path::PathBuf};

/// The variable that names another state directory.
pub const VARIABLE: &str = "PINNACE_STATE_DIR";

/// The default: `PINNACE_STATE_DIR`, else `/var/lib/pinnace` as root, else the XDG data directory.
/// `None` if there is no home directory either.
pub fn default() -> Option<PathBuf> {
    choose(rustix::process::geteuid().is_root(), |name| env::var_os(name))
}

fn choose(root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(named) = path(VARIABLE) {
        return Some(named);
    }
    if root {
        return Some(PathBuf::from("/var/lib/pinnace"));
    }
    // The XDG specification has relative paths ignored.
    let data = path("XDG_DATA_HOME").filter(|data| data.is_absolute());
    let data = data.or_else(|| Some(path("HOME")?.join(".local/share")))?;
    Some(data.join("pinnace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(root: bool, variables: &[(&str, &str)]) -> Option<String> {
        let variable = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
        };
        choose(root, variable).map(|path| path.display().to_string())
    }

    #[test]
    fn precedence() {
        let all = [("PINNACE_STATE_DIR", "/s"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(chosen(true, &all).as_deref(), Some("/s"));
        assert_eq!(chosen(true, &all[1..]).as_deref(), Some("/var/lib/pinnace"));
        assert_eq!(chosen(false, &all[1..]).as_deref(), Some("/x/pinnace"));
        assert_eq!(chosen(false, &all[2..]).as_deref(), Some("/h/.local/share/pinnace"));
        assert_eq!(chosen(false, &[("XDG_DATA_HOME", "rel")]), None);
    }
}
