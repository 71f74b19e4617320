//! Paths that a recipe may name.

/// What a build's sandbox mounts or writes itself, so that nothing of it becomes a layer.
const RESERVED: [&str; 8] =
    ["/.pinnace", "/dev", "/proc", "/run", "/sys", "/tmp", "/var/openfaas", "/var/tmp"];

/// Whether a path is one within the context: relative, and never upwards.
pub(super) fn check_in_context(path: &str) -> Result<(), &'static str> {
    if path.starts_with('/') {
        return Err("is absolute; name it as it lies in the build context");
    }
    check_names(path)
}

/// Whether a path is one of the image that a build may fill.
pub(super) fn check_in_image(path: &str) -> Result<(), &'static str> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err("is not absolute");
    };
    check_names(rest)?;
    if RESERVED.iter().any(|reserved| is_at_or_below(path, reserved)) {
        return Err("is mounted anew in every sandbox, so that no image can have it");
    }
    Ok(())
}

/// Whether a path is another, or lies below it.
pub(super) fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check_names(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("names nothing");
    }
    for name in path.split('/') {
        match name {
            "" => return Err("has an empty name in it"),
            "." | ".." => return Err("has `.` or `..` in it"),
            _ if name.contains('\0') => return Err("has a zero byte in it"),
            _ if name.starts_with(".wh.") => {
                return Err("has a name that begins with `.wh.`, which means a removal in a layer");
            }
            _ => {}
        }
    }
    Ok(())
}
