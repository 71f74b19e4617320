//! One command of a build: its source is laid out, it runs in a sandbox, and what it leaves becomes a layer.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, lchown},
    path::{Path, PathBuf},
    sync::Arc,
};

use pinnace_core::{Exit, build::Step, limits::BUILD_PATHS_MAX};
use pinnace_sandbox::{
    images::{HeldLayer, ImageStore, Source, Stamp, lay_out},
    protocol::Bind,
};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
};

use super::{
    Workshop,
    cache::Ingredients,
    disk,
    environment::{HOME, TMPDIR},
    exists,
    footing::Footing,
    log::Log,
    work::WorkDir,
};
use crate::provider::sandbox::{Ended, Errand, Place};

/// Pieces of output that wait to become lines.
const PIECES_MAX: usize = 16;

/// Where a command finds the secrets of its build.
pub const SECRETS: &str = "/run/secrets";

/// What a step needs beside what it says itself.
pub struct Surroundings<'a> {
    /// What it stands on.
    pub footing: &'a Footing,
    /// The layer over that.
    pub below: Option<&'a HeldLayer>,
    /// The build's source.
    pub context: &'a Path,
    /// Its variables.
    pub env: Vec<String>,
    /// Where it runs, and where the source lies.
    pub workdir: &'a str,
    /// As whom.
    pub owner: (u32, u32),
    /// Secrets, as a directory of the host.
    pub secrets: Option<&'a Path>,
    /// Where the build works.
    pub work: &'a WorkDir,
}

impl Workshop {
    /// The layer that a step makes, or has made of the same before; `None` if it left nothing.
    pub async fn layer_of(
        &self,
        step: &Step,
        around: &Surroundings<'_>,
        log: &Log,
        stop: &watch::Receiver<Option<String>>,
    ) -> Result<Option<HeldLayer>, String> {
        let source = digest_of_source(&self.images, step, around).await?;
        let key = Ingredients {
            base: &around.footing.identity,
            below: around.below.map(|layer| layer.diff_id.as_str()),
            source: &source,
            run: &step.run,
            keep: &step.keep,
            env: &around.env,
            workdir: around.workdir,
            owner: around.owner,
        }
        .key();
        if let Some(layer) = self.cache.find(&key, &self.images) {
            log.say(format!("{}: nothing has changed, {} is used again", step.name, layer.diff_id))
                .await;
            return Ok(Some(layer));
        }
        let kept_in = self.run(step, around, log, stop).await?;
        let layer = self.harvest(step, around, kept_in).await?;
        let Some(layer) = layer else {
            log.say(format!("{}: it has left nothing at {}", step.name, step.keep.join(", ")))
                .await;
            return Ok(None);
        };
        log.say(format!("{}: {}", step.name, describe(&layer))).await;
        if let Err(error) = self.cache.remember(&key, &layer) {
            tracing::warn!(%error, "a layer will be made anew by the next build");
        }
        Ok(Some(layer))
    }

    /// Runs a step's command. Where what it has written is.
    async fn run(
        &self,
        step: &Step,
        around: &Surroundings<'_>,
        log: &Log,
        stop: &watch::Receiver<Option<String>>,
    ) -> Result<PathBuf, String> {
        let place = self.errands.place().map_err(|error| format!("{}: {error}", step.name))?;
        let kept_in =
            prepare(step, around, &place).await.map_err(|e| format!("{}: {e}", step.name))?;
        log.say(format!("{}: {}", step.name, shown(&step.run))).await;
        let errand = Errand {
            name: step.name.to_owned(),
            layers: around.footing.over(&self.images, around.below),
            on_host: around.footing.on_host,
            kept_in: kept_in.clone(),
            binds: around
                .secrets
                .map(|source| Bind { source: source.to_owned(), target: SECRETS.into() })
                .into_iter()
                .collect(),
            command: step.run.clone(),
            env: around.env.clone(),
            working_dir: around.workdir.to_owned(),
            owner: around.owner,
            memory_bytes: self.settings.memory_bytes,
            time_max: self.settings.time_max,
        };
        let (sender, printed) = mpsc::channel(PIECES_MAX);
        let (overflown, stop) = stopping(stop.clone());
        let running = place.run(errand, sender, stop);
        let looking = async {
            let reason = disk::overflow(kept_in.clone()).await;
            overflown.send_replace(Some(reason));
            std::future::pending::<()>().await;
        };
        let (ended, ()) = tokio::select! {
            both = async { tokio::join!(running, log.follow(printed)) } => both,
            () = looking => unreachable_end(),
        };
        match self.fault(step, ended) {
            None => Ok(kept_in),
            Some(fault) => Err(fault),
        }
    }

