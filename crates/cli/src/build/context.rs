//! The folder that is built, `./build/NAME`: the template with the handler over it, as faas-cli leaves it
//! (contract section 14.1).

use std::{
    env, fs, io,
    path::{Component, Path, PathBuf},
};

use super::Job;
use crate::{
    template::{DOCKERFILE, Template},
    tree::{self, Links, Room},
};

/// The folder of everything that is built.
pub const FOLDER: &str = "build";

/// What of a handler is not built: what builds themselves leave behind.
const NOT_BUILT: [&str; 2] = ["build", "template"];

/// Makes the folder anew.
///
/// # Errors
/// The handler is no folder, or something of it cannot be copied.
pub fn make(job: &Job, template: Option<&Template>) -> anyhow::Result<PathBuf> {
    let folder = Path::new(FOLDER).join(&job.name);
    let failed = |error: io::Error| anyhow::anyhow!("cannot make {}: {error}", folder.display());
    if !job.handler.is_dir() {
        let handler = job.handler.display();
        anyhow::bail!(
            "the handler {handler} is no folder; it is the folder of the function's source"
        );
    }
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mode = mode();
    tree::make_folder(Path::new(FOLDER), mode).map_err(failed)?;
    tree::make_folder(&folder, mode).map_err(failed)?;
    let mut room = Room::of_context();
    let mut handler = folder.clone();
    if let Some(template) = template.filter(|_| !job.is_dockerfile()) {
        let root = fs::canonicalize(&template.folder).map_err(failed)?;
        tree::copy(&template.folder, &folder, &[], Links::Within(&root), &mut room)?;
        handler.push(&template.definition.handler_folder);
        make_folders(&folder, &template.definition.handler_folder, mode).map_err(failed)?;
    }
    tree::copy(&job.handler, &handler, &NOT_BUILT, Links::Followed, &mut room)?;
    for extra in &job.copy {
        add(extra, &handler, &mut room)?;
    }
    Ok(folder)
}

/// Faas-cli's modes, so that a Dockerfile meets what it was tried with.
fn mode() -> u32 {
    let in_ci = env::var_os("CI").is_some_and(|value| !value.is_empty());
    if in_ci { 0o777 } else { 0o700 }
}

/// Makes the handler's folder. It has the mode of the folder around it also where the template has one.
fn make_folders(root: &Path, path: &str, mode: u32) -> io::Result<()> {
    let mut folder = root.to_owned();
    for part in path.split('/') {
        folder.push(part);
        tree::make_folder(&folder, mode)?;
    }
    fs::set_permissions(&folder, fs::metadata(root)?.permissions())
}

/// Copies a folder of the project into the handler, under the path that it has in the project.
fn add(extra: &str, handler: &Path, room: &mut Room) -> anyhow::Result<()> {
    let refused = |why: &str| anyhow::anyhow!("{extra} is not copied into the build: {why}");
    let from = Path::new(extra);
    let mut relative = PathBuf::new();
    for part in from.components() {
        match part {
            Component::Normal(part) => relative.push(part),
            Component::CurDir => {}
            _ => return Err(refused("it must be a folder below this one, without ..")),
        }
    }
    if relative.as_os_str().is_empty() {
        return Err(refused("it is this folder itself"));
    }
    let real = fs::canonicalize(from).map_err(|error| refused(&error.to_string()))?;
    let here = fs::canonicalize(".").map_err(|error| refused(&error.to_string()))?;
    if !real.starts_with(&here) || real == here {
        return Err(refused("a link leads it out of this folder"));
    }
    let to = handler.join(&relative);
    if from.is_file() {
        let parent = to.parent().unwrap_or(handler);
        fs::create_dir_all(parent).map_err(|error| refused(&error.to_string()))?;
        fs::copy(from, &to).map_err(|error| refused(&error.to_string()))?;
        return Ok(());
    }
    fs::create_dir_all(&to).map_err(|error| refused(&error.to_string()))?;
    Ok(tree::copy(from, &to, &[], Links::Followed, room)?)
}

/// Whether the context has a Dockerfile.
pub fn has_dockerfile(folder: &Path) -> bool {
    folder.join("Dockerfile").is_file()
}

/// What is said where there is none.
pub fn no_dockerfile(job: &Job) -> anyhow::Error {
    let place = if job.is_dockerfile() {
        format!("the handler {}", job.handler.display())
    } else {
        format!("template {}", job.lang)
    };
    anyhow::anyhow!(
        "{place} has no Dockerfile{}",
        if job.lang.name() == DOCKERFILE {
            "; template dockerfile builds the one of the handler"
        } else {
            ""
        }
    )
}
