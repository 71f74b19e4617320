//! A build, from a source that has arrived to an image.

use std::{collections::HashSet, path::PathBuf};

use pinnace_core::build::{BuildRequest, ImageDocument, Recipe};
use pinnace_sandbox::images::{HeldLayer, ImageStore, LoadError};
use tokio::{sync::watch, task::spawn_blocking};

use super::{
    Admission, Built, Workshop,
    environment::environment,
    footing::Footing,
    log::Log,
    step::{Surroundings, describe, has_files},
    work::WorkDir,
};

/// A build that can be begun.
pub struct Job {
    /// What is asked for.
    pub request: BuildRequest,
    /// What is done.
    pub recipe: Recipe,
    /// The source.
    pub context: PathBuf,
    /// Secrets that its commands see.
    pub secrets: Option<super::sealed::Shown>,
    /// Where it works.
    pub work: WorkDir,
    /// Its place among the builds.
    pub _admission: Admission,
}

/// What a build pins: see [`pin_owner`].
const INSTALLED: &str = "installed";

/// Who pins, in the image store, the layer that an image's compiler needs and the image does not have.
#[must_use]
pub fn pin_owner(reference: &str) -> String {
    format!("build of {reference}")
}

/// The layers of an image that is made.
#[derive(Default)]
struct Made {
    layers: Vec<HeldLayer>,
    history: Vec<String>,
}

impl Made {
    fn add(&mut self, layer: HeldLayer, by: String) {
        self.layers.push(layer);
        self.history.push(by);
    }
}

impl Job {
    /// Builds. The error is a sentence.
    pub(super) async fn run(
        self,
        workshop: &Workshop,
        log: &Log,
        stop: watch::Receiver<Option<String>>,
    ) -> Result<Built, String> {
        let base = unless_stopped(&stop, workshop.footing(&self.recipe.base, log)).await?;
        let owner = ImageDocument::owner(&base.config);
        let mut made = Made::default();
        let installed = self.install(workshop, &base, owner, log, &stop, &mut made).await?;
        self.code(workshop, (&base, installed.as_ref()), owner, log, &stop, &mut made).await?;
        let own = made.layers.iter().map(|layer| layer.diff_id.clone());
        let document = ImageDocument {
            diff_ids: base.diff_ids.iter().cloned().chain(own).collect(),
            base: base.config.clone(),
            history: made.history,
            architecture: ImageStore::platform().1.to_owned(),
        };
        let config = document.to_json(&self.recipe);
        let (images, image) = (workshop.images.clone(), self.request.image.clone());
        // Held until it is pinned.
        let beside =
            installed.filter(|_| self.recipe.install.as_ref().is_some_and(|s| !s.in_image));
        let saved = spawn_blocking(move || {
            let before = images.resolve(&image).ok().map(|image| image.digest);
            let saved = images.add_image(&image, &config)?;
            // No image leads to it, and the next build of this one is to find it.
            let owner = pin_owner(&saved.reference);
            match &beside {
                Some(layer) => images.pin(&owner, INSTALLED, &layer.diff_id)?,
                None => images.unpin(&owner)?,
            }
            if before.is_some_and(|before| before != saved.digest) {
                // Who builds over and over would fill the disk with what nobody can name any more. It is tried again
                // whenever images are removed.
                if let Err(error) = images.collect_garbage(&HashSet::new()) {
                    tracing::warn!(%error, "an image that was built before stays for now");
                }
            }
            Ok::<_, LoadError>(saved)
        })
        .await;
        let saved = saved.map_err(|error| format!("the image store failed: {error}"))?;
        let saved = saved.map_err(|error| error.to_string())?;
        log.say(format!("image {}: {}", self.request.image, saved.digest)).await;
        Ok(Built { image: self.request.image.clone(), digest: saved.digest })
    }

    /// The layer of dependencies, if there is one.
    async fn install(
        &self,
        workshop: &Workshop,
        base: &Footing,
        owner: (u32, u32),
        log: &Log,
        stop: &watch::Receiver<Option<String>>,
        made: &mut Made,
    ) -> Result<Option<HeldLayer>, String> {
        let Some(step) = &self.recipe.install else { return Ok(None) };
        if !has_files(step, &self.context) {
            log.say("install: none of its files is there, so there is nothing to install").await;
            return Ok(None);
        }
        let footing = unless_stopped(stop, self.footing(workshop, &step.base, base, log)).await?;
        let around = self.around(&footing, None, owner);
        let layer = workshop.layer_of(step, &around, log, stop).await?;
        if let Some(layer) = layer.clone().filter(|_| step.in_image) {
            made.add(layer, format!("install {}", step.run.join(" ")));
        }
        Ok(layer)
    }

    /// The layer of code.
    async fn code(
        &self,
        workshop: &Workshop,
        (base, installed): (&Footing, Option<&HeldLayer>),
        owner: (u32, u32),
        log: &Log,
        stop: &watch::Receiver<Option<String>>,
        made: &mut Made,
    ) -> Result<(), String> {
        let Some(step) = &self.recipe.compile else {
            let around = self.around(base, None, owner);
            if let Some(layer) = workshop.layer_of_source(&around).await? {
                log.say(format!("code: {}", describe(&layer))).await;
                made.add(layer, "copy the source".to_owned());
            }
            return Ok(());
        };
        let footing = unless_stopped(stop, self.footing(workshop, &step.base, base, log)).await?;
        let around = self.around(&footing, installed, owner);
        let layer = workshop.layer_of(step, &around, log, stop).await?;
        let layer = layer.ok_or_else(|| {
            format!("compile: its command has made nothing of {}", step.keep.join(", "))
        })?;
        made.add(layer, format!("compile {}", step.run.join(" ")));
        Ok(())
    }

    async fn footing(
        &self,
        workshop: &Workshop,
        wanted: &pinnace_core::build::Base,
        base: &Footing,
        log: &Log,
    ) -> Result<Footing, String> {
        if *wanted == self.recipe.base {
            return Ok(base.clone());
        }
        workshop.footing(wanted, log).await
    }

    fn around<'a>(
        &'a self,
        footing: &'a Footing,
        below: Option<&'a HeldLayer>,
        owner: (u32, u32),
    ) -> Surroundings<'a> {
        let env = &footing.config.env;
        Surroundings {
            footing,
            below,
            context: &self.context,
            env: environment(env, &self.recipe.env, &self.request.build_args),
            workdir: &self.recipe.workdir,
            owner,
            secrets: self.secrets.as_deref(),
            work: &self.work,
        }
    }
}

/// Waits for something that may be broken off, unless the build is to end before.
async fn unless_stopped<T>(
    stop: &watch::Receiver<Option<String>>,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let mut stop = stop.clone();
    let stopped = async {
        let reason = stop.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| "nobody waits for it".to_owned())
    };
    tokio::select! {
        done = work => done,
        reason = stopped => Err(format!("the build was ended: {reason}")),
    }
}