    /// What is wrong with how a command has ended.
    fn fault(&self, step: &Step, ended: Ended) -> Option<String> {
        let name = step.name;
        let why = match ended {
            Ended::Done(Exit::Code { code: 0 }) => return None,
            Ended::Done(Exit::Code { code }) => format!("ended with exit code {code}"),
            Ended::Done(Exit::OutOfMemory { limit_bytes }) => {
                format!("ran out of memory (limit {} MiB, `--build-memory`)", limit_bytes >> 20)
            }
            Ended::Done(exit) => exit.to_string(),
            Ended::TimedOut(time) => {
                format!("was ended after {} s (`--build-time-max`)", time.as_secs_f32())
            }
            Ended::Stopped(reason) => format!("was ended: {reason}"),
            Ended::NotRun(reason) => format!("could not be run: {reason}"),
        };
        let network = self.errands.no_way_out();
        let network = network.map_or(String::new(), |why| format!("; it had no network: {why}"));
        Some(format!("{name}: its command {} {why}{network}", shown(&step.run)))
    }

    /// Makes a layer of what a step keeps.
    async fn harvest(
        &self,
        step: &Step,
        around: &Surroundings<'_>,
        kept_in: PathBuf,
    ) -> Result<Option<HeldLayer>, String> {
        let (images, keep, owner) = (self.images.clone(), step.keep.clone(), around.owner);
        let (own, what) = (around.workdir.to_owned(), format!("what {} keeps", step.name));
        in_store(move || {
            let source = Source::Kept(&kept_in.join("upper"), &keep);
            images.add_layer(source, Stamp { own: &own, owner }, &what)
        })
        .await
    }

    /// Makes a layer of the whole source.
    pub async fn layer_of_source(
        &self,
        around: &Surroundings<'_>,
    ) -> Result<Option<HeldLayer>, String> {
        let (images, context, owner) =
            (self.images.clone(), around.context.to_owned(), around.owner);
        let own = around.workdir.to_owned();
        in_store(move || {
            let source = Source::Tree(&context, &own);
            images.add_layer(source, Stamp { own: &own, owner }, "the source")
        })
        .await
    }
}

/// Whether there is something for a step to do: a step that sees certain files has none without any of them.
pub fn has_files(step: &Step, context: &Path) -> bool {
    let Some(files) = &step.files else { return true };
    files.iter().any(|file| exists(&context.join(file)))
}

async fn in_store<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, pinnace_sandbox::images::LoadError> + Send + 'static,
) -> Result<T, String> {
    let done =
        spawn_blocking(work).await.map_err(|error| format!("the image store failed: {error}"))?;
    done.map_err(|error| error.to_string())
}

/// Follows another reason to stop, and takes one of its own.
fn stopping(
    outer: watch::Receiver<Option<String>>,
) -> (Arc<watch::Sender<Option<String>>>, watch::Receiver<Option<String>>) {
    let (sender, receiver) = watch::channel(None);
    let sender = Arc::new(sender);
    let (mut outer, inner) = (outer, Arc::downgrade(&sender));
    tokio::spawn(async move {
        let reason = outer.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        if let (Some(reason), Some(inner)) = (reason, inner.upgrade()) {
            inner.send_replace(Some(reason));
        }
    });
    (sender, receiver)
}

fn unreachable_end() -> (Ended, ()) {
    (Ended::Stopped("nobody waits for it".to_owned()), ())
}

async fn digest_of_source(
    images: &Arc<ImageStore>,
    step: &Step,
    around: &Surroundings<'_>,
) -> Result<String, String> {
    let (images, context) = (images.clone(), around.context.to_owned());
    let files = step.files.clone();
    in_store(move || images.digest_of_source(&context, files.as_deref(), "the source")).await
}

/// Lays out what a step finds: its source at the working directory, a home, and a place for temporary files.
async fn prepare(step: &Step, around: &Surroundings<'_>, place: &Place) -> Result<PathBuf, String> {
    let ids = place.host_ids(around.owner);
    let (files, context) = (step.files.clone(), around.context.to_owned());
    let (workdir, kept_in) = (around.workdir.to_owned(), around.work.path().join(step.name));
    let prepared = spawn_blocking(move || {
        let upper = kept_in.join("upper");
        let (root, user) = ids.unzip();
        make(&kept_in, None)?;
        make(&kept_in.join("work"), None)?;
        make(&upper, root)?;
        for (directory, own) in [(TMPDIR, true), (HOME, true), (workdir.as_str(), true)] {
            make_all(&upper, directory, root)?;
            if own {
                give(&upper.join(&directory[1..]), user)?;
            }
        }
        let files = files.unwrap_or_else(|| vec![String::new()]);
        for file in files.iter().take(BUILD_PATHS_MAX) {
            let to = format!("{workdir}/{file}");
            lay_out(&context, file, (&upper, &to), user).map_err(io::Error::other)?;
        }
        io::Result::Ok(kept_in)
    });
    let prepared = prepared.await.map_err(|error| error.to_string())?;
    prepared.map_err(|error| format!("its source cannot be laid out: {error}"))
}

/// Makes a directory and those above it, below `root`.
fn make_all(root: &Path, path: &str, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut directory = root.to_owned();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        directory.push(name);
        if !exists(&directory) {
            make(&directory, owner)?;
        }
    }
    Ok(())
}

fn make(directory: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    fs::create_dir(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    give(directory, owner)
}

fn give(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    match owner {
        Some((user, group)) => lchown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// A layer in words.
pub fn describe(layer: &HeldLayer) -> String {
    let taken = layer.taken;
    let odd = match taken.left_out {
        0 => String::new(),
        count => format!(", {count} devices, sockets or pipes left out"),
    };
    let (entries, kib) = (taken.entries, taken.bytes.div_ceil(1024));
    format!("{entries} files and directories, {kib} KiB{odd}: {}", layer.diff_id)
}

/// A command as it would be typed.
fn shown(words: &[String]) -> String {
    const CHARACTERS_MAX: usize = 200;
    let quoted = words.iter().map(|word| {
        if word.is_empty()
            || word.contains(|c: char| c.is_whitespace() || "\"'\\$`;&|<>*?".contains(c))
        {
            format!("'{}'", word.replace('\'', r"'\''"))
        } else {
            word.clone()
        }
    });
    let whole = quoted.collect::<Vec<_>>().join(" ").replace(['\n', '\r'], " ");
    match whole.char_indices().nth(CHARACTERS_MAX) {
        Some((at, _)) => format!("{}…", &whole[..at]),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_they_would_be_typed() {
        let shown = |words: &[&str]| {
            super::shown(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(shown(&["go", "build", "./..."]), "go build ./...");
        assert_eq!(shown(&["sh", "-c", "it's\nso"]), r"sh -c 'it'\''s so'");
        assert!(shown(&["x".repeat(500).as_str()]).ends_with('…'));
    }

    #[test]
    fn directories_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        make_all(dir.path(), "/a/b", None).unwrap();
        make_all(dir.path(), "/a/b/c", None).unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
    }
}
